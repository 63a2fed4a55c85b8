"""Invariants 1 and 2 with several schedulers and launchers at once, while the clock jumps."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from penstock_operator.connections import connection_records
from penstock_operator.connections.connection_records import Timing
from penstock_operator.registry.database import Pool, create_pool, execute, many, one
from penstock_operator.registry.migrate import migrate
from penstock_operator.resources.schedules import CronSchedule, TimeZone
from penstock_operator.scheduling import fairness
from penstock_operator.scheduling.due import next_time, schedule_due
from penstock_operator.scheduling.ticks import latest_tick, ticks_between

from tests.integration.world import new_world

PARIS = TimeZone("Europe/Paris")
START = datetime(2026, 10, 24, 22, 7, 31, tzinfo=UTC)  # a few hours before Paris puts its clock back
SCHEDULES = ("*/15 * * * *", "30 2 * * *", "@hourly", "7 1-4 * * *", "* * * * *")
POLICIES = ("Forbid", "Replace", "Allow")


@dataclass(frozen=True)
class Step:
    """The clock moves, schedulers and launchers look at it all at once, and some runs end."""

    minutes: float
    schedulers: int
    launchers: int
    ending: bool


STEPS = st.lists(
    st.builds(
        Step,
        minutes=st.one_of(st.floats(0, 40), st.sampled_from([-60.0, 60.0])),
        schedulers=st.integers(1, 4),
        launchers=st.integers(0, 3),
        ending=st.booleans(),
    ),
    min_size=1,
    max_size=8,
)
CONNECTIONS = st.lists(
    st.tuples(st.sampled_from(SCHEDULES), st.sampled_from(POLICIES), st.integers(0, 1800)), min_size=1, max_size=4
)


async def prepare(pool: Pool, wanted: list[tuple[str, str, int]]) -> None:
    async with pool.connection() as db:
        await execute(db, "TRUNCATE penstock.tenant_connections, penstock.connector_runs CASCADE")
        for number, (schedule, policy, jitter) in enumerate(wanted):
            await execute(
                db,
                "INSERT INTO penstock.tenant_connections (uid, namespace, name, generation, spec, definition_uid, ready,"
                " suspended, time_zone) VALUES (%(uid)s, 'team', %(uid)s, 1, jsonb_build_object('concurrencyPolicy',"
                " %(policy)s::text), 'd1', true, false, '')",
                uid=f"c{number}",
                policy=policy,
            )
            at = next_time(CronSchedule(schedule), PARIS, jitter, START)
            await connection_records.set_timing(db, f"c{number}", Timing(CronSchedule(schedule), PARIS, jitter, at))


async def launch(pool: Pool, now: datetime) -> list[tuple[str, int]]:
    async with pool.connection() as db:
        return [tuple(claimed) for claimed in await fairness.claim_runs(db, now, 50)]


async def end_all(pool: Pool) -> None:
    async with pool.connection() as db:
        await execute(db, "UPDATE penstock.connector_runs SET phase = 'succeeded' WHERE phase = 'running'")


async def scenario(pool: Pool, wanted: list[tuple[str, str, int]], steps: list[Step]) -> None:
    await prepare(pool, wanted)
    now = latest = START
    for step in [*steps, Step(1, 3, 2, ending=True), *[Step(0, 1, 1, ending=True)] * 11, Step(0, 3, 0, ending=True)]:
        now += timedelta(minutes=step.minutes)
        latest = max(latest, now)
        await asyncio.gather(*(schedule_due(pool, now) for _ in range(step.schedulers)))
        taken = [
            item for part in await asyncio.gather(*(launch(pool, now) for _ in range(step.launchers))) for item in part
        ]
        assert max(Counter(taken).values(), default=1) == 1, "test_2: an attempt is claimed once"
        async with pool.connection() as db:
            begun = await many(
                db,
                "SELECT connection_uid, count(*) AS n FROM penstock.connector_runs WHERE phase IN ('pending', 'running')"
                " AND attempt > 0 GROUP BY 1",
            )
        assert {item["n"] for item in begun} <= {1}, "test_2: one run of a connection at a time"
        if step.ending:
            await end_all(pool)
    await check(pool, wanted, now, latest)


async def check(pool: Pool, wanted: list[tuple[str, str, int]], now: datetime, latest: datetime) -> None:
    for number, (schedule, _, jitter) in enumerate(wanted):
        async with pool.connection() as db:
            rows = await many(
                db,
                "SELECT scheduled_at FROM penstock.connector_runs WHERE connection_uid = %(uid)s",
                uid=f"c{number}",
            )
            row = await one(db, "SELECT * FROM penstock.tenant_connections WHERE uid = %(uid)s", uid=f"c{number}")
        made: list[datetime] = [row["scheduled_at"] for row in rows]
        off = timedelta(seconds=jitter)
        real = set(ticks_between(CronSchedule(schedule), PARIS, START - off, latest - off + timedelta(seconds=1)))
        assert len(made) == len(set(made)), "test_1: a tick makes at most one run"
        assert set(made) <= real, "what runs is a tick"
        assert row is not None
        assert row["next_run_at"] > now, "nothing that is due is left over"
        passed = [tick for tick in real if tick <= now - off]
        if passed:
            newest = latest_tick(CronSchedule(schedule), PARIS, min(passed), now - off)
            assert max(made) >= newest, "what was missed has collapsed into the newest, and none is lost beyond that"


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(wanted=CONNECTIONS, steps=STEPS)
def test_1_and_2_hold_with_several_schedulers_and_a_clock_that_jumps(
    database_url: str, wanted: list[tuple[str, str, int]], steps: list[Step]
) -> None:
    async def play() -> None:
        await migrate(database_url)
        pool = create_pool(database_url, size=8)
        await pool.open(wait=True)
        async with pool:
            async with pool.connection() as db:
                known = await one(db, "SELECT 1 AS n FROM penstock.connector_definitions")
            if known is None:
                await new_world(pool, None)  # type: ignore[arg-type]
            await scenario(pool, wanted, steps)

    asyncio.run(play())
