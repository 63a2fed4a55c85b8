"""What a sweep and a watch make the controller do: all that differs, and nothing where nothing does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from penstock_operator.bronze.store import BronzeStore
from penstock_operator.connections.connection_store import ConnectionRow, connection_by_name
from penstock_operator.controller.health import Health
from penstock_operator.controller.orchestrator import Components, Orchestrator, repeat_step
from penstock_operator.controller.resource_client import R
from penstock_operator.controller.resync.new_connections import record_new
from penstock_operator.controller.workqueue import Key
from penstock_operator.launchers.logs import FileLogs
from penstock_operator.registry.database import Pool, execute, many
from penstock_operator.resources.documents import Connection, Document, Resource
from penstock_operator.resources.models import REQUESTED_AT
from penstock_operator.settings import Timings

from tests.fakes.launcher import FakeLauncher
from tests.fakes.resources import FakeResources
from tests.integration.world import MANIFEST
from tests.patience import PATIENCE

DEFINITION: Key = ("ConnectorDefinition", "", "faker-generate-0.1.0")
SETTLING_SWEEPS = 3
COUNT = 30


def definition(name: str = "faker", stage: str = "certified") -> Document:
    manifest = {**MANIFEST, "name": name}
    spec = {"image": f"i@sha256:{'0' * 64}", "stage": stage, "manifest": manifest}
    metadata = {"name": f"{name}-generate-0.1.0", "uid": f"uid-{name}", "generation": 1}
    return {"apiVersion": "penstock.io/v1alpha1", "kind": "ConnectorDefinition", "metadata": metadata, "spec": spec}


def connection(number: int, connector: str = "faker", **annotations: str) -> Document:
    metadata = {"name": f"c{number}", "namespace": f"team-{number % 5}", "uid": f"c{number}", "generation": 1}
    spec = {"connector": {"name": connector, "method": "generate"}, "schedule": "@hourly"}
    metadata["annotations"] = annotations
    return {"apiVersion": "penstock.io/v1alpha1", "kind": "TenantConnection", "metadata": metadata, "spec": spec}


def key(number: int) -> Key:
    return ("TenantConnection", f"team-{number % 5}", f"c{number}")


@pytest.fixture
def server() -> FakeResources:
    made = FakeResources()
    made.put(definition())
    for number in range(COUNT):
        made.put(connection(number))
    return made


@pytest.fixture
def parts(pool: Pool, server: FakeResources, store: BronzeStore, tmp_path: Path) -> Components:
    return Components(pool, server, FakeLauncher(), store, Timings(), FileLogs(tmp_path))


@pytest.fixture
async def orchestrator(parts: Components) -> AsyncIterator[Orchestrator]:
    async with _another(parts) as made:
        yield made


async def _settle(orchestrator: Orchestrator, server: FakeResources) -> None:
    """Sweep until statuses, the count of the definition among them, have come to rest; then forget what was counted.

    A sweep looks once more at what the one before it wrote: how often the definition's count is written on the way to the
    last one is chance.
    """
    await orchestrator.sweeper.sweep()
    await _until(lambda: server.documents[DEFINITION].get("status", {}).get("connections") == COUNT)
    await _idle(orchestrator)
    for _ in range(SETTLING_SWEEPS):
        server.read.clear()
        server.written.clear()
        await orchestrator.sweeper.sweep()
        await _idle(orchestrator)
        if not server.read:
            break
    server.read.clear()
    server.written.clear()


async def _idle(orchestrator: Orchestrator) -> None:
    queue = orchestrator.queue
    await _until(lambda: queue.is_idle)


async def _until(found: Callable[[], object] | Callable[[], Awaitable[object]]) -> None:
    async with asyncio.timeout(PATIENCE):
        while True:
            result = found()
            if await result if isinstance(result, Awaitable) else result:
                return
            await asyncio.sleep(0.01)


async def _row(pool: Pool, number: int) -> ConnectionRow | None:
    async with pool.connection() as held:
        return await connection_by_name(held, f"team-{number % 5}", f"c{number}")


async def test_a_first_sweep_reads_no_resource_on_its_own(orchestrator: Orchestrator, server: FakeResources) -> None:
    await orchestrator.sweeper.sweep()
    await _idle(orchestrator)
    assert set(server.read) <= {DEFINITION}, "it counts its connections once they have come"
    assert {server.reason(key(number)) for number in range(COUNT)} == {"AwaitingRun"}


async def test_what_the_registry_has_never_seen_is_on_schedule_before_a_status_is_written(
    orchestrator: Orchestrator, server: FakeResources, pool: Pool
) -> None:
    async def on_schedule() -> int:
        await orchestrator.sweeper.registered.wait()
        async with pool.connection() as held:
            rows = await many(held, "SELECT uid FROM penstock.tenant_connections WHERE next_run_at > now()")
        return len(rows)

    early = list[Key]()
    server.before_write = lambda key: None if orchestrator.sweeper.registered.is_set() else early.append(key)
    counting = asyncio.create_task(on_schedule())
    await orchestrator.sweeper.sweep()
    assert await counting == COUNT
    assert set(early) <= {DEFINITION}


async def test_12_what_cannot_be_recorded_with_the_others_is_left_to_its_own_reconcile(
    orchestrator: Orchestrator, server: FakeResources, pool: Pool
) -> None:
    await _settle(orchestrator, server)
    wrong, asking, following = connection(100), connection(101, **{REQUESTED_AT: "t1"}), connection(102)
    wrong["spec"]["schedule"] = "61 * * * *"
    following["spec"] = {"connector": following["spec"]["connector"], "after": [{"name": "c2"}]}
    poisoned, again, good = connection(103), connection(3), connection(105)
    poisoned["spec"] = "no object at all"
    again["metadata"]["uid"] = "c3, deleted and made anew"
    page = [wrong, asking, following, poisoned, again, good]
    assert await record_new(pool, [Connection.parse(document) for document in page]) == 1
    assert await _row(pool, 105)
    for document in page:
        server.put(document)
    await orchestrator.sweeper.sweep()
    await _until(lambda: all(server.reason(key(number)) for number in (100, 101, 102, 3, 105)))
    assert [server.reason(key(number)) for number in (100, 102, 3, 105)] == [
        "InvalidSchedule",
        "AwaitingRun",
        "AwaitingRun",
        "AwaitingRun",
    ]
    assert server.documents[key(101)]["status"]["lastHandledRequest"] == "t1"
    row = await _row(pool, 3)
    assert row
    assert row.uid == again["metadata"]["uid"]


async def test_what_the_watch_lists_as_the_first_sweep_did_is_handled_once(
    orchestrator: Orchestrator, server: FakeResources
) -> None:
    for number in range(COUNT):
        orchestrator.sweeper.changed(key(number), server.version(key(number)), listed=True)
    await orchestrator.sweeper.sweep()
    await _idle(orchestrator)
    assert set(server.read) <= {DEFINITION}
    assert sorted(set(server.written) - {DEFINITION}) == sorted(item for item in server.written if item != DEFINITION)


async def test_a_sweep_of_what_has_not_changed_queues_no_connection(
    orchestrator: Orchestrator, server: FakeResources
) -> None:
    await _settle(orchestrator, server)
    await orchestrator.sweeper.sweep()
    await _idle(orchestrator)
    assert server.read == []
    assert server.written == []


async def test_9_a_sweep_that_failed_is_tried_again_long_before_its_period_is_over(
    orchestrator: Orchestrator, server: FakeResources, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A leader may begin while the API server starts, or a page of its list may expire."""
    monkeypatch.setattr("penstock_operator.controller.orchestrator.AGAIN_SECONDS", 0.01)
    pages, asked = server.pages, list[type[Resource]]()

    async def expired_at_first(kind: type[R]) -> AsyncIterator[list[R]]:
        asked.append(kind)
        if len(asked) == 1:
            raise ConnectionResetError
        async for page in pages(kind):
            yield page

    monkeypatch.setattr(server, "pages", expired_at_first)
    sweeping = asyncio.create_task(repeat_step(Health(), Timings().sweep, orchestrator.sweeper.sweep))
    await _until(lambda: {server.reason(key(number)) for number in range(COUNT)} == {"AwaitingRun"})
    sweeping.cancel()


@asynccontextmanager
async def _another(parts: Components) -> AsyncIterator[Orchestrator]:
    """A process that has seen nothing yet."""
    made = Orchestrator(parts)
    working = asyncio.create_task(made.queue.work())
    yield made
    working.cancel()


async def test_9_a_new_process_has_no_work_where_statuses_tell_what_the_registry_holds(
    orchestrator: Orchestrator, server: FakeResources, parts: Components
) -> None:
    await _settle(orchestrator, server)
    async with _another(parts) as second:
        for number in range(COUNT):
            second.sweeper.changed(key(number), server.version(key(number)), listed=True)
        await second.sweeper.sweep()
        await _idle(second)
    assert set(server.read) <= {DEFINITION}
    assert server.written == []


async def test_9_a_new_process_writes_the_statuses_that_are_behind(
    orchestrator: Orchestrator, server: FakeResources, pool: Pool, parts: Components
) -> None:
    await _settle(orchestrator, server)
    async with pool.connection() as held:
        await execute(held, "UPDATE penstock.tenant_connections SET failures = 2 WHERE uid = 'c3'")
        await execute(held, "UPDATE penstock.tenant_connections SET last_success_at = now() WHERE uid = 'c4'")
    server.documents[key(5)]["status"].pop("conditions")
    async with _another(parts) as second:
        await second.sweeper.sweep()
        await _idle(second)
    assert sorted(set(server.written) - {DEFINITION}) == [key(5), key(3), key(4)]
    assert server.documents[key(3)]["status"]["consecutiveFailures"] == 2


async def test_10_what_changes_between_the_first_list_and_the_watchs_is_seen(
    orchestrator: Orchestrator, server: FakeResources, pool: Pool, parts: Components
) -> None:
    await _settle(orchestrator, server)
    async with _another(parts) as second:
        second.sweeper.changed(key(6), "newer than the sweep's list", listed=True)
        await second.sweeper.sweep()
        await _idle(second)
        assert server.read == [key(6)]
        second.sweeper.changed(key(7), "the watch began anew, and lists again", listed=True)
        await _idle(second)
    assert server.read == [key(6), key(7)]


async def test_what_a_new_process_left_alone_is_looked_at_by_and_by(
    orchestrator: Orchestrator, server: FakeResources, parts: Components
) -> None:
    await _settle(orchestrator, server)
    server.documents[key(8)]["status"]["alerts"] = "what an older release said"
    async with _another(parts) as second:
        await second.sweeper.sweep()
        await _idle(second)
        assert key(8) not in server.written
        for _ in range(COUNT):
            await second.sweeper.look_again()
            await _idle(second)
    assert set(server.written) - {DEFINITION} == {key(8)}
    assert server.documents[key(8)]["status"]["alerts"] == 0


async def test_9_a_sweep_mends_the_registry(orchestrator: Orchestrator, server: FakeResources, pool: Pool) -> None:
    await _settle(orchestrator, server)
    async with pool.connection() as held:
        await execute(held, "UPDATE penstock.tenant_connections SET deleted_at = now() WHERE uid = 'c3'")
        await execute(held, "UPDATE penstock.tenant_connections SET generation = 0 WHERE uid = 'c4'")
        await execute(
            held, "UPDATE penstock.tenant_connections SET ready = false, definition_uid = NULL WHERE uid = 'c5'"
        )
    await orchestrator.sweeper.sweep()
    await _idle(orchestrator)
    rows = [await _row(pool, number) for number in (3, 4, 5)]
    assert [(row.generation, row.ready) for row in rows if row] == [(1, True)] * 3


async def test_10_a_sweep_sees_what_the_watch_missed(
    orchestrator: Orchestrator, server: FakeResources, pool: Pool
) -> None:
    await _settle(orchestrator, server)
    server.change(key(7), schedule="@daily")
    server.put(connection(8, **{REQUESTED_AT: "now"}))
    server.put(definition(stage="deprecated"))
    del server.documents[key(9)]
    await orchestrator.sweeper.sweep()
    await _idle(orchestrator)
    row = await _row(pool, 7)
    assert row is not None
    assert row.schedule == "@daily"
    assert server.documents[key(8)]["status"]["lastHandledRequest"] == "now"
    assert await _row(pool, 9) is None


async def test_the_echo_of_our_own_status_is_no_work(orchestrator: Orchestrator, server: FakeResources) -> None:
    await _settle(orchestrator, server)
    for number in range(COUNT):
        orchestrator.sweeper.changed(key(number), server.version(key(number)))
    await _idle(orchestrator)
    assert server.read == []
    orchestrator.sweeper.changed(key(1), server.change(key(1), schedule="@daily"))
    await _idle(orchestrator)
    assert server.read == [key(1)]


async def test_a_change_while_the_status_is_written_is_not_lost(
    orchestrator: Orchestrator, server: FakeResources, pool: Pool
) -> None:
    await _settle(orchestrator, server)
    changes = iter(["@monthly"])

    def edit(written: Key) -> None:
        for schedule in changes:
            server.change(written, schedule=schedule)

    server.before_write = edit
    orchestrator.sweeper.changed(key(2), server.change(key(2), schedule="@daily"))
    await _idle(orchestrator)
    row = await _row(pool, 2)
    assert row is not None
    assert row.schedule == "@monthly"
    assert server.documents[key(2)]["status"]["observedGeneration"] == 3


async def test_12_a_status_that_cannot_be_written_delays_no_other(
    orchestrator: Orchestrator, server: FakeResources
) -> None:
    def poison(written: Key) -> None:
        if written == key(0):
            raise RuntimeError("the API server does not like it")

    server.before_write = poison
    await orchestrator.sweeper.sweep()
    await _idle(orchestrator)
    assert {server.reason(key(number)) for number in range(1, COUNT)} == {"AwaitingRun"}


async def test_a_new_version_is_news_for_the_connections_of_its_connector_only(
    orchestrator: Orchestrator, server: FakeResources
) -> None:
    await _settle(orchestrator, server)
    server.put(connection(100, connector="later"))
    orchestrator.sweeper.changed(key(100), server.version(key(100)))
    await _until(lambda: server.reason(key(100)) == "DefinitionNotFound")
    await _idle(orchestrator)
    server.read.clear()
    server.put(definition("later"))
    orchestrator.sweeper.changed(("ConnectorDefinition", "", "later-generate-0.1.0"), "new")
    await _until(lambda: server.reason(key(100)) == "AwaitingRun")
    await _idle(orchestrator)
    assert {key for key in server.read if key[0] == "TenantConnection"} == {key(100)}


async def test_a_withdrawn_version_is_taken_back_from_its_connections(
    orchestrator: Orchestrator, server: FakeResources
) -> None:
    await _settle(orchestrator, server)
    server.change(DEFINITION, stage="withdrawn")
    await orchestrator.sweeper.sweep()
    await _until(lambda: {server.reason(key(number)) for number in range(COUNT)} == {"NoVersionInRange"})
