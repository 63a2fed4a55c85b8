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

from penstock_operator.controller.identity import NamespaceUid, one_namespace
from penstock_operator.controller.resources import Document, Page
from penstock_operator.controller.resync import rows_of
from penstock_operator.controller.wanted import Definitions, stands_alone, wanted_of
from penstock_operator.registry import recording
from penstock_operator.registry.database import Pool
from penstock_operator.registry.recording import ConnectionRecord, Timing

log = structlog.get_logger()


async def register(pool: Pool, page: Page, namespace_uid: NamespaceUid = one_namespace) -> int:
    """Record those of the page's connections that are new and need nothing besides; return how many.

    The others, and those that cannot be used, are left to their reconciles.
    """
    async with pool.connection() as connection:
        rows = await rows_of(connection, page)
        new = [each for each in page if each["metadata"]["uid"] not in rows]
        if not new:
            return 0
        uids = {name: await namespace_uid(name) for name in {each["metadata"]["namespace"] for each in new}}
        try:
            return len(
                await recording.insert_connections(connection, await _wanted(new, Definitions(connection), uids))
            )
        except psycopg.DataError as error:
            log.warning("not recorded at once, but one by one", error=str(error))
            return 0


async def _wanted(
    documents: Iterable[Document], known: Definitions, uids: dict[str, str | None]
) -> list[tuple[ConnectionRecord, Timing]]:
    found, now = [], datetime.now(UTC)
    for document in documents:
        try:
            if stands_alone(document):
                wanted = await wanted_of(document, known)
                record = replace(wanted.record, namespace_uid=uids[wanted.record.namespace])
                found.append((record, wanted.timed(now)))
        except psycopg.Error:
            raise
        except Exception as error:  # noqa: BLE001 - its own reconcile says what is wrong with it, and delays nobody
            log.debug("left to its reconcile", connection=document["metadata"]["name"], error=str(error))
        await asyncio.sleep(0)  # the lease and the other loops have their turns
    return found
