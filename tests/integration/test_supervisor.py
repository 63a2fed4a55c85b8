"""Attempts are launched and looked at side by side: a Job that cannot be made, or seen, delays no other."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from penstock_operator.attempts import supervisor as supervising
from penstock_operator.attempts.supervisor import Supervisor
from penstock_operator.connections import connection_records, connection_store
from penstock_operator.connections.connection_records import Timing
from penstock_operator.controller.orchestrator import Components, Orchestrator
from penstock_operator.controller.status import finding_for
from penstock_operator.launchers import AttemptLaunch, AttemptObservation, LaunchedAttempt, LaunchRefused
from penstock_operator.launchers.logs import FileLogs
from penstock_operator.registry.database import Pool, Row, create_pool, execute, many, one
from penstock_operator.resources.models import Kind
from penstock_operator.resources.schedules import UTC_ZONE, CronSchedule
from penstock_operator.runs import run_store
from penstock_operator.runs.attempt_store import CarriedAttempt, attempt_by_job
from penstock_operator.settings import Timings

from tests.fakes.clock import FakeClock
from tests.fakes.launcher import FakeLauncher
from tests.fakes.resources import FakeResources
from tests.integration.world import World
from tests.patience import PATIENCE

POISONED = "run0"


class HangingLauncher(FakeLauncher):
    """A launcher that hangs on the poisoned run until it is let go, and that may refuse."""

    def __init__(self) -> None:
        super().__init__()
        self.blocked, self.healed = asyncio.Event(), asyncio.Event()
        self.refusal: LaunchRefused | None = None

    async def launch(self, launch: AttemptLaunch) -> str:
        if self.refusal:
            raise self.refusal
        if launch.run_id == POISONED and not self.healed.is_set():
            self.blocked.set()
            await self.healed.wait()
        return await super().launch(launch)

    async def observe(self, launch: LaunchedAttempt) -> AttemptObservation:
        found = await super().observe(launch)
        gone = AttemptObservation("gone", "AttemptLost", "the attempt's Job was deleted", disrupted=True)
        return found if launch.job_name in self.jobs else gone

    async def observe_many(self, attempts: list[LaunchedAttempt]) -> dict[str, AttemptObservation]:
        return await super().observe_many([attempt for attempt in attempts if attempt.job_name in self.jobs])


@pytest.fixture
def jobs() -> HangingLauncher:
    return HangingLauncher()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(timedelta(seconds=1))


@pytest.fixture
async def supervisor(world: World, jobs: HangingLauncher, clock: FakeClock) -> AsyncIterator[Supervisor]:
    made = Supervisor(world.pool, jobs, Timings(), clock)
    yield made
    await made.close()


async def _runs(world: World, count: int) -> None:
    for number in range(count):
        await world.new_connection(f"of-run{number}")
        await world.new_run(f"run{number}", connection=f"of-run{number}", token=str(number))


async def _bound(pool: Pool) -> set[str]:
    async with pool.connection() as db:
        rows = await many(db, "SELECT run_id FROM penstock.run_attempts WHERE job_uid IS NOT NULL")
    return {row["run_id"] for row in rows}


async def _attempt(pool: Pool, run_id: str) -> Row:
    async with pool.connection() as db:
        row = await one(
            db, "SELECT * FROM penstock.run_attempts WHERE run_id = %(id)s ORDER BY attempt DESC", id=run_id
        )
    assert row is not None
    return row


async def _until(found: Callable[[], object]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not found():
            await asyncio.sleep(0.01)


async def test_12_a_launch_that_hangs_delays_no_other(
    world: World, supervisor: Supervisor, jobs: HangingLauncher
) -> None:
    await _runs(world, 60)
    async with asyncio.timeout(PATIENCE):
        while await supervisor.launch_pending():
            pass
        while len(await _bound(world.pool)) < 59:
            await asyncio.sleep(0.01)
    assert jobs.blocked.is_set()
    assert await _bound(world.pool) == {f"run{number}" for number in range(1, 60)}
    jobs.healed.set()
    await supervisor.settled()
    assert len(await _bound(world.pool)) == 60


async def test_12_a_launch_that_hangs_is_given_up_and_made_later(
    world: World, jobs: HangingLauncher, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervising, "LAUNCH_SECONDS", 0.2)
    supervisor = Supervisor(world.pool, jobs, Timings(), clock)
    await _runs(world, 1)
    await supervisor.launch_pending()
    await supervisor.settled()
    assert await _bound(world.pool) == set()
    jobs.healed.set()
    clock.ahead += timedelta(seconds=supervising.ADOPT_AFTER_SECONDS + 1)
    await supervisor.observe_all()
    await supervisor.settled()
    assert await _bound(world.pool) == {POISONED}


async def test_9_a_refusal_that_may_pass_is_waited_out_and_costs_no_attempt(
    world: World, supervisor: Supervisor, jobs: HangingLauncher, clock: FakeClock
) -> None:
    """An API server that starts knows nobody's rights for a moment."""
    jobs.healed.set()
    jobs.refusal = LaunchRefused("LaunchRefused", "no rights", "TransientError", passing=True)
    await _runs(world, 1)
    await supervisor.launch_pending()
    await supervisor.settled()
    assert (await _attempt(world.pool, POISONED))["phase"] == "launching"
    jobs.refusal = None
    clock.ahead += timedelta(seconds=supervising.ADOPT_AFTER_SECONDS + 1)
    await supervisor.observe_all()
    await supervisor.settled()
    assert await _bound(world.pool) == {POISONED}
    assert (await _attempt(world.pool, POISONED))["attempt"] == 1


async def test_a_refusal_that_does_not_pass_ends_the_attempt_in_its_words(
    world: World, supervisor: Supervisor, jobs: HangingLauncher, clock: FakeClock
) -> None:
    jobs.refusal = LaunchRefused("LaunchRefused", "no rights", "TransientError", passing=True)
    await _runs(world, 1)
    await supervisor.launch_pending()
    await supervisor.settled()
    clock.ahead += timedelta(seconds=Timings().start_deadline + 1)
    await supervisor.observe_all()
    await supervisor.settled()
    ended = await _attempt(world.pool, POISONED)
    assert (ended["phase"], ended["reason"], ended["message"]) == ("failed", "LaunchRefused", "no rights")


async def test_a_full_quota_is_waited_for_and_the_status_says_so(
    world: World, supervisor: Supervisor, jobs: HangingLauncher
) -> None:
    """The run waits as for a node: it does not count as a failure, and what is asked for next is a new attempt."""
    jobs.refusal = LaunchRefused("QuotaExceeded", "no room in the quota", "TransientError", no_room=True)
    await _runs(world, 1)
    await supervisor.launch_pending()
    await supervisor.settled()
    async with world.pool.connection() as db:
        row = await connection_store.connection_by_uid(db, f"of-{POISONED}")
        newest = await run_store.newest_run(db, row.uid) if row else None
    assert row
    assert newest
    assert (newest.phase, newest.streak, newest.disruptions) == ("pending", 0, 1)
    told = finding_for(row, newest)
    assert (told.state, told.reason) == ("reconciling", "QuotaExceeded")
    assert told.message.startswith("run run0 waits: no room in the quota (asked again at")


async def test_a_quota_that_stays_full_never_fails_a_run(
    world: World, supervisor: Supervisor, jobs: HangingLauncher, clock: FakeClock
) -> None:
    jobs.refusal = LaunchRefused("QuotaExceeded", "no room in the quota", "TransientError", no_room=True)
    await _runs(world, 1)
    for _ in range(40):
        clock.ahead += timedelta(minutes=2)
        await supervisor.launch_pending()
        await supervisor.settled()
    assert (await _attempt(world.pool, POISONED))["attempt"] == 40
    jobs.refusal = None
    jobs.healed.set()
    clock.ahead += timedelta(minutes=2)
    await supervisor.launch_pending()
    await supervisor.settled()
    assert await _bound(world.pool) == {POISONED}


async def _started(world: World, supervisor: Supervisor, jobs: HangingLauncher, clock: FakeClock) -> None:
    jobs.healed.set()
    await _runs(world, 1)
    await supervisor.launch_pending()
    await supervisor.settled()
    clock.ahead += timedelta(seconds=supervising.WAITING_AFTER_SECONDS + 1)


async def _note(pool: Pool) -> tuple[str, str | None]:
    async with pool.connection() as db:
        row = await one(db, "SELECT waits, waits_reason FROM penstock.connector_runs WHERE id = %(id)s", id=POISONED)
    assert row
    return row["waits"], row["waits_reason"]


async def test_why_a_pod_waits_is_noted_and_told_once(
    world: World, supervisor: Supervisor, jobs: HangingLauncher, clock: FakeClock
) -> None:
    words = "0/1 nodes are available"
    jobs.observe_as(AttemptObservation("waiting", "Unschedulable", words))
    await _started(world, supervisor, jobs, clock)
    for _ in range(3):
        await supervisor.observe_all()
        await supervisor.settled()
    assert await _note(world.pool) == (words, "Unschedulable")
    async with world.pool.connection() as db:
        listed = await run_store.list_runs(db, None, None, 1)
        asked = await many(db, "SELECT 1 FROM penstock.outbox WHERE kind = 'status'")
    assert listed[0].waits == words
    assert len(asked) == 2, "one for the launch, one for the note"
    assert jobs.observed == [], "the list had the words"


async def test_a_pod_that_says_nothing_gets_a_look_of_its_own_for_its_warnings(
    world: World, supervisor: Supervisor, jobs: HangingLauncher, clock: FakeClock
) -> None:
    jobs.observe_as(AttemptObservation("waiting"))
    await _started(world, supervisor, jobs, clock)
    for _ in range(3):
        await supervisor.observe_all()
        await supervisor.settled()
    assert jobs.observed == [POISONED], "warnings are not read at each look"


@pytest.mark.parametrize(
    ("seen", "phase", "reason", "state"),
    [
        (AttemptObservation("waiting", "QuotaExceeded", "exceeded quota"), "pending", "QuotaExceeded", "reconciling"),
        (AttemptObservation("waiting", "Unschedulable", "no node"), "pending", "Unschedulable", "failing"),
        (
            AttemptObservation("waiting", "ImagePullFailed", "503", "TransientError"),
            "pending",
            "ImagePullFailed",
            "failing",
        ),
        (AttemptObservation("waiting", "ImagePullFailed", "no", "ConfigError"), "failed", "ImagePullFailed", "stalled"),
        (AttemptObservation("waiting", "SecretNotFound", "no", "ConfigError"), "failed", "SecretNotFound", "stalled"),
        (AttemptObservation("waiting", "PodPending", ""), "pending", "LaunchRefused", "failing"),
    ],
)
async def test_what_a_pod_waited_for_decides_what_becomes_of_its_run(
    world: World,
    supervisor: Supervisor,
    jobs: HangingLauncher,
    clock: FakeClock,
    seen: AttemptObservation,
    phase: str,
    reason: str,
    state: str,
) -> None:
    jobs.observe_as(seen)
    await _started(world, supervisor, jobs, clock)
    clock.ahead += timedelta(seconds=Timings().start_deadline + 1)
    await supervisor.observe_all()
    await supervisor.settled()
    async with world.pool.connection() as db:
        row = await connection_store.connection_by_uid(db, f"of-{POISONED}")
        newest = await run_store.newest_run(db, f"of-{POISONED}")
    assert row
    assert newest
    assert (newest.phase, newest.reason, finding_for(row, newest).state) == (phase, reason, state)


async def test_a_launch_under_way_is_not_begun_again(
    world: World, supervisor: Supervisor, jobs: HangingLauncher, clock: FakeClock
) -> None:
    await _runs(world, 1)
    await supervisor.launch_pending()
    await jobs.blocked.wait()
    jobs.blocked.clear()
    clock.ahead += timedelta(seconds=supervising.ADOPT_AFTER_SECONDS + 1)
    await supervisor.observe_all()
    await supervisor.observe(await _live(world.pool))
    assert not jobs.blocked.is_set()


async def _live(pool: Pool) -> CarriedAttempt:
    async with pool.connection() as db:
        row = await attempt_by_job(db, f"penstock-{POISONED}-1")
    assert row is not None
    return row


async def test_a_launch_holds_no_connection_to_postgres(world: World, database_url: str, jobs: HangingLauncher) -> None:
    await _runs(world, 1)
    narrow = create_pool(database_url, size=1)
    await narrow.open(wait=True)
    supervisor = Supervisor(narrow, jobs, Timings(), FakeClock(timedelta(seconds=1)))
    try:
        await supervisor.launch_pending()
        await jobs.blocked.wait()
        async with narrow.connection(timeout=PATIENCE) as db:
            await db.execute(b"SELECT 1")
    finally:
        await supervisor.close()
        await narrow.close()


async def test_runs_beyond_the_places_wait_in_the_registry(
    world: World, jobs: HangingLauncher, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervising, "LAUNCHES", 1)
    supervisor = Supervisor(world.pool, jobs, Timings(), clock)
    await _runs(world, 5)
    assert await supervisor.launch_pending() == 1
    async with world.pool.connection() as db:
        pending = await many(db, "SELECT id FROM penstock.connector_runs WHERE phase = 'pending'")
    assert len(pending) == 4
    await supervisor.close()


async def test_a_job_made_for_an_attempt_that_has_ended_is_removed(
    world: World, supervisor: Supervisor, jobs: HangingLauncher
) -> None:
    await _runs(world, 1)
    await supervisor.launch_pending()
    await jobs.blocked.wait()
    await world.fail(POISONED, 1)
    jobs.healed.set()
    await supervisor.settled()
    assert jobs.jobs == set()


async def test_an_attempt_that_goes_on_as_it_should_gets_no_look_of_its_own(
    world: World, supervisor: Supervisor, jobs: HangingLauncher
) -> None:
    jobs.healed.set()
    await _runs(world, 10)
    await supervisor.launch_pending()
    await supervisor.settled()
    await supervisor.observe_all()
    await supervisor.settled()
    assert jobs.observed == []
    jobs.jobs.discard("penstock-run3-1")
    await supervisor.observe_all()
    await supervisor.settled()
    assert jobs.observed == ["run3"]
    assert (await _attempt(world.pool, "run3"))["reason"] == "AttemptLost"


async def test_a_pod_that_cannot_start_ends_its_attempt(
    world: World, supervisor: Supervisor, jobs: HangingLauncher
) -> None:
    jobs.healed.set()
    refused = AttemptObservation("waiting", "SecretNotFound", "spec.secretRef: no", "ConfigError", final=True)
    jobs.observation = lambda each: refused if each.run_id == "run1" else AttemptObservation("active")
    await _runs(world, 3)
    await supervisor.launch_pending()
    await supervisor.settled()
    await supervisor.observe_all()
    await supervisor.settled()
    assert (await _attempt(world.pool, "run1"))["reason"] == "SecretNotFound"
    assert jobs.jobs == {"penstock-run0-1", "penstock-run2-1"}


async def test_a_silent_attempt_is_ended_whatever_its_job_says(
    world: World, supervisor: Supervisor, jobs: HangingLauncher, clock: FakeClock
) -> None:
    jobs.healed.set()
    await _runs(world, 1)
    await supervisor.launch_pending()
    await supervisor.settled()
    async with world.pool.connection() as db:
        await execute(
            db, "UPDATE penstock.run_attempts SET phase = 'running', started_at = now(), heartbeat_at = now()"
        )
    await supervisor.observe_all()
    clock.ahead += timedelta(seconds=Timings().heartbeat_deadline + 1)
    await supervisor.observe_all()
    await supervisor.settled()
    assert (await _attempt(world.pool, POISONED))["phase"] == "lost"
    assert jobs.jobs == set()


async def test_a_run_is_launched_as_soon_as_it_is_made(
    world: World, jobs: HangingLauncher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loop that launches has looked by then, and would look again a minute later."""
    jobs.healed.set()
    resources = FakeResources()

    async def no_answer(kind: Kind) -> None:
        raise ConnectionRefusedError(kind)

    resources.before_list = no_answer
    parts = Components(world.pool, resources, jobs, world.store, Timings(poll=60), FileLogs(tmp_path))
    orchestrator, past = Orchestrator(parts), datetime.now(UTC) - timedelta(minutes=1)
    looked, launch_pending = asyncio.Event(), orchestrator.supervisor.launch_pending

    async def look() -> int:
        found = await launch_pending()
        looked.set()
        return found

    monkeypatch.setattr(orchestrator.supervisor, "launch_pending", look)
    running = asyncio.create_task(orchestrator.run())
    try:
        await asyncio.wait_for(looked.wait(), PATIENCE)
        async with world.pool.connection() as db:
            await connection_records.set_timing(db, "c1", Timing(CronSchedule("@hourly"), UTC_ZONE, 0, past))
        assert await orchestrator.schedule() == 1
        await _until(lambda: jobs.jobs)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
