"""Connectors that do what no one should: each of the author's commands ends in lines that say what, and in the right code."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from tests.installed import install
from tests.unit.sdk.test_author_commands import called

CONNECTORS = """
import asyncio
import sys

from penstock_sdk import Batch, ConfigError, Connector, Stream, TransientError


class Base(Connector[dict, dict]):
    def authenticate(self):
        pass

    def discover(self):
        return [Stream(name="items", schema={"type": "object", "properties": {"id": {"type": "integer"}}})]

    def read(self, stream, since, cursor):
        yield Batch([{"id": 1}], cursor=1)
        self.end()

    def end(self):
        pass


class Exits(Base):
    def end(self):
        sys.exit(0)


class Interrupts(Base):
    def end(self):
        raise KeyboardInterrupt


class Cancels(Base):
    def end(self):
        raise asyncio.CancelledError


class Memory(Base):
    def end(self):
        raise MemoryError


class Recurses(Base):
    def end(self):
        self.end()


class Groups(Base):
    def end(self):
        raise ExceptionGroup("several", [ValueError("a"), KeyError("b")])


class Unsayable(Base):
    def end(self):
        class Mute(Exception):
            def __str__(self):
                raise ValueError

        raise Mute


class Escapes(Base):
    def end(self):
        raise ConfigError("the \\x1b[2J host\\nis wrong")


class Odd(Base):
    def end(self):
        raise ConfigError({"host": 1})


class Asks(Base):
    def end(self):
        raise TransientError("later", retry_after="soon")


class Prints(Base):
    def end(self):
        print("hello")
        print("{}", flush=True)


class Closes(Base):
    def end(self):
        sys.stdout.close()


class FailsToClose(Base):
    def close(self):
        raise RuntimeError("close failed")


class FailsTwice(FailsToClose):
    def end(self):
        raise ConfigError("the first")


class Authenticates(Base):
    def authenticate(self):
        sys.exit(0)


class Keeps(Base):
    def authenticate(self):
        self.keep_credential("token", {"value": "a-secret"})


class Abstract(Connector[dict, dict]):
    def authenticate(self):
        pass


class WithoutArguments(Base):
    def __init__(self):
        pass


def function():
    pass
"""
IMPORTS = {
    "raises": "raise ValueError('at import')",
    "exits": "import sys; sys.exit(0)",
    "syntax": "def (",
    "prints": "print('imported')",
    "recursion": "def f(): f()\nf()",
    "circle": "import penstock_circle.missing",
}
MANIFEST = """
name: hostile
method: rest
version: 0.1.0
title: Hostile
taxonomy: {category: test, tags: []}
capabilities: {modes: [full], discovery: dynamic}
authentication: {methods: [{type: none}]}
configSchema: {type: object}
runners: [process]
compliance: {dataClassification: internal, pii: none}
"""
MANIFESTS = {
    "binary": bytes(range(256)),
    "nothing": b"",
    "a list": b"- 1",
    "text": b"connector",
    "deep": b"[" * 5000,
    "not UTF-8": MANIFEST.encode() + b"description: \xff",
    "a tag": b"!!python/object/apply:os.system ['true']",
    "half": b"name: hostile\nmethod: rest\n",
    "credentials as text": MANIFEST.replace("[{type: none}]", "none").encode(),
    "deep and huge": b"a: " + b"[" * 5_000_000,
}


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of packages, and a test file that names the connector in it."""
    (tmp_path / "connector.test.yaml").write_text("connector: hostile-rest\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    return tmp_path / "site"


@pytest.mark.parametrize(
    ("name", "code", "words"),
    [
        ("Exits", 1, "SystemExit: 0 at"),
        ("Interrupts", 130, ""),
        ("Cancels", 1, "CancelledError"),
        ("Memory", 1, "MemoryError"),
        ("Recurses", 1, "RecursionError"),
        ("Groups", 1, "ExceptionGroup: several (2 sub-exceptions)"),
        ("Unsayable", 1, "error: Mute at"),
        ("Escapes", 10, "ConfigError: the \\x1b[2J host is wrong"),
        ("Odd", 10, "ConfigError: {'host': 1}"),
        ("Asks", 1, "retry_after is of type str; it must be a number of seconds"),
        ("Prints", 0, "hello\n{}\n1 records; cursor 1"),
        ("Closes", 0, "1 records; cursor 1"),
        ("FailsToClose", 0, "1 records; cursor 1\n"),
        (
            "FailsTwice",
            10,
            "warning: the connector's close() failed: RuntimeError: close failed\nConfigError: the first",
        ),
        ("Authenticates", 1, "SystemExit: 0 at"),
        ("Keeps", 1, "keep_credential(name, value) got a dict; both must be text"),
        ("Abstract", 1, "Abstract does not define discover, read"),
        ("WithoutArguments", 1, "TypeError: WithoutArguments.__init__()"),
        ("function", 1, "it is not a subclass of penstock_sdk.Connector"),
        ("absent", 1, "has no attribute 'absent'"),
    ],
)
def test_a_read_ends_in_lines_that_say_what_the_connector_did(
    name: str, code: int, words: str, site: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    module = f"penstock_hostile_{name.lower()}"
    install(site, "hostile-rest", f"{module}:{name}", CONNECTORS, MANIFEST)
    assert called("read", "items", monkeypatch=monkeypatch) == code
    out, error = capsys.readouterr()
    assert words in error
    assert "Traceback" not in error
    assert "a-secret" not in error
    assert all(json.loads(line) == {"id": 1} for line in out.splitlines()), "what it prints is no record"


@pytest.mark.parametrize("command", ["check", "read", "infer-schema"])
@pytest.mark.parametrize("name", IMPORTS)
def test_an_import_that_fails_is_one_line(
    name: str, command: str, site: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    module = f"penstock_hostile_{name}_{command.replace('-', '_')}"
    install(site, "hostile-rest", f"{module}:Base", f"{IMPORTS[name]}\n{CONNECTORS}", MANIFEST)
    words = {"read": ["items"], "infer-schema": ["--stream", "items"]}.get(command, [])
    code = called(command, *words, monkeypatch=monkeypatch)
    out, error = capsys.readouterr()
    if name == "prints":
        assert code == 0
        assert "imported" in error
        assert "imported" not in out
    else:
        assert code == 1
        assert error.startswith(f"DefectError: the connector hostile-rest cannot be loaded from {module}:Base: ")
        assert len(error.splitlines()) == 1


@pytest.mark.parametrize("command", ["spec", "check", "package"])
@pytest.mark.parametrize("kind", MANIFESTS)
def test_a_manifest_that_is_none_is_named(
    kind: str, command: str, site: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    module = "penstock_hostile_manifest"
    install(site, "hostile-rest", f"{module}:Base", CONNECTORS, MANIFESTS[kind])
    monkeypatch.setenv("PATH", "")
    words = {"package": ["--image", "example/hostile"]}.get(command, [])
    code = called(command, *words, monkeypatch=monkeypatch)
    error = capsys.readouterr().err
    assert "Traceback" not in error
    assert code in {1, 2}
    assert len(error) < 4000
    assert f"{module}/connector.yaml is not a manifest" in error
