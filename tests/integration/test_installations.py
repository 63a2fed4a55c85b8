"""20: two installations in one cluster never work on the same connection, whatever their scopes are."""

from __future__ import annotations

import asyncio
import os
import random
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import psycopg
import pytest
from penstock_operator.bronze.store import BronzeStore
from penstock_operator.connections.connection_store import ConnectionRow, connection_by_uid
from penstock_operator.controller.bucket_claim import ForeignBucketError, claim_bucket
from penstock_operator.controller.orchestrator import Components, Orchestrator
from penstock_operator.controller.resource_client import R
from penstock_operator.ids import ConnectionUid
from penstock_operator.launchers.logs import FileLogs
from penstock_operator.registry import installation
from penstock_operator.registry.database import Pool, create_pool, many
from penstock_operator.registry.migrate import migrate
from penstock_operator.resources.documents import Connection, Document, Resource, ResourceStatus
from penstock_operator.resources.models import REQUESTED_AT
from penstock_operator.resources.scope import EVERYTHING, Scope
from penstock_operator.restore.reconcile import reconcile_registry
from penstock_operator.runs import run_store
from penstock_operator.runs.run_store import NewRun
from penstock_operator.settings import S3Settings, Timings

from tests.fakes.launcher import FakeLauncher
from tests.fakes.resources import FakeResources
from tests.integration.test_sweep import COUNT, DEFINITION, connection, definition, key

SEEDS = range(int(os.environ.get("INSTALLATION_SEEDS") or "6"))
STEPS = 40


class Seen:
    """The API server as one installation lists it: what its selector and its namespaces leave out is not there."""

    def __init__(self, server: FakeResources, scope: Scope) -> None:
        self._server, self.scope = server, scope

    async def get(self, kind: type[R], namespace: str, name: str) -> R | None:
        await asyncio.sleep(0)
        return await self._server.get(kind, namespace, name)

    async def pages(self, kind: type[R]) -> AsyncIterator[list[R]]:
        async for page in self._server.pages(kind):
            yield [resource for resource in page if kind is not Connection or self._covers(resource)]

    def _covers(self, resource: Resource) -> bool:
        return self.scope.covers(resource.metadata.namespace, resource.metadata.labels)

    async def namespace_uid(self, namespace: str) -> str | None:
        return f"uid of {namespace}"

    async def write_status(self, resource: Resource, status: ResourceStatus) -> str | None:
        await asyncio.sleep(0)
        return await self._server.write_status(resource, status)


@dataclass
class Installed:
    """One installation, whose queue is worked by hand."""

    pool: Pool
    parts: Components
    id: str
    orchestrator: Orchestrator = field(init=False)

    def __post_init__(self) -> None:
        self.orchestrator = Orchestrator(self.parts)

    async def sweep(self) -> None:
        """List everything, with workers for what that queues."""
        working = asyncio.create_task(self.orchestrator.queue.work())
        try:
            await self.orchestrator.sweeper.sweep()
            while not self.orchestrator.queue.is_idle:
                await asyncio.sleep(0.005)
        finally:
            working.cancel()
            await asyncio.gather(working, return_exceptions=True)

    async def works_on(self) -> set[str]:
        """Return the connections that it may run, or is running."""
        async with self.pool.connection() as opened:
            rows = await many(
                opened,
                "SELECT c.uid FROM penstock.tenant_connections c WHERE c.deleted_at IS NULL AND (c.ready OR EXISTS (SELECT 1"
                " FROM penstock.connector_runs r WHERE r.connection_uid = c.uid AND r.phase IN ('pending', 'running')))",
            )
        return {row["uid"] for row in rows}

    async def row(self, uid: str) -> ConnectionRow | None:
        async with self.pool.connection() as opened:
            return await connection_by_uid(opened, ConnectionUid(uid))


@pytest.fixture
def server() -> FakeResources:
    made = FakeResources()
    made.put(definition())
    for number in range(COUNT):
        made.put(labelled(number))
    return made


def labelled(number: int, **metadata: Any) -> Document:
    document = connection(number)
    document["metadata"] |= {"labels": {"side": "left" if number % 2 else "right"}, **metadata}
    return document


@pytest.fixture
async def registries(postgres_url: str) -> AsyncIterator[list[Pool]]:
    """A registry for each of two installations."""
    names, pools = [f"i{uuid.uuid4().hex}" for _ in range(2)], list[Pool]()
    with psycopg.connect(postgres_url, autocommit=True) as opened:
        for name in names:
            opened.execute(f"CREATE DATABASE {name}")
            url = postgres_url.rsplit("/", 1)[0] + f"/{name}"
            await migrate(url)
            pools.append(create_pool(url, size=8))
            await pools[-1].open(wait=True)
        yield pools
        for pool in pools:
            await pool.close()
        for name in names:
            opened.execute(f"DROP DATABASE {name} WITH (FORCE)")


@dataclass
class Two:
    """Two installations on one API server."""

    pools: list[Pool]
    server: FakeResources
    store: BronzeStore
    directory: Path

    async def installed(self, number: int, scope: Scope = EVERYTHING) -> Installed:
        """Return one of them as it begins, with its scope."""
        async with self.pools[number].connection() as opened:
            id_ = await installation.installation_id(opened)
        logs, seen = FileLogs(self.directory), Seen(self.server, scope)
        parts = Components(
            self.pools[number],
            seen,
            FakeLauncher(),
            self.store,
            Timings(),
            logs,
            installation=id_,
            scope=scope,
        )
        return Installed(self.pools[number], parts, id_)


@pytest.fixture
def two(registries: list[Pool], server: FakeResources, store: BronzeStore, tmp_path: Path) -> Two:
    return Two(registries, server, store, tmp_path)


async def begin_run(one: Installed, uid: str) -> None:
    row = await one.row(uid)
    assert row
    async with one.pool.connection() as opened:
        await run_store.insert_run(
            opened, NewRun(f"run-{uid}", uid, row.definition_uid, row.spec.document(), token="t")
        )


async def test_20_installations_whose_scopes_overlap_share_no_connection(two: Two, server: FakeResources) -> None:
    first, second = await two.installed(0), await two.installed(1)
    await asyncio.gather(first.sweep(), second.sweep())
    await asyncio.gather(first.sweep(), second.sweep())
    mine, others = await first.works_on(), await second.works_on()
    assert not mine & others
    assert len(mine | others) == COUNT
    for number in range(COUNT):
        owner = server.documents[key(number)]["status"]["installation"]
        assert owner == (first.id if f"c{number}" in mine else second.id)


async def test_two_installations_do_not_undo_each_others_status_of_a_definition(
    two: Two, server: FakeResources
) -> None:
    first, second = await two.installed(0), await two.installed(1)
    await asyncio.gather(first.sweep(), second.sweep())
    for _ in range(5):
        for one in (first, second):
            one.orchestrator.sweeper.changed(DEFINITION, server.version(DEFINITION))
            await one.sweep()
    server.written.clear()
    for _ in range(5):
        await asyncio.gather(first.sweep(), second.sweep())
    assert server.written == []


async def test_installations_with_scopes_apart_have_each_its_own(two: Two, server: FakeResources) -> None:
    left, right = await two.installed(0, Scope((), "side=left")), await two.installed(1, Scope((), "side!=left"))
    await asyncio.gather(left.sweep(), right.sweep())
    assert await left.works_on() == {f"c{number}" for number in range(COUNT) if number % 2}
    assert await right.works_on() == {f"c{number}" for number in range(COUNT) if not number % 2}


async def test_a_connection_that_leaves_the_scope_is_let_go_and_nothing_of_it_is_deleted(
    two: Two, server: FakeResources
) -> None:
    left = await two.installed(0, Scope(("team-1", "team-3"), "side=left"))
    await left.sweep()
    assert await left.works_on() == {f"c{number}" for number in range(COUNT) if number % 2 and number % 5 in (1, 3)}
    await begin_run(left, "c1")
    changed = labelled(1, labels={"side": "right"})
    changed["status"] = server.documents[key(1)]["status"]
    server.put(changed)
    await left.sweep()
    assert "c1" not in await left.works_on()
    row = await left.row("c1")
    assert row
    assert (row.deleted_at, row.released_at is None) == (None, False)
    narrower = await two.installed(0, Scope(("team-3",)))
    await narrower.sweep()
    assert await narrower.works_on() == {f"c{number}" for number in range(COUNT) if number % 5 == 3}
    wider = await two.installed(0)
    await wider.sweep()
    assert len(await wider.works_on()) == COUNT, "what was let go is taken up again"


async def test_what_is_deleted_is_retired_with_a_scope_too(two: Two, server: FakeResources) -> None:
    left = await two.installed(0, Scope((), "side=left"))
    await left.sweep()
    del server.documents[key(1)]
    await left.sweep()
    row = await left.row("c1")
    assert row
    assert row.deleted_at is not None


async def test_20_a_connection_that_another_installation_took_over_is_let_go(two: Two, server: FakeResources) -> None:
    first, second = await two.installed(0), await two.installed(1)
    await first.sweep()
    await begin_run(first, "c1")
    document = server.documents[key(1)]
    server.put({**document, "status": {**document["status"], "installation": second.id}})
    await first.sweep()
    assert "c1" not in await first.works_on()
    await second.sweep()
    assert await second.works_on() == {"c1"}


async def test_an_installation_that_lost_its_registry_goes_on_under_its_id(two: Two, server: FakeResources) -> None:
    first, second = await two.installed(0), await two.installed(1)
    await first.sweep()
    await second.sweep()
    assert await second.works_on() == set()
    async with second.pool.connection() as opened:
        assert await installation.set_installation_id(opened, first.id)
        assert not await installation.set_installation_id(opened, first.id)
    again = await two.installed(1)
    await again.sweep()
    assert len(await again.works_on()) == COUNT


@pytest.mark.parametrize("seed", SEEDS)
async def test_20_no_order_of_events_gives_a_connection_to_both(two: Two, server: FakeResources, seed: int) -> None:
    """Sweeps, events, edits, deletions, new scopes and restarts at random; looked at after each step."""
    chance = random.Random(seed)
    scopes = (
        EVERYTHING,
        Scope((), "side=left"),
        Scope((), "side!=left"),
        Scope(("team-1", "team-2")),
        Scope(("team-2",)),
    )
    both = [await two.installed(0, chance.choice(scopes)), await two.installed(1, chance.choice(scopes))]
    for step in range(STEPS):
        number, one = chance.randrange(COUNT), chance.randrange(2)
        match chance.randrange(6):
            case 0:
                await asyncio.gather(*(tenant.sweep() for tenant in both))
            case 1:
                both[one] = await two.installed(one, chance.choice(scopes))
            case 2 if key(number) in server.documents:
                del server.documents[key(number)]
            case 3 if key(number) not in server.documents:
                server.put(labelled(number, uid=f"c{number}-{step}"))
            case 4 if key(number) in server.documents:
                edited = labelled(number, labels={"side": chance.choice(["left", "right"])})
                edited["metadata"]["uid"] = server.documents[key(number)]["metadata"]["uid"]
                edited["metadata"]["annotations"] = {REQUESTED_AT: str(step)}
                server.put({**edited, "status": server.documents[key(number)].get("status", {})})
            case _:
                await both[one].sweep()
        mine, others = [await tenant.works_on() for tenant in both]
        assert not mine & others, f"step {step}"


async def test_a_prefix_belongs_to_one_registry(store: BronzeStore, s3_server: S3Settings) -> None:
    await asyncio.gather(*(claim_bucket(store, "one") for _ in range(3)))
    with pytest.raises(ForeignBucketError, match="belongs to installation one") as refused:
        await claim_bucket(store, "two")
    assert "s3.prefix" in str(refused.value)
    assert "installation.id" in str(refused.value)
    await claim_bucket(BronzeStore(replace(s3_server, prefix=uuid.uuid4().hex)), "two")


async def test_a_registry_that_was_lost_gets_its_id_back_from_the_bucket(pool: Pool, store: BronzeStore) -> None:
    async with pool.connection() as opened:
        new = await installation.installation_id(opened)
        await claim_bucket(store, "the lost one")
        await reconcile_registry(pool, store, dry_run=True)
        assert await installation.installation_id(opened) == new
        await reconcile_registry(pool, store)
        assert await installation.installation_id(opened) == "the lost one"
    await claim_bucket(store, "the lost one")
