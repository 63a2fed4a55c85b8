"""Whatever a folder holds, `validate` and `up` name the file, the document and the remedy in one line."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest
import yaml
from penstock_operator.cli.main import run
from penstock_operator.cli.validation import examined
from penstock_operator.embedded.documents import FolderError
from penstock_operator.embedded.folder import read_folder

TRIES = int(os.environ.get("PENSTOCK_FOLDER_TRIES", "40"))
GOOD = """
apiVersion: penstock.io/v1alpha1
kind: TenantConnection
metadata: {name: people, namespace: team-a}
spec: {connector: {name: faker, method: generate}}
"""
SECRET = "apiVersion: v1\nkind: Secret\nmetadata: {name: keys, namespace: team-a}\n"
BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 9)
)
BROKEN = {
    "kind: TenantConection": GOOD.replace("TenantConnection", "TenantConection"),
    "kind": GOOD.replace("kind: TenantConnection", "kind: [a]"),
    "is not known; move it": GOOD.replace("TenantConnection", "ConfigMap"),
    "is a list": "[1, 2]",
    "is a single value": "word",
    "or is nested deeper": "a: " + "[" * 5000,
    "nested deeper": "a: " + "[" * 150 + "]" * 150,
    "values": BOMB,
    "nested deeper than": "a: &a [*a]",
    "does not fit its tag": "a: !!int x",
    "does not fit": "a: !!timestamp 2026-13-45",
    "determine a constructor": "a: !!python/object:os.system x",
    "items: a List needs": "apiVersion: v1\nkind: List\nitems: null",
    "items: a List": "apiVersion: v1\nkind: List\nitems: {a: b}",
    "items[0]: is a single": "apiVersion: v1\nkind: List\nitems: [5]",
    "is there twice": GOOD + "kind: Secret",
    "the key 'True' is not text": GOOD + "on: x",
    "value that JSON has not": GOOD + "x: .nan",
    "value that JSON has not (date)": GOOD + "x: !!timestamp 2026-01-01",
    "metadata: must be": GOOD.replace("{name: people, namespace: team-a}", "word"),
    "metadata.annotations: must be": GOOD.replace("team-a}", "team-a, annotations: word}"),
    "metadata: must": "apiVersion: v1\nkind: Secret\nmetadata: []",
    "stringData: must be": SECRET + "stringData: [a]",
    "data: must be": SECRET + "data: word",
    "stringData.pin: must be text": SECRET + "stringData: {pin: 0123}",
    "data.pin of the Secret is not base64": SECRET + "data: {pin: hidden-value!}",
    "is not base64": SECRET + "data: {pin: [hidden]}",
    "is not text in UTF-8": SECRET + "data: {pin: /////w==}",
}


@pytest.mark.parametrize(("words", "text"), BROKEN.items(), ids=range(len(BROKEN)))
def test_what_cannot_be_used_is_one_line_with_its_place(words: str, text: str, tmp_path: Path) -> None:
    file = tmp_path / "wrong.yaml"
    file.write_text(f"{GOOD.replace('people', 'first')}---\n{text}")
    with pytest.raises(FolderError) as caught:
        read_folder(tmp_path)
    line = str(caught.value)
    words = "did you mean TenantConnection?" if words == "kind: TenantConection" else words
    assert line.startswith(f"{file}: document 2")
    assert words in line
    assert "\n" not in line
    assert "hidden" not in line
    assert line in examined([tmp_path])[1]


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "folder.yaml").mkdir()
    (tmp_path / "gone.yaml").symlink_to("nowhere")
    found = examined([tmp_path])[1]
    assert any("folder.yaml: cannot be read" in line for line in found)
    assert any("gone.yaml: cannot be read" in line for line in found)


def test_a_moment_without_quotes_is_text_as_in_kubernetes(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(GOOD.replace("generate}}", "generate}, since: 2026-13-45}"))
    assert 'spec.since: Invalid value: "2026-13-45": must be a moment' in examined([tmp_path])[1][0]


def test_random_damage_never_ends_in_anything_but_a_line(tmp_path: Path) -> None:
    """Lines, characters and values of good files are cut, doubled and replaced, from a fixed seed."""
    chance = random.Random(11)
    seeds = [GOOD, *BROKEN.values(), SECRET + "stringData: {a: b}"]
    for number in range(TRIES):
        text = "---\n".join(chance.choices(seeds, k=2))[:2000]
        for _ in range(chance.randint(1, 4)):
            at = chance.randrange(len(text) + 1)
            piece = chance.choice(["", "\x00", "null", "[", "{", ": ", "&a ", "*a", "!!int ", "---\n", "\t", "é", "- "])
            text = text[:at] + piece + text[at + chance.randint(0, 6) :]
        (tmp_path / "a.yaml").write_text(text)
        found = examined([tmp_path])[1]
        assert all(line.startswith(str(tmp_path)) and "\n" not in line for line in found), (number, found)


def started(tmp_path: Path, connector: str = "postgres-sql") -> Path:
    assert run(["init", str(tmp_path / "new"), "--connector", connector]) == 0
    return tmp_path / "new"


@pytest.mark.parametrize("connector", ["faker-generate", "files-object", "postgres-sql"])
def test_init_writes_a_folder_that_is_valid_and_overwrites_nothing(
    connector: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = started(tmp_path, connector)
    assert run(["validate", str(folder)]) == 0
    assert (folder / "secret.yaml").exists() == (connector != "faker-generate")
    before = {path: path.read_text() for path in folder.iterdir()}
    assert run(["init", str(folder), "--connector", connector]) == 2
    assert "nothing was written" in capsys.readouterr().err
    assert before == {path: path.read_text() for path in folder.iterdir()}


def test_init_names_the_nearest_connector(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["init", str(tmp_path / "new"), "--connector", "postgres-sqll"]) == 2
    assert "did you mean postgres-sql?" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("host: db.example.com", "hots: db.example.com"), "spec.config: add 'host'"),
        (("port: 5432", "port: many"), "spec.config.port: must be of type integer"),
        (("^0.1", "^7.0"), "spec.connector.version: no version matches '^7.0'; there are: 0.1.0"),
        (("mode: full", "mode: sometimes"), "spec.streams[0].mode"),
        (("secretRef: {name: postgres-credentials}", "suspend: true"), "spec.secretRef: name a Secret with the keys"),
    ],
)
def test_a_connection_is_checked_against_the_definition_beside_it(
    change: tuple[str, str], words: str, tmp_path: Path
) -> None:
    file = started(tmp_path) / "connection.yaml"
    file.write_text(file.read_text().replace(*change))
    for paths in ([file], [file.parent]):
        found = examined(paths)[1]
        assert any(line.startswith(f"{file}: ") and words in line for line in found), found


def test_a_stream_that_the_manifest_has_not_and_a_key_that_the_secret_lacks_are_named(tmp_path: Path) -> None:
    folder = started(tmp_path)
    secret = yaml.safe_load((folder / "secret.yaml").read_text())
    secret["stringData"] = {"username": "hidden-name"}
    (folder / "secret.yaml").write_text(yaml.safe_dump(secret))
    found = examined([folder])[1]
    words = "spec.secretRef: the Secret postgres-credentials lacks password, which the connector requires"
    assert found == [f"{folder}/connection.yaml: {words}"]
    file = started(tmp_path / "other", "faker-generate") / "connection.yaml"
    file.write_text(file.read_text().replace("name: people, mode", "name: poeple, mode"))
    assert "spec.streams[0].name: 'poeple' is no stream; there are: people, events" in examined([file])[1][0]
