"""The owner of a connection: the first installation that saw it marks it, and every other one leaves it alone.

The mark is `status.installation`, which tenants cannot write. It is written with the resourceVersion that was read, so that
of two installations that see a new connection at the same moment one is refused.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

import structlog
from prometheus_client import Gauge

from penstock_operator.audit import audit_store
from penstock_operator.audit.events import Action, AuditedObject
from penstock_operator.controller.resource_client import ResourceClient, StaleResourceError
from penstock_operator.controller.workqueue import Key
from penstock_operator.ids import ConnectionUid
from penstock_operator.registry import installation
from penstock_operator.registry.database import Pool
from penstock_operator.resources.documents import Connection, Definition, Resource
from penstock_operator.resources.scope import EVERYTHING, Scope
from penstock_operator.runs import run_store, transitions

log = structlog.get_logger()
AT_ONCE = 32
FOREIGN = Gauge("penstock_foreign_connections", "Connections in this installation's scope that belong to another one")


class Ownership:
    """Decides which connections this installation works on. Without an id, as in a folder, it works on all and marks none."""

    def __init__(self, pool: Pool, resources: ResourceClient, id_: str | None, scope: Scope = EVERYTHING) -> None:
        self._pool = pool
        self._resources = resources
        self.id = id_
        self.scope = scope
        self._foreign: dict[Key, str] = {}

    def is_ours(self, resource: Connection | Definition) -> bool:
        """Return True if the resource is marked as this installation's."""
        return self.id is None or resource.status.installation == self.id

    def is_foreign(self, connection: Connection) -> bool:
        """Return True if this installation leaves the connection alone: out of its scope, or another's."""
        if not self._covers(connection):
            return True
        return self.id is not None and connection.status.installation not in (None, self.id)

    def _covers(self, resource: Resource) -> bool:
        return self.scope.covers(resource.metadata.namespace, resource.metadata.labels)

    async def claim(self, connection: Connection) -> Connection:
        """Return the connection as it is once it is marked. Raises StaleResourceError when it has changed meanwhile."""
        if self.id is None or connection.status.installation is not None:
            return connection
        status = connection.status.model_copy(update={"installation": self.id})
        version = await self._resources.write_status(connection, status)
        return connection.with_status(status, version)

    async def claim_page(self, page: list[Connection]) -> list[Connection]:
        """Mark the connections of the page that have no owner, and return those that are ours now, as they are then.

        A connection that cannot be marked now is left out; its own reconcile marks it.
        """
        slots = asyncio.Semaphore(AT_ONCE)

        async def claimed(connection: Connection) -> Connection | None:
            async with slots:
                try:
                    return await self.claim(connection)
                except StaleResourceError:
                    return None
                except Exception as error:  # noqa: BLE001 - one that cannot be marked must not keep the others
                    message = f"{type(error).__name__}: {error}"
                    log.warning("connection not marked", connection=_shown(connection.key), error=message)
                    return None

        found = await asyncio.gather(*(claimed(connection) for connection in page if not self.is_foreign(connection)))
        return [connection for connection in found if connection is not None]

    async def leave(self, connection: Connection) -> None:
        """Leave a connection to its owner: end the runs that this installation has of it, and log that once."""
        key, owner = connection.key, connection.status.installation or ""
        if self._covers(connection) and self._foreign.get(key) != owner:
            log.warning(
                "connection belongs to another installation",
                connection=_shown(key),
                installation=owner,
                ours=self.id,
            )
            self._foreign[key] = owner
        FOREIGN.set(len(self._foreign))
        await self.release(connection.uid)

    def kept(self, keys: Iterable[Key]) -> None:
        """Stop counting these keys as foreign: they are ours, or gone."""
        for key in keys:
            self._foreign.pop(key, None)
        FOREIGN.set(len(self._foreign))

    async def release(self, uid: ConnectionUid) -> None:
        """End the runs of a connection that is not ours any more: they are fenced at once, and their Jobs are deleted."""
        async with self._pool.connection() as db:
            async with db.transaction():
                if not await installation.release_connection(db, uid):
                    return
                released = AuditedObject("connection", connection_uid=uid)
                await audit_store.record(db, Action.connection_release, released)
            for run in await run_store.active_runs(db, uid):
                async with db.transaction():
                    locked = await run_store.lock_run(db, run.id)
                    if locked and locked.is_active:
                        await transitions.stop(db, locked)


def _shown(key: Key) -> str:
    return f"{key[1]}/{key[2]}"
