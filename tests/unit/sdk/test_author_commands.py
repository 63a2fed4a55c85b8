"""Every command of penstock-connector with wrong arguments and hostile files: one line, exit code 2, no traceback."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from penstock_sdk import Batch, Connector, Stream
from penstock_sdk.author import command_errors, commands, conformance
from penstock_sdk.author.local_read import JsonLinesOutput, read_stream

COMMANDS: dict[str, Any] = dict(typer.main.get_command(commands.app).commands)  # type: ignore[attr-defined]
WORDS = {
    "new": ["trial"],
    "partitions": ["items"],
    "read": ["items"],
    "package": ["--image", "example/trial"],
    "infer-schema": ["samples.json"],
    "verify": ["definition.yaml", "--report", "report.json"],
}
HOSTILE = {
    "binary": bytes(range(256)) * 9,
    "not UTF-8": "connector: Zoë".encode("latin-1"),
    "UTF-16": "connector: x".encode("utf-16"),
    "nothing": b"",
    "null bytes": b"\0\0\0",
    "broken YAML": b"connector: [a,\n  {b: ",
    "a tab": b"connector:\n\t- a",
    "a tag": b"!!python/object/apply:os.system ['true']",
    "a list": b"- 1\n- 2\n",
    "a number": b"17",
    "an alias of itself": b"connector: a\nconfig: &a {b: *a}\n",
    "keys of other types": b"1: 2\nnull: 3\n? [a]\n: 4\n",
    "deep": b"[" * 5000,
    "markup": b"connector: '[bold red]x[/bold red] <b>'\n",
    "terminal escapes": b'connector: "\\e[2J\\e]0;title\\a"\n',
    "another connector": b"connector: no-such\n",
    "an unknown field": b"connector: faker-generate\nconfg: {}\n",
    "a wrong type": b"connector: faker-generate\nconfig: 3\n",
    "an empty command": b"connector: faker-generate\nserve: []\n",
    "a missing program": b"connector: faker-generate\nserve: [no-such-program]\n",
    "a variable": b"connector: faker-generate\nconfig: {records: '${PENSTOCK_NO_SUCH}'}\n",
    "a wrong config": b"connector: faker-generate\nconfig: {records: many}\n",
    "JSON": b'{"reportVersion": 1, "artifact": []}',
    "a definition": b"metadata: {name: a, annotations: 3}\nspec: {image: b, manifest: {version: '1'}}\n",
}


def called(*words: str, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(sys, "argv", ["penstock-connector", *words])
    try:
        return commands.run()
    except SystemExit as ended:
        return int(ended.code or 0)


def assert_one_line(code: int, error: str, expected: int = 2) -> None:
    assert "Traceback" not in error
    assert code == expected, error
    assert len(error.strip().splitlines()) == 1, error
    assert "\x1b" not in error


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_each_help_works(name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert called(name, "--help", monkeypatch=monkeypatch) == 0
    assert "Usage: " in capsys.readouterr().out


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_a_wrong_option_is_one_line_with_the_nearest_word(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert_one_line(called(name, "--halp", monkeypatch=monkeypatch), error := capsys.readouterr().err)
    assert "did you mean --help?" in error
    assert_one_line(called(name, *["too", "many"] * 4, monkeypatch=monkeypatch), capsys.readouterr().err)
    assert_one_line(called(name + "x", monkeypatch=monkeypatch), error := capsys.readouterr().err)
    assert f"did you mean {name}?" in error


@pytest.mark.parametrize("name", sorted(COMMANDS.keys() - {"checks", "new"}))
def test_without_a_project_each_says_what_is_missing(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    assert_one_line(called(name, *WORDS.get(name, []), monkeypatch=monkeypatch), capsys.readouterr().err)


@pytest.mark.parametrize("content", HOSTILE)
@pytest.mark.parametrize("name", sorted(COMMANDS.keys() - {"checks", "new"}))
def test_hostile_files_end_in_one_line(
    name: str, content: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    for place in ("connector.test.yaml", "definition.yaml", "report.json", "samples.json"):
        (tmp_path / place).write_bytes(HOSTILE[content])
    monkeypatch.setenv("PATH", "")  # nothing is built here, whatever the machine has
    code = called(name, *WORDS.get(name, []), monkeypatch=monkeypatch)
    error = capsys.readouterr().err
    if code or error:
        assert_one_line(code, error, code or 0)
        assert code in {0, 1, 2}


@pytest.mark.parametrize("name", sorted(COMMANDS.keys() - {"checks", "new", "verify", "infer-schema"}))
def test_a_folder_in_place_of_a_file_is_one_line(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    words = [*WORDS.get(name, []), "--file", str(tmp_path)]
    assert_one_line(called(name, *words, monkeypatch=monkeypatch), capsys.readouterr().err)


@pytest.mark.parametrize("name", ["", "A", "a b", "-", "a--b", "../x", "a" * 99, "é", "a:b", "[bold]", "a\n", "'", "1"])
def test_new_refuses_a_name_that_is_none(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    assert_one_line(called("new", "--", name, monkeypatch=monkeypatch), capsys.readouterr().err)
    assert not list(tmp_path.iterdir())


def test_new_refuses_a_place_that_is_a_file(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    for place in ("file", "file/below"):
        words = ("new", "trial", "--directory", str(tmp_path / place))
        assert_one_line(called(*words, monkeypatch=monkeypatch), capsys.readouterr().err)


def test_a_wrong_cursor_stream_check_and_target_are_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "connector.test.yaml").write_text("connector: faker-generate\nconfig: {records: 3}\n")
    assert_one_line(called("read", "people", "--cursor", "{", monkeypatch=monkeypatch), capsys.readouterr().err)
    assert_one_line(called("read", "peopel", monkeypatch=monkeypatch), error := capsys.readouterr().err)
    assert "did you mean 'people'?" in error
    assert_one_line(called("test", "--only", "catalogue", monkeypatch=monkeypatch), error := capsys.readouterr().err)
    assert "did you mean 'catalog'?" in error
    words = ("read", "people", "--duckdb", str(tmp_path))
    assert_one_line(called(*words, monkeypatch=monkeypatch), capsys.readouterr().err)


def test_the_version_is_printed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert called("--version", monkeypatch=monkeypatch) == 0
    assert capsys.readouterr().out.startswith("penstock-connector ")


def test_a_shell_can_complete_each_command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("_PENSTOCK_CONNECTOR_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", "penstock-connector ")
    monkeypatch.setenv("COMP_CWORD", "1")
    called(monkeypatch=monkeypatch)
    assert set(capsys.readouterr().out.split()) >= COMMANDS.keys()


def test_an_error_that_nobody_foresaw_is_a_line_with_its_place(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken() -> None:
        raise ValueError("[red]two\nlines[/red] \x1b[2J")

    monkeypatch.setattr(conformance, "listing", broken)
    assert_one_line(called("checks", monkeypatch=monkeypatch), error := capsys.readouterr().err, 1)
    assert "ValueError: [red]two lines[/red] \\x1b[2J" in error
    assert "in broken" in error
    monkeypatch.setenv(command_errors.TRACEBACK_VARIABLE, "1")
    called("checks", monkeypatch=monkeypatch)
    assert "Traceback" in capsys.readouterr().err


class _Deleting(Connector[Any, Any]):
    keys: tuple[str, ...] = ("id",)

    def authenticate(self) -> None: ...

    def discover(self) -> list[Stream]:
        schema = {"type": "object", "properties": {"id": {"type": "integer"}, "name": {"type": "string"}}}
        return [Stream(name="items", schema=schema, primary_key=("id",))]

    def read(self, stream: Any, since: Any, cursor: Any) -> Iterator[Batch]:
        yield Batch([{"id": 1, "name": "a"}])
        yield Batch([dict.fromkeys(self.keys, 1)], op="delete", cursor=5)


def test_a_read_shows_deletes_which_need_no_more_than_their_key(capsys: pytest.CaptureFixture[str]) -> None:
    done = read_stream(_Deleting(None, None), "items", JsonLinesOutput(sys.stdout))
    assert (done.count, done.deletes, done.cursor) == (2, 1, 5)
    assert capsys.readouterr().out == '{"id":1,"name":"a"}\n{"_op":"delete","id":1}\n'
    connector = _Deleting(None, None)
    connector.keys = ("name",)
    done = read_stream(connector, "items", JsonLinesOutput(sys.stdout))
    assert (done.count, done.deletes, done.rejected) == (1, 0, 1)
    assert capsys.readouterr().err == "rejected: MissingKey: field id of the primary key is missing\n"
