"""A connection that goes, or only seems to: its runs end, whoever is killed meanwhile, and it is due again when it is back."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from typing import Any

import pytest
from penstock_operator.connections import connection_records, connection_store
from penstock_operator.controller.orchestrator import Components, Orchestrator
from penstock_operator.controller.resync.new_connections import record_new
from penstock_operator.launchers.process import ProcessLauncher
from penstock_operator.resources.documents import Connection
from penstock_operator.resources.models import Kind
from penstock_operator.runs import run_store
from penstock_operator.settings import Timings

from tests.fakes.resources import FakeResources
from tests.integration.world import World
from tests.reconciling import reconcile

NEW = {"uid": "c9", "namespace": "team"}


@pytest.fixture
def listing() -> FakeResources:
    """A listing that has the definition and misses the connection."""
    resources = FakeResources()
    resources.put({"kind": "ConnectorDefinition", "metadata": {"uid": "d1", "name": "faker-generate-0.1.0"}})
    return resources


@pytest.fixture
def orchestrator(world: World, listing: FakeResources, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> Orchestrator:
    monkeypatch.setattr(
        "penstock_operator.controller.resync.sweeper.DEFINITIONS_SECONDS", 0.01
    )  # no worker handles them
    launcher = ProcessLauncher(lambda: "", tmp_path, lambda _namespace, _name: None, lambda job: job)
    return Orchestrator(Components(world.pool, listing, launcher, world.store, Timings(), launcher.logs))


def document(world: World) -> dict[str, Any]:
    spec = {**world.spec, "schedule": "@hourly"}
    metadata = {"uid": "c1", "namespace": "team", "name": "orders"}
    return {"apiVersion": "penstock.io/v1alpha1", "kind": "TenantConnection", "metadata": metadata, "spec": spec}


async def test_10_runs_of_a_connection_end_though_the_operator_was_killed_while_it_forgot_it(
    world: World, orchestrator: Orchestrator
) -> None:
    await world.new_run()
    async with world.pool.connection() as db:
        assert await connection_records.retire_connection(db, "team", "orders")
    await orchestrator.sweeper.sweep()
    async with world.pool.connection() as db:
        assert await run_store.active_runs(db, "c1") == []


async def test_9_a_connection_that_came_during_the_listing_is_not_retired(
    world: World, orchestrator: Orchestrator, listing: FakeResources
) -> None:
    await world.new_run()

    async def reconciled(kind: Kind) -> None:
        if kind == "TenantConnection":
            await reconcile(world.pool, document(world))

    listing.before_list = reconciled
    orchestrator.sweeper.registered.set()
    await orchestrator.sweeper.sweep()
    async with world.pool.connection() as db:
        row = await connection_store.connection_by_uid(db, "c1")
        assert row is not None
        assert row.deleted_at is None
        assert len(await run_store.active_runs(db, "c1")) == 1


async def test_10_a_connection_that_goes_while_all_are_put_on_schedule_is_retired_at_once(
    world: World, orchestrator: Orchestrator, listing: FakeResources
) -> None:
    """The watch, which begins after it, has nothing to say of it."""
    lists = Counter[Kind]()

    async def recorded(kind: Kind) -> None:
        lists[kind] += 1
        if kind == "TenantConnection" and lists[kind] == 1:
            new = {**document(world), "metadata": {**NEW, "name": "short-lived"}}
            assert await record_new(world.pool, [Connection.parse(new)]) == 1

    listing.before_list = recorded
    await orchestrator.sweeper.sweep()
    async with world.pool.connection() as db:
        row = await connection_store.connection_by_uid(db, NEW["uid"])
    assert row is not None
    assert row.deleted_at is not None


async def test_9_a_connection_that_was_missed_once_is_due_again(world: World, orchestrator: Orchestrator) -> None:
    await reconcile(world.pool, document(world))
    await orchestrator.sweeper.sweep()
    await reconcile(world.pool, document(world))
    async with world.pool.connection() as db:
        row = await connection_store.connection_by_uid(db, "c1")
    assert row is not None
    assert row.deleted_at is None
    assert row.next_run_at > datetime.now(UTC)
