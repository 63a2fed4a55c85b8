"""Purge: Bronze data of a deleted connection goes where its deletionPolicy is Delete.

What goes is what the registry knows of the connection, by its uid: another one of the same name shares the prefix of its
keys, and none of its rows.
"""

from __future__ import annotations

from datetime import timedelta

from penstock_operator.bronze.keys import commit_key, log_key
from penstock_operator.ids import RunId
from penstock_operator.retention import purge_statements, statements
from penstock_operator.retention.batches import BATCH, CollectionContext
from penstock_operator.retention.purge_statements import Purge, PurgedAttempt


async def begin_purges(context: CollectionContext) -> int:
    """Begin with connections that were deleted long enough ago."""
    before = context.now - timedelta(seconds=context.retention.purge_delay)
    async with context.pool.connection() as db:
        return len(await purge_statements.begin_purges(db, before, BATCH))


async def purges(context: CollectionContext) -> list[Purge]:
    """Return the connections whose purge is under way."""
    async with context.pool.connection() as db:
        return await purge_statements.purges_under_way(db)


async def purge_objects(context: CollectionContext, purge: Purge) -> int:
    """Delete a batch of the connection's objects, with the commit manifests that name them."""
    async with context.pool.connection() as db:
        rows = await purge_statements.objects_to_purge(db, purge.uid, BATCH)
    runs = sorted({row.run_id for row in rows})
    await context.store.delete([_manifest(context, purge, run) for run in runs])
    await context.store.delete([row.key for row in rows])
    async with context.pool.connection() as db:
        await purge_statements.forget_purged_objects(db, purge.uid, [row.key for row in rows])
    return len(rows)


async def purge_runs(context: CollectionContext, purge: Purge) -> list[PurgedAttempt]:
    """Delete a batch of the connection's runs with their logs and manifests; return their attempts."""
    async with context.pool.connection() as db:
        rows = await purge_statements.attempts_to_purge(db, purge.uid, context.uploads_over, BATCH)
    where = (context.store.settings.prefix, purge.namespace, purge.name)
    logs = [log_key(*where, (row.id, row.attempt)) for row in rows if row.attempt]
    ids = sorted({row.id for row in rows})
    await context.store.delete([*logs, *(_manifest(context, purge, run) for run in ids)])
    async with context.pool.connection() as db:
        await statements.forget_runs(db, ids)
    return rows


async def end_purge(context: CollectionContext, purge: Purge) -> bool:
    """End the purge when nothing is left of it."""
    async with context.pool.connection() as db:
        return await purge_statements.end_purge(db, purge.uid)


def _manifest(context: CollectionContext, purge: Purge, run_id: RunId) -> str:
    return commit_key(context.store.settings.prefix, purge.namespace, purge.name, run_id)
