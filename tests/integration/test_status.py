"""The status document is one snapshot of one run, whatever happens while it is read, and it is written soon."""

from __future__ import annotations

import asyncio
import os
import random
from datetime import UTC, datetime
from typing import Any

import pytest
from penstock_operator import outbox
from penstock_operator.attempts.supervisor import Supervisor
from penstock_operator.connections import connection_store
from penstock_operator.controller.progress_updates import MOST, ProgressUpdates
from penstock_operator.controller.reconcile import recorded_connection
from penstock_operator.controller.status import recorded_fields, status_of
from penstock_operator.controller.workqueue import Key
from penstock_operator.ids import ConnectionUid
from penstock_operator.registry.database import execute, many, one
from penstock_operator.resources.documents import merge_patch, status_document
from penstock_operator.runs import run_store, transitions
from penstock_operator.runs.attempt_store import AttemptOutcome
from penstock_operator.runs.protocol import PodIdentity
from penstock_operator.runs.run_store import Run
from penstock_operator.settings import Timings
from penstock_sdk import protocol as wire

from tests.fakes.launcher import FakeLauncher
from tests.integration.world import World, checkpoint
from tests.run_api.pods import START_KEY
from tests.unit.operator.test_statuses import merged

SEEDS = range(int(os.environ.get("STATUS_SEEDS") or "6"))
STEPS = 25


class Tenant:
    """Does what a connection's runs may do, at random, and remembers of each run what it may be told."""

    def __init__(self, world: World, seed: int) -> None:
        self.world, self.chance = world, random.Random(seed)
        self._made = 0
        self._token: str | None = None
        self._checkpoint = 0

    async def step(self) -> None:
        """Take one of the steps that can be taken now."""
        async with self.world.pool.connection() as db:
            active = await run_store.active_runs(db, "c1")
        if not active:
            self._made += 1
            await self.world.new_run(f"run{self._made:03d}", token=str(self._made))
            return
        if active[0].phase == "pending":
            _, _, self._token = await self.world.attempt(f"pod-{active[0].id}-{active[0].attempt + 1}")
            return
        await self.chance.choice([self._commit, self._commit, self._succeed, self._fail, self._lose, self._cancel])(
            active[0]
        )

    async def _commit(self, row: Run) -> None:
        assert self._token
        sequence = await self._sequence(row)
        uploaded = await self.world.upload(self._token, after=sequence, records=self.chance.randrange(1, 9))
        self._checkpoint = await self._next_checkpoint()
        await self.world.protocol.checkpoint(self._token, checkpoint(self._checkpoint, uploaded))

    async def _next_checkpoint(self) -> int:
        async with self.world.pool.connection() as db:
            found = await one(db, "SELECT max(checkpoint) AS n FROM penstock.connector_run_state")
        return int((found or {})["n"] or 0) + 1

    async def _sequence(self, row: Run) -> int:
        async with self.world.pool.connection() as db:
            found = await one(
                db,
                "SELECT max(sequence) AS n FROM penstock.bronze_objects WHERE run_id = %(run)s AND attempt = %(attempt)s",
                run=row.id,
                attempt=row.attempt,
            )
        return int((found or {})["n"] or 0)

    async def _succeed(self, row: Run) -> None:
        await self._end(row, "succeed", AttemptOutcome("succeeded", "RunSucceeded", message=f"of {row.id}"))

    async def _fail(self, row: Run) -> None:
        ending = AttemptOutcome("failed", "ConfigError", "ConfigError", f"of {row.id}")
        async with self.world.pool.connection() as db:
            await transitions.fail_current(db, row.id, row.attempt, ending)

    async def _lose(self, row: Run) -> None:
        await self.world.fail(row.id, row.attempt)

    async def _cancel(self, row: Run) -> None:
        await self._end(row, "cancel")

    async def _end(self, row: Run, how: str, *ending: AttemptOutcome) -> None:
        async with self.world.pool.connection() as db, db.transaction():
            held = await transitions.current(db, row.id, row.attempt)
            if held:
                await getattr(transitions, how)(db, held, *ending)


async def told(world: World) -> dict[str, Any]:
    async with world.pool.connection() as db:
        row = await connection_store.connection_by_uid(db, "c1")
        assert row
        recorded = await recorded_connection(db, row)
    fields = recorded_fields(recorded.row, None, datetime.now(UTC))
    return status_document(status_of(1, [], fields, recorded.newest, 0, 0))


def consistent(status: dict[str, Any]) -> None:
    """Check what one run cannot say of itself at two different times."""
    shown = status.get("lastRun")
    if shown is None:
        return
    ended = shown["phase"] in ("succeeded", "failed", "cancelled")
    assert ended == ("finishedAt" in shown), shown
    assert (shown["attempt"] > 0) == ("startedAt" in shown), shown
    assert shown["message"] in ("", f"of {shown['id']}", "cancelled on request"), shown
    if shown["phase"] == "succeeded":
        assert status["lastSuccessfulTime"] == shown["finishedAt"], status
        assert "consecutiveFailures" not in status, status
    if shown["phase"] == "failed":
        assert status["consecutiveFailures"] >= 1, status


@pytest.mark.parametrize("seed", SEEDS)
async def test_a_status_is_one_snapshot_of_one_run(world: World, seed: int) -> None:
    """The run's steps go on beside the reading, and each document is merged into the one before, as the API server does."""
    tenant, kept = Tenant(world, seed), dict[str, Any]()
    for _ in range(STEPS):
        beside = asyncio.create_task(tenant.step())
        status = await told(world)
        await beside
        consistent(status)
        kept = merged(kept, merge_patch(kept, status))
        assert kept == status
        consistent(kept)
    settled = await told(world)
    async with world.pool.connection() as db:
        (known,) = await many(
            db,
            "SELECT r.id, (SELECT coalesce(sum(o.records), 0)::int FROM penstock.bronze_objects o WHERE o.run_id = r.id"
            " AND o.committed_at IS NOT NULL) AS records FROM penstock.connector_runs r ORDER BY id DESC LIMIT 1",
        )
    assert (settled["lastRun"]["id"], settled["lastRun"]["records"]) == (known["id"], known["records"])


async def asked(world: World) -> int:
    async with world.pool.connection() as db:
        row = await one(db, "SELECT count(*) AS n FROM penstock.outbox WHERE kind = 'status'")
    assert row
    return int(row["n"])


async def test_a_launch_and_a_start_have_the_status_written_soon(world: World) -> None:
    supervisor = Supervisor(world.pool, FakeLauncher(), Timings())
    await world.new_run()
    assert await supervisor.launch_pending() == 1
    await supervisor.settled()
    assert await asked(world) == 1
    status = await told(world)
    assert (status["lastRun"]["phase"], status["lastRun"]["attempt"]) == ("running", 1)
    identity = wire.ConnectorIdentity(name="faker", method="generate", version="0.1.0")
    request = wire.StartRequest(run="run1", attempt=1, connector=identity, sdk_version="0", key=START_KEY)
    await world.protocol.start(PodIdentity("pod1", "uid-penstock-run1-1"), request)
    assert await asked(world) == 2
    async with world.pool.connection() as db:
        assert len(await outbox.status_messages(db, [ConnectionUid("c1")])) == 2, "one write tells both"
    await supervisor.close()


async def test_progress_is_told_of_a_bounded_number_of_runs_and_each_has_its_turn(world: World) -> None:
    queued, count = list[Key](), MOST + 10
    progress = ProgressUpdates(world.pool, queued.append)
    for number in range(count):
        await world.new_connection(f"of{number}")
        await world.new_run(f"run{number}", connection=f"of{number}", token=str(number))
    async with world.pool.connection() as db:
        await execute(db, "UPDATE penstock.connector_runs SET phase = 'running', attempt = 1")
        await progress.tell()
        assert queued == [], "nothing is committed"
        await execute(
            db,
            "INSERT INTO penstock.bronze_objects (key, connection_uid, stream, generation, run_id, attempt, sequence, records,"
            " committed_at) SELECT id, connection_uid, 's', 1, id, 1, 1, 5, now() FROM penstock.connector_runs",
        )
    await progress.tell()
    assert len(queued) == MOST
    await progress.tell()
    assert len(set(queued)) == len(queued) == count
    await progress.tell()
    assert len(queued) == count, "nothing new is committed"
