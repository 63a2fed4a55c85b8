"""Files are checked one by one, and folders as `penstock up` takes them."""

from __future__ import annotations

from pathlib import Path

from penstock_operator.cli.validation import examined

CONNECTION = """
apiVersion: penstock.io/v1alpha1
kind: TenantConnection
metadata: {name: people, namespace: team-a}
spec: {connector: {name: faker, method: generate}}
"""


def test_a_folder_is_all_yaml_files_below_it(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep/good.yml").write_text(CONNECTION)
    (tmp_path / "wrong.yaml").write_text(CONNECTION.replace("people", "typo").replace("method", "metod"))
    files, found = examined([tmp_path])
    assert len(files) == 2
    assert found == [
        f"{tmp_path}/wrong.yaml: spec.connector.method: Required value",
        f'{tmp_path}/wrong.yaml: unknown field "spec.connector.metod"',
    ]


def test_a_name_that_is_there_twice_is_found_in_a_folder(tmp_path: Path) -> None:
    for name in ("one.yaml", "two.yaml"):
        (tmp_path / name).write_text(CONNECTION)
    _, found = examined([tmp_path])
    assert len(found) == 1
    assert "a name can be used once" in found[0]


def test_what_is_no_yaml_and_an_empty_folder_are_said(tmp_path: Path) -> None:
    assert examined([tmp_path])[1] == [f"{tmp_path}: there is no YAML file below it"]
    binary = tmp_path / "manifest.yaml"
    binary.write_bytes(b"\xff\xfe")
    assert "not YAML" in examined([binary])[1][0]


def test_an_annotation_that_nobody_reads_is_named_with_the_nearest_one(tmp_path: Path) -> None:
    file = tmp_path / "people.yaml"
    for key, words in {
        "penstock.io/requestedat": "did you mean penstock.io/requestedAt?",
        "penstock.io/resetstates": "did you mean penstock.io/resetState?",
        "penstock.io/pause": "remove it: Penstock reads penstock.io/requestedAt",
    }.items():
        file.write_text(CONNECTION.replace("team-a}", f"team-a, annotations: {{{key}: t}}}}"))
        assert words in examined([file])[1][0]
    file.write_text(
        CONNECTION.replace("team-a}", "team-a, annotations: {penstock.io/requestedAt: t, example.com/x: y}}")
    )
    assert examined([file])[1] == []


def test_a_schedule_that_never_comes_and_a_moment_in_the_future_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "people.yaml"
    for field, words in {
        'schedule: "0 0 30 2 *"': "spec.schedule: '0 0 30 2 *' is not a cron expression (Bad day-of-month)",
        "timeZone: Mars/Base": "spec.timeZone: 'Mars/Base' is not a time zone",
        'since: "2999-01-01T00:00:00Z"': "spec.since: 2999-01-01T00:00:00Z is in the future",
        'since: "2026-02-30T00:00:00Z"': "spec.since: '2026-02-30T00:00:00Z' is not a moment",
    }.items():
        file.write_text(CONNECTION.replace("generate}}", f"generate}}, {field}}}"))
        assert words in examined([file])[1][0]
