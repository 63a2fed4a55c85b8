"""The author's commands on a new project: a look at the manifest, the source and its records, and plain words."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import duckdb
import pytest
import yaml
from penstock_sdk.scaffold import ScaffoldError, create


def test_spec_prints_the_manifest_and_what_is_wrong_with_it(project: Any) -> None:
    done = project("spec")
    assert done.returncode == 0
    assert yaml.safe_load(done.stdout)["name"] == "trial"
    declared = project.package / "connector.yaml"
    declared.write_text(declared.read_text().replace("runners: [kubernetes", "runners: [nomad"))
    done = project("spec")
    assert done.returncode == 1
    assert 'runners[0]: Unsupported value: "nomad"' in done.stderr


def test_an_invalid_manifest_fails_its_own_check_and_the_others_are_named(project: Any) -> None:
    declared = project.package / "connector.yaml"
    declared.write_text(declared.read_text().replace("pii: ", "personal: "))
    report = project.folder / "report.json"
    chosen = [word for name in ("manifest", "throttling", "egress") for word in ("--only", name)]
    done = project("test", *chosen, "--report", str(report))
    assert done.returncode == 1, done.stderr
    outcomes = {
        check["name"]: (check["outcome"], check["detail"]) for check in json.loads(report.read_text())["checks"]
    }
    assert outcomes["manifest"][0] == "failed"
    assert outcomes["egress"] == outcomes["throttling"] == ("not run", "needs a valid manifest: see manifest")


def test_check_and_discover_ask_the_source(project: Any) -> None:
    assert project("check").stdout == "the source accepts the connection\n"
    assert project("discover").stdout.splitlines()[1].split() == [
        "items",
        "full,incremental",
        "id",
        "updated_at",
        "-",
        "4",
    ]
    (stream,) = json.loads(project("discover", "--json").stdout)
    assert stream["primary_key"] == ["id"]


def test_check_refuses_a_stream_whose_cursor_can_lose_records(project: Any) -> None:
    code = project.package / "connector.py"
    code.write_text(code.read_text().replace('"required": ["id", "updated_at"]', '"required": ["id"]'))
    done = project("check")
    assert done.returncode == 1
    assert done.stdout == "the source accepts the connection\n"
    assert done.stderr == (
        "refused: stream 'items', cursor 'updated_at': the cursor field may be null or missing, and no cursor finds a record"
        " without a value; follow a `required` field that is never null, or declare `nulls` if such records are read in"
        " another way (docs/authors/cursors.md, may-be-null)\n"
    )


def test_read_prints_lines_and_a_cursor_from_which_it_goes_on(project: Any) -> None:
    first = project("read", "items", "--limit", "45")
    assert len(first.stdout.splitlines()) == 45
    count, cursor = first.stderr.strip().split(" records; cursor ")
    assert count == "45"
    assert max(json.loads(cursor)["seen"][-1][1]) == [33]  # the last promise covers whole pages only
    rest = [json.loads(line)["id"] for line in project("read", "items", "--cursor", cursor).stdout.splitlines()]
    assert rest == list(range(34, 100))


def test_read_since_leaves_earlier_records_out(project: Any) -> None:
    done = project("read", "items", "--since", "2026-01-01T00:00:10")
    assert [json.loads(line)["id"] for line in done.stdout.splitlines()] == list(range(70, 100))


def test_partitions_are_listed_and_read_one_at_a_time(project: Any) -> None:
    config = "config: {records: 90, batchSize: 10, partitions: 3}\n"
    (project.folder / "faker.yaml").write_text(f"connector: faker-generate\n{config}")

    def numbers(*options: str) -> list[int]:
        done = project("read", "people", "-f", "faker.yaml", *options)
        return [json.loads(line)["n"] for line in done.stdout.splitlines()]

    listed = project("partitions", "people", "-f", "faker.yaml").stdout.splitlines()
    assert listed == ["from-0\t[0, 30]", "from-30\t[30, 60]", "from-60\t[60, null]"]
    assert numbers("--partition", "from-30") == list(range(30, 60))
    ranges = [{"id": "from-30", "bounds": [30, 60], "cursor": {"next": 55}}]
    state = json.dumps({"penstock/partitions": 1, "run": "r", "ranges": ranges})
    assert numbers("--partition", "from-30", "--cursor", state) == list(range(55, 60))
    assert numbers() == list(range(90))
    unnamed = project("read", "people", "-f", "faker.yaml", "--cursor", state)
    assert (unnamed.returncode, "name a partition with --partition" in unnamed.stderr) == (2, True)
    assert "it has: from-0" in project("read", "people", "-f", "faker.yaml", "--partition", "p9").stderr
    assert "is read as a whole" in project("partitions", "items").stderr


def test_read_into_a_duckdb_file_makes_a_table_to_query(project: Any) -> None:
    done = project("read", "items", "--duckdb", "some.duckdb")
    assert done.returncode == 0, done.stderr
    with duckdb.connect(str(project.folder / "some.duckdb")) as database:
        assert database.execute("SELECT count(*), max(price) FROM items").fetchall() == [(100, 24.75)]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("read", "nothing"), "the source offers no stream 'nothing'; it offers: items"),
        (("test", "--only", "everything"), "there is no check 'everything'; there are: reads, manifest"),
        (("check", "--file", "absent.yaml"), "absent.yaml: No such file or directory"),
        (("new", "Orders"), "'Orders' is not a valid name"),
        (
            ("new", "orders", "--template", "sqll"),
            "no template 'sqll'; did you mean 'sql'? There are: rest, sql, files",
        ),
    ],
)
def test_a_mistake_is_a_line_that_says_what_to_do(project: Any, arguments: tuple[str, ...], said: str) -> None:
    done = project(*arguments)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_a_source_that_refuses_is_said_in_the_connectors_own_words(project: Any) -> None:
    file = project.folder / "connector.test.yaml"
    file.write_text(file.read_text().replace("{token: token-of-the-trial}", "{token: another}"))
    done = project("check")
    assert done.returncode == 11
    assert done.stderr == (
        "AuthenticationError: the source refuses token, which is wrong, expired or revoked: create a new token at the source,"
        " and put it into the Secret\n"
    )


def test_a_variable_that_is_not_set_is_named(project: Any) -> None:
    file = project.folder / "connector.test.yaml"
    file.write_text(file.read_text().replace("{token: token-of-the-trial}", '{token: "${TRIAL_TOKEN}"}'))
    assert "set the environment variable TRIAL_TOKEN" in project("check").stderr
    project.environment["TRIAL_TOKEN"] = "token-of-the-trial"
    assert project("check").returncode == 0


def test_a_folder_that_is_not_empty_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(ScaffoldError, match="is not empty"):
        create("orders", "rest", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
