"""Attempts that do not end by themselves: cancelled, silent, out of memory, or on a node that is gone."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from penstock_operator.attempts.heartbeat_monitor import HeartbeatMonitor
from penstock_operator.attempts.supervisor import Supervisor
from penstock_operator.controller.orchestrator import Components, Orchestrator
from penstock_operator.embedded.folder import FolderResources
from penstock_operator.errors import Fenced
from penstock_operator.launchers import AttemptObservation
from penstock_operator.launchers.logs import FileLogs
from penstock_operator.registry.database import execute, many, one
from penstock_operator.runs import attempt_store, run_store, transitions
from penstock_operator.runs.run_store import RunDetail
from penstock_operator.scheduling import fairness
from penstock_operator.settings import Timings

from tests.fakes.launcher import FakeLauncher
from tests.integration.world import World, checkpoint
from tests.rows import LIVE

TIMINGS = Timings()


@pytest.fixture
def jobs() -> FakeLauncher:
    return FakeLauncher()


@pytest.fixture
async def supervisor(world: World, jobs: FakeLauncher) -> Supervisor:
    return Supervisor(world.pool, jobs, TIMINGS)


async def the_run(world: World) -> RunDetail:
    async with world.pool.connection() as db:
        found = await run_store.run_by_id(db, "run1")
    assert found is not None
    return found


async def look(supervisor: Supervisor) -> None:
    await supervisor.observe_all()
    await supervisor.settled()


async def sql(world: World, statement: str) -> None:
    async with world.pool.connection() as db:
        await execute(db, statement)


async def cancel(world: World) -> None:
    async with world.pool.connection() as db:
        await run_store.request_cancel(db, "run1")


async def test_a_cancelled_attempt_that_has_not_started_ends_at_once(
    world: World, jobs: FakeLauncher, supervisor: Supervisor
) -> None:
    await world.new_run()
    await supervisor.launch_pending()
    await supervisor.settled()
    await cancel(world)
    await look(supervisor)
    assert ((await the_run(world)).phase, jobs.stopped) == ("cancelled", ["penstock-run1-1"])


async def test_a_cancelled_attempt_whose_launch_never_came_through_ends_at_once(
    world: World, supervisor: Supervisor
) -> None:
    await world.new_run()
    async with world.pool.connection() as db:
        await fairness.claim_runs(db, datetime.now(UTC), 1)
    await cancel(world)
    await look(supervisor)
    assert (await the_run(world)).phase == "cancelled"


async def test_a_connector_that_hangs_is_cancelled_in_bounded_time_and_fenced(
    world: World, jobs: FakeLauncher, supervisor: Supervisor
) -> None:
    await world.new_run()
    run_id, attempt, token = await world.attempt()
    uploaded = await world.upload(token)
    await world.protocol.checkpoint(token, checkpoint(1, uploaded))
    await cancel(world)
    await look(supervisor)
    assert (await the_run(world)).phase == "running", "it has time to end itself at a batch border"
    await sql(world, "UPDATE penstock.connector_runs SET cancel_requested_at = now() - interval '31 s'")
    await look(supervisor)
    ended = await the_run(world)
    assert (ended.phase, ended.reason, ended.records) == ("cancelled", "RunCancelled", 3)
    assert jobs.stopped == [f"penstock-{run_id}-{attempt}"]
    with pytest.raises(Fenced):
        await world.protocol.checkpoint(token, checkpoint(2))


async def test_a_cancellation_of_a_server_without_times_is_bounded_too(world: World, supervisor: Supervisor) -> None:
    await world.new_run()
    await world.attempt()
    await sql(world, "UPDATE penstock.connector_runs SET cancel_requested = true")
    await look(supervisor)
    assert (await the_run(world)).cancel_requested_at is not None


async def test_a_replaced_attempts_job_is_stopped_through_the_outbox(
    world: World, jobs: FakeLauncher, folder: Path
) -> None:
    await world.new_run()
    await world.attempt()
    async with world.pool.connection() as db, db.transaction():
        locked = await run_store.lock_run(db, "run1")
        assert locked is not None
        await transitions.replace(db, locked)
    parts = Components(world.pool, FolderResources(folder), jobs, world.store, TIMINGS, FileLogs(folder))
    await Orchestrator(parts).outbox_dispatcher.drain()
    assert jobs.stopped == jobs.retired == ["penstock-run1-1"]


async def test_an_attempt_without_heartbeats_is_fenced_its_job_removed_and_the_run_tried_again(
    world: World, jobs: FakeLauncher
) -> None:
    supervisor = Supervisor(world.pool, jobs, replace(TIMINGS, heartbeat_deadline=0.0))
    await world.new_run()
    _, _, token = await world.attempt()
    await sql(world, "UPDATE penstock.run_attempts SET heartbeat_at = now() - interval '91 s'")
    await look(supervisor)
    waiting = await the_run(world)
    assert (waiting.phase, waiting.streak, waiting.reason) == ("pending", 1, "AttemptLost")
    assert jobs.stopped == ["penstock-run1-1"]
    with pytest.raises(Fenced):
        await world.protocol.checkpoint(token, checkpoint(1))
    _, attempt, _ = await world.attempt("pod2")
    assert attempt == 2


async def test_a_silent_attempt_on_a_node_that_does_not_answer_is_disrupted(world: World, jobs: FakeLauncher) -> None:
    jobs.observe_as(AttemptObservation("active", "AttemptLost", "its node does not answer", disrupted=True))
    supervisor = Supervisor(world.pool, jobs, replace(TIMINGS, heartbeat_deadline=0.0))
    await world.new_run()
    await world.attempt()
    await sql(world, "UPDATE penstock.run_attempts SET heartbeat_at = now() - interval '91 s'")
    await look(supervisor)
    waiting = await the_run(world)
    assert (waiting.phase, waiting.streak, waiting.disruptions) == ("pending", 0, 1)
    assert "its node does not answer" in waiting.message


async def test_heartbeats_that_were_late_because_the_registry_was_away_condemn_nobody(
    world: World, supervisor: Supervisor
) -> None:
    await world.new_run()
    await world.attempt()
    await sql(world, "UPDATE penstock.run_attempts SET heartbeat_at = now() - interval '1 h'")
    await look(supervisor)
    assert (await the_run(world)).phase == "running", "it has not been silent before our own eyes"


def test_missing_heartbeats_need_the_registrys_clock_and_a_witness() -> None:
    now, beat = [1000.0], datetime(2026, 1, 1, tzinfo=UTC)
    monitor = HeartbeatMonitor(90, clock=lambda: now[0])

    def lasts(seconds: float, at: datetime = beat) -> bool:
        return monitor.has_expired(replace(LIVE, heartbeat_at=at), seconds)

    assert not lasts(3600), "the first look"
    now[0] += 22
    assert not lasts(3622)
    now[0] += 1
    assert lasts(3623)
    assert not lasts(5, beat.replace(hour=1)), "a new heartbeat begins anew"
    now[0] += 60
    assert not lasts(65, beat.replace(hour=1))
    monitor.keep([])
    assert not lasts(95, beat.replace(hour=1))


async def test_running_out_of_memory_is_told_with_its_peak_and_the_next_attempt_gets_more(
    world: World, jobs: FakeLauncher, supervisor: Supervisor
) -> None:
    world.spec["resources"] = {"limits": {"memory": "64Mi", "cpu": "1"}, "onOutOfMemory": {"factor": 2, "max": "96Mi"}}
    await world.new_run()
    _, _, token = await world.attempt()
    async with world.pool.connection() as db:
        await attempt_store.heartbeat(db, "run1", 1, {"rss_peak_bytes": 61.0 * 2**20})
    jobs.observe_as(AttemptObservation("failed", "OutOfMemory", "", "DefectError", 137))
    await look(supervisor)
    waiting = await the_run(world)
    assert waiting.message == (
        "the connector used more memory than its limit of 64Mi (its last heartbeat reported a peak of 61Mi);"
        " the next attempt gets 96Mi, as spec.resources.onOutOfMemory allows"
    )
    await sql(world, "UPDATE penstock.connector_runs SET next_attempt_at = now()")
    await supervisor.launch_pending()
    await supervisor.settled()
    assert jobs.launched[-1].memory == "96Mi"
    assert world.spec["resources"]["limits"]["memory"] == "64Mi"
    del token


@pytest.mark.parametrize(
    ("peak", "reason", "phase"), [(500.0, "OutOfMemory", "pending"), (80.0, "AttemptLost", "pending")]
)
async def test_a_kill_without_a_word_is_for_memory_only_when_memory_was_used_up(
    world: World, jobs: FakeLauncher, supervisor: Supervisor, peak: float, reason: str, phase: str
) -> None:
    await world.new_run()
    await world.attempt()
    async with world.pool.connection() as db:
        await attempt_store.heartbeat(db, "run1", 1, {"rss_peak_bytes": peak * 2**20})
    jobs.observe_as(AttemptObservation("failed", "AttemptLost", "killed", exit_code=137, disrupted=True))
    await look(supervisor)
    waiting = await the_run(world)
    assert (waiting.reason, waiting.phase) == (reason, phase)
    assert waiting.disruptions == (reason == "AttemptLost")


async def test_an_image_that_cannot_be_pulled_fails_the_run_in_minutes_and_is_not_tried_again(
    world: World, jobs: FakeLauncher, supervisor: Supervisor
) -> None:
    await world.new_run()
    await supervisor.launch_pending()
    await supervisor.settled()
    for words in ("ErrImagePull: not found", "back-off pulling image"):
        jobs.observe_as(
            AttemptObservation("waiting", "ImagePullFailed", f"the definition's image: {words}", "ConfigError")
        )
        await look(supervisor)
        assert (await the_run(world)).phase == "running"
    await sql(world, "UPDATE penstock.run_attempts SET launched_at = now() - interval '121 s'")
    await look(supervisor)
    failed = await the_run(world)
    assert (failed.phase, failed.reason, failed.attempt) == ("failed", "ImagePullFailed", 1)
    assert jobs.stopped == ["penstock-run1-1"]
    async with world.pool.connection() as db:
        assert await many(db, "SELECT 1 AS n FROM penstock.connector_runs WHERE phase = 'pending'") == []
        row = await one(db, "SELECT failures FROM penstock.tenant_connections WHERE uid = 'c1'")
    assert row == {"failures": 1}
