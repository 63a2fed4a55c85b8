"""The loops: events and sweeps to reconciles, due times to runs, runs to attempts, the outbox to the world."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import structlog

from penstock_operator.bronze.store import BronzeStore
from penstock_operator.controller.cancellation import heed_cancellation
from penstock_operator.controller.collector import Collector
from penstock_operator.controller.deliveries import Deliveries
from penstock_operator.controller.health import Health
from penstock_operator.controller.logs import KeepingLauncher, LogKeeper
from penstock_operator.controller.queue import Key, WorkQueue
from penstock_operator.controller.reconcile import reconcile
from penstock_operator.controller.resources import Document, ResourceClient, key_of
from penstock_operator.controller.supervisor import Clock, Supervisor, utc_now
from penstock_operator.launchers import Launcher
from penstock_operator.launchers.logs import LogSource
from penstock_operator.registry import connections, credentials, definitions, runs
from penstock_operator.registry.database import Pool
from penstock_operator.resources.models import Kind
from penstock_operator.runs import outcomes
from penstock_operator.runs.collection import Grounds
from penstock_operator.scheduling.due import schedule_due
from penstock_operator.settings import LOG_BYTES, Retention, Timings

log = structlog.get_logger()
KINDS: tuple[Kind, Kind] = ("ConnectorDefinition", "TenantConnection")


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


class Orchestrator:
    """All loops of the controller."""

    def __init__(self, parts: Parts, health: Health | None = None) -> None:
        self._parts = parts
        self._health = health or Health()
        keeper = LogKeeper(parts.pool, parts.logs, parts.store, parts.log_bytes)
        launcher = KeepingLauncher(parts.launcher, keeper)
        self.supervisor = Supervisor(parts.pool, launcher, parts.timings, parts.clock)
        self.queue = WorkQueue(self._handle)
        self.collector = Collector(
            lambda: Grounds(parts.pool, parts.store, parts.retention, parts.clock()), launcher, parts.logs.forget
        )
        self.deliveries = Deliveries(parts.pool, parts.store, launcher, keeper, self.queue.add)

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
            group.create_task(self._every(timings.poll, self.schedule))
            group.create_task(self._every(timings.poll, self.launch))
            group.create_task(self._every(timings.observe, self.supervisor.observe_all))
            group.create_task(self._every(timings.poll, self.deliver))
            group.create_task(self._every(timings.collect, self.collector.collect))
            group.create_task(self._every(timings.collect, self.collector.sweep_bucket))

    async def _every(self, seconds: float, step: Callable[[], Awaitable[int]]) -> None:
        """Take the step again and again: at once while it finds something to do, else after the period."""
        name = getattr(step, "__name__", "step")
        self._health.expect(name, seconds)
        while True:
            done = 0
            try:
                done = await step()
                self._health.succeeded(name)
            except Exception as error:  # noqa: BLE001 - Postgres or the API server may be away for a while
                self._health.failed(name, f"{type(error).__name__}: {error}")
                log.warning("loop failed, goes on", loop=name, error=f"{type(error).__name__}: {error}")
            heed_cancellation()
            await asyncio.sleep(0 if done else seconds)

    async def sweep(self) -> int:
        """Reconcile everything, definitions first, and retire what the watch missed."""
        async with self._parts.pool.connection() as connection:
            before = await connections.moment_of(connection)
        listed = {kind: await self._parts.resources.list(kind) for kind in KINDS}
        for document in listed["ConnectorDefinition"]:
            self.queue.add(key_of(document))
        for document in listed["TenantConnection"]:
            self.queue.add(key_of(document))
        uids = {kind: [each["metadata"]["uid"] for each in documents] for kind, documents in listed.items()}
        async with self._parts.pool.connection() as connection:
            await definitions.retire_definitions(connection, uids["ConnectorDefinition"], before)
            await connections.retire_connections(connection, uids["TenantConnection"], before)
        await self._let_go()
        return 0

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

    async def deliver(self) -> int:
        """Begin to act on the outbox; a message that fails comes back later. Return how many messages there were."""
        return await self.deliveries.step()

    async def _handle(self, key: Key) -> None:
        kind, namespace, name = key
        if kind == "Job":
            await self.supervisor.observe_job(name)
            return
        document = await self._parts.resources.get(kind, namespace, name)  # type: ignore[arg-type]
        if document is None:
            await self.forget(kind, namespace, name)
            return
        status = await reconcile(self._parts.pool, document)
        if status != document.get("status"):
            await self._parts.resources.write_status(document, status)
        if kind == "ConnectorDefinition":
            await self._requeue_users(document)
        else:
            self._recount(document.get("status", {}).get("definition"), status.get("definition"))

    def _recount(self, before: str | None, after: str | None) -> None:
        """A connection that came, went or changed its version changes what its definitions' statuses count."""
        if before != after:
            for name in filter(None, (before, after)):
                self.queue.add(("ConnectorDefinition", "", name))

    async def forget(self, kind: str, namespace: str, name: str) -> None:
        """Retire a resource that is gone; its Jobs go with it, as it owns them."""
        async with self._parts.pool.connection() as connection:
            if kind == "ConnectorDefinition":
                await definitions.retire_definition(connection, name)
                gone = None
            else:
                gone = await connections.retire_connection(connection, namespace, name)
        if gone:
            await self._let_go()
            self._recount(gone["definition"], None)
        elif kind == "ConnectorDefinition":
            await self._requeue_connections()

    async def _requeue_users(self, document: Document) -> None:
        """A new or changed version may be the one that connections wait for."""
        generation = document["metadata"].get("generation", 1)
        if document.get("status", {}).get("observedGeneration") != generation:
            await self._requeue_connections()

    async def _requeue_connections(self) -> None:
        for each in await self._parts.resources.list("TenantConnection"):
            self.queue.add(key_of(each))
