"""Nothing that `penstock up` started outlives it, however it ended; real processes, found by their environment."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from penstock_operator.embedded.private_files import start_time

from tests.installed import install
from tests.integration.test_up import FAKER, PENSTOCK, User
from tests.patience import PATIENCE

CONNECTOR = """
import signal
import subprocess
import time
import msgspec
from penstock_sdk import Batch, Connector, Stream


class Config(msgspec.Struct):
    pass


class Stubborn(Connector[Config, dict]):
    '''Has a process of its own, ignores SIGTERM and never comes back from the source.'''

    def authenticate(self):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)

    def discover(self):
        return [Stream(name="endless", schema={"type": "object"}, modes=("full",))]

    def read(self, stream, since, cursor):
        command = ["sh", "-c", "trap '' TERM HUP; while :; do sleep 1000; done"]
        subprocess.Popen(command, stdin=subprocess.DEVNULL)
        while True:
            time.sleep(1000)
        yield Batch([])
"""
MANIFEST = """
name: stubborn
method: rest
version: 0.1.0
title: Stubborn
taxonomy: {category: test, tags: []}
capabilities: {modes: [full], discovery: dynamic}
authentication: {methods: [{type: none}]}
configSchema: {type: object}
runners: [kubernetes, process]
compliance: {dataClassification: internal, pii: none}
"""
SLOW = 3


@pytest.fixture
def user(folder: Path, tmp_path: Path, backends_environment: dict[str, str]) -> User:
    installed = install(tmp_path / "site", "stubborn-rest", "penstock_stubborn:Stubborn", CONNECTOR, MANIFEST)
    found = User(folder, tmp_path, {**backends_environment, **installed})
    found.write("definition.yaml", found.call("definition", "stubborn-rest").stdout)
    return found


def attempts_of(user: User) -> list[bytes]:
    """Return the command line of each process that a connector of this platform is, or started."""
    mark = f"PENSTOCK_TOKEN_FILE={user.data}".encode()
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if mark in (process / "environ").read_bytes() and start_time(int(process.name)):
                found.append((process / "cmdline").read_bytes())
        except OSError:  # it has ended meanwhile
            continue
    return found


def until_running(user: User, expected: dict[bytes, int]) -> None:
    """Wait until so many of these programs run."""
    end = time.monotonic() + PATIENCE
    while any(sum(program in line for line in attempts_of(user)) < count for program, count in expected.items()):
        assert time.monotonic() < end, attempts_of(user)
        time.sleep(0.1)


def until_gone(user: User) -> None:
    end = time.monotonic() + PATIENCE
    while attempts_of(user):
        assert time.monotonic() < end, attempts_of(user)
        time.sleep(0.1)


@contextmanager
def busy(user: User) -> Iterator[subprocess.Popen[bytes]]:
    """A platform with slow connectors and a stubborn one, all of them at work."""
    for number in range(SLOW):
        user.connection(f"slow-{number}", connector=FAKER, config={"records": 1_000_000, "delaySeconds": 0.5})
    user.connection("stubborn", connector={"name": "stubborn", "method": "rest", "version": "0.1.0"})
    command = [*PENSTOCK, "up", str(user.folder), "--data-dir", str(user.data), "--once"]
    up = subprocess.Popen(command, env=user.environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        until_running(user, {b"-m\x00penstock_sdk": SLOW + 1, b"sleep\x001000": 1})
        yield up
    finally:
        up.kill()
        up.wait()


def test_connectors_and_what_they_started_end_with_a_platform_that_is_killed(user: User) -> None:
    with busy(user) as up:
        up.kill()
        up.wait()
        until_gone(user)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_told_to_stop_it_leaves_no_connector_that_ignores_it(user: User, number: signal.Signals) -> None:
    with busy(user) as up:
        up.send_signal(number)
        assert up.wait(timeout=PATIENCE) == 128 + number
        assert attempts_of(user) == []


@pytest.mark.parametrize("server", ["postgres.EmbeddedPostgres", "s3.EmbeddedS3"])
def test_an_embedded_server_ends_with_the_process_that_started_it(tmp_path: Path, server: str) -> None:
    module, name = server.split(".")
    code = (
        f"import sys; from pathlib import Path; from penstock_operator.embedded.{module} import {name}; "
        f"server = {name}(Path(sys.argv[1])); server.start(); print(server.pid, flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "server")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as starter:
        assert starter.stdout
        pid = int(starter.stdout.readline())
        assert start_time(pid)
        starter.kill()
    end = time.monotonic() + PATIENCE
    while start_time(pid):
        assert time.monotonic() < end
        time.sleep(0.1)
