"""Purge: the Bronze data of a deleted connection is deleted, if its deletionPolicy is Delete.

A purge deletes the objects and runs that the registry has of the connection, by its uid. Another connection of the same name
has keys with the same prefix, and rows of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from penstock_operator.audit import audit_store
from penstock_operator.audit.events import Action, AuditedObject
from penstock_operator.bronze.keys import commit_key, log_key
from penstock_operator.connections.predecessors import STREAM_TABLES
from penstock_operator.ids import AttemptNumber, ConnectionName, ConnectionUid, Namespace, RunId
from penstock_operator.registry.database import DatabaseConnection, execute, fetch_all, fetch_value, fetch_values
from penstock_operator.retention import statements
from penstock_operator.retention.batches import BATCH, CollectionContext


@dataclass(frozen=True, slots=True)
class Purge:
    """A deleted connection whose objects and runs are being deleted."""

    uid: ConnectionUid
    namespace: Namespace
    name: ConnectionName
    purge_started_at: datetime


@dataclass(frozen=True, slots=True)
class PurgedObject:
    """An object to delete."""

    key: str
    run_id: RunId


@dataclass(frozen=True, slots=True)
class PurgedAttempt:
    """An attempt of a run to delete; `attempt` and `job_name` are None for a run without one."""

    id: RunId
    attempt: AttemptNumber | None
    job_name: str | None


async def begin_purges(db: DatabaseConnection, before: datetime, limit: int) -> list[ConnectionUid]:
    """Begin the purges of connections deleted before that moment whose policy is Delete and that no attempt writes to.

    Their states are deleted in the same transaction: a connection that is applied again meanwhile with the same uid, as in
    a folder, begins from the start.
    """
    async with db.transaction():
        uids = await fetch_values(
            db,
            ConnectionUid,
            """
            UPDATE penstock.tenant_connections SET purge_started_at = now(),
                first_generation = penstock.next_generation(namespace, name)
            WHERE uid IN (
                SELECT uid FROM penstock.tenant_connections c
                WHERE c.deleted_at < %(before)s AND c.deleted_at IS NOT NULL AND c.purged_at IS NULL
                  AND c.spec -> 'bronze' ->> 'deletionPolicy' = 'Delete' AND c.purge_started_at IS NULL
                  AND NOT EXISTS (SELECT 1 FROM penstock.connector_runs r
                                  WHERE r.connection_uid = c.uid AND r.phase IN ('pending', 'running'))
                ORDER BY c.deleted_at LIMIT %(limit)s FOR UPDATE SKIP LOCKED)
            RETURNING uid
            """,
            before=before,
            limit=limit,
        )
        for table in STREAM_TABLES:
            await execute(db, f"DELETE FROM penstock.{table} WHERE connection_uid = ANY(%(uids)s)", uids=uids)  # noqa: S608
    return uids


async def purges_under_way(db: DatabaseConnection) -> list[Purge]:
    """Return the connections whose purge is under way."""
    return await fetch_all(
        db,
        Purge,
        "SELECT uid, namespace, name, purge_started_at FROM penstock.tenant_connections"
        " WHERE purge_started_at IS NOT NULL AND purged_at IS NULL ORDER BY purge_started_at",
    )


async def objects_to_purge(db: DatabaseConnection, uid: ConnectionUid, limit: int) -> list[PurgedObject]:
    """Return committed objects from before the purge. Uncommitted ones are orphans, and wait until nobody can upload."""
    return await fetch_all(
        db,
        PurgedObject,
        """
        SELECT o.key, o.run_id FROM penstock.bronze_objects o JOIN penstock.tenant_connections c ON c.uid = o.connection_uid
        WHERE o.connection_uid = %(uid)s AND o.committed_at IS NOT NULL AND o.granted_at < c.purge_started_at
        LIMIT %(limit)s
        """,
        uid=uid,
        limit=limit,
    )


async def forget_purged_objects(db: DatabaseConnection, uid: ConnectionUid, keys: list[str]) -> int:
    """Forget objects that are deleted; none from after the purge began."""
    return await execute(
        db,
        """
        DELETE FROM penstock.bronze_objects o USING penstock.tenant_connections c
        WHERE o.key = ANY(%(keys)s) AND c.uid = %(uid)s AND o.connection_uid = c.uid AND o.granted_at < c.purge_started_at
        """,
        keys=keys,
        uid=uid,
    )


async def attempts_to_purge(
    db: DatabaseConnection, uid: ConnectionUid, before: datetime, limit: int
) -> list[PurgedAttempt]:
    """Return ended runs from before the purge, with their attempts, that nobody can upload for any more."""
    return await fetch_all(
        db,
        PurgedAttempt,
        """
        SELECT r.id, a.attempt, a.job_name FROM (
            SELECT r.id FROM penstock.connector_runs r JOIN penstock.tenant_connections c ON c.uid = r.connection_uid
            WHERE r.connection_uid = %(uid)s AND r.created_at < c.purge_started_at AND r.finished_at < %(before)s
              AND NOT EXISTS (SELECT 1 FROM penstock.bronze_objects o WHERE o.run_id = r.id)
              AND NOT EXISTS (SELECT 1 FROM penstock.outbox m WHERE m.kind = 'commit' AND m.payload ->> 'run' = r.id)
              AND NOT EXISTS (SELECT 1 FROM penstock.run_attempts a WHERE a.run_id = r.id AND a.finished_at IS NULL)
            ORDER BY r.id LIMIT %(limit)s) r
        LEFT JOIN penstock.run_attempts a ON a.run_id = r.id
        """,
        uid=uid,
        before=before,
        limit=limit,
    )


async def end_purge(db: DatabaseConnection, uid: ConnectionUid) -> bool:
    """End the purge once nothing from before it is left; False while something is.

    A connection that lives again, or was deleted once more since, may be purged another time.
    """
    left = await fetch_value(
        db,
        int,
        """
        SELECT 1 FROM penstock.tenant_connections c WHERE c.uid = %(uid)s AND (
            EXISTS (SELECT 1 FROM penstock.bronze_objects o
                    WHERE o.connection_uid = c.uid AND o.granted_at < c.purge_started_at)
            OR EXISTS (SELECT 1 FROM penstock.connector_runs r
                       WHERE r.connection_uid = c.uid AND r.created_at < c.purge_started_at))
        """,
        uid=uid,
    )
    if left:
        return False
    await execute(
        db,
        """
        UPDATE penstock.tenant_connections SET purge_started_at = NULL,
            purged_at = CASE WHEN deleted_at < purge_started_at THEN now() END
        WHERE uid = %(uid)s
        """,
        uid=uid,
    )
    return True


async def begin_due_purges(context: CollectionContext) -> int:
    """Begin the purges of connections that were deleted long enough ago, and return how many."""
    before = context.now - timedelta(seconds=context.retention.purge_delay)
    async with context.pool.connection() as db:
        return len(await begin_purges(db, before, BATCH))


async def purges(context: CollectionContext) -> list[Purge]:
    """Return the connections whose purge is under way."""
    async with context.pool.connection() as db:
        return await purges_under_way(db)


async def purge_objects(context: CollectionContext, purge: Purge) -> int:
    """Delete a batch of the connection's objects, with the commit manifests that name them."""
    async with context.pool.connection() as db:
        rows = await objects_to_purge(db, purge.uid, BATCH)
    runs = sorted({row.run_id for row in rows})
    await context.store.delete([_manifest(context, purge, run) for run in runs])
    await context.store.delete([row.key for row in rows])
    async with context.pool.connection() as db:
        await forget_purged_objects(db, purge.uid, [row.key for row in rows])
    return len(rows)


async def purge_runs(context: CollectionContext, purge: Purge) -> list[PurgedAttempt]:
    """Delete a batch of the connection's runs with their logs and manifests; return their attempts."""
    async with context.pool.connection() as db:
        rows = await attempts_to_purge(db, purge.uid, context.uploads_over, BATCH)
    where = (context.store.settings.prefix, purge.namespace, purge.name)
    logs = [log_key(*where, (row.id, row.attempt)) for row in rows if row.attempt]
    ids = sorted({row.id for row in rows})
    await context.store.delete([*logs, *(_manifest(context, purge, run) for run in ids)])
    async with context.pool.connection() as db:
        await statements.forget_runs(db, ids)
    return rows


async def finish_purge(context: CollectionContext, purge: Purge) -> bool:
    """End the purge when nothing is left of it."""
    async with context.pool.connection() as db, db.transaction():
        ended = await end_purge(db, purge.uid)
        if ended:
            await audit_store.record(db, Action.data_purge, AuditedObject("connection", purge.namespace, purge.name))
    return ended


def _manifest(context: CollectionContext, purge: Purge, run_id: RunId) -> str:
    return commit_key(context.store.settings.prefix, purge.namespace, purge.name, run_id)
