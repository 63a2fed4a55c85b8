"""What a deleted connection leaves behind, and how it goes where its policy says so."""

from __future__ import annotations

from datetime import datetime

from penstock_operator.connections.predecessors import STREAM_TABLES
from penstock_operator.registry.database import DatabaseConnection, Row, many, one, run


async def begin_purges(db: DatabaseConnection, before: datetime, limit: int) -> list[str]:
    """Begin with connections deleted before that moment whose policy is Delete and that no attempt writes to.

    From here on their objects are doomed and their states gone, in one transaction: a connection that is applied again
    meanwhile with the same uid, as in a folder, begins from the start.
    """
    async with db.transaction():
        rows = await many(
            db,
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
        uids = [row["uid"] for row in rows]
        for table in STREAM_TABLES:
            await run(db, f"DELETE FROM penstock.{table} WHERE connection_uid = ANY(%(uids)s)", uids=uids)  # noqa: S608
    return uids


async def purges_under_way(db: DatabaseConnection) -> list[Row]:
    """Return the connections whose objects are doomed."""
    return await many(
        db,
        "SELECT uid, namespace, name, purge_started_at FROM penstock.tenant_connections"
        " WHERE purge_started_at IS NOT NULL AND purged_at IS NULL ORDER BY purge_started_at",
    )


async def doomed_objects(db: DatabaseConnection, uid: str, limit: int) -> list[Row]:
    """Return committed objects from before the purge. Uncommitted ones are orphans, and wait until nobody can upload."""
    return await many(
        db,
        """
        SELECT o.key, o.run_id FROM penstock.bronze_objects o JOIN penstock.tenant_connections c ON c.uid = o.connection_uid
        WHERE o.connection_uid = %(uid)s AND o.committed_at IS NOT NULL AND o.granted_at < c.purge_started_at
        LIMIT %(limit)s
        """,
        uid=uid,
        limit=limit,
    )


async def forget_doomed(db: DatabaseConnection, uid: str, keys: list[str]) -> int:
    """Forget objects that are deleted; none from after the purge began."""
    return await run(
        db,
        """
        DELETE FROM penstock.bronze_objects o USING penstock.tenant_connections c
        WHERE o.key = ANY(%(keys)s) AND c.uid = %(uid)s AND o.connection_uid = c.uid AND o.granted_at < c.purge_started_at
        """,
        keys=keys,
        uid=uid,
    )


async def doomed_runs(db: DatabaseConnection, uid: str, before: datetime, limit: int) -> list[Row]:
    """Return ended runs from before the purge, with their attempts, that nobody can upload for any more."""
    return await many(
        db,
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


async def end_purge(db: DatabaseConnection, uid: str) -> bool:
    """End the purge once nothing from before it is left; False while something is.

    A connection that lives again, or was deleted once more since, may be purged another time.
    """
    left = await one(
        db,
        """
        SELECT 1 AS something FROM penstock.tenant_connections c WHERE c.uid = %(uid)s AND (
            EXISTS (SELECT 1 FROM penstock.bronze_objects o
                    WHERE o.connection_uid = c.uid AND o.granted_at < c.purge_started_at)
            OR EXISTS (SELECT 1 FROM penstock.connector_runs r
                       WHERE r.connection_uid = c.uid AND r.created_at < c.purge_started_at))
        """,
        uid=uid,
    )
    if left:
        return False
    await run(
        db,
        """
        UPDATE penstock.tenant_connections SET purge_started_at = NULL,
            purged_at = CASE WHEN deleted_at < purge_started_at THEN now() END
        WHERE uid = %(uid)s
        """,
        uid=uid,
    )
    return True
