"""Purge: Bronze data of a deleted connection goes where its deletionPolicy is Delete.

What goes is what the registry knows of the connection, by its uid: another one of the same name shares the prefix of its
keys, and none of its rows.
"""

from __future__ import annotations

from datetime import timedelta

from penstock_operator.bronze.keys import commit_key, log_key
from penstock_operator.registry.database import Row
from penstock_operator.retention import purge_statements, statements
from penstock_operator.retention.batches import BATCH, CollectionContext


async def begin_purges(grounds: CollectionContext) -> int:
    """Begin with connections that were deleted long enough ago."""
    before = grounds.now - timedelta(seconds=grounds.retention.purge_delay)
    async with grounds.pool.connection() as db:
        return len(await purge_statements.begin_purges(db, before, BATCH))


async def purges(grounds: CollectionContext) -> list[Row]:
    """Return the connections whose purge is under way."""
    async with grounds.pool.connection() as db:
        return await purge_statements.purges_under_way(db)


async def purge_objects(grounds: CollectionContext, purge: Row) -> int:
    """Delete a batch of the connection's objects, with the commit manifests that name them."""
    async with grounds.pool.connection() as db:
        rows = await purge_statements.doomed_objects(db, purge["uid"], BATCH)
    runs = sorted({row["run_id"] for row in rows})
    await grounds.store.delete([_manifest(grounds, purge, run) for run in runs])
    await grounds.store.delete([row["key"] for row in rows])
    async with grounds.pool.connection() as db:
        await purge_statements.forget_doomed(db, purge["uid"], [row["key"] for row in rows])
    return len(rows)


async def purge_runs(grounds: CollectionContext, purge: Row) -> list[Row]:
    """Delete a batch of the connection's runs with their logs and manifests; return their attempts."""
    async with grounds.pool.connection() as db:
        rows = await purge_statements.doomed_runs(db, purge["uid"], grounds.uploads_over, BATCH)
    where = (grounds.store.settings.prefix, purge["namespace"], purge["name"])
    logs = [log_key(*where, (row["id"], row["attempt"])) for row in rows if row["attempt"]]
    ids = sorted({row["id"] for row in rows})
    await grounds.store.delete([*logs, *(_manifest(grounds, purge, run) for run in ids)])
    async with grounds.pool.connection() as db:
        await statements.forget_runs(db, ids)
    return rows


async def end_purge(grounds: CollectionContext, purge: Row) -> bool:
    """End the purge when nothing is left of it."""
    async with grounds.pool.connection() as db:
        return await purge_statements.end_purge(db, purge["uid"])


def _manifest(grounds: CollectionContext, purge: Row, run_id: str) -> str:
    return commit_key(grounds.store.settings.prefix, purge["namespace"], purge["name"], run_id)
