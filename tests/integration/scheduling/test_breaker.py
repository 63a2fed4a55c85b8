"""A connection that keeps failing is left alone for longer and longer, and says so."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from penstock_operator.runs.retry import AttemptFailure

from tests.integration.scheduling.tenant import Tenant

MINUTE = timedelta(minutes=1)
EVERY_MINUTE = "* * * * *"


async def fail_on_schedule(tenant: Tenant, times: int, **spec: Any) -> datetime:
    """Fail so many runs in a row, and return the time of the last tick."""
    await tenant.apply("orders", schedule=EVERY_MINUTE, **spec)
    at = await tenant.due("orders")
    for number in range(times):
        at = await tenant.due("orders") if number else at
        await tenant.turn(at)
        (begun,) = await tenant.begin()
        assert await tenant.fail(begun.run_id) == "failed"
    return at


async def test_two_failed_runs_pause_nothing(tenant: Tenant) -> None:
    at = await fail_on_schedule(tenant, 2)
    assert await tenant.turn(at + MINUTE) == 1
    assert (await tenant.status("orders"))["consecutiveFailures"] == 2


async def test_a_third_one_pauses_the_schedule_and_the_status_says_until_when(tenant: Tenant) -> None:
    at = await fail_on_schedule(tenant, 3)
    status = await tenant.status("orders")
    conditions = {condition["type"]: condition for condition in status["conditions"]}
    until = (await tenant.row("orders")).paused_until
    assert conditions["Ready"]["reason"] == "ConfigError", "the cause stays in sight"
    assert (conditions["Paused"]["status"], conditions["Paused"]["reason"]) == ("True", "CircuitOpen")
    assert until.strftime("%Y-%m-%dT%H:%M:%SZ") in conditions["Paused"]["message"]
    assert status["nextScheduleTime"] == max(until, at + MINUTE).strftime("%Y-%m-%dT%H:%M:%SZ")
    assert 295 < (until - datetime.now(UTC)).total_seconds() <= 300
    assert await tenant.turn(until - timedelta(seconds=1)) == 0
    assert await tenant.turn(until + MINUTE) == 1, "then the ticks of the pause collapse to one"
    (begun,) = await tenant.begin()
    await tenant.fail(begun.run_id)
    longer = (await tenant.row("orders")).paused_until
    assert 595 < (longer - datetime.now(UTC)).total_seconds() <= 600


async def test_a_success_closes_the_circuit(tenant: Tenant) -> None:
    await fail_on_schedule(tenant, 3)
    await tenant.turn((await tenant.row("orders")).paused_until + MINUTE)
    await tenant.run_one("orders")
    row = await tenant.row("orders")
    assert (row.failures, row.paused_until) == (0, None)


@pytest.mark.parametrize("change", [{"timeout": "3h"}, {"config": {"records": 7}}])
async def test_a_changed_spec_closes_the_circuit(tenant: Tenant, change: dict[str, Any]) -> None:
    at = await fail_on_schedule(tenant, 3)
    await tenant.reconcile("orders")
    assert (await tenant.row("orders")).paused_until is not None, "looking at it again changes nothing"
    status = await tenant.apply("orders", schedule=EVERY_MINUTE, **change)
    assert [condition["type"] for condition in status["conditions"] if condition["type"] == "Paused"] == []
    assert await tenant.turn(at + MINUTE) == 1


async def test_a_changed_definition_closes_the_circuit(tenant: Tenant) -> None:
    await fail_on_schedule(tenant, 3)
    await tenant.sql(
        "INSERT INTO penstock.connector_definitions SELECT 'd2', 'faker-generate-0.2.0', connector, method, '0.2.0', image,"
        " stage, manifest, 1 FROM penstock.connector_definitions WHERE uid = 'd1'"
    )
    await tenant.reconcile("orders")
    assert (await tenant.row("orders")).paused_until is None


async def test_a_request_closes_the_circuit(tenant: Tenant) -> None:
    await fail_on_schedule(tenant, 3)
    await tenant.apply("orders", schedule=EVERY_MINUTE, annotations={"penstock.io/requestedAt": "try"})
    row = await tenant.row("orders")
    assert (row.failures, row.paused_until) == (0, None)


async def test_an_attempt_that_is_tried_again_is_no_failed_run(tenant: Tenant) -> None:
    await tenant.apply("orders", schedule=EVERY_MINUTE)
    await tenant.turn(await tenant.due("orders"))
    for _ in range(3):
        (begun,) = await tenant.begin()
        assert await tenant.fail(begun.run_id, AttemptFailure("TransientError")) == "pending"
    assert (await tenant.row("orders")).failures == 0


async def test_memory_and_disruptions_are_carried_from_attempt_to_attempt(tenant: Tenant) -> None:
    resources = {"limits": {"memory": "64Mi"}, "onOutOfMemory": {"max": "128Mi"}}
    await tenant.apply("orders", schedule=EVERY_MINUTE, resources=resources)
    await tenant.turn(await tenant.due("orders"))
    expected = [(None, 1), (None, 2), ("128Mi", 0), ("128Mi", 1)]
    lost, oom = AttemptFailure("TransientError", disrupted=True), AttemptFailure("DefectError", out_of_memory=True)
    for failure, (memory, disruptions) in zip((lost, lost, oom, lost), expected, strict=True):
        (begun,) = await tenant.begin()
        assert await tenant.fail(begun.run_id, failure) == "pending"
        (run,) = await tenant.runs("orders")
        assert (run["memory"], run["disruptions"]) == (memory, disruptions)


async def test_a_ceiling_below_the_limit_is_refused_by_name(tenant: Tenant) -> None:
    resources = {"limits": {"memory": "1Gi"}, "onOutOfMemory": {"max": "512Mi"}}
    status = await tenant.apply("orders", resources=resources)
    assert "onOutOfMemory.max must be more than limits.memory" in (status["conditions"][0]["message"])
