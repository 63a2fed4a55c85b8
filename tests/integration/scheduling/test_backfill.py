"""Backfill: the ticks of a window that have made no run."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from penstock_operator.errors import Invalid
from penstock_operator.scheduling.backfill import BackfillWindow, FilledTick, backfill

from tests.integration.scheduling.tenant import Tenant

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
STREAMS = [{"name": "people", "mode": "incremental"}, {"name": "events", "mode": "full"}]


def midnight() -> datetime:
    return datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)


async def fill(tenant: Tenant, start: datetime, end: datetime, *streams: str) -> list[FilledTick]:
    async with tenant.pool.connection() as db:
        return await backfill(db, "uid-orders", BackfillWindow(start, end, streams), datetime.now(UTC))


async def test_1_only_the_ticks_without_a_run_make_one_and_only_once(tenant: Tenant) -> None:
    await tenant.apply("orders", schedule="@daily")
    end = midnight()
    (middle,) = await fill(tenant, end - 3 * DAY, end - 2 * DAY)
    assert middle.scheduled_at == end - 3 * DAY
    filled = await fill(tenant, end - 5 * DAY, end)
    assert [run.scheduled_at for run in filled] == [end - n * DAY for n in (5, 4, 2, 1)]
    assert await fill(tenant, end - 5 * DAY, end) == []
    assert {run["trigger"] for run in await tenant.runs("orders")} == {"backfill"}


async def test_they_run_one_by_one_behind_what_is_due(tenant: Tenant) -> None:
    await tenant.apply("orders", schedule="@daily")
    filled = await fill(tenant, midnight() - 3 * DAY, midnight())
    (first,) = await tenant.begin()
    assert await tenant.begin() == []
    await tenant.succeed(first.run_id)
    assert await tenant.turn(await tenant.due("orders")) == 1, "what waits in a backfill does not hold a tick up"
    (second,) = await tenant.begin()
    tick = next(run for run in await tenant.runs("orders") if run["trigger"] == "schedule")
    assert second.run_id == tick["id"]
    await tenant.succeed(tick["id"])
    rest = []
    for _ in range(2):
        (taken,) = await tenant.begin()
        rest.append(taken.run_id)
        await tenant.succeed(taken.run_id)
    assert [first.run_id, *rest] == [run.id for run in filled], "oldest first"


async def test_a_replacing_tick_waits_for_a_backfills_run_and_ends_none(tenant: Tenant) -> None:
    await tenant.apply("orders", schedule="@daily", concurrencyPolicy="Replace")
    await fill(tenant, midnight() - 2 * DAY, midnight())
    await tenant.begin()
    assert await tenant.turn(await tenant.due("orders")) == 1
    assert sorted(await tenant.phases("orders")) == ["pending", "pending", "running"]


async def test_it_can_be_limited_to_streams(tenant: Tenant) -> None:
    await tenant.apply("orders", schedule="@daily", streams=STREAMS)
    await fill(tenant, midnight() - DAY, midnight(), "people")
    (made,) = await tenant.runs("orders")
    assert made["spec"]["streams"] == [STREAMS[0]]
    with pytest.raises(Invalid, match="does not select poeple; it does people, events"):
        await fill(tenant, midnight() - 9 * DAY, midnight(), "poeple")


async def test_the_status_tells_of_what_runs_and_not_of_what_waits(tenant: Tenant) -> None:
    await tenant.apply("orders", schedule="@daily")
    await tenant.apply("orders", schedule="@daily", annotations={"penstock.io/requestedAt": "1"})
    done = await tenant.run_one("orders")
    await fill(tenant, midnight() - 3 * DAY, midnight())
    status = await tenant.status("orders")
    assert (status["lastRun"]["id"], status["waitingRuns"]) == (done, 3)


@pytest.mark.parametrize(
    ("spec", "start", "end", "words"),
    [
        ({}, DAY, HOUR, "has no spec.schedule, so there are no ticks to fill"),
        ({"schedule": "@daily"}, HOUR, DAY, "from: must be before to"),
        ({"schedule": "@daily"}, DAY, -HOUR, "to: lies in the future"),
        ({"schedule": "@hourly"}, 5 * DAY, HOUR, "more than 100 ticks without a run"),
        ({"schedule": "* * * * *"}, 3650 * DAY, HOUR, "more than 2000 in all"),
        ({"schedule": "nonsense"}, DAY, HOUR, "is not valid; its Stalled condition says why"),
    ],
)
async def test_what_cannot_be_filled_says_why(
    tenant: Tenant, spec: dict[str, Any], start: timedelta, end: timedelta, words: str
) -> None:
    await tenant.apply("orders", **spec)
    now = datetime.now(UTC)
    with pytest.raises(Invalid, match=words):
        await fill(tenant, now - start, now - end)
    assert await tenant.runs("orders") == []
