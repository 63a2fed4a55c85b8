"""Connections that the registry has never seen, recorded a page at a time: a restored cluster, or a first start.

What is due is read from the registry, so that thousands of them are on schedule long before each has its status.
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
from penstock_operator.controller.resource_client import Document, Page
from penstock_operator.controller.resync.comparison import rows_of
from penstock_operator.ids import NamespaceUid
from penstock_operator.registry.database import Pool

log = structlog.get_logger()


async def record_new(pool: Pool, page: Page, namespace_uid: NamespaceUidReader = one_namespace) -> int:
    """Record those of the page's connections that are new and need nothing besides; return how many.

    The others, and those that cannot be used, are left to their reconciles.
    """
    async with pool.connection() as db:
        rows = await rows_of(db, page)
        new = [document for document in page if document["metadata"]["uid"] not in rows]
        if not new:
            return 0
        uids = {name: await namespace_uid(name) for name in {document["metadata"]["namespace"] for document in new}}
        try:
            return len(await connection_records.insert_connections(db, await _wanted(new, DefinitionCache(db), uids)))
        except psycopg.DataError as error:
            log.warning("not recorded at once, but one by one", error=str(error))
            return 0


async def _wanted(
    documents: Iterable[Document], known: DefinitionCache, uids: dict[str, NamespaceUid | None]
) -> list[tuple[ConnectionRecord, Timing]]:
    found, now = [], datetime.now(UTC)
    for document in documents:
        try:
            if stands_alone(document):
                wanted = await desired_connection(document, known)
                record = replace(wanted.record, namespace_uid=uids[wanted.record.namespace])
                found.append((record, wanted.timed(now)))
        except psycopg.Error:
            raise
        except Exception as error:  # noqa: BLE001 - its own reconcile says what is wrong with it, and delays nobody
            log.debug("left to its reconcile", connection=document["metadata"]["name"], error=str(error))
        await asyncio.sleep(0)  # the lease and the other loops have their turns
    return found
