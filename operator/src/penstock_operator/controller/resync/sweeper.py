"""Queues the resources that differ from what the last reconcile left, as lists and the watch report them."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Sequence
from datetime import datetime

from penstock_operator.connections import connection_records
from penstock_operator.connections.connection_store import ConnectionSummary
from penstock_operator.controller.observed_versions import ObservedVersions
from penstock_operator.controller.ownership import Ownership
from penstock_operator.controller.resource_client import R, ResourceClient
from penstock_operator.controller.resync.comparison import UsableDefinitions, is_reported, is_settled, rows_of
from penstock_operator.controller.resync.new_connections import record_new
from penstock_operator.controller.retirement import LiveResources, retire_all_but
from penstock_operator.controller.workqueue import Key, WorkQueue
from penstock_operator.definitions import retire_definitions
from penstock_operator.registry import installation
from penstock_operator.registry.database import Pool
from penstock_operator.resources.documents import Connection, Definition
from penstock_operator.resources.models import Kind

BACKLOG = 1000  # keys; a sweep continues to list while fewer wait
DEFINITIONS_SECONDS = 10.0
LOOKS = 5


class Sweeper:
    """Queues resources to be reconciled. `registered` is set once all connections that were new to the registry are on schedule."""

    def __init__(
        self, pool: Pool, resources: ResourceClient, queue: WorkQueue, observed: ObservedVersions, ownership: Ownership
    ) -> None:
        self._pool = pool
        self._resources = resources
        self._queue = queue
        self._observed = observed
        self._ownership = ownership
        self._early: dict[Key, str] | None = {}
        self._first_listed: dict[Key, str | None] = {}
        self._to_look_at: deque[Key] = deque()
        self.registered = asyncio.Event()

    def changed(self, key: Key, version: str | None, *, listed: bool = False) -> None:
        """Handle a change that the watch reports; the event of our own status is ignored. Versions are None for a Job.

        Resources that the watch lists at its start are left to the first sweep, which compares them with the registry.
        """
        if version is None:
            self._queue.add(key)
        elif listed and self._early is not None:
            self._early[key] = version
        elif self._observed.is_news(key, version):
            self._observed.event(key, version, waiting=key in self._queue)
            self._queue.add(key)

    def requeue(self, key: Key) -> None:
        """Queue a key, whatever version was seen."""
        self._observed.requested(key)
        self._queue.add(key)

    async def sweep(self) -> int:
        """Queue every resource that differs from what a reconcile left, definitions first, and retire those that are gone."""
        before: dict[Kind, datetime] = {"ConnectorDefinition": await self._moment()}
        live = LiveResources()
        async for page in self._pages(Definition):
            live.definitions.extend(definition.uid for definition in page)
            self._queue_listed(page)
            # Connections of a definition that hangs are queued again once it is handled.
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._queue.handled(definition.key for definition in page), DEFINITIONS_SECONDS)
        if not self.registered.is_set():
            await self._register()
        before["TenantConnection"] = await self._moment()
        async with self._pool.connection() as db:
            catalog = await UsableDefinitions.read(db)
        async for connections in self._pages(Connection):
            live.connections.extend(connection.uid for connection in connections)
            self._queue_listed(await self._differing(connections, catalog))
            await self._queue.room(BACKLOG)
        if self._ownership.scope.is_everything:
            await retire_all_but(self._pool, live, before)
        else:
            await self._retire_in_scope(live, before)
        self._swept()
        return 0

    async def _retire_in_scope(self, live: LiveResources, before: dict[Kind, datetime]) -> None:
        """Handle each connection that the list does not have: it is deleted, or it has left the scope."""
        async with self._pool.connection() as db:
            await retire_definitions(db, live.definitions, before["ConnectorDefinition"])
            unlisted = await installation.unlisted_connections(db, live.connections, before["TenantConnection"])
        for connection in unlisted:
            if self._ownership.scope.has_namespace(connection.namespace):
                self.requeue(("TenantConnection", connection.namespace, connection.name))
            else:
                await self._ownership.release(connection.uid)

    async def _moment(self) -> datetime:
        async with self._pool.connection() as db:
            return await connection_records.moment_of(db)

    async def _register(self) -> None:
        """Put all new connections on schedule before a status is written: else the watch would list all of them as changed."""
        async for page in self._resources.pages(Connection):
            await record_new(self._pool, await self._ownership.claim_page(page), self._resources.namespace_uid)
        self.registered.set()

    async def _pages(self, kind: type[R]) -> AsyncIterator[list[R]]:
        """Read all resources of a kind; the first sweep records their versions."""
        async for page in self._resources.pages(kind):
            if self._early is not None:
                self._first_listed |= {resource.key: resource.metadata.version for resource in page}
            yield page

    def _swept(self) -> None:
        """Handle the resources that the watch has listed meanwhile in another version than the sweep."""
        early, self._early = self._early or {}, None
        for key, version in early.items():
            if self._first_listed.get(key) != version:
                self.changed(key, version)
        self._first_listed.clear()

    async def look_again(self) -> int:
        """Reconcile a few of the connections that the first sweep left alone: this release may report more than the last one."""
        if not self._queue.is_idle:
            return 0
        for _ in range(min(LOOKS, len(self._to_look_at))):
            self.requeue(self._to_look_at.popleft())
        return 0

    def _queue_listed(self, resources: Sequence[Connection | Definition]) -> None:
        for resource in resources:
            self._observed.listed(resource)
            self._queue.add(resource.key)

    async def _differing(self, page: list[Connection], catalog: UsableDefinitions) -> list[Connection]:
        """Return the connections that differ from their rows, and those unknown to this process whose status is behind."""
        async with self._pool.connection() as db:
            rows = await rows_of(db, page)
        return [connection for connection in page if not self._in_order(connection, rows.get(connection.uid), catalog)]

    def _in_order(self, connection: Connection, row: ConnectionSummary | None, catalog: UsableDefinitions) -> bool:
        key, version = connection.key, connection.metadata.version
        if self._ownership.is_foreign(connection):
            return not self._observed.is_news(key, version or "")
        if row is None or not self._ownership.is_ours(connection) or not is_settled(connection, row, catalog):
            return False
        if not self._observed.is_news(key, version or ""):
            return True
        if not version or not is_reported(connection, row, catalog):
            return False
        self._observed.left(key, version)
        self._to_look_at.append(key)
        return True
