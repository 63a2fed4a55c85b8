"""The controller's loops: they reconcile resources, make runs that are due, launch attempts and act on the outbox."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TypeVar

import structlog

from penstock_operator import definitions, outbox
from penstock_operator.attempts.supervisor import Clock, Supervisor, utc_now
from penstock_operator.bronze.store import BronzeStore
from penstock_operator.connections import connection_store
from penstock_operator.controller.cancellation import raise_if_cancelled
from penstock_operator.controller.dependencies import affected
from penstock_operator.controller.health import Health
from penstock_operator.controller.observed_versions import ObservedVersions
from penstock_operator.controller.outbox_dispatcher import OutboxDispatcher
from penstock_operator.controller.ownership import Ownership
from penstock_operator.controller.progress_updates import PERIOD_SECONDS, ProgressUpdates
from penstock_operator.controller.reconcile import reconcile_connection, reconcile_definition
from penstock_operator.controller.resource_client import ResourceClient, StaleResourceError
from penstock_operator.controller.resync.sweeper import Sweeper
from penstock_operator.controller.retirement import retire_connection
from penstock_operator.controller.workqueue import Key, WorkQueue
from penstock_operator.ids import ConnectionName, ConnectionUid, DefinitionName, Namespace
from penstock_operator.launchers import Launcher
from penstock_operator.launchers.logs import LogSource
from penstock_operator.logs.keeper import KeepingLauncher, LogKeeper
from penstock_operator.registry.database import Pool
from penstock_operator.resources.documents import Connection, Definition, ResourceStatus
from penstock_operator.resources.models import ConnectionStatus, DefinitionStatus
from penstock_operator.resources.scope import EVERYTHING, Scope
from penstock_operator.retention.batches import CollectionContext
from penstock_operator.retention.collector import Collector
from penstock_operator.scheduling import fairness, recheck
from penstock_operator.scheduling.due import schedule_due
from penstock_operator.scheduling.fairness import PATIENCE_SECONDS
from penstock_operator.settings import LOG_BYTES, NO_QUOTAS, Quotas, Retention, Timings

log = structlog.get_logger()
Status = TypeVar("Status", ConnectionStatus, DefinitionStatus)
WAITING_BATCH = 200
LOOK_SECONDS = 1.0  # at five a time, ten thousand connections within 35 minutes, at some hundredths of a core
AGAIN_SECONDS = 10.0
RECOUNT_SECONDS = 1.0  # thousands of connections that come at once are counted together


@dataclass(frozen=True)
class Components:
    """The parts of an orchestrator."""

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
    installation: str | None = None
    scope: Scope = EVERYTHING


class Orchestrator:
    """All loops of the controller."""

    def __init__(self, parts: Components, health: Health | None = None) -> None:
        self._parts = parts
        self._health = health or Health()
        keeper = LogKeeper(parts.pool, parts.logs, parts.store, parts.log_bytes)
        launcher = KeepingLauncher(parts.launcher, keeper)
        self.supervisor = Supervisor(parts.pool, launcher, parts.timings, parts.clock, parts.quotas)
        self._observed = ObservedVersions()
        self._to_count: set[str] = set()
        self._generations: dict[Key, int] = {}
        self._made = asyncio.Event()
        self.queue = WorkQueue(self._handle)
        self._ownership = Ownership(parts.pool, parts.resources, parts.installation, parts.scope)
        self.sweeper = Sweeper(parts.pool, parts.resources, self.queue, self._observed, self._ownership)
        self.collector = Collector(
            lambda: CollectionContext(parts.pool, parts.store, parts.retention, parts.clock()),
            launcher,
            parts.logs.forget,
        )
        self.progress = ProgressUpdates(parts.pool, self.sweeper.requeue)
        self.outbox_dispatcher = OutboxDispatcher(
            parts.pool, parts.store, launcher, keeper, self.sweeper.requeue, parts.clock
        )

    async def run(self) -> None:
        """Run every loop until cancelled."""
        try:
            await self._run()
        finally:
            await self.supervisor.close()

    async def _run(self) -> None:
        timings = self._parts.timings
        async with contextlib.aclosing(self.outbox_dispatcher), asyncio.TaskGroup() as group:
            group.create_task(self.queue.work())
            group.create_task(repeat_step(self._health, timings.sweep, self.sweeper.sweep))
            group.create_task(repeat_step(self._health, LOOK_SECONDS, self.sweeper.look_again))
            group.create_task(repeat_step(self._health, timings.poll, self.schedule))
            group.create_task(repeat_step(self._health, timings.poll, self.launch, self._made))
            group.create_task(repeat_step(self._health, timings.observe, self.supervisor.observe_all))
            group.create_task(repeat_step(self._health, timings.poll, self.deliver))
            group.create_task(repeat_step(self._health, PATIENCE_SECONDS, self.tell_waiting))
            group.create_task(repeat_step(self._health, PERIOD_SECONDS, self.progress.tell))
            group.create_task(repeat_step(self._health, recheck.PERIOD_SECONDS, self.recheck))
            group.create_task(repeat_step(self._health, timings.collect, self.collector.collect))
            group.create_task(repeat_step(self._health, timings.collect, self.collector.sweep_bucket))

    async def schedule(self) -> int:
        """Make a run of every due time, and have them launched; return how many connections were due."""
        due = await schedule_due(self._parts.pool, self._parts.clock())
        if due:
            self._made.set()
        return due

    async def recheck(self) -> int:
        """Make runs that check whether the cause of the last failure is gone, and return how many."""
        return await recheck.recheck_failed(self._parts.pool, self._parts.clock(), self._parts.timings.recheck)

    async def launch(self) -> int:
        """Launch attempts whose time has come, and return how many."""
        return await self.supervisor.launch_pending()

    async def tell_waiting(self) -> int:
        """Record which due runs wait because of a quota; return how many records changed."""
        async with self._parts.pool.connection() as db, db.transaction():
            uids = await fairness.tell_waiting(db, self._parts.clock(), WAITING_BATCH, self._parts.quotas)
            for uid in uids:
                await outbox.post_status(db, ConnectionUid(uid))
        return len(uids)

    async def deliver(self) -> int:
        """Act on the messages of the outbox, and return how many there were. A message that fails comes back later."""
        return await self.outbox_dispatcher.step()

    async def _handle(self, key: Key) -> None:
        kind, namespace, name = key
        if kind == "Job":
            await self.supervisor.observe_job(name)
            return
        if self._observed.is_echo(key):
            return
        resources = self._parts.resources
        if kind == Definition.KIND:
            found = self._observed.take(key) or await resources.get(Definition, namespace, name)
        else:
            found = self._observed.take(key) or await resources.get(Connection, namespace, name)
        if found is None:
            self._observed.forget(key)
            self._ownership.kept([key])
            await self.forget(key)
            return
        try:
            if isinstance(found, Connection):
                await self._handle_connection(found)
            else:
                await self._reconcile_definition(found)
        except StaleResourceError:
            self.sweeper.requeue(key)

    async def _handle_connection(self, connection: Connection) -> None:
        if self._ownership.is_foreign(connection):
            await self._ownership.leave(connection)
            self._observed.left(connection.key, connection.metadata.version)
        else:
            await self._reconcile_connection(connection)

    async def _reconcile_connection(self, connection: Connection) -> None:
        before, resources = connection.status, self._parts.resources
        connection = await self._ownership.claim(connection)
        self._ownership.kept([connection.key])
        self._observed.left(connection.key, connection.metadata.version)  # so that the event of the mark is not handled
        found = await reconcile_connection(self._parts.pool, connection, resources.namespace_uid)
        status = self._marked(before, found)
        await self._write(connection, status)
        changed = before.observed_generation != connection.metadata.generation
        await self._requeue_followers(connection.namespace, connection.name, changed=changed)
        self._recount(before.definition, status.definition)

    async def _reconcile_definition(self, definition: Definition) -> None:
        status = self._marked(definition.status, await reconcile_definition(self._parts.pool, definition))
        await self._write(definition, status)
        if self._is_new(definition.key, definition.status, definition.metadata.generation):
            await self._requeue_connections(definition.name)

    async def _write(self, resource: Connection | Definition, status: ResourceStatus) -> None:
        """Write a status that differs, and remember the version that the resource has now."""
        version = resource.metadata.version
        if not resource.shows(status) and self._writes(resource):
            version = await self._parts.resources.write_status(resource, status)
        self._observed.left(resource.key, version)

    def _is_new(self, key: Key, before: DefinitionStatus, generation: int) -> bool:
        """Return True if a definition has changed; a status that another installation writes may say so already."""
        known, self._generations[key] = self._generations.get(key), generation
        return before.observed_generation != generation or (
            known != generation and before.installation != self._parts.installation
        )

    def _marked(self, before: ResourceStatus, status: Status) -> Status:
        owner = before.installation or self._parts.installation
        return status.model_copy(update={"installation": owner}) if owner else status

    def _writes(self, resource: Connection | Definition) -> bool:
        """Return True if this installation writes the status: two that count a definition's connections would alternate."""
        return self._ownership.is_ours(resource) or resource.status.installation is None

    async def _requeue_followers(self, namespace: Namespace, name: ConnectionName, *, changed: bool) -> None:
        async with self._parts.pool.connection() as db:
            for follower in await affected(db, namespace, name, changed=changed):
                self.sweeper.requeue(("TenantConnection", namespace, follower))

    def _recount(self, before: str | None, after: str | None) -> None:
        """Update the counts in the statuses of the definitions that a connection used before and uses now."""
        names = {name for name in (before, after) if name and before != after}
        if names and not self._to_count:
            asyncio.get_running_loop().call_later(RECOUNT_SECONDS, self._count)
        self._to_count |= names

    def _count(self) -> None:
        for name in self._to_count:
            self.sweeper.requeue(("ConnectorDefinition", "", name))
        self._to_count.clear()

    async def forget(self, key: Key) -> None:
        """Retire a resource that is gone, and queue the resources that depend on it."""
        kind, namespace, name = key
        if kind == Definition.KIND:
            async with self._parts.pool.connection() as db:
                await definitions.retire_definition(db, DefinitionName(name))
            await self._requeue_connections(DefinitionName(name))
        elif gone := await retire_connection(self._parts.pool, namespace, name):
            await self._requeue_followers(Namespace(namespace), ConnectionName(name), changed=True)
            self._recount(gone.definition, None)

    async def _requeue_connections(self, definition: DefinitionName) -> None:
        """Queue the connections of a definition's connector, which may use the version or wait for it."""
        async with self._parts.pool.connection() as db:
            for namespace, name in await connection_store.connections_of_definition(db, definition):
                self.sweeper.requeue(("TenantConnection", namespace, name))


async def repeat_step(
    health: Health, seconds: float, step: Callable[[], Awaitable[int]], called: asyncio.Event | None = None
) -> None:
    """Repeat the step: at once while it finds something to do, else when `called` is set, or after the period.

    A step that failed is repeated soon, however long the period is: only a sweep finds some changes.
    """
    name = getattr(step, "__name__", "step")
    health.expect(name, seconds)
    while True:
        pause, began = seconds, time.monotonic()
        try:
            pause = 0 if await step() else seconds
            health.succeeded(name, time.monotonic() - began)
        except Exception as error:  # noqa: BLE001 - Postgres or the API server may be unreachable for a while
            pause = min(seconds, AGAIN_SECONDS)
            health.failed(name, f"{type(error).__name__}: {error}")
            log.warning("loop failed", loop=name, error=f"{type(error).__name__}: {error}")
        raise_if_cancelled()
        await _paused(pause, called)


async def _paused(seconds: float, called: asyncio.Event | None) -> None:
    """Wait until the time is over, or `called` is set."""
    if called is None:
        await asyncio.sleep(seconds)
        return
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(called.wait(), seconds)
    called.clear()
