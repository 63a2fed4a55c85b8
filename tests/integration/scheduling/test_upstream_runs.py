"""`after`: a connection that runs when others have succeeded."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from penstock_operator.scheduling import upstream_store

from tests.integration.scheduling.tenant import Tenant

REQUEST = "penstock.io/requestedAt"
AFTER_BOTH = [{"name": "orders"}, {"name": "customers"}]


async def succeed(tenant: Tenant, name: str, token: str) -> None:
    await tenant.apply(name, annotations={REQUEST: token})
    await tenant.run_one(name)


async def look(tenant: Tenant) -> None:
    await tenant.turn(datetime.now(UTC) + timedelta(seconds=5))


@pytest.fixture
async def three(tenant: Tenant) -> Tenant:
    for name in ("orders", "customers"):
        await tenant.apply(name)
    await tenant.apply("report", after=AFTER_BOTH)
    return tenant


async def test_a_run_is_made_when_all_have_succeeded_newly(three: Tenant) -> None:
    await succeed(three, "orders", "1")
    await look(three)
    assert await three.runs("report") == [], "one is not all"
    await succeed(three, "orders", "2")
    await succeed(three, "customers", "1")
    await look(three)
    (made,) = await three.runs("report")
    assert made["trigger"] == "upstream"
    await three.run_one("report")
    await look(three)
    assert len(await three.runs("report")) == 1, "a success is followed once"
    await succeed(three, "customers", "2")
    await look(three)
    assert len(await three.runs("report")) == 1
    await succeed(three, "orders", "3")
    await look(three)
    assert len(await three.runs("report")) == 2


async def test_1_several_schedulers_make_one_run_of_the_same_successes(three: Tenant) -> None:
    await succeed(three, "orders", "1")
    await succeed(three, "customers", "1")
    await asyncio.gather(*(look(three) for _ in range(5)))
    assert len(await three.runs("report")) == 1


async def test_successes_while_the_run_is_under_way_make_the_next_one(three: Tenant) -> None:
    for token in ("1", "2", "3"):
        await succeed(three, "orders", token)
        await succeed(three, "customers", token)
        await look(three)
        if token == "1":
            await three.begin()
    assert await three.phases("report") == ["running"]
    await three.run_one("report")
    await look(three)
    assert await three.phases("report") == ["succeeded", "pending"], "those of 2 and 3 collapse to one"


async def test_a_success_of_the_past_does_not_count(tenant: Tenant) -> None:
    await tenant.apply("orders")
    await succeed(tenant, "orders", "1")
    await tenant.apply("report", after=[{"name": "orders"}])
    await look(tenant)
    assert await tenant.runs("report") == []


async def test_a_failed_run_upstream_starts_nothing(three: Tenant) -> None:
    await succeed(three, "orders", "1")
    await three.apply("customers", annotations={REQUEST: "1"})
    (begun,) = await three.begin()
    assert await three.fail(begun.run_id) == "failed"
    await three.deliver()
    await look(three)
    assert await three.runs("report") == []


async def test_a_suspended_connection_follows_once_when_it_is_resumed(three: Tenant) -> None:
    await three.apply("report", after=AFTER_BOTH, suspend=True)
    for token in ("1", "2"):
        await succeed(three, "orders", token)
        await succeed(three, "customers", token)
        await look(three)
    assert await three.runs("report") == []
    await three.apply("report", after=AFTER_BOTH)
    for _ in range(3):
        await look(three)
    assert len(await three.runs("report")) == 1


async def test_an_upstream_that_is_missing_is_named_until_it_comes(tenant: Tenant) -> None:
    status = await tenant.apply("report", after=[{"name": "invoices"}])
    (ready, stalled) = status["conditions"]
    assert (ready["status"], stalled["type"], stalled["reason"]) == ("False", "Stalled", "UpstreamNotFound")
    assert "spec.after[0].name: there is no connection invoices in namespace team" in stalled["message"]
    await tenant.apply("invoices")
    assert reasons(tenant, "report") == ["AwaitingRun"], "it is looked at again by itself"
    await tenant.sql("UPDATE penstock.tenant_connections SET deleted_at = now() WHERE name = 'invoices'")
    assert (await tenant.status("report"))["conditions"][0]["reason"] == "UpstreamNotFound"


async def test_a_cycle_is_refused_by_name_and_nothing_runs_in_circles(tenant: Tenant) -> None:
    await tenant.apply("a")
    await tenant.apply("b", after=[{"name": "a"}])
    await tenant.apply("c", after=[{"name": "b"}])
    await tenant.apply("a", after=[{"name": "c"}])
    for name in ("a", "b", "c"):
        assert reasons(tenant, name) == ["UpstreamCycle"] * 2
    message = tenant.documents["a"]["status"]["conditions"][0]["message"]
    assert "a follows c follows b follows a" in message
    await tenant.apply("a", after=[{"name": "c"}], annotations={REQUEST: "1"})
    await tenant.run_one("a")
    await look(tenant)
    assert await tenant.runs("b") == [], "a request still runs one of them, and that is all"
    await tenant.apply("a")
    assert [reasons(tenant, name) for name in ("b", "c")] == [["AwaitingRun"]] * 2, "the cycle is broken"
    await succeed(tenant, "a", "2")
    await look(tenant)
    assert len(await tenant.runs("b")) == 1


async def test_the_schedule_and_after_exclude_each_other(tenant: Tenant) -> None:
    status = await tenant.apply("report", schedule="@daily", after=[{"name": "orders"}])
    assert "set schedule or after, not both" in status["conditions"][0]["message"]


async def test_a_connection_of_the_same_name_in_another_namespace_is_not_followed(three: Tenant) -> None:
    await three.sql("UPDATE penstock.tenant_connections SET namespace = 'other' WHERE name = 'customers'")
    await succeed(three, "orders", "1")
    await three.sql("UPDATE penstock.tenant_connections SET last_success_run = 'r' WHERE name = 'customers'")
    async with three.pool.connection() as db:
        await upstream_store.wake_followers(db, "team", datetime.now(UTC))
    await look(three)
    assert await three.runs("report") == []


def reasons(tenant: Tenant, name: str) -> list[Any]:
    return [condition["reason"] for condition in tenant.documents[name]["status"]["conditions"]]
