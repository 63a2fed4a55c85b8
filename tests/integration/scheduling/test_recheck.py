"""A failure that is mended outside of the resource, as by a rotated Secret, ends without anybody asking for a run."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from penstock_operator.registry.database import Row, execute, many
from penstock_operator.runs import transitions
from penstock_operator.runs.attempt_store import AttemptOutcome
from penstock_operator.scheduling.recheck import MENDED_ELSEWHERE, recheck_failed

from tests.integration.world import World

FIRST = 300.0


async def failed(world: World, run_id: str, reason: str, seconds: float) -> None:
    """Let a run fail for good; `seconds` ago."""
    await world.new_run(run_id, token=run_id)
    claimed, attempt, _ = await world.attempt(f"pod-{run_id}")
    await again(world, claimed, attempt, reason)
    async with world.pool.connection() as db:
        await execute(
            db,
            "UPDATE penstock.connector_runs SET finished_at = now() - %(s)s * interval '1 s' WHERE id = %(id)s",
            s=seconds,
            id=claimed,
        )


async def again(world: World, run_id: str, attempt: int, reason: str) -> None:
    async with world.pool.connection() as db:
        assert await transitions.fail_current(
            db, run_id, attempt, AttemptOutcome("failed", reason, "ConfigError", "why")
        )


async def rechecks(world: World) -> list[Row]:
    async with world.pool.connection() as db:
        return await many(db, "SELECT * FROM penstock.connector_runs WHERE trigger = 'recheck' ORDER BY id")


async def look(world: World, first: float = FIRST) -> int:
    return await recheck_failed(world.pool, datetime.now(UTC), first)


@pytest.mark.parametrize("reason", MENDED_ELSEWHERE)
async def test_what_is_mended_elsewhere_is_looked_at_again_once(world: World, reason: str) -> None:
    await failed(world, "000", reason, FIRST - 60)
    assert await look(world) == 0, "not yet"
    await failed(world, "001", reason, 2 * FIRST)
    assert await look(world) == 0, "the second failure in a row is given three times as long"
    async with world.pool.connection() as db:
        await execute(db, "UPDATE penstock.tenant_connections SET failures = 1")
    assert await look(world) == 1
    assert await look(world) == 0, "it is under way"
    assert [recheck["token"] for recheck in await rechecks(world)] == ["recheck:001"]


async def test_waits_grow_to_an_hour_and_no_longer(world: World) -> None:
    await failed(world, "000", "AuthenticationError", 3599)
    async with world.pool.connection() as db:
        await execute(db, "UPDATE penstock.tenant_connections SET failures = 50")
    assert await look(world) == 0
    later = datetime.now(UTC) + timedelta(seconds=2)
    assert await recheck_failed(world.pool, later, FIRST) == 1


async def test_a_recheck_that_fails_is_a_failure_and_one_that_succeeds_ends_them(world: World) -> None:
    await failed(world, "000", "AuthenticationError", FIRST)
    assert await look(world) == 1
    run_id, attempt, _ = await world.attempt("pod-recheck")
    await again(world, run_id, attempt, "AuthenticationError")
    async with world.pool.connection() as db:
        (row,) = await many(db, "SELECT failures FROM penstock.tenant_connections")
    assert row["failures"] == 2


@pytest.mark.parametrize("reason", ["ConfigError", "SourceContractError", "DefectError", "TransientError"])
async def test_other_failures_wait_for_a_tick_or_a_request(world: World, reason: str) -> None:
    await failed(world, "000", reason, 10 * FIRST)
    assert await look(world) == 0


@pytest.mark.parametrize("change", ["suspended = true", "ready = false", "deleted_at = now()", "failures = 0"])
async def test_a_connection_that_runs_nothing_is_left_alone(world: World, change: str) -> None:
    await failed(world, "000", "SecretNotFound", 10 * FIRST)
    async with world.pool.connection() as db:
        await execute(db, f"UPDATE penstock.tenant_connections SET {change}")
    assert await look(world) == 0


async def test_rechecks_can_be_turned_off(world: World) -> None:
    await failed(world, "000", "SecretNotFound", 10 * FIRST)
    assert await look(world, first=0.0) == 0
