"""Streams in parts through the whole platform: real processes are killed at each failpoint, cancelled, and run again."""

from __future__ import annotations

import asyncio
import io
import itertools
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
import zstandard
from penstock_operator.attempts.supervisor import Supervisor
from penstock_operator.connections import connection_store
from penstock_operator.controller.reconcile import reconcile_connection, reconcile_definition
from penstock_operator.embedded.platform import DataDirectory, Platform, platform
from penstock_operator.launchers import process
from penstock_operator.registry.database import Row, many
from penstock_operator.resources.documents import Connection, Definition
from penstock_operator.runs import bronze_objects, run_store
from penstock_operator.runs.run_store import RunDetail
from penstock_operator.scheduling.due import request_run
from penstock_operator.settings import Timings
from penstock_operator.state.admin import Author, RewindToCheckpoint, change_state
from penstock_sdk.failpoints import FAILPOINTS_VARIABLE
from penstock_sdk.protocol import Limits

from tests.patience import PATIENCE

RECORDS = 4000
SPEC: dict[str, Any] = {
    "connector": {"name": "faker", "method": "generate"},
    "config": {"records": RECORDS, "batchSize": 100, "partitions": 4},
    "streams": [{"name": "people", "mode": "incremental"}, {"name": "events", "mode": "full"}],
    "parallelism": 3,
}
DEATHS = (
    "start.answered",
    "streams.answered",
    "uploads.asked",
    "object.sent:2",
    "checkpoints.asked",
    "checkpoints.answered",
    "checkpoints.answered:3",
    "uploads.answered",
    "checkpoints.asked:4",
    "object.asked:3",
)
"""Where the attempts of a run are killed, one after the other."""


@dataclass
class Operator:
    """A platform that is up, with one connection, and what carries its runs."""

    running: Platform
    supervisor: Supervisor
    folder: Path

    async def apply(self, **spec: Any) -> None:
        """Write the connection, and reconcile."""
        metadata = {"name": "fake", "namespace": "team"}
        kind = {"apiVersion": "penstock.io/v1alpha1", "kind": "TenantConnection"}
        (self.folder / "fake.yaml").write_text(yaml.safe_dump({**kind, "metadata": metadata, "spec": {**SPEC, **spec}}))
        self.running.resources.refresh()
        for definition in await self.running.resources.read_all(Definition):
            await reconcile_definition(self.running.pool, definition)
        for connection in await self.running.resources.read_all(Connection):
            await reconcile_connection(self.running.pool, connection)

    async def request(self, token: str) -> str:
        """Ask for a run."""
        async with self.running.pool.connection() as db:
            row = await connection_store.connection_by_name(db, "team", "fake")
            assert row is not None
            run_id = await request_run(db, row.uid, token)
        assert run_id is not None
        return run_id

    async def run(self, run_id: str) -> RunDetail:
        async with self.running.pool.connection() as db:
            found = await run_store.run_by_id(db, run_id)
        assert found is not None
        return found

    async def step(self) -> None:
        """Launch what waits, at once, and look at what runs."""
        async with self.running.pool.connection() as db:
            await db.execute(b"UPDATE penstock.connector_runs SET next_attempt_at = now() WHERE phase = 'pending'")
        await self.supervisor.launch_pending()
        await self.supervisor.observe_all()

    async def to_the_end(self, run_id: str) -> RunDetail:
        """Carry a run to its end."""

        async def ended() -> bool:
            await self.step()
            return (await self.run(run_id)).phase not in ("pending", "running")

        await until(ended)
        return await self.run(run_id)

    async def rows(self, sql: str) -> list[Row]:
        async with self.running.pool.connection() as db:
            return await many(db, sql)

    async def numbers(self, run_id: str, stream: str) -> list[int]:
        """Read Bronze back."""
        async with self.running.pool.connection() as db:
            found = await bronze_objects.objects_of_run(db, run_id)
        lines = []
        for key in (item.key for item in found if item.stream == stream):
            text = zstandard.ZstdDecompressor().stream_reader(self.running.store.read(key))
            lines += [json.loads(line)["data"]["n"] for line in io.TextIOWrapper(text, encoding="utf-8")]
        return sorted(lines)

    async def cursor(self, stream: str) -> dict[str, Any]:
        (row,) = await self.rows(f"SELECT cursor FROM penstock.connector_run_state WHERE stream = '{stream}'")
        return dict(row["cursor"])


async def until(true: Callable[[], Awaitable[bool]], seconds: float = PATIENCE) -> None:
    async with asyncio.timeout(seconds):
        while not await true():
            await asyncio.sleep(0.05)


@pytest.fixture
async def operator(
    folder: Path, tmp_path: Path, backends_environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Operator]:
    """A platform whose processes hear of failpoints."""
    for key, value in backends_environment.items():
        monkeypatch.setenv(key, value)
    monkeypatch.setattr(process, "INHERITED", (*process.INHERITED, FAILPOINTS_VARIABLE))
    command = [sys.executable, "-m", "penstock_operator.cli", "definition", "faker-generate"]
    definition = await asyncio.to_thread(subprocess.check_output, command, text=True)
    (folder / "definition.yaml").write_text(definition)
    limits = Limits(heartbeat_seconds=0.2, checkpoint_records=200)
    async with platform(folder, DataDirectory(tmp_path / "data"), limits) as running:
        supervisor = Supervisor(running.pool, running.launcher, Timings(heartbeat_deadline=60.0))
        made = Operator(running, supervisor, folder)
        await made.apply()
        yield made


async def killed_at(operator: Operator, run_id: str, place: str) -> None:
    """Have the next attempt die there, and the platform find it dead."""
    before = (await operator.run(run_id)).attempt
    os.environ[FAILPOINTS_VARIABLE] = place
    try:
        await operator.step()
    finally:
        del os.environ[FAILPOINTS_VARIABLE]
    processes = operator.running.launcher.processes
    child = next((process for process in processes if process.returncode is None), None)
    if child is not None:
        assert await asyncio.wait_for(child.wait(), PATIENCE) == -signal.SIGKILL, place

    async def given_up() -> bool:
        await operator.supervisor.observe_all()
        return (await operator.run(run_id)).phase == "pending"

    await until(given_up)
    assert (await operator.run(run_id)).attempt == before + 1


async def test_4_a_run_killed_at_each_failpoint_reads_each_partition_once(operator: Operator) -> None:
    run_id = await operator.request("one")
    for place in DEATHS:
        await killed_at(operator, run_id, place)
    assert (await operator.to_the_end(run_id)).phase == "succeeded"
    for stream in ("people", "events"):
        assert await operator.numbers(run_id, stream) == list(range(RECORDS)), stream
    lost = await operator.rows("SELECT attempt FROM penstock.run_attempts WHERE reason = 'AttemptLost'")
    assert len(lost) == len(DEATHS)
    history = await operator.rows("SELECT * FROM penstock.stream_checkpoints ORDER BY stream, checkpoint")
    assert len({checkpoint["attempt"] for checkpoint in history}) > 3, "several attempts committed"
    for stream in ("people", "events"):
        plans = {
            json.dumps([[r["id"], r["bounds"]] for r in checkpoint["cursor"]["ranges"]])
            for checkpoint in history
            if checkpoint["stream"] == stream
        }
        assert len(plans) == 1, "the plan of a run stays"
        done = [
            {r["id"] for r in checkpoint["cursor"]["ranges"] if r["done"]}
            for checkpoint in history
            if checkpoint["stream"] == stream
        ]
        assert all(earlier <= later for earlier, later in itertools.pairwise(done)), "what is done stays done"


async def test_the_next_run_reads_what_is_new_with_the_same_partitions(operator: Operator) -> None:
    first = await operator.request("one")
    assert (await operator.to_the_end(first)).phase == "succeeded"
    parts = [partition["id"] for partition in (await operator.cursor("people"))["ranges"]]
    await operator.apply(config={**SPEC["config"], "records": RECORDS + 300, "partitions": 7})
    second = await operator.request("two")
    assert (await operator.to_the_end(second)).phase == "succeeded"
    assert await operator.numbers(second, "people") == list(range(RECORDS, RECORDS + 300))
    assert await operator.numbers(second, "events") == list(range(RECORDS + 300)), "a full read plans anew"
    assert [partition["id"] for partition in (await operator.cursor("people"))["ranges"]] == parts
    assert len((await operator.cursor("events"))["ranges"]) == 7


async def test_a_rewind_puts_every_partition_back(operator: Operator) -> None:
    first = await operator.request("one")
    await operator.to_the_end(first)
    (row,) = await operator.rows(
        "SELECT * FROM penstock.stream_checkpoints WHERE stream = 'people' ORDER BY checkpoint LIMIT 1 OFFSET 4"
    )
    left = [n for partition in row["cursor"]["ranges"] for n in _left(partition)]
    async with operator.running.pool.connection() as db:
        found = await connection_store.connection_by_name(db, "team", "fake")
        assert found is not None
        await change_state(db, found.uid, RewindToCheckpoint("people", row["checkpoint"]), Author("a test"))
    second = await operator.request("two")
    assert (await operator.to_the_end(second)).phase == "succeeded"
    assert await operator.numbers(second, "people") == sorted(left)
    assert 0 < len(left) < RECORDS


def _left(part: dict[str, Any]) -> range:
    start, end = part["bounds"]
    return range(part["cursor"]["next"] if part["cursor"] else start, RECORDS if end is None else end)


async def test_a_cancelled_run_keeps_what_its_partitions_have_committed(operator: Operator) -> None:
    await operator.apply(config={**SPEC["config"], "delaySeconds": 0.2})
    run_id = await operator.request("one")
    await operator.step()

    async def committed_something() -> bool:
        await operator.supervisor.observe_all()
        return bool((await operator.run(run_id)).committed_records)

    await until(committed_something)
    async with operator.running.pool.connection() as db:
        await run_store.request_cancel(db, run_id)
    assert (await operator.to_the_end(run_id)).phase == "cancelled"
    parts = (await operator.cursor("people"))["ranges"]
    covered = [n for part in parts if part["cursor"] for n in range(part["bounds"][0], part["cursor"]["next"])]
    assert await operator.numbers(run_id, "people") == sorted(covered)
    assert 0 < len(covered) < RECORDS
