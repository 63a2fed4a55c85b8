"""Fairness on a real registry: limits hold whoever claims, and who has least is next."""

from __future__ import annotations

import asyncio
import statistics
from collections import Counter, defaultdict, deque
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from penstock_operator.api.models import RunView
from penstock_operator.attempts.supervisor import Supervisor
from penstock_operator.cli.runs import COLUMNS
from penstock_operator.connections import connection_records
from penstock_operator.connections.connection_records import ConnectionRecord
from penstock_operator.controller.status import finding_for
from penstock_operator.ids import AttemptNumber, RunId
from penstock_operator.launchers import AttemptLaunch, LaunchRefused
from penstock_operator.registry.database import Pool, many
from penstock_operator.resources.models import ConnectionSpec
from penstock_operator.runs import run_store
from penstock_operator.scheduling import fairness
from penstock_operator.settings import NO_QUOTAS, Quotas, Timings

from tests.fakes.launcher import FakeLauncher
from tests.integration.world import World
from tests.patience import PATIENCE
from tests.rows import CONNECTION, RUN

SPEC = {"connector": {"name": "faker", "method": "generate"}}
START = datetime(2026, 6, 1, tzinfo=UTC)


async def tenant(pool: Pool, name: str, count: int = 1) -> None:
    """Record connections of a tenant: NAME-0, NAME-1 and so on."""
    async with pool.connection() as db:
        for number in range(count):
            record = ConnectionRecord(
                f"{name}-{number}", name, f"c{number}", 1, ConnectionSpec.parse(SPEC), "d1", ready=True
            )
            await connection_records.upsert_connection(db, record)


async def wait_in_line(pool: Pool, rows: Sequence[tuple[str, str, str | None, datetime]]) -> None:
    """Put runs (id, connection, source, due) in line, as they are when their connections were due."""
    async with pool.connection() as db, db.cursor() as cursor:
        await cursor.executemany(
            """
            INSERT INTO penstock.connector_runs
                (id, connection_uid, definition_uid, spec, trigger, token, next_attempt_at, source_host, tenant)
            SELECT %(id)s, uid, 'd1', spec, 'request', %(id)s, %(at)s, %(host)s, namespace
            FROM penstock.tenant_connections WHERE uid = %(uid)s
            """,
            [{"id": id_, "uid": uid, "host": host, "at": at} for id_, uid, host, at in rows],
        )


async def claim(pool: Pool, now: datetime, limit: int, quotas: Quotas = NO_QUOTAS) -> list[str]:
    async with pool.connection() as db:
        return [claimed.run_id for claimed in await fairness.claim_runs(db, now, limit, quotas)]


async def end(pool: Pool, ids: list[str]) -> None:
    async with pool.connection() as db:
        await db.execute(
            b"UPDATE penstock.connector_runs SET phase = 'succeeded', finished_at = now() WHERE id = ANY(%s)", [ids]
        )


def tenants_of(ids: list[str]) -> Counter[str]:
    return Counter(identifier.split("/")[0] for identifier in ids)


async def test_12_a_tenant_with_a_long_line_gets_no_more_than_its_share(world: World) -> None:
    for name, count in (("big", 30), ("small", 2), ("other", 2)):
        await tenant(world.pool, name, count)
    await wait_in_line(world.pool, [(f"big/{n}", f"big-{n}", None, START) for n in range(30)])
    late = START + timedelta(seconds=30)
    await wait_in_line(
        world.pool, [(f"{who}/{n}", f"{who}-{n}", None, late) for who in ("small", "other") for n in (0, 1)]
    )
    taken = await claim(world.pool, late, 6)
    assert tenants_of(taken) == {"big": 2, "small": 2, "other": 2}


async def test_who_was_served_lately_comes_after_who_was_not_even_when_runs_end_at_once(world: World) -> None:
    await tenant(world.pool, "big", 30)
    await tenant(world.pool, "small", 10)
    await wait_in_line(world.pool, [(f"big/{n:02d}", f"big-{n}", None, START) for n in range(30)])
    order = []
    for second in range(10):
        now = START + timedelta(seconds=second)
        await wait_in_line(world.pool, [(f"small/{second}", f"small-{second}", None, now)])
        taken = await claim(world.pool, now, 1) + await claim(world.pool, now, 1)
        await end(world.pool, taken)
        order.append(tenants_of(taken))
    assert order == [{"big": 1, "small": 1}] * 10, "its older runs do not win again and again"


async def test_a_tenants_limit_holds_and_an_override_goes_before_it(world: World) -> None:
    for name in ("a", "b", "c"):
        await tenant(world.pool, name, 10)
    await wait_in_line(world.pool, [(f"{who}/{n}", f"{who}-{n}", None, START) for who in "abc" for n in range(10)])
    quotas = Quotas(runs_per_tenant=3, tenants={"b": 7})
    taken = [run for _ in range(5) for run in await claim(world.pool, START, 20, quotas)]
    assert tenants_of(taken) == {"a": 3, "b": 7, "c": 3}
    await end(world.pool, [taken_run for taken_run in taken if taken_run.startswith("a")][:2])
    assert tenants_of(await claim(world.pool, START, 20, quotas)) == {"a": 2}


async def test_a_sources_limit_holds_over_all_tenants_and_keeps_nobody_from_another_source(world: World) -> None:
    for name in ("a", "b"):
        await tenant(world.pool, name, 20)
    busy = [(f"{who}/{n:02d}", f"{who}-{n}", "busy.example", START) for who in "ab" for n in range(15)]
    later = START + timedelta(seconds=5)
    free = [(f"a/{n:02d}", f"a-{n}", "free.example", later) for n in range(15, 18)]
    hostless = [("b/18", "b-18", None, later)]
    await wait_in_line(world.pool, [*busy, *free, *hostless])
    quotas = Quotas(runs_per_tenant=6, runs_per_host=4)
    taken = [run for _ in range(6) for run in await claim(world.pool, later, 5, quotas)]
    at_busy = [taken_run for taken_run in taken if int(taken_run.split("/")[1]) < 15]
    assert len(at_busy) == 4
    assert tenants_of(at_busy) == {"a": 2, "b": 2}
    assert {"a/15", "a/16", "a/17", "b/18"} <= set(taken)


async def test_2_two_claimants_at_once_exceed_no_limit_and_take_nothing_twice(world: World) -> None:
    for name in ("a", "b", "c", "d"):
        await tenant(world.pool, name, 25)
    line = [(f"{who}/{n}", f"{who}-{n}", f"host{n % 3}", START) for who in "abcd" for n in range(25)]
    await wait_in_line(world.pool, line)
    quotas = Quotas(runs_per_tenant=5, runs_per_host=6)
    taken = [
        run for got in await asyncio.gather(*(claim(world.pool, START, 7, quotas) for _ in range(12))) for run in got
    ]
    assert len(taken) == len(set(taken))
    assert max(tenants_of(taken).values()) <= 5
    hosts = Counter(f"host{int(taken_run.split('/')[1]) % 3}" for taken_run in taken)
    assert max(hosts.values()) <= 6
    assert len(taken) == 18, "and what there is room for is taken: three sources with six places each"


async def test_a_run_that_a_replica_of_the_version_before_made_counts_too(world: World) -> None:
    await tenant(world.pool, "a", 4)
    await wait_in_line(world.pool, [(f"a/{n}", f"a-{n}", None, START) for n in range(4)])
    async with world.pool.connection() as db:
        await db.execute(b"UPDATE penstock.connector_runs SET tenant = NULL")
    assert len(await claim(world.pool, START, 10, Quotas(runs_per_tenant=3))) == 3


async def test_a_run_is_inserted_with_what_it_counts_against(world: World) -> None:
    async with world.pool.connection() as db:
        await db.execute(
            b"""UPDATE penstock.connector_definitions
                SET manifest = jsonb_set(manifest, '{network}', '{"egress": [{"host": "{{config.host}}"}]}')"""
        )
        new = run_store.NewRun("r1", "c1", "d1", {**SPEC, "config": {"host": "db.sales"}}, token="t")
        assert await run_store.insert_run(db, new)
        (row,) = await many(db, "SELECT tenant, source_host FROM penstock.connector_runs")
    assert row == {"tenant": "team", "source_host": "db.sales"}


async def test_a_waiting_run_says_why_it_waits_and_stops_saying_so(world: World) -> None:
    await tenant(world.pool, "a", 4)
    await tenant(world.pool, "b", 2)
    await wait_in_line(world.pool, [(f"a/{n}", f"a-{n}", None, START) for n in range(4)])
    await wait_in_line(world.pool, [(f"b/{n}", f"b-{n}", "db.sales", START) for n in range(2)])
    quotas = Quotas(runs_per_tenant=3, runs_per_host=1)
    taken = await claim(world.pool, START, 10, quotas)
    assert len(taken) == 4

    async def told(now: datetime, allowed: Quotas) -> tuple[list[str], dict[str, str]]:
        async with world.pool.connection() as db:
            changed = await fairness.tell_waiting(db, now, 100, allowed)
            rows = await many(db, "SELECT id, waits FROM penstock.connector_runs WHERE waits <> ''")
        return changed, {row["id"]: row["waits"] for row in rows}

    assert await told(START + timedelta(seconds=4), quotas) == ([], {}), "a few seconds are nothing to speak of"
    later = START + timedelta(seconds=60)
    changed, reasons = await told(later, quotas)
    assert sorted(reasons.values()) == ["source db.sales has 1 of 1 runs", "tenant a has 3 of 3 runs"]
    assert len(changed) == 2
    assert (await told(later, quotas))[0] == [], "said once"
    assert (await told(later, NO_QUOTAS))[1] == {}
    await told(later, quotas)
    await claim(world.pool, later, 10)
    assert (await told(later, NO_QUOTAS))[1] == {}


async def test_12_one_run_that_cannot_be_claimed_keeps_a_thousand_from_nothing(world: World) -> None:
    await tenant(world.pool, "a", 1001)
    await wait_in_line(world.pool, [(f"a/{n:04d}", f"a-{n}", None, START) for n in range(1001)])
    async with world.pool.connection() as holder, holder.transaction():
        await run_store.lock_run(holder, "a/0000")  # somebody changes its state, and takes long
        taken = [run for _ in range(50) for run in await asyncio.wait_for(claim(world.pool, START, 21), PATIENCE)]
    assert len(set(taken)) == 1000
    assert await claim(world.pool, START, 10) == ["a/0000"]


# --- a tenant at ten times its share ---


class Day:
    """A platform with a simulated clock: so many starts a second, runs that take some seconds, lines due at full minutes."""

    def __init__(self, pool: Pool, starts: int, lasting: int) -> None:
        self._pool, self._starts, self._lasting = pool, starts, lasting
        self.delays: dict[str, list[float]] = defaultdict(list)

    async def go(self, minutes: int, lines: dict[str, int]) -> None:
        due: dict[str, datetime] = {}
        running: deque[tuple[int, list[str]]] = deque()
        for second in range(minutes * 60):
            now = START + timedelta(seconds=second)
            if second % 60 == 0:
                first = second // 60
                rows = [
                    (f"{who}/{second:04d}-{n:03d}", f"{who}-{first * lines[who] + n}", None, now)
                    for who in lines
                    for n in range(lines[who])
                ]
                await wait_in_line(self._pool, rows)
                due |= {row[0]: now for row in rows}
            while running and running[0][0] <= second:
                await end(self._pool, running.popleft()[1])
            taken = await claim(self._pool, now, self._starts)
            running.append((second + self._lasting, taken))
            for id_ in taken:
                self.delays[id_.split("/")[0]].append((now - due[id_]).total_seconds())

    def p99_of_others(self, but: str) -> float:
        found = [delay for who, delays in self.delays.items() if who != but for delay in delays]
        return statistics.quantiles(found, n=100)[98]


@pytest.mark.parametrize("lasting", [0, 8], ids=["instant runs", "runs of eight seconds"])
async def test_12_a_tenant_at_ten_times_its_share_moves_the_others_p99_by_less_than_half(
    world: World, lasting: int
) -> None:
    names = [f"t{n}" for n in range(8)]
    for name in names:  # a connection for each run: those of one would take turns
        await tenant(world.pool, name, 400 if name == "t0" else 40)
    calm, loud = Day(world.pool, 10, lasting), Day(world.pool, 10, lasting)
    await calm.go(2, dict.fromkeys(names, 20))
    async with world.pool.connection() as db:
        await db.execute(b"TRUNCATE penstock.connector_runs CASCADE; TRUNCATE penstock.tenant_turns")
    await loud.go(2, {**dict.fromkeys(names, 20), "t0": 200})
    before, after = calm.p99_of_others("t0"), loud.p99_of_others("t0")
    print(f"others' p99 start: {before:.1f} s, and {after:.1f} s with t0 at ten times its share")
    assert before > 10, "the platform is busy without it, too"
    assert after < before * 1.5
    assert sum(len(delays) for who, delays in loud.delays.items() if who != "t0") == 7 * 40
    assert len(loud.delays["t0"]) == 400, "and what the others leave is not wasted"


# --- a poisoned connection among many ---


class PoisonedLauncher(FakeLauncher):
    """Makes Jobs, but for one connection: its Job is refused, or the API server does not answer for it."""

    def __init__(self, poisoned: str, how: str) -> None:
        super().__init__()
        self._poisoned, self._how = poisoned, how

    async def launch(self, launch: AttemptLaunch) -> str:
        if launch.connection_uid != self._poisoned:
            return await super().launch(launch)
        if self._how == "refused":
            raise LaunchRefused("LaunchRefused", "a quota of the namespace is used up")
        if self._how == "error":
            raise OSError("connection reset")
        await asyncio.Event().wait()
        return ""


@pytest.mark.parametrize("how", ["refused", "error", "hangs"])
async def test_12_one_poisoned_connection_among_a_thousand_delays_none(world: World, how: str) -> None:
    await tenant(world.pool, "a", 1000)
    await wait_in_line(
        world.pool, [(f"a{n:04d}", f"a-{n}", None, START + timedelta(milliseconds=n)) for n in range(1000)]
    )
    launcher = PoisonedLauncher("a-0", how)
    supervisor = Supervisor(world.pool, launcher, Timings())
    async with asyncio.timeout(PATIENCE):
        while len(launcher.launched) < 999:
            await supervisor.launch_pending()
            await asyncio.sleep(0)
    assert len({launch.run_id for launch in launcher.launched}) == 999
    await supervisor.close()


def test_a_waiting_connection_says_so_in_its_status() -> None:
    newest = replace(RUN, id=RunId("r1"), attempt=AttemptNumber(0), waits="tenant a has 3 of 3 runs")
    found = finding_for(CONNECTION, newest)
    assert (found.state, found.message) == ("reconciling", "run r1 waits: tenant a has 3 of 3 runs")
    (shown,) = [column.cell(RunView.model_construct(waits=newest.waits, message="")) for column in COLUMNS[-1:]]
    assert shown == "waits: tenant a has 3 of 3 runs"
