"""Whose a connection is: the first installation that saw it marks it, and every other one leaves it alone.

The mark is `status.installation`, which tenants cannot write. It is written over the version that was read, so that of two
installations that see a new connection at the same moment one is refused.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

import structlog
from prometheus_client import Gauge

from penstock_operator.controller.resource_client import Document, Page, ResourceClient, StaleDocumentError, key_of
from penstock_operator.controller.workqueue import Key
from penstock_operator.ids import ConnectionUid
from penstock_operator.registry import installation
from penstock_operator.registry.database import Pool
from penstock_operator.resources.scope import EVERYTHING, Scope
from penstock_operator.runs import run_store, transitions

log = structlog.get_logger()
AT_ONCE = 32
FOREIGN = Gauge("penstock_foreign_connections", "Connections in this installation's scope that belong to another one")


class Ownership:
    """What this installation works on. Without an id, as in a folder, everything is its own and nothing is marked."""

    def __init__(self, pool: Pool, resources: ResourceClient, id_: str | None, scope: Scope = EVERYTHING) -> None:
        self._pool = pool
        self._resources = resources
        self.id = id_
        self.scope = scope
        self._foreign: dict[Key, str] = {}

    def is_ours(self, document: Document) -> bool:
        """Say whether the resource is marked as this installation's."""
        return self.id is None or _owner_of(document) == self.id

    def is_foreign(self, document: Document) -> bool:
        """Say whether this installation leaves the connection alone: out of its scope, or another's."""
        if not self.scope.covers(document["metadata"]):
            return True
        return self.id is not None and _owner_of(document) not in (None, self.id)

    async def claim(self, document: Document) -> Document:
        """Return the connection as it is once it is marked. Raises StaleDocumentError when it has changed meanwhile."""
        if self.id is None or _owner_of(document) is not None:
            return document
        status = {**document.get("status", {}), "installation": self.id}
        version = await self._resources.write_status(document, status)
        return {**document, "status": status, "metadata": {**document["metadata"], "resourceVersion": version}}

    async def claim_page(self, page: Page) -> Page:
        """Mark those of the page that are nobody's, and return what is ours now, as it is then.

        What cannot be marked now is left out: its own reconcile sees to it.
        """
        slots = asyncio.Semaphore(AT_ONCE)

        async def claimed(document: Document) -> Document | None:
            async with slots:
                try:
                    return await self.claim(document)
                except StaleDocumentError:
                    return None
                except Exception as error:  # noqa: BLE001 - one that cannot be marked must not keep the others
                    log.warning(
                        "not marked", connection=_where(key_of(document)), error=f"{type(error).__name__}: {error}"
                    )
                    return None

        found = await asyncio.gather(*(claimed(each) for each in page if not self.is_foreign(each)))
        return [each for each in found if each is not None]

    async def leave(self, document: Document) -> None:
        """Leave a connection to whose it is: end what this installation runs of it, and say so once."""
        key, owner = key_of(document), _owner_of(document) or ""
        covered = self.scope.covers(document["metadata"])
        if covered and self._foreign.get(key) != owner:
            log.warning(
                "left alone: the connection belongs to another installation",
                connection=_where(key),
                installation=owner,
                ours=self.id,
            )
            self._foreign[key] = owner
        FOREIGN.set(len(self._foreign))
        await self.release(ConnectionUid(document["metadata"]["uid"]))

    def kept(self, keys: Iterable[Key]) -> None:
        """Forget these keys among the foreign ones: they are ours, or gone."""
        for key in keys:
            self._foreign.pop(key, None)
        FOREIGN.set(len(self._foreign))

    async def release(self, uid: ConnectionUid) -> None:
        """End the runs of a connection that is not ours any more: they are fenced at once, and their Jobs deleted."""
        async with self._pool.connection() as db:
            if not await installation.release_connection(db, uid):
                return
            for run in await run_store.active_runs(db, uid):
                async with db.transaction():
                    locked = await run_store.lock_run(db, run.id)
                    if locked and locked.is_active:
                        await transitions.stop(db, locked)


def _owner_of(document: Document) -> str | None:
    owner: str | None = (document.get("status") or {}).get("installation")
    return owner


def _where(key: Key) -> str:
    return f"{key[1]}/{key[2]}"
