"""What becomes of a tick: jitter, deadlines, suspension, changes, and a run that is under way."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from penstock_operator.errors import Fenced

from tests.integration.scheduling.tenant import Tenant
from tests.integration.world import World, checkpoint

QUARTER, HOUR = timedelta(minutes=15), timedelta(hours=1)
OFTEN = "*/15 * * * *"


async def test_jitter_puts_the_run_off_and_leaves_the_tick_its_name(tenant: Tenant) -> None:
    status = await tenant.apply("orders", schedule=OFTEN, jitter="10m")
    off = timedelta(seconds=(await tenant.row("orders")).jitter_seconds)
    assert timedelta() < off < timedelta(minutes=10)
    at = await tenant.due("orders")
    assert (at - off).minute % 15 == (at - off).second == 0
    assert status["nextScheduleTime"] == at.strftime("%Y-%m-%dT%H:%M:%SZ")
    assert await tenant.turn(at - timedelta(seconds=1)) == 0
    assert await tenant.turn(at) == 1
    (made,) = await tenant.runs("orders")
    assert made["scheduled_at"] == at - off
    assert await tenant.due("orders") == at + QUARTER


async def test_jitter_is_the_same_for_a_connection_that_is_made_anew(tenant: Tenant) -> None:
    await tenant.apply("orders", schedule=OFTEN, jitter="1h")
    before = (await tenant.row("orders")).jitter_seconds
    await tenant.sql("UPDATE penstock.tenant_connections SET deleted_at = now() WHERE uid = 'uid-orders'")
    await tenant.apply("orders", schedule="@daily", jitter="1h")
    assert (await tenant.row("orders")).jitter_seconds == before


async def test_jitter_spreads_the_connections(tenant: Tenant) -> None:
    for number in range(20):
        await tenant.apply(f"orders-{number}", schedule=OFTEN, jitter="15m")
    at = {await tenant.due(f"orders-{number}") for number in range(20)}
    assert len(at) >= 18


async def test_forbid_makes_one_run_of_what_was_due_meanwhile_once_the_run_has_ended(tenant: Tenant) -> None:
    await tenant.apply("orders", schedule=OFTEN)
    at = await tenant.due("orders")
    await tenant.turn(at)
    for later in (QUARTER, 2 * QUARTER, 3 * QUARTER):
        assert await tenant.turn(at + later) == 0
    await tenant.run_one("orders")
    await tenant.turn(at + 3 * QUARTER + timedelta(minutes=2))
    first, second = await tenant.runs("orders")
    assert (first["scheduled_at"], second["scheduled_at"]) == (at, at + 3 * QUARTER)


async def test_forbid_skips_a_tick_that_waited_longer_than_its_deadline(tenant: Tenant) -> None:
    await tenant.apply("orders", schedule=OFTEN, startingDeadlineSeconds=60)
    at = await tenant.due("orders")
    await tenant.turn(at)
    await tenant.turn(at + QUARTER)
    await tenant.run_one("orders")
    await tenant.turn(at + QUARTER + timedelta(seconds=61))
    assert len(await tenant.runs("orders")) == 1
    assert await tenant.due("orders") == at + 2 * QUARTER


async def test_replace_fences_the_attempt_and_keeps_what_it_committed(world: World, tenant: Tenant) -> None:
    await tenant.apply("orders", schedule=OFTEN, concurrencyPolicy="Replace")
    at = await tenant.due("orders")
    await tenant.turn(at)
    run_id, attempt, token = await world.attempt()
    await world.protocol.checkpoint(token, checkpoint(1, await world.upload(token)))
    await tenant.turn(at + QUARTER)
    assert await tenant.phases("orders") == ["cancelled", "pending"]
    assert (await tenant.runs("orders"))[0]["reason"] == "RunReplaced"
    with pytest.raises(Fenced):
        await world.protocol.checkpoint(token, checkpoint(2))
    assert await tenant.committed(run_id, attempt)
    _, _, token = await world.attempt("pod2")
    assert (await world.protocol.checkpoint(token, checkpoint(2))).checkpoint == 2, "the new run goes on from there"


async def test_replace_waits_for_a_checkpoint_that_is_being_committed(tenant: Tenant) -> None:
    await tenant.apply("orders", schedule=OFTEN, concurrencyPolicy="Replace")
    at = await tenant.due("orders")
    await tenant.turn(at)
    (taken,) = await tenant.begin()
    async with tenant.pool.connection() as holder, holder.transaction():
        await holder.execute("SELECT 1 FROM penstock.connector_runs WHERE id = %s FOR SHARE", [taken.run_id])
        assert await tenant.turn(at + QUARTER) == 0, "it is not made to wait, and nothing is lost"
    assert await tenant.turn(at + QUARTER) == 1
    assert await tenant.phases("orders") == ["cancelled", "pending"]


async def test_2_allow_makes_a_run_of_each_tick_and_they_take_turns(tenant: Tenant) -> None:
    await tenant.apply("orders", schedule=OFTEN, concurrencyPolicy="Allow")
    at = await tenant.due("orders")
    for number in range(3):
        assert await tenant.turn(at + number * QUARTER) == 1
    order = []
    for _ in range(3):
        (taken,) = await tenant.begin()
        assert await tenant.begin() == [], "one at a time: they share the streams' state"
        order.append(taken.run_id)
        await tenant.succeed(taken.run_id)
    assert order == [run["id"] for run in await tenant.runs("orders")]
    assert [run["scheduled_at"] for run in await tenant.runs("orders")] == [at, at + QUARTER, at + 2 * QUARTER]


async def test_allow_keeps_at_most_ten_runs_and_then_collapses(tenant: Tenant) -> None:
    await tenant.apply("orders", schedule=OFTEN, concurrencyPolicy="Allow")
    at = await tenant.due("orders")
    for number in range(15):
        await tenant.turn(at + number * QUARTER)
    assert len(await tenant.runs("orders")) == 10
    assert (await tenant.status("orders"))["waitingRuns"] == 10
    await tenant.run_one("orders")
    await tenant.turn(at + 15 * QUARTER)
    assert (await tenant.runs("orders"))[-1]["scheduled_at"] == at + 15 * QUARTER


async def test_2_a_run_that_waits_for_a_retry_keeps_its_turn(tenant: Tenant) -> None:
    await tenant.apply("orders", schedule=OFTEN, concurrencyPolicy="Allow")
    at = await tenant.due("orders")
    await tenant.turn(at)
    await tenant.turn(at + QUARTER)
    (first,) = await tenant.begin()
    await tenant.sql(
        "UPDATE penstock.connector_runs SET phase = 'pending', next_attempt_at = 'infinity' WHERE attempt = 1"
    )
    assert await tenant.begin() == [], "its streams may be half read"
    await tenant.sql("UPDATE penstock.connector_runs SET next_attempt_at = now() WHERE attempt = 1")
    (again,) = await tenant.begin()
    assert (again.run_id, again.attempt) == (first.run_id, 2)


async def test_suspension_makes_no_run_and_resuming_makes_one(tenant: Tenant) -> None:
    await tenant.apply("orders", schedule=OFTEN)
    at = await tenant.due("orders")
    await tenant.apply("orders", schedule=OFTEN, suspend=True)
    assert await tenant.turn(at + 40 * QUARTER) == 0
    await tenant.apply("orders", schedule=OFTEN)
    await tenant.turn(at + 40 * QUARTER + timedelta(seconds=5))
    await tenant.turn(at + 40 * QUARTER + timedelta(seconds=10))
    (made,) = await tenant.runs("orders")
    assert made["scheduled_at"] == at + 40 * QUARTER


@pytest.mark.parametrize("change", [{"schedule": "* * * * *"}, {"jitter": "20m"}, {"timeZone": "Asia/Kathmandu"}])
async def test_a_changed_schedule_never_fires_for_the_past(tenant: Tenant, change: dict[str, Any]) -> None:
    await tenant.apply("orders", schedule=OFTEN)
    await tenant.sql("UPDATE penstock.tenant_connections SET next_run_at = now() - interval '3 days'")
    await tenant.apply("orders", **{"schedule": OFTEN, **change})
    assert await tenant.turn(datetime.now(UTC)) == 0
    assert await tenant.due("orders") > datetime.now(UTC)


async def test_1_a_request_finds_room_as_the_policy_says(tenant: Tenant) -> None:
    for name, policy, phases in (
        ("forbid", "Forbid", ["running"]),
        ("replace", "Replace", ["cancelled", "pending"]),
        ("allow", "Allow", ["running", "pending"]),
    ):
        await tenant.apply(name, concurrencyPolicy=policy, annotations={"penstock.io/requestedAt": "one"})
        await tenant.begin()
        status = await tenant.apply(name, concurrencyPolicy=policy, annotations={"penstock.io/requestedAt": "two"})
        assert await tenant.phases(name) == phases
        assert status["lastHandledRequest"] == ("one" if policy == "Forbid" else "two")
    await tenant.succeed((await tenant.runs("forbid"))[0]["id"])
    assert (await tenant.status("forbid"))["lastHandledRequest"] == "two", "it was not forgotten"
    assert await tenant.phases("forbid") == ["succeeded", "pending"]


async def test_12_a_connection_that_cannot_be_scheduled_delays_nobody(tenant: Tenant) -> None:
    for name in ("bad", "good"):
        await tenant.apply(name, schedule=OFTEN)
    await tenant.sql("UPDATE penstock.tenant_connections SET schedule = 'nonsense' WHERE name = 'bad'")
    at = await tenant.due("good")
    await tenant.turn(at)
    assert await tenant.phases("good") == ["pending"]
    assert await tenant.phases("bad") == []
    assert (await tenant.row("bad")).paused_until > datetime.now(UTC), "it is put aside for a while"
