"""A real connector process that is paused past its deadline, succeeded by another, and woken up again."""

from __future__ import annotations

import asyncio
import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
import zstandard
from penstock_operator.api.queries import run_detail
from penstock_operator.attempts.supervisor import Supervisor
from penstock_operator.connections import connection_store
from penstock_operator.controller.reconcile import reconcile_connection, reconcile_definition
from penstock_operator.embedded.platform import DataDirectory, Platform, platform
from penstock_operator.ids import RunId
from penstock_operator.launchers import AttemptLaunch, AttemptObservation, LaunchedAttempt, LeftoverJob
from penstock_operator.launchers.process import ProcessLauncher
from penstock_operator.registry.database import one
from penstock_operator.resources.documents import Connection, Definition
from penstock_operator.runs import bronze_objects, run_store
from penstock_operator.runs.run_store import RunDetail
from penstock_operator.scheduling.due import request_run
from penstock_operator.settings import Timings
from penstock_sdk.errors import AttemptFenced
from penstock_sdk.protocol import Limits

from tests.patience import PATIENCE

RECORDS = 4000
SPEC = {
    "connector": {"name": "faker", "method": "generate"},
    "config": {"records": RECORDS, "delaySeconds": 0.1},
    "streams": [{"name": "people", "mode": "incremental"}],
}


@dataclass
class OutOfReach:
    """Processes on a node that does not answer: they start and can be looked at, and nothing can end them."""

    processes: ProcessLauncher

    async def launch(self, launch: AttemptLaunch) -> str:
        return await self.processes.launch(launch)

    async def observe(self, launch: LaunchedAttempt) -> AttemptObservation:
        return await self.processes.observe(launch)

    async def observe_many(self, attempts: list[LaunchedAttempt]) -> dict[str, AttemptObservation]:
        return await self.processes.observe_many(attempts)

    async def stop(self, launch: LaunchedAttempt) -> None:
        """Nothing gets through."""

    async def retire(self, launch: LaunchedAttempt) -> None:
        """Nothing gets through."""

    def leftovers(self) -> AsyncIterator[list[LeftoverJob]]:
        return self.processes.leftovers()

    async def discard(self, leftover: LeftoverJob) -> None:
        await self.processes.discard(leftover)


@pytest.fixture
async def running(
    folder: Path, tmp_path: Path, backends_environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Platform]:
    for key, value in backends_environment.items():
        monkeypatch.setenv(key, value)
    command = [sys.executable, "-m", "penstock_operator.cli", "definition", "faker-generate"]
    definition = await asyncio.to_thread(subprocess.check_output, command, text=True)
    (folder / "definition.yaml").write_text(definition)
    metadata = {"name": "fake", "namespace": "team"}
    document = {"apiVersion": "penstock.io/v1alpha1", "kind": "TenantConnection", "metadata": metadata, "spec": SPEC}
    (folder / "fake.yaml").write_text(yaml.safe_dump(document))
    limits = Limits(heartbeat_seconds=0.2, checkpoint_records=200)
    async with platform(folder, DataDirectory(tmp_path / "data"), limits) as opened:
        yield opened


async def until(true: Callable[[], Awaitable[bool]], seconds: float = PATIENCE) -> None:
    async with asyncio.timeout(seconds):
        while not await true():
            await asyncio.sleep(0.1)


async def test_3_a_paused_process_is_fenced_succeeded_and_refused_when_it_wakes_up(running: Platform) -> None:
    processes = running.launcher
    supervisor = Supervisor(running.pool, OutOfReach(processes), Timings(heartbeat_deadline=2.0))
    for definition in await running.resources.read_all(Definition):
        await reconcile_definition(running.pool, definition)
    for connection in await running.resources.read_all(Connection):
        await reconcile_connection(running.pool, connection)
    async with running.pool.connection() as db:
        row = await connection_store.connection_by_name(db, "team", "fake")
        assert row is not None
        run_id = await request_run(db, row.uid, "one")
    assert run_id is not None

    async def the_run() -> RunDetail:
        async with running.pool.connection() as db:
            found = await run_store.run_by_id(db, str(run_id))
        assert found is not None
        return found

    async def committed_something() -> bool:
        return bool((await the_run()).committed_records)

    await supervisor.launch_pending()
    await until(committed_something)
    (zombie,) = processes.processes
    os.killpg(zombie.pid, signal.SIGSTOP)  # the connector is a child of the process

    async def given_up() -> bool:
        await supervisor.observe_all()
        return (await the_run()).phase == "pending"

    await until(given_up)
    assert (await the_run()).reason == "AttemptLost"

    async def succeeded() -> bool:
        async with running.pool.connection() as db:
            await db.execute(b"UPDATE penstock.connector_runs SET next_attempt_at = now() WHERE phase = 'pending'")
        await supervisor.launch_pending()
        await supervisor.observe_all()
        return (await the_run()).phase == "succeeded"

    await until(succeeded)
    before = await committed(running, run_id)
    os.killpg(zombie.pid, signal.SIGCONT)
    assert await asyncio.wait_for(zombie.wait(), PATIENCE) == AttemptFenced.exit_code
    assert await committed(running, run_id) == before, "it could change nothing"
    assert (await the_run()).attempt == 2
    assert numbers(running, before) == list(range(RECORDS)), "nothing is lost and nothing doubled"
    async with running.pool.connection() as db:
        first = (await run_detail(db, RunId(run_id))).attempts[0]
        state = await one(db, "SELECT run_id, attempt, done FROM penstock.connector_run_state")
    assert first.phase == "lost"
    assert state == {"run_id": run_id, "attempt": 2, "done": True}


async def committed(running: Platform, run_id: str) -> list[str]:
    async with running.pool.connection() as db:
        return [stored.key for stored in await bronze_objects.objects_of_run(db, run_id)]


def numbers(running: Platform, keys: list[str]) -> list[int]:
    found = []
    for key in keys:
        text = io.TextIOWrapper(zstandard.ZstdDecompressor().stream_reader(running.store.read(key)), encoding="utf-8")
        found += [json.loads(line)["data"]["n"] for line in text]
    return sorted(found)
