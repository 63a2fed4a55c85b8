"""Collection: what nobody needs any more goes, in batches.

S3 first and the registry after it: a kill in between is followed by the same batch again.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from penstock_operator.audit import audit_store
from penstock_operator.bronze.keys import commit_key, log_key
from penstock_operator.bronze.store import UPLOAD_END, BronzeStore
from penstock_operator.ids import ConnectionUid
from penstock_operator.registry.database import Pool
from penstock_operator.retention import statements
from penstock_operator.retention.statements import OldAttempt
from penstock_operator.settings import Retention

BATCH = 500
AUDIT_BATCH = 5_000
PAGE = 50
STATUS_TRIES = 20
RUN_AGE = timedelta(hours=2)
"""A run stays this long after its end, so that no clock that is put back makes its due time again."""


@dataclass(frozen=True)
class CollectionContext:
    """What the steps of the collection need."""

    pool: Pool
    store: BronzeStore
    retention: Retention
    now: datetime

    @property
    def uploads_over(self) -> datetime:
        """A URL that was signed before this time is not valid any more."""
        return self.now - UPLOAD_END


async def collect_orphans(context: CollectionContext) -> int:
    """Delete what was uploaded and never committed, once it can be neither committed nor uploaded any more."""
    async with context.pool.connection() as db:
        keys = await statements.orphan_keys(db, context.uploads_over, BATCH)
    await context.store.delete(keys)
    async with context.pool.connection() as db:
        await statements.forget_orphans(db, keys)
    return len(keys)


async def collect_superseded(context: CollectionContext) -> int:
    """Delete generations that were followed by another longer ago than the policy says; without one, they stay."""
    days = context.retention.generation_days
    if not days:
        return 0
    async with context.pool.connection() as db:
        keys = await statements.superseded_keys(db, context.now - timedelta(days=days), BATCH)
    await context.store.delete(keys)
    async with context.pool.connection() as db:
        return await statements.forget_superseded(db, keys)


async def collect_runs(context: CollectionContext, after: ConnectionUid) -> list[OldAttempt]:
    """Delete runs beyond their connections' history limits, with their logs, of a page; return their attempts."""
    async with context.pool.connection() as db:
        rows = await statements.old_runs(db, after, PAGE, context.now - RUN_AGE, BATCH)
    prefix = context.store.settings.prefix
    logs = [log_key(prefix, row.namespace, row.name, (row.id, row.attempt)) for row in rows if row.attempt]
    empty = {commit_key(prefix, row.namespace, row.name, row.id) for row in rows if row.empty}
    await context.store.delete([*logs, *sorted(empty)])
    async with context.pool.connection() as db:
        await statements.forget_runs(db, list({row.id for row in rows}))
    return rows


async def collect_history(context: CollectionContext, after: ConnectionUid) -> int:
    """Delete checkpoints and schema versions beyond the newest of each stream, of a page."""
    keep = context.retention
    async with context.pool.connection() as db:
        gone = await statements.forget_checkpoints(db, after, PAGE, keep.checkpoints, BATCH)
        return max(gone, await statements.forget_schemas(db, after, PAGE, keep.schema_versions, BATCH))


async def next_page(context: CollectionContext, after: ConnectionUid) -> ConnectionUid | None:
    """Return where the page of connections that begins after one ends, None behind the last."""
    async with context.pool.connection() as db:
        return await statements.page_end(db, after, PAGE)


async def collect_audit_events(context: CollectionContext) -> int:
    """Delete events of the audit that are older than the policy says; without one, they stay."""
    days = context.retention.audit_days
    if not days:
        return 0
    async with context.pool.connection() as db:
        return await audit_store.expire(db, context.now - timedelta(days=days), AUDIT_BATCH)


async def collect_messages(context: CollectionContext) -> int:
    """Delete messages that nobody could act on, and what tenants had long ago."""
    async with context.pool.connection() as db:
        await statements.forget_turns(db, context.now - RUN_AGE)
        return await statements.forget_dead_messages(db, STATUS_TRIES)
