"""Purge: Bronze data of a deleted connection goes where its deletionPolicy is Delete.

What goes is what the registry knows of the connection, by its uid: another one of the same name shares the prefix of its
keys, and none of its rows.
"""

from __future__ import annotations

from datetime import timedelta

from penstock_operator.bronze.keys import commit_key, log_key
from penstock_operator.registry import collection, purging
from penstock_operator.registry.database import Row
from penstock_operator.runs.collection import BATCH, Grounds


async def begin_purges(grounds: Grounds) -> int:
    """Begin with connections that were deleted long enough ago."""
    before = grounds.now - timedelta(seconds=grounds.retention.purge_delay)
    async with grounds.pool.connection() as connection:
        return len(await purging.begin_purges(connection, before, BATCH))


async def purges(grounds: Grounds) -> list[Row]:
    """Return the connections whose purge is under way."""
    async with grounds.pool.connection() as connection:
        return await purging.purges_under_way(connection)


async def purge_objects(grounds: Grounds, purge: Row) -> int:
    """Delete a batch of the connection's objects, with the commit manifests that name them."""
    async with grounds.pool.connection() as connection:
        rows = await purging.doomed_objects(connection, purge["uid"], BATCH)
    runs = sorted({row["run_id"] for row in rows})
    await grounds.store.delete([_manifest(grounds, purge, run) for run in runs])
    await grounds.store.delete([row["key"] for row in rows])
    async with grounds.pool.connection() as connection:
        await purging.forget_doomed(connection, purge["uid"], [row["key"] for row in rows])
    return len(rows)


async def purge_runs(grounds: Grounds, purge: Row) -> list[Row]:
    """Delete a batch of the connection's runs with their logs and manifests; return their attempts."""
    async with grounds.pool.connection() as connection:
        rows = await purging.doomed_runs(connection, purge["uid"], grounds.uploads_over, BATCH)
    where = (grounds.store.settings.prefix, purge["namespace"], purge["name"])
    logs = [log_key(*where, (row["id"], row["attempt"])) for row in rows if row["attempt"]]
    ids = sorted({row["id"] for row in rows})
    await grounds.store.delete([*logs, *(_manifest(grounds, purge, run) for run in ids)])
    async with grounds.pool.connection() as connection:
        await collection.forget_runs(connection, ids)
    return rows


async def end_purge(grounds: Grounds, purge: Row) -> bool:
    """End the purge when nothing is left of it."""
    async with grounds.pool.connection() as connection:
        return await purging.end_purge(connection, purge["uid"])


def _manifest(grounds: Grounds, purge: Row, run_id: str) -> str:
    return commit_key(grounds.store.settings.prefix, purge["namespace"], purge["name"], run_id)
