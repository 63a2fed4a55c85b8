"""The loops: events and sweeps to reconciles, due times to runs, runs to attempts, the outbox to the world."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime

import structlog

from penstock_operator.bronze.store import BronzeStore
from penstock_operator.controller.cancellation import heed_cancellation
from penstock_operator.controller.collector import Collector
from penstock_operator.controller.deliveries import Deliveries
from penstock_operator.controller.following import affected
from penstock_operator.controller.health import Health
from penstock_operator.controller.logs import KeepingLauncher, LogKeeper
from penstock_operator.controller.queue import Key, WorkQueue
from penstock_operator.controller.reconcile import reconcile
from penstock_operator.controller.registration import register
from penstock_operator.controller.resources import (
    Document,
    Page,
    ResourceClient,
    StaleDocumentError,
    key_of,
    version_of,
)
from penstock_operator.controller.resync import Catalog, is_settled, is_told, rows_of
from penstock_operator.controller.sightings import Sightings
from penstock_operator.controller.supervisor import Clock, Supervisor, utc_now
from penstock_operator.launchers import Launcher
from penstock_operator.launchers.logs import LogSource
from penstock_operator.registry import connections, credentials, definitions, fairness, outbox, recording, runs
from penstock_operator.registry.database import Pool, Row
from penstock_operator.registry.fairness import PATIENCE_SECONDS
from penstock_operator.resources.models import Kind
from penstock_operator.runs import outcomes
from penstock_operator.runs.collection import Grounds
from penstock_operator.scheduling.due import schedule_due
from penstock_operator.settings import LOG_BYTES, NO_QUOTAS, Quotas, Retention, Timings

log = structlog.get_logger()
WAITING_BATCH = 200
KINDS: tuple[Kind, Kind] = ("ConnectorDefinition", "TenantConnection")
BACKLOG = 1000  # keys; a sweep goes on listing when fewer wait
DEFINITIONS_SECONDS = 10.0
LOOK_SECONDS, LOOKS = 1.0, 5  # ten thousand connections within 35 minutes, at some hundredths of a core
AGAIN_SECONDS = 10.0
RECOUNT_SECONDS = 1.0  # thousands of connections that come at once are counted together


@dataclass(frozen=True)
class Parts:
    """What an orchestrator is made of."""

    pool: Pool
    resources: ResourceClient
    launcher: Launcher
    store: BronzeStore
    timings: Timings
    logs: LogSource
    clock: Clock = utc_now
    log_bytes: int = LOG_BYTES
    retention: Retention = field(default_factory=Retention)
    quotas: Quotas = NO_QUOTAS


class Orchestrator:
    """All loops of the controller."""

    def __init__(self, parts: Parts, health: Health | None = None) -> None:
        self._parts = parts
        self._health = health or Health()
        keeper = LogKeeper(parts.pool, parts.logs, parts.store, parts.log_bytes)
        launcher = KeepingLauncher(parts.launcher, keeper)
        self.supervisor = Supervisor(parts.pool, launcher, parts.timings, parts.clock, parts.quotas)
        self._sightings = Sightings()
        self._to_count: set[str] = set()
        self._early: dict[Key, str] | None = {}
        self._first_listed: dict[Key, str | None] = {}
        self.registered = asyncio.Event()
        self._to_look_at: deque[Key] = deque()
        self.queue = WorkQueue(self._handle)
        self.collector = Collector(
            lambda: Grounds(parts.pool, parts.store, parts.retention, parts.clock()), launcher, parts.logs.forget
        )
        self.deliveries = Deliveries(parts.pool, parts.store, launcher, keeper, self.requeue, parts.clock)

    async def run(self) -> None:
        """Run every loop until cancelled."""
        try:
            await self._run()
        finally:
            await self.supervisor.close()

    async def _run(self) -> None:
        timings = self._parts.timings
        async with contextlib.aclosing(self.deliveries), asyncio.TaskGroup() as group:
            group.create_task(self.queue.work())
            group.create_task(self._every(timings.sweep, self.sweep))
            group.create_task(self._every(LOOK_SECONDS, self.look_again))
            group.create_task(self._every(timings.poll, self.schedule))
            group.create_task(self._every(timings.poll, self.launch))
            group.create_task(self._every(timings.observe, self.supervisor.observe_all))
            group.create_task(self._every(timings.poll, self.deliver))
            group.create_task(self._every(PATIENCE_SECONDS, self.tell_waiting))
            group.create_task(self._every(timings.collect, self.collector.collect))
            group.create_task(self._every(timings.collect, self.collector.sweep_bucket))

    async def _every(self, seconds: float, step: Callable[[], Awaitable[int]]) -> None:
        """Take the step again and again: at once while it finds something to do, else after the period.

        One that failed is tried again soon, however long the period: what a sweep would find is not found otherwise.
        """
        name = getattr(step, "__name__", "step")
        self._health.expect(name, seconds)
        while True:
            pause, began = seconds, time.monotonic()
            try:
                pause = 0 if await step() else seconds
                self._health.succeeded(name, time.monotonic() - began)
            except Exception as error:  # noqa: BLE001 - Postgres or the API server may be away for a while
                pause = min(seconds, AGAIN_SECONDS)
                self._health.failed(name, f"{type(error).__name__}: {error}")
                log.warning("loop failed, goes on", loop=name, error=f"{type(error).__name__}: {error}")
            heed_cancellation()
            await asyncio.sleep(pause)

    def changed(self, key: Key, version: str | None, *, listed: bool = False) -> None:
        """A watch saw something change; the echo of our own status is no news. Versions are None where nobody reads them.

        What the watch lists as it begins is the first sweep's business, which has the registry beside it.
        """
        if version is None:
            self.queue.add(key)
        elif listed and self._early is not None:
            self._early[key] = version
        elif self._sightings.is_news(key, version):
            self._sightings.event(key, version, waiting=key in self.queue)
            self.queue.add(key)

    def requeue(self, key: Key) -> None:
        """Ask for a key to be handled, whatever was seen of it."""
        self._sightings.wanted(key)
        self.queue.add(key)

    async def sweep(self) -> int:
        """Reconcile what differs from what a reconcile left, definitions first, and retire what the watch missed."""
        async with self._parts.pool.connection() as connection:
            before = await recording.moment_of(connection)
        live: dict[Kind, list[str]] = {kind: [] for kind in KINDS}
        async for page in self._pages("ConnectorDefinition"):
            live["ConnectorDefinition"] += [each["metadata"]["uid"] for each in page]
            self._queue_listed(page)
            # Connections of a definition that hangs are queued again once it is handled.
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.queue.handled(key_of(each) for each in page), DEFINITIONS_SECONDS)
        if not self.registered.is_set():
            await self._register()
        async with self._parts.pool.connection() as connection:
            catalog = await Catalog.read(connection)
        async for page in self._pages("TenantConnection"):
            live["TenantConnection"] += [each["metadata"]["uid"] for each in page]
            self._queue_listed(await self._differing(page, catalog))
            await self.queue.room(BACKLOG)
        await self._retire_all_but(live, before)
        self._swept()
        return 0

    async def _register(self) -> None:
        """Put all that the registry has never seen on schedule, before the first status is written, or the watch lists all."""
        async for page in self._parts.resources.pages("TenantConnection"):
            await register(self._parts.pool, page)
        self.registered.set()

    async def _pages(self, kind: Kind) -> AsyncIterator[Page]:
        """Read all resources of a kind; of the first sweep's, note the versions."""
        async for page in self._parts.resources.pages(kind):
            if self._early is not None:
                self._first_listed |= {key_of(each): version_of(each) for each in page}
            yield page

    def _swept(self) -> None:
        """See to what the watch has listed meanwhile in another version than the sweep."""
        early, self._early = self._early or {}, None
        for key, version in early.items():
            if self._first_listed.get(key) != version:
                self.changed(key, version)
        self._first_listed.clear()

    async def look_again(self) -> int:
        """Reconcile a few of those that the first sweep left alone: another release may say more of them than the last."""
        if not self.queue.is_idle:
            return 0
        for _ in range(min(LOOKS, len(self._to_look_at))):
            self.requeue(self._to_look_at.popleft())
        return 0

    def _queue_listed(self, documents: Page) -> None:
        for document in documents:
            self._sightings.listed(key_of(document), document)
            self.queue.add(key_of(document))

    async def _differing(self, page: Page, catalog: Catalog) -> Page:
        """Return what is not as the registry has it, and what this process has not seen and whose status is behind."""
        async with self._parts.pool.connection() as connection:
            rows = await rows_of(connection, page)
        return [each for each in page if not self._in_order(each, rows.get(each["metadata"]["uid"]), catalog)]

    def _in_order(self, document: Document, row: Row | None, catalog: Catalog) -> bool:
        if row is None or not is_settled(document, row, catalog):
            return False
        key, version = key_of(document), version_of(document)
        if not self._sightings.is_news(key, version or ""):
            return True
        if not version or not is_told(document, row, catalog):
            return False
        self._sightings.left(key, version)
        self._to_look_at.append(key)
        return True

    async def _retire_all_but(self, live: dict[Kind, list[str]], before: datetime) -> None:
        async with self._parts.pool.connection() as connection:
            await definitions.retire_definitions(connection, live["ConnectorDefinition"], before)
            await recording.retire_connections(connection, live["TenantConnection"], before)
        await self._let_go()

    async def _let_go(self) -> None:
        """End the runs of connections that are gone, and forget their credentials, whoever marked them and was killed then."""
        async with self._parts.pool.connection() as connection:
            for run_id in await runs.runs_of_deleted_connections(connection):
                async with connection.transaction():
                    locked = await runs.lock_run(connection, run_id)
                    if locked and locked["phase"] in ("pending", "running"):
                        await outcomes.cancel(connection, locked)
            await credentials.forget_credentials_of_the_deleted(connection)

    async def schedule(self) -> int:
        """Make a run of every due time; return how many connections were due."""
        return await schedule_due(self._parts.pool, self._parts.clock())

    async def launch(self) -> int:
        """Launch attempts whose time has come, and return how many."""
        return await self.supervisor.launch_pending()

    async def tell_waiting(self) -> int:
        """Note why runs wait that are due, where the quotas are why; return how many notes changed."""
        async with self._parts.pool.connection() as connection, connection.transaction():
            uids = await fairness.tell_waiting(connection, self._parts.clock(), WAITING_BATCH, self._parts.quotas)
            for uid in uids:
                await outbox.post(connection, "status", {"connection": uid})
        return len(uids)

    async def deliver(self) -> int:
        """Begin to act on the outbox; a message that fails comes back later. Return how many messages there were."""
        return await self.deliveries.step()

    async def _handle(self, key: Key) -> None:
        kind, namespace, name = key
        if kind == "Job":
            await self.supervisor.observe_job(name)
            return
        if self._sightings.is_echo(key):
            return
        document = self._sightings.take(key) or await self._parts.resources.get(kind, namespace, name)  # type: ignore[arg-type]
        if document is None:
            self._sightings.forget(key)
            await self.forget(kind, namespace, name)
            return
        await self._reconcile(key, document)

    async def _reconcile(self, key: Key, document: Document) -> None:
        status = await reconcile(self._parts.pool, document)
        before: Document = document.get("status", {})
        version = version_of(document)
        try:
            if status != before:
                version = await self._parts.resources.write_status(document, status)
        except StaleDocumentError:
            self.requeue(key)
            return
        self._sightings.left(key, version)
        if document["kind"] == "TenantConnection":
            await self._requeue_followers(document)
            self._recount(before.get("definition"), status.get("definition"))
        elif before.get("observedGeneration") != status["observedGeneration"]:
            await self._requeue_connections(document["metadata"]["name"])

    async def _requeue_followers(self, document: Document) -> None:
        namespace = document["metadata"]["namespace"]
        async with self._parts.pool.connection() as connection:
            for name in await affected(connection, document):
                self.requeue(("TenantConnection", namespace, name))

    def _recount(self, before: str | None, after: str | None) -> None:
        """A connection that came, went or changed its version changes what its definitions' statuses count."""
        names = {name for name in (before, after) if name and before != after}
        if names and not self._to_count:
            asyncio.get_running_loop().call_later(RECOUNT_SECONDS, self._count)
        self._to_count |= names

    def _count(self) -> None:
        for name in self._to_count:
            self.requeue(("ConnectorDefinition", "", name))
        self._to_count.clear()

    async def forget(self, kind: str, namespace: str, name: str) -> None:
        """Retire a resource that is gone; its Jobs go with it, as it owns them."""
        async with self._parts.pool.connection() as connection:
            if kind == "ConnectorDefinition":
                await definitions.retire_definition(connection, name)
                gone = None
            else:
                gone = await recording.retire_connection(connection, namespace, name)
        if gone:
            await self._requeue_followers({"metadata": {"namespace": namespace, "name": name}})
            await self._let_go()
            self._recount(gone["definition"], None)
        elif kind == "ConnectorDefinition":
            await self._requeue_connections(name)

    async def _requeue_connections(self, definition: str) -> None:
        """A version that came, changed or went may be the one that connections of its connector wait for, or use."""
        async with self._parts.pool.connection() as connection:
            for row in await connections.connections_of_definition(connection, definition):
                self.requeue(("TenantConnection", row["namespace"], row["name"]))
