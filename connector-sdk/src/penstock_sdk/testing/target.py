"""What is tested: a connector, a connection that works, and commands that bring its source into the states of the checks.

An author declares the target in `connector.test.yaml`, or creates it in a fixture. Nothing that is left out is guessed:
the checks that need it report `not run`, with what they need.
"""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from importlib import metadata
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

import msgspec
import yaml

from penstock_sdk._runtime.connector_loader import GROUP, InstalledConnector
from penstock_sdk._safe_yaml import load_yaml
from penstock_sdk.json_types import JsonObject, JsonValue

TARGET_FILE = "connector.test.yaml"
PORTS_TRIED = 3
COMMAND_SECONDS = 600.0
START_SECONDS = 120.0
VARIABLE = re.compile(r"\$\{(\w+)\}")
Arguments = list[str | int]
Hook = Callable[[], AbstractContextManager[None]]


class TargetError(Exception):
    """The declaration of the target is not usable. The message names the field and the remedy."""


class _SourceEndedError(TargetError):
    """The source that the file starts has ended at once; another process may have taken its port."""


def find_connector(artifact: str) -> InstalledConnector:
    """Return the installed connector with this entry point. Raises TargetError if it is not installed."""
    known = sorted(entry_point.name for entry_point in metadata.entry_points(group=GROUP))
    if artifact not in known:
        there = ", ".join(known) or "none"
        raise TargetError(
            f"no installed package has the connector {artifact!r}; run pip install -e . in its folder. Installed: {there}"
        )
    return InstalledConnector.find(artifact)


class Variant(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Another connection: values that replace those of the working connection."""

    config: JsonObject = {}
    credentials: dict[str, str] = {}


@dataclass(frozen=True)
class Target:
    """A connector and a connection to its source.

    `artifact` is the name of the entry point. `url_field`, or `host_field` and `port_field`, are the keys of the config that
    hold the address of the source. With them, the suite can put a proxy between the connector and its source, to delay or
    interrupt it. `empty`, `wrong` and `large` are other connections: to a source without records, with credentials that the
    source refuses, and to a source with many records. `revoked` and `throttled` are context managers during which the source
    refuses requests. `grow` adds a record whose cursor field has the highest value that exists.

    `patience_seconds` is how long a run may make no progress before it is killed; heartbeats are no progress.
    `grace_seconds` is how long a run may take to end after a SIGTERM. `max_kills` is the number of commits of one mode at
    which the run is killed, spread over the read. `memory_growth_mb` is by how many MB the memory peak of a large read may
    exceed that of a small one.
    """

    artifact: str
    config: JsonObject = field(default_factory=dict)
    credentials: dict[str, str] = field(default_factory=dict, repr=False)
    streams: tuple[str, ...] = ()
    url_field: str | None = None
    host_field: str | None = None
    port_field: str | None = None
    empty: Variant | None = None
    wrong: Variant | None = None
    large: Variant | None = None
    revoked: Hook | None = None
    throttled: Hook | None = None
    grow: Callable[[], None] | None = None
    patience_seconds: float = 60.0
    grace_seconds: float = 20.0
    max_kills: int = 25
    memory_growth_mb: int = 40

    def with_variant(self, variant: Variant | None) -> Self:
        """Return the target with the connection of a variant."""
        if variant is None:
            return self
        return replace(
            self,
            config={**self.config, **variant.config},
            credentials={**self.credentials, **variant.credentials},
        )

    def at_address(self, host: str, port: int) -> Self:
        """Return the target with another address of its source."""
        if self.url_field:
            moved_url = urlsplit(str(self.config[self.url_field]))._replace(scheme="http", netloc=f"{host}:{port}")
            return replace(self, config={**self.config, self.url_field: moved_url.geturl()})
        moved: JsonObject = {self.host_field or "": host, self.port_field or "": port}
        return replace(self, config={**self.config, **moved})


class _Command(msgspec.Struct, forbid_unknown_fields=True):
    run: Arguments
    undo: Arguments | None = None


class _Source(msgspec.Struct, forbid_unknown_fields=True):
    url: str | None = None
    host: str | None = None
    port: str | None = None


class _File(msgspec.Struct, forbid_unknown_fields=True, rename="camel"):
    connector: str
    config: JsonObject = {}
    credentials: dict[str, str] = {}
    streams: list[str] = []
    serve: Arguments | None = None
    source: _Source = msgspec.field(default_factory=_Source)
    empty: Variant | None = None
    wrong: Variant | None = None
    large: Variant | None = None
    revoked: _Command | None = None
    throttled: _Command | None = None
    grow: _Command | None = None
    patience_seconds: float = 60.0
    grace_seconds: float = 20.0
    max_kills: int = 25
    memory_growth_mb: int = 40


@contextmanager
def open_target(path: Path) -> Iterator[Target]:
    """Read a `connector.test.yaml`, start the source that it declares, and yield the target.

    In its values, `${NAME}` stands for an environment variable, so that credentials need not be in the file, and `{port}` for
    a free port of this machine; a value that is only `{port}` becomes a number.
    """
    document = read_document(path)
    with ExitStack() as stack:
        for tried in range(PORTS_TRIED):
            port = _free_port()
            declared = _parse(document, port, path)
            try:
                stack.enter_context(_served(declared, port, path.parent))
                break
            except _SourceEndedError:
                if tried == PORTS_TRIED - 1:  # another process may have taken the port meanwhile
                    raise
        yield _target(declared, path.parent)


def declared_connection(path: Path) -> Target:
    """Return the connector and its connection as a `connector.test.yaml` declares them. Its source is not started.

    A credential whose environment variable is not set is left out.
    """
    document = read_document(path)
    if isinstance(document, dict):
        document = {key: document[key] for key in ("connector", "config", "credentials") if key in document}
        credentials = document.get("credentials")
        if isinstance(credentials, dict):
            usable = {name: value for name, value in credentials.items() if _is_set(value)}
            document = {**document, "credentials": usable}
    declared = _parse(document, _free_port(), path)
    return Target(artifact=declared.connector, config=declared.config, credentials=declared.credentials)


def _is_set(value: JsonValue) -> bool:
    """Return True if the environment has all variables that a value uses."""
    return not isinstance(value, str) or all(name in os.environ for name in VARIABLE.findall(value))


def read_document(path: Path) -> JsonValue:
    """Return the document of a YAML file. Raises TargetError that names the line of an error."""
    try:
        document = load_yaml(path.read_bytes().decode())
    except OSError as error:
        raise TargetError(
            f"{path}: {error.strerror}; run this in the project's folder, or name the file with --file"
        ) from None
    except UnicodeDecodeError as error:
        raise TargetError(f"{path}: not UTF-8 at byte {error.start}: save it as UTF-8 text") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        line = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise TargetError(f"{path}: not YAML{line}: {error.problem or error.context}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise TargetError(f"{path}: not YAML: {error}") from None
    return document


def _filled(value: Any, port: int, path: Path) -> Any:
    if isinstance(value, dict):
        return {key: _filled(item, port, path) for key, item in value.items()}
    if isinstance(value, list):
        return [_filled(item, port, path) for item in value]
    if not isinstance(value, str):
        return value
    return (
        port
        if value == "{port}"
        else VARIABLE.sub(lambda match: _variable(match[1], path), value.replace("{port}", str(port)))
    )


def _variable(name: str, path: Path) -> str:
    if name not in os.environ:
        raise TargetError(f"{path}: it uses ${{{name}}}; set the environment variable {name}")
    return os.environ[name]


def _parse(document: Any, port: int, path: Path) -> _File:
    try:
        declared = msgspec.convert(_filled(document, port, path), _File)
    except msgspec.ValidationError as error:
        raise TargetError(f"{path}: {error}") from None
    except RecursionError:
        raise TargetError(f"{path}: an alias leads to itself, or the values are nested too deeply") from None
    commands = (declared.revoked, declared.throttled, declared.grow)
    if declared.serve == [] or any(command and (not command.run or command.undo == []) for command in commands):
        raise TargetError(f"{path}: serve, run and undo need a command: a list such as [python, tests/source.py]")
    return declared


def _target(declared: _File, directory: Path) -> Target:
    known = {key: getattr(declared, key) for key in ("config", "credentials", "empty", "wrong", "large")}
    numbers = ("patience_seconds", "grace_seconds", "max_kills", "memory_growth_mb")
    return Target(
        artifact=declared.connector,
        streams=tuple(declared.streams),
        url_field=declared.source.url,
        host_field=declared.source.host,
        port_field=declared.source.port,
        revoked=_hook(declared.revoked, directory),
        throttled=_hook(declared.throttled, directory),
        grow=_action(declared.grow, directory),
        **known,
        **{key: getattr(declared, key) for key in numbers},
    )


def _run(command: Arguments, directory: Path) -> None:
    words = _words(command)
    try:
        done = subprocess.run(
            words, cwd=directory, capture_output=True, text=True, check=False, timeout=COMMAND_SECONDS
        )
    except OSError as error:
        raise TargetError(f"{words[0]} cannot be started: {error.strerror}") from None
    except subprocess.TimeoutExpired:
        raise TargetError(f"{' '.join(words)} did not end within {COMMAND_SECONDS:.0f} s") from None
    if done.returncode:
        raise TargetError(f"{' '.join(words)} ended with {done.returncode}: {done.stderr.strip()[-500:]}")


def _words(command: Arguments) -> list[str]:
    """Return the command. `python` becomes the interpreter that runs the suite, which has the connector's packages."""
    words = [str(word) for word in command]
    return [sys.executable if words[0] == "python" else words[0], *words[1:]]


def _action(command: _Command | None, directory: Path) -> Callable[[], None] | None:
    return None if command is None else lambda: _run(command.run, directory)


def _hook(command: _Command | None, directory: Path) -> Hook | None:
    if command is None:
        return None

    @contextmanager
    def hook() -> Iterator[None]:
        _run(command.run, directory)
        try:
            yield
        finally:
            if command.undo:
                _run(command.undo, directory)

    return hook


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@contextmanager
def _served(declared: _File, port: int, directory: Path) -> Iterator[None]:
    """Run the source that the file declares as `serve`."""
    if declared.serve is None:
        yield
        return
    words = _words(declared.serve)
    try:
        process = subprocess.Popen(words, cwd=directory, stdin=subprocess.DEVNULL)
    except OSError as error:
        raise TargetError(f"serve: {words[0]} cannot be started: {error.strerror}") from None
    try:
        _await_port(process, port, words)
        yield
    finally:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout=20)
        process.kill()
        process.wait()


def _await_port(process: subprocess.Popen[bytes], port: int, command: list[str]) -> None:
    end = time.monotonic() + START_SECONDS
    while True:
        if process.poll() is not None:
            raise _SourceEndedError(f"serve: {' '.join(command)} ended with {process.returncode} when it started")
        if time.monotonic() > end:
            raise TargetError(f"serve: {' '.join(command)} does not listen on 127.0.0.1:{port}; it must take {{port}}")
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
