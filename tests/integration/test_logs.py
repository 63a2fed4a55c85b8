"""Logs: live while an attempt runs, in S3 afterwards, and never with a secret in them."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
import zstandard
from penstock_operator import outbox
from penstock_operator.api.authentication import EmbeddedAuthenticator
from penstock_operator.api.services import Services
from penstock_operator.bronze.store import BronzeStore
from penstock_operator.controller.outbox_dispatcher import OutboxDispatcher
from penstock_operator.embedded.platform import serving
from penstock_operator.embedded.private_files import free_port
from penstock_operator.launchers import AttemptLaunch, LaunchedAttempt
from penstock_operator.launchers.logs import FileLogs
from penstock_operator.logs.keeper import KeepingLauncher, LogKeeper
from penstock_operator.logs.reader import RunLogs
from penstock_operator.registry.database import one
from penstock_operator.runs import attempt_store
from penstock_operator.runs.attempt_store import AttemptLog
from penstock_sdk import protocol as wire

from tests.fakes.launcher import FakeLauncher
from tests.fakes.logs import FakeLogs
from tests.installed import install
from tests.integration.test_up import PENSTOCK, User
from tests.integration.world import World, checkpoint
from tests.patience import PATIENCE

SECRET = "h8!kq-Zz9 of the source"
CONNECTOR = """
import os, sys, time
from collections.abc import Iterator
import msgspec
from penstock_sdk import Batch, Connector, Stream


class Config(msgspec.Struct):
    until: str = ""


class Credentials(msgspec.Struct):
    password: str = ""


class Chatty(Connector[Config, Credentials]):
    def authenticate(self) -> None:
        print("the password is", self.credentials.password, flush=True)
        print(f"password={self.credentials.password}", file=sys.stderr, flush=True)

    def discover(self) -> tuple[Stream, ...]:
        return (Stream(name="items", schema={"type": "object"}, primary_key=["n"], modes=["full"]),)

    def read(self, stream, since, cursor) -> Iterator[Batch]:
        print("reading begins", flush=True)
        while self.config.until and not os.path.exists(self.config.until):
            time.sleep(0.05)
        yield Batch([{"n": 1}], cursor=1)
        print("reading ends", flush=True)
"""
MANIFEST = """
name: chatty
method: rest
version: 0.1.0
title: Chatty
description: Prints its secret.
taxonomy: {category: database, tags: []}
capabilities: {modes: [full], discovery: dynamic}
authentication: {methods: [{type: basic, credentials: [{name: password}]}]}
configSchema: {type: object, additionalProperties: false, properties: {until: {type: string}}}
runners: [kubernetes, process]
network: {egress: []}
compliance: {dataClassification: internal, pii: none}
"""


def chatty(site: Path) -> dict[str, str]:
    """Make the connector an installed one, and return the environment that finds it."""
    return install(site, "chatty-rest", "penstock_chatty:Chatty", CONNECTOR, MANIFEST)


@pytest.fixture
def user(folder: Path, tmp_path: Path, backends_environment: dict[str, str]) -> User:
    found = User(folder, tmp_path, {**backends_environment, **chatty(tmp_path / "site")})
    found.write("definition.yaml", found.call("definition", "chatty-rest").stdout)
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s", "namespace": "team"}}
    found.write("secret.yaml", [{**secret, "stringData": {"password": SECRET}}])
    return found


def test_11_what_a_connector_prints_of_its_secret_is_in_no_log(user: User) -> None:
    user.connection("chatty", connector={"name": "chatty", "method": "rest"}, secretRef={"name": "s"})
    code, results, errors = user.up()
    assert code == 0, errors
    run_id = results["chatty"]["run_id"]
    (user.data / "runs" / "logs" / f"penstock-{run_id}-1.log").rename(user.data / "live.log")
    live = (user.data / "live.log").read_text()
    kept = user.call("runs", "logs", run_id, "--data-dir", str(user.data))
    assert kept.returncode == 0, kept.stderr
    assert kept.stdout == live, "what S3 has is what was printed"
    assert "the password is ***" in live
    assert "reading ends" in live
    assert '"connection": "chatty"' in live
    for text in (live, kept.stdout, errors):
        assert SECRET not in text
    none = user.call("runs", "logs", run_id, "--attempt", "7", "--data-dir", str(user.data))
    assert none.returncode == 2
    assert "has no attempt 7; its last one is 1" in none.stderr


def test_a_log_is_followed_while_its_process_runs_and_the_end_ends_it(user: User, tmp_path: Path) -> None:
    config = {"until": str(tmp_path / "go-on")}
    user.connection("chatty", connector={"name": "chatty", "method": "rest"}, secretRef={"name": "s"}, config=config)
    with running_platform(user) as platform:
        run_id = log_of_its_run(user.data).stem.split("-")[1]
        follow = [*PENSTOCK, "runs", "logs", run_id, "-f", "--data-dir", str(user.data)]
        with subprocess.Popen(follow, env=user.environment, stdout=subprocess.PIPE, text=True) as following:
            assert following.stdout is not None
            assert any("reading begins" in line for line in following.stdout), "it is seen while the run goes on"
            (tmp_path / "go-on").touch()
            assert "reading ends" in following.stdout.read()
            assert following.wait(timeout=PATIENCE) == 0
        assert platform.wait(timeout=PATIENCE) == 0


@contextmanager
def running_platform(user: User) -> Iterator[subprocess.Popen[bytes]]:
    """`penstock up --once`, ended whatever becomes of the test."""
    command = [*PENSTOCK, "up", str(user.folder), "--data-dir", str(user.data), "--once"]
    with subprocess.Popen(command, env=user.environment, stdout=subprocess.DEVNULL) as platform:
        try:
            yield platform
        finally:
            if platform.poll() is None:
                platform.terminate()


def log_of_its_run(data: Path) -> Path:
    """Wait for the one run's process to have its log."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        for found in (data / "runs" / "logs").glob("*.log"):
            return found
        time.sleep(0.05)
    pytest.fail("the run was not launched within a minute")


class Carrier(FakeLogs, FakeLauncher):
    """A launcher whose attempts' logs go with their Jobs."""

    def __init__(self, directory: Path) -> None:
        FakeLogs.__init__(self, directory)
        FakeLauncher.__init__(self)

    async def stop(self, launch: LaunchedAttempt) -> None:
        await super().stop(launch)
        self.files.forget(launch.job_name)


@asynccontextmanager
async def reader(world: World, carrier: Carrier) -> AsyncIterator[httpx.AsyncClient]:
    """The read API behind a real socket."""
    authority = EmbeddedAuthenticator(b"secret")
    logs = RunLogs(world.pool, carrier, world.store, poll=0.05)
    port = free_port("127.0.0.1")
    headers = {"Authorization": f"Bearer {authority.mint_person()}"}
    async with (
        serving(Services(world.protocol, world.pool, authority, logs), port),
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}/v1", headers=headers, timeout=PATIENCE) as client,
    ):
        yield client


class Followed:
    """What came so far of a followed log."""

    def __init__(self, client: httpx.AsyncClient, path: str) -> None:
        self.text, self.ended = "", False
        self._changed = asyncio.Condition()
        self.task = asyncio.create_task(self._follow(client, path))

    async def _follow(self, client: httpx.AsyncClient, path: str) -> None:
        async with client.stream("GET", path) as response:
            assert response.status_code == 200, await response.aread()
            async for chunk in response.aiter_text():
                async with self._changed:
                    self.text += chunk
                    self._changed.notify_all()
        self.ended = True

    async def until(self, holds: Callable[[str], bool]) -> None:
        async with asyncio.timeout(PATIENCE), self._changed:
            await self._changed.wait_for(lambda: holds(self.text))


async def test_a_followed_run_goes_on_with_its_next_attempt_and_ends_with_the_run(world: World, tmp_path: Path) -> None:
    await world.new_run()
    carrier = Carrier(tmp_path / "logs")
    async with reader(world, carrier) as client:
        run_id, attempt, _ = await world.attempt("pod1")
        carrier.print("penstock-run1-1", "one\n")
        followed = Followed(client, "/runs/run1/logs?follow=true")
        only_first = Followed(client, "/runs/run1/logs?follow=true&attempt=1")
        await followed.until(lambda text: text == "one\n")
        carrier.print("penstock-run1-1", "one and a half\n")
        await followed.until(lambda text: text.endswith("half\n"))
        carrier.end("penstock-run1-1")
        await world.fail(run_id, attempt)
        await asyncio.wait_for(only_first.task, PATIENCE)
        await followed.until(lambda text: "the next is due at" in text)
        _, _, token = await world.attempt("pod2")
        carrier.print("penstock-run1-2", "two\n")
        await followed.until(lambda text: text.endswith("two\n"))
        await world.protocol.checkpoint(token, checkpoint(1, await world.upload(token), done=True))
        await world.protocol.finish(token, wire.FinishRequest(outcome="succeeded", records={"people": 3}))
        assert not followed.task.done(), "the pod may still print"
        carrier.print("penstock-run1-2", "last words\n")
        carrier.end("penstock-run1-2")
        await asyncio.wait_for(followed.task, PATIENCE)
        lines = followed.text.splitlines()
        assert "the next is due at" in lines.pop(2)
        assert lines == ["one", "one and a half", "two", "last words"], "each line once"
        assert only_first.text == "one\none and a half\n"


async def test_a_reader_that_goes_away_leaves_nothing_behind(world: World, tmp_path: Path) -> None:
    await world.new_run()
    await world.attempt()
    carrier = Carrier(tmp_path / "logs")
    carrier.print("penstock-run1-1", "one\n")
    async with reader(world, carrier) as client:
        followed = Followed(client, "/runs/run1/logs?follow=true")
        await followed.until(lambda text: text == "one\n")
        assert not carrier.closed.is_set()
        followed.task.cancel()
        await asyncio.wait_for(carrier.closed.wait(), PATIENCE)
        assert world.pool.get_stats().get("pool_available") == world.pool.get_stats().get("pool_size")
    carrier.end("penstock-run1-1")


def kept_text(store: BronzeStore, key: str) -> str:
    return zstandard.decompress(store.read(key)).decode()


async def launch_of(world: World) -> AttemptLaunch:
    async with world.pool.connection() as db:
        row = await attempt_store.carried_attempt(db, "run1", 1)
    assert row is not None
    return AttemptLaunch.of_carried(row)


async def log_row(world: World) -> AttemptLog:
    async with world.pool.connection() as db:
        row = await attempt_store.log_of_attempt(db, "run1", 1)
    assert row is not None
    return row


async def test_a_long_log_is_kept_with_its_head_and_its_tail(world: World, tmp_path: Path) -> None:
    await world.new_run()
    await world.attempt()
    carrier = Carrier(tmp_path / "logs")
    lines = [f"line {number:06d}\n" for number in range(20_000)]
    carrier.print("penstock-run1-1", "".join(lines))
    carrier.end("penstock-run1-1")
    await LogKeeper(world.pool, carrier, world.store, 100_000).keep(await launch_of(world))
    row = await log_row(world)
    text = kept_text(world.store, row.log_key)
    assert len(text) < 101_000
    assert text.startswith("".join(lines[:1000]))
    assert text.endswith("".join(lines[-5000:]))
    (gap,) = [line for line in text.splitlines() if line.startswith("…")]
    shown = len(text.splitlines()) - 1
    assert f"{20_000 - shown} lines" in gap
    assert "lines" in row.log_note
    assert row.log_bytes == sum(map(len, lines))


async def test_what_a_stopped_attempt_had_printed_is_kept(world: World, tmp_path: Path) -> None:
    await world.new_run()
    await world.attempt()
    carrier = Carrier(tmp_path / "logs")
    keeper = LogKeeper(world.pool, carrier, world.store, 100_000)
    launcher, launch = KeepingLauncher(carrier, keeper), await launch_of(world)
    carrier.print("penstock-run1-1", "last words\n")
    await launcher.stop(launch)  # the carrier's file goes with it, as a deleted pod's log does
    await launcher.retire(launch)
    row = await log_row(world)
    assert kept_text(world.store, row.log_key) == "last words\n"
    assert "last words may be missing" in row.log_note


async def test_a_pod_that_is_gone_leaves_a_note_and_no_error(world: World, tmp_path: Path) -> None:
    await world.new_run()
    await world.attempt()
    carrier = Carrier(tmp_path / "logs")
    await KeepingLauncher(carrier, LogKeeper(world.pool, carrier, world.store, 100_000)).retire(await launch_of(world))
    row = await log_row(world)
    assert row.log_key is None
    assert "could not be kept" in row.log_note
    assert carrier.retired == ["penstock-run1-1"]
    async with reader(world, carrier) as client:
        answer = await client.get("/runs/run1/logs")
    assert answer.status_code == 404
    assert "could not be kept" in answer.json()["message"]


async def test_a_job_is_not_let_go_before_its_log_is_kept(world: World, tmp_path: Path) -> None:
    await world.new_run()
    run_id, attempt, _ = await world.attempt()
    carrier = Carrier(tmp_path / "logs")
    carrier.print("penstock-run1-1", "one\n")
    carrier.end("penstock-run1-1")
    await world.fail(run_id, attempt)
    away = BronzeStore(replace(world.store.settings, endpoint="http://127.0.0.1:9"))
    for store, kept in ((away, False), (world.store, True)):
        keeper = LogKeeper(world.pool, carrier, store, 100_000)
        launcher = KeepingLauncher(carrier, keeper)
        await OutboxDispatcher(world.pool, world.store, launcher, keeper, lambda _: None).drain()
        assert bool(carrier.retired) is kept
        async with world.pool.connection() as db:
            left = await one(db, "SELECT count(*) AS n FROM penstock.outbox WHERE kind = 'retire'")
            assert left == {"n": 0 if kept else 1}, "it stays until it is done"
            await outbox.release(db, [n + 1 for n in range(10)])
    assert kept_text(world.store, (await log_row(world)).log_key) == "one\n"


async def test_the_last_lines_of_a_killed_process_are_kept(world: World, tmp_path: Path) -> None:
    await world.new_run()
    await world.attempt()
    files = FileLogs(tmp_path / "logs")
    with files.open_for_writing("penstock-run1-1") as out:
        script = "import os, time\nos.write(1, b'last words\\n')\ntime.sleep(600)"
        process = await asyncio.create_subprocess_exec(sys.executable, "-c", script, stdout=out)
    keeping = asyncio.create_task(LogKeeper(world.pool, files, world.store, 100_000).keep(await launch_of(world)))
    async with asyncio.timeout(PATIENCE):
        while files.path("penstock-run1-1").read_text() != "last words\n":
            await asyncio.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    await process.wait()
    await asyncio.wait_for(keeping, PATIENCE)
    row = await log_row(world)
    assert (kept_text(world.store, row.log_key), row.log_note) == ("last words\n", None)
