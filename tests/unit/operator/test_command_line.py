"""Every command, found by walking the application, with what people and scripts do wrong: one line, and never a traceback."""

from __future__ import annotations

import itertools
import os
import re
import threading
import typing
from collections.abc import Callable, Iterator
from enum import Enum
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import typer
from penstock_operator.cli.main import app, run

ROOT: Any = typer.main.get_command(app)
SERVERS = ("serve", "operate", "egress")
"""These run until they are stopped; without their settings they end at once."""


def walked(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield every command and group with its words."""
    yield path, command
    for name, item in getattr(command, "commands", {}).items():
        yield from walked(item, (*path, name))


EVERYTHING = list(walked(ROOT))
WITHOUT_INIT = [
    (path, command) for path, command in EVERYTHING if not hasattr(command, "commands") and path != ("init",)
]
"""Any word can name a new folder."""
GROUPS = [(path, command) for path, command in EVERYTHING if hasattr(command, "commands")]
LEAVES = [(path, command) for path, command in EVERYTHING if not hasattr(command, "commands")]


def named(items: list[tuple[tuple[str, ...], Any]]) -> dict[str, Any]:
    return {"argvalues": items, "ids": [" ".join(path) or "penstock" for path, _ in items]}


@pytest.fixture(autouse=True)
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A shell in an empty folder, without any of our variables."""
    for key in list(os.environ):
        if key.startswith(("PENSTOCK_", "AWS_", "KUBE")):
            monkeypatch.delenv(key)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def called(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = run(list(arguments))
    out, errors = capsys.readouterr()
    assert "Traceback" not in errors + out
    assert "a defect of Penstock" not in errors, (arguments, errors)
    return int(code), out, errors


def one_line(errors: str) -> str:
    assert errors.startswith("error: "), errors
    assert errors.count("\n") == 1, errors
    return errors


def arguments_of(command: Any) -> list[Any]:
    return [param for param in command.params if param.param_type_name == "argument" and param.required]


def plausible(command: Any, text: str = "team-a/people") -> list[str]:
    """Return what a command must be given, so that it comes to do something."""
    given = [text for _ in arguments_of(command)]
    for param in command.params:
        if param.param_type_name == "option" and param.required:
            given += [param.opts[0], "2026-01-01T00:00:00Z"]
    return given


@pytest.mark.parametrize(("path", "command"), **named(EVERYTHING))
def test_every_command_has_help(path: tuple[str, ...], command: Any, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, errors = called(capsys, *path, "--help")
    assert (code, errors) == (0, "")
    assert "Usage: penstock" in out
    for param in command.params:
        assert param.hidden or param.help, f"{param.name} has no help"


@pytest.mark.parametrize(("path", "command"), **named(LEAVES))
def test_every_command_that_takes_something_has_an_example(path: tuple[str, ...], command: Any) -> None:
    if path[0] in SERVERS or path == ("migrate",):
        return
    assert f"Example: penstock {' '.join(path)}" in " ".join(command.help.split())


@pytest.mark.parametrize(("path", "command"), **named(EVERYTHING))
def test_an_unknown_option_is_answered_with_the_nearest(
    path: tuple[str, ...], command: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, errors = called(capsys, *path, "--zzzzzzzz")
    assert code == 2
    assert "no such option: --zzzzzzzz" in one_line(errors)
    for param in command.params:
        option = next((o for o in param.opts if o.startswith("--") and len(o) > 4 and not param.hidden), None)
        if option is None or param.param_type_name != "option":
            continue
        typo = option[:-2] + option[-1] + option[-2] + "x"
        code, _, errors = called(capsys, *path, typo)
        assert (code, f"did you mean {option}?" in one_line(errors)) == (2, True), errors


@pytest.mark.parametrize(("path", "group"), **named(GROUPS))
def test_an_unknown_command_is_answered_with_the_nearest(
    path: tuple[str, ...], group: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, errors = called(capsys, *path, "zzzzzzzz")
    assert code == 2
    assert "no such command: zzzzzzzz" in one_line(errors)
    for name in group.commands:
        code, _, errors = called(capsys, *path, f"{name}x")
        assert (code, f"did you mean {name}?" in one_line(errors)) == (2, True), errors


@pytest.mark.parametrize(("path", "group"), **named(GROUPS))
def test_a_group_alone_prints_its_help_and_is_wrong(
    path: tuple[str, ...], group: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, errors = called(capsys, *path)
    assert code == 2
    assert all(name in out + errors for name in group.commands)


@pytest.mark.parametrize(("path", "command"), **named(LEAVES))
def test_missing_and_superfluous_arguments_are_named(
    path: tuple[str, ...], command: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    if plausible(command):
        code, _, errors = called(capsys, *path)
        assert (code, "missing" in one_line(errors)) == (2, True)
    if not any(param.nargs == -1 for param in command.params):
        code, _, errors = called(capsys, *path, *plausible(command), *["more"] * 4)
        assert code == 2
        one_line(errors)


def checked(hint: Any) -> bool:
    """Say whether not every word is a value of an option."""
    types = typing.get_args(hint) or (hint,)
    return any(isinstance(type_, type) and issubclass(type_, int | Enum) and type_ is not bool for type_ in types)


@pytest.mark.parametrize(("path", "command"), **named(LEAVES))
def test_values_of_the_wrong_type_are_named_with_their_option(
    path: tuple[str, ...], command: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    hints = typing.get_type_hints(command.callback)
    for param in command.params:
        if param.param_type_name != "option" or not checked(hints.get(param.name)):
            continue
        code, _, errors = called(capsys, *path, *plausible(command), param.opts[0], "zz[/x]")
        assert (code, param.opts[0] in one_line(errors)) == (2, True), errors
        code, _, errors = called(capsys, *path, *plausible(command), param.opts[0])
        assert code == 2
        one_line(errors)


HOSTILE = (
    "",
    " ",
    "[/x]",
    "[red]x[/red]",
    "\x1b[31m",
    "a/b/c/d",
    "/",
    "../..",
    "\udcff",
    "-",
    "'; drop table x",
    "x" * 5000,
    "ü",
    "%00",
)


@pytest.mark.parametrize(("path", "command"), **named(WITHOUT_INIT))
def test_hostile_words_are_refused_without_a_platform(
    path: tuple[str, ...], command: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", open(os.devnull, encoding="utf-8"))  # noqa: SIM115, PTH123 - closed by pytest
    for word in HOSTILE:
        if path in (("up",), ("validate",)) and os.path.isdir(word):  # noqa: PTH112 - a Path raises for a name that is too long
            continue  # a folder like any other: the platform would start, or all of it be read
        code, _, errors = called(capsys, *path, *plausible(command, word))
        assert code in (1, 2), (word, errors)
        assert "\x1b" not in errors


def half_initialised(place: Path) -> None:
    place.mkdir()
    (place / "penstock.pid").write_text("not a pid")
    (place / "postgres").mkdir()


def torn(place: Path) -> None:
    half_initialised(place)
    (place / "token-secret").write_bytes(b"\xff\x00")
    (place / "penstock.pid").write_text(f"{os.getpid()}")
    (place / "backends").write_text("{")


def foreign(place: Path) -> None:
    place.mkdir()
    (place / "thesis.txt").write_text("mine")


DIRECTORIES: dict[str, Callable[[Path], object]] = {
    "none": lambda _: None,
    "a file": lambda place: place.write_text("x"),
    "foreign": foreign,
    "half-initialised": half_initialised,
    "empty": lambda place: place.mkdir(),
    "a broken link": lambda place: place.symlink_to(place.with_name("nowhere")),
    "a link to itself": lambda place: place.symlink_to(place),
}
WITH_DATA = [
    (path, command) for path, command in LEAVES if any("--data-dir" in option.opts for option in command.params)
]


@pytest.mark.parametrize("kind", DIRECTORIES)
@pytest.mark.parametrize(("path", "command"), **named([command for command in WITH_DATA if command[0] != ("up",)]))
def test_without_a_data_directory_the_remedy_is_said(
    path: tuple[str, ...], command: Any, kind: str, nowhere: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (nowhere / "a.json").write_text("{}")
    DIRECTORIES[kind](nowhere / "data")
    before = sorted(nowhere.rglob("*"))
    word = "a.json" if path == ("state", "import") else "team-a/people"
    extras: dict[tuple[str, ...], list[str]] = {
        ("state", "reset"): ["--all"],
        ("state", "rewind"): ["--to-run", "x"],
        ("alerts", "ack"): [],
    }
    extra = extras.get(path, [])
    given = ["1"] if path == ("alerts", "ack") else plausible(command, word)
    given = ["abc"] if path[0] == "runs" and path[1] in ("show", "logs", "cancel") else given
    given = ["select 1"] if path == ("bronze", "sql") else given
    code, _, errors = called(capsys, *path, *given, *extra, "--data-dir", str(nowhere / "data"))
    assert code == 2
    assert ("--data-dir" if kind == "a link to itself" else "penstock up DIR") in one_line(errors)
    assert sorted(nowhere.rglob("*")) == before, "nothing is made by looking"


@pytest.mark.parametrize("kind", ["a file", "foreign"])
def test_up_fills_no_place_that_is_not_its_own(kind: str, nowhere: Path, capsys: pytest.CaptureFixture[str]) -> None:
    DIRECTORIES[kind](nowhere / "data")
    (nowhere / "folder").mkdir()
    code, _, errors = called(capsys, "up", "folder", "--data-dir", "data")
    assert code == 2
    assert "--data-dir: " in one_line(errors)


PAGES: dict[str, tuple[int, str, bytes]] = {
    "html": (200, "text/html", b"<html>[/x] sign in</html>"),
    "500": (500, "text/html", b"<html>oops</html>"),
    "an error's text": (503, "application/json", b'{"code": "x", "message": "[/x] \\u001b[31m try again"}'),
    "empty": (200, "application/json", b""),
    "list of nothing known": (200, "application/json", b'[{"a": 1}]'),
    "list of scalars": (200, "application/json", b'[1, null, "x"]'),
    "object": (200, "application/json", b"{}"),
    "scalar": (200, "application/json", b"3"),
    "null": (200, "application/json", b"null"),
    "deep": (200, "application/json", b"[" * 100_000),
    "bytes": (200, "application/json", b"\xff\xfe\x00"),
    "redirect": (302, "text/html", b""),
    "401": (401, "application/json", b'{"detail": 3}'),
    "422": (422, "application/json", b'{"detail": [{"loc": ["query", "limit"], "msg": "no"}]}'),
}


@pytest.fixture(scope="module")
def server() -> Iterator[ThreadingHTTPServer]:
    """A server that answers everything with one page."""

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            status, kind, body = self.server.page  # type: ignore[attr-defined]
            self.rfile.read(int(self.headers.get("content-length") or 0))
            self.send_response(status)
            self.send_header("content-type", kind)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = answer  # noqa: N815 - the server's names

        def log_message(self, *_: object) -> None: ...

    found = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=found.serve_forever, daemon=True).start()
    yield found
    found.shutdown()
    found.server_close()


ASKING = [command for command in WITH_DATA if command[0] not in (("up",), ("registry", "reconcile"))]


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize(("path", "command"), **named(ASKING))
def test_a_server_that_is_no_penstock_is_said_to_be_none(
    path: tuple[str, ...],
    command: Any,
    page: str,
    server: ThreadingHTTPServer,
    nowhere: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server.page = PAGES[page]  # type: ignore[attr-defined]
    monkeypatch.setenv("PENSTOCK_SERVER", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("PENSTOCK_TOKEN", "t")
    (nowhere / "a.json").write_text("{}")
    arguments: dict[tuple[str, ...], list[str]] = {
        ("state", "import"): ["team-a/people", "a.json"],
        ("state", "reset"): ["team-a/people", "--all"],
        ("state", "rewind"): ["team-a/people", "--to-run", "x"],
        ("alerts", "ack"): ["1"],
        ("runs", "show"): ["0" * 22],
        ("runs", "cancel"): ["0" * 22],
        ("runs", "logs"): ["0" * 22],
    }
    given = arguments.get(path) or plausible(command)
    code, _, errors = called(capsys, *path, *given)
    assert code in (0, 2), errors
    assert errors == "" or one_line(errors)
    assert "\x1b" not in errors
    if page in ("500", "an error's text", "redirect", "401", "422"):
        assert code == 2


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:9", "nonsense", "ftp://x", "http://[::1", "http://a b", "://", "http://127.0.0.1:99999"]
)
@pytest.mark.parametrize(
    ("path", "command"), **named([command for command in ASKING if command[0][-1] in ("list", "ls", "show")])
)
def test_a_server_that_is_away_is_named(
    path: tuple[str, ...], command: Any, url: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PENSTOCK_SERVER", url)
    given = ["0" * 22] if path == ("runs", "show") else plausible(command)
    code, _, errors = called(capsys, *path, *given)
    assert (code, "PENSTOCK_SERVER" in one_line(errors)) == (2, True), errors


BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{name}: &{name} [{','.join([f'*{before}'] * 9)}]\n" for before, name in itertools.pairwise("abcdefghij")
)
FILES: dict[str, bytes] = {
    "utf-8.yaml": b"\xff\xfe\x00",
    "nul.yaml": b"a: \x00",
    "list.yaml": b"- 1\n- 2\n",
    "scalar.yaml": b"just words",
    "number.yaml": b"3",
    "null.yaml": b"null",
    "empty.yaml": b"",
    "open.yaml": b"a: [",
    "deep.yaml": b"[" * 5000,
    "bomb.yaml": BOMB.encode(),
    "tag.yaml": b"!!python/object/apply:os.system ['true']",
    "keys.yaml": b"? [a, b]\n: c\n",
    "anchor.yaml": b"a: &a [*a]\n",
    "merge.yaml": b"<<: 3\n",
    "date.yaml": b"a: 2026-99-99\n",
    "kind.yaml": b"apiVersion: penstock.io/v1alpha1\nkind: TennantConnection\nmetadata: {name: a}\n",
    "kindless.yaml": b"apiVersion: penstock.io/v1alpha1\nmetadata: {name: a}\n",
    "kinds.yaml": b"kind: [a]\nmetadata: {name: a}\n",
    "name.yaml": b'apiVersion: penstock.io/v1alpha1\nkind: TenantConnection\nmetadata: {name: "[/x]"}\nspec: {}\n',
    "specless.yaml": b"apiVersion: penstock.io/v1alpha1\nkind: TenantConnection\nmetadata: {name: a}\n",
    "spec.yaml": b"apiVersion: penstock.io/v1alpha1\nkind: TenantConnection\nmetadata: {name: a}\nspec: [1]\n",
    "meta.yaml": b"apiVersion: penstock.io/v1alpha1\nkind: TenantConnection\nmetadata: x\nspec: {}\n",
    "names.yaml": b"apiVersion: penstock.io/v1alpha1\nkind: TenantConnection\nmetadata: {name: [1]}\nspec: {}\n",
    "annotations.yaml": b"apiVersion: penstock.io/v1alpha1\nkind: TenantConnection\nmetadata: {name: a, annotations: [1]}\nspec: {}\n",
    "definition.yaml": b"apiVersion: penstock.io/v1alpha1\nkind: ConnectorDefinition\nmetadata: {name: a}\nspec: {manifest: 3}\n",
    "definition2.yaml": b"apiVersion: penstock.io/v1alpha1\nkind: ConnectorDefinition\nmetadata: {name: a}\nspec: 3\n",
    "secret.yaml": b"kind: Secret\nmetadata: {name: a}\nstringData: [1]\n",
    "secret2.yaml": b"kind: Secret\nmetadata: {name: a}\ndata: {a: 3}\n",
    "secret3.yaml": b"kind: Secret\nmetadata: {name: a}\ndata: {a: '%%%'}\n",
    "items.yaml": b"kind: List\nitems: 3\n",
    "items2.yaml": b"kind: List\nitems: [3, null]\n",
    "surrogate.yaml": b'a: "\\ud800"\n',
    "escape.yaml": b'apiVersion: penstock.io/v1alpha1\nkind: TenantConnection\nmetadata: {name: a}\nspec: {"\\e[31m": 1}\n',
    "infinite.yaml": b"apiVersion: penstock.io/v1alpha1\nkind: TenantConnection\nmetadata: {name: a}\nspec: {connector: {name: a, method: b}, config: {x: .inf}}\n",
    "date2.yaml": b"apiVersion: penstock.io/v1alpha1\nkind: TenantConnection\nmetadata: {name: a}\nspec: {connector: {name: a, method: b}, config: {x: 2026-01-01, 3: 4}}\n",
}
HARMLESS = {"null.yaml", "empty.yaml"}


@pytest.mark.parametrize("name", FILES)
def test_files_that_hold_anything_are_judged(name: str, nowhere: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (nowhere / name).write_bytes(FILES[name])
    for words in (("validate", name), ("validate", ".")):
        code, _, errors = called(capsys, *words)
        assert code in ((0,) if name in HARMLESS else (1,)), errors
        assert name in HARMLESS or name in errors
        assert "\x1b" not in errors


def test_paths_that_cannot_be_read_are_named(nowhere: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (nowhere / "folder.yaml").mkdir()
    (nowhere / "link.yaml").symlink_to("nowhere")
    (nowhere / "pipe").mkdir()
    for words in (("validate", "nope"), ("validate", "link.yaml"), ("up", "nope"), ("up", "link.yaml")):
        code, _, errors = called(capsys, *words)
        assert (code, words[1] in one_line(errors)) == (2, True)
    code, _, errors = called(capsys, "validate", ".")
    assert code == 1
    assert "link.yaml" in errors


def test_a_state_that_is_no_state_is_named(
    nowhere: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PENSTOCK_SERVER", "http://127.0.0.1:9")
    (nowhere / "folder").mkdir()
    for name, content in {"a": b"\xff", "b": b"{", "c": b"[" * 100_000, "d": b"", "e": b"\x00"}.items():
        (nowhere / name).write_bytes(content)
    for name in ("a", "b", "c", "d", "e", "folder", "nope", "x\x00y"):
        code, _, errors = called(capsys, "state", "import", "team-a/people", name)
        assert code == 2
        assert one_line(errors).startswith(f"error: {name[0]}")


def test_the_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = called(capsys, "--version")
    assert code == 0
    assert re.fullmatch(r"penstock \d+\.\d+\.\d+\S*\n", out)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shell_completion_is_there(
    shell: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("_PENSTOCK_COMPLETE", f"complete_{shell}")
    for key, value in {
        "COMP_WORDS": "penstock ru",
        "COMP_CWORD": "1",
        "_TYPER_COMPLETE_ARGS": "penstock ru",
        "_TYPER_COMPLETE_FISH_ACTION": "get-args",
    }.items():
        monkeypatch.setenv(key, value)
    with pytest.raises(SystemExit) as ended:
        run([])
    assert ended.value.code in (0, None)
    assert "runs" in capsys.readouterr().out
