"""Records connections that the registry has never seen, a page at a time: in a restored cluster, or at a first start.

Runs are made from the registry, so thousands of connections are on schedule long before each has its status.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime

import psycopg
import structlog

from penstock_operator.connections import connection_records
from penstock_operator.connections.connection_records import ConnectionRecord, Timing
from penstock_operator.controller.desired import DefinitionCache, desired_connection, stands_alone
from penstock_operator.controller.identity import NamespaceUidReader, one_namespace
from penstock_operator.controller.resync.comparison import rows_of
from penstock_operator.ids import Namespace, NamespaceUid
from penstock_operator.registry.database import Pool
from penstock_operator.resources.documents import Connection

log = structlog.get_logger()


async def record_new(pool: Pool, page: list[Connection], namespace_uid: NamespaceUidReader = one_namespace) -> int:
    """Record those of the page's connections that are new and need nothing but their row; return how many.

    The others, and those that cannot be used, are left to their reconciles.
    """
    async with pool.connection() as db:
        rows = await rows_of(db, page)
        new = [connection for connection in page if connection.uid not in rows]
        if not new:
            return 0
        uids = {name: await namespace_uid(name) for name in {connection.namespace for connection in new}}
        desired = await _desired(new, DefinitionCache(db), uids)
        try:
            return len(await connection_records.insert_connections(db, desired))
        except psycopg.DataError as error:
            log.warning("page not recorded", error=str(error), connections=len(desired))
            return 0


async def _desired(
    connections: Iterable[Connection], known: DefinitionCache, uids: dict[Namespace, NamespaceUid | None]
) -> list[tuple[ConnectionRecord, Timing]]:
    found, now = [], datetime.now(UTC)
    for connection in connections:
        try:
            if stands_alone(connection):
                desired = await desired_connection(connection, known)
                record = replace(desired.record, namespace_uid=uids[connection.namespace])
                found.append((record, desired.timed(now)))
        except psycopg.Error:
            raise
        except Exception as error:  # noqa: BLE001 - its own reconcile reports the problem, and delays nobody
            log.debug("connection left to its reconcile", connection=connection.name, error=str(error))
        await asyncio.sleep(0)  # the lease and the other loops run in between
    return found
