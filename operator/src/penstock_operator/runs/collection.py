"""Collection: what nobody needs any more goes, in batches.

S3 first and the registry after it: a kill in between is followed by the same batch again.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from penstock_operator.bronze.keys import commit_key, log_key
from penstock_operator.bronze.store import BronzeStore
from penstock_operator.registry import collection
from penstock_operator.registry.database import Pool, Row
from penstock_operator.settings import Retention

BATCH = 500
PAGE = 50
STATUS_TRIES = 20
UPLOAD_MARGIN = timedelta(minutes=15)
"""A PUT that began before its URL expired may go on; clocks differ a little."""
RUN_AGE = timedelta(hours=2)
"""A run stays this long after its end, so that no clock that is put back makes its due time again."""


@dataclass(frozen=True)
class Grounds:
    """What collecting stands on."""

    pool: Pool
    store: BronzeStore
    retention: Retention
    now: datetime

    @property
    def uploads_over(self) -> datetime:
        """Whatever was granted before this moment can be uploaded to no more."""
        return self.now - timedelta(seconds=self.retention.upload_expiry) - UPLOAD_MARGIN


async def collect_orphans(grounds: Grounds) -> int:
    """Delete what was uploaded and never committed, once it can be neither committed nor uploaded any more."""
    async with grounds.pool.connection() as connection:
        keys = await collection.orphan_keys(connection, grounds.uploads_over, BATCH)
    await grounds.store.delete(keys)
    async with grounds.pool.connection() as connection:
        await collection.forget_orphans(connection, keys)
    return len(keys)


async def collect_superseded(grounds: Grounds) -> int:
    """Delete generations that were followed by another longer ago than the policy says; without one, they stay."""
    days = grounds.retention.generation_days
    if not days:
        return 0
    async with grounds.pool.connection() as connection:
        keys = await collection.superseded_keys(connection, grounds.now - timedelta(days=days), BATCH)
    await grounds.store.delete(keys)
    async with grounds.pool.connection() as connection:
        return await collection.forget_superseded(connection, keys)


async def collect_runs(grounds: Grounds, after: str) -> list[Row]:
    """Delete runs beyond their connections' history limits, with their logs, of a page; return their attempts."""
    async with grounds.pool.connection() as connection:
        rows = await collection.old_runs(connection, after, PAGE, grounds.now - RUN_AGE, BATCH)
    prefix = grounds.store.settings.prefix
    logs = [
        log_key(prefix, row["namespace"], row["name"], (row["id"], row["attempt"])) for row in rows if row["attempt"]
    ]
    empty = {commit_key(prefix, row["namespace"], row["name"], row["id"]) for row in rows if row["empty"]}
    await grounds.store.delete([*logs, *sorted(empty)])
    async with grounds.pool.connection() as connection:
        await collection.forget_runs(connection, list({row["id"] for row in rows}))
    return rows


async def collect_history(grounds: Grounds, after: str) -> int:
    """Delete checkpoints and schema versions beyond the newest of each stream, of a page."""
    keep = grounds.retention
    async with grounds.pool.connection() as connection:
        gone = await collection.forget_checkpoints(connection, after, PAGE, keep.checkpoints, BATCH)
        return max(gone, await collection.forget_schemas(connection, after, PAGE, keep.schema_versions, BATCH))


async def next_page(grounds: Grounds, after: str) -> str | None:
    """Return where the page of connections that begins after one ends, None behind the last."""
    async with grounds.pool.connection() as connection:
        return await collection.page_end(connection, after, PAGE)


async def collect_messages(grounds: Grounds) -> int:
    """Delete messages that nobody could act on, and what tenants had long ago."""
    async with grounds.pool.connection() as connection:
        await collection.forget_turns(connection, grounds.now - RUN_AGE)
        return await collection.forget_dead_messages(connection, STATUS_TRIES)
