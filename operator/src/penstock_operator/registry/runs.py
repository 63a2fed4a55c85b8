"""connector_runs: every execution for one connection and one due time or token."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from psycopg.types.json import Jsonb

from penstock_operator.registry.attempts import Ending
from penstock_operator.registry.database import Connection, Row, many, one, run


@dataclass(frozen=True)
class NewRun:
    """A run to be: of a due time, or of a request token."""

    id: str
    connection_uid: str
    definition_uid: str
    spec: dict[str, Any]
    scheduled_at: datetime | None = None
    token: str | None = None


async def insert_run(connection: Connection, new: NewRun) -> bool:
    """Insert a run; False when its due time or token has made one already."""
    return bool(
        await run(
            connection,
            """
            INSERT INTO penstock.connector_runs (id, connection_uid, definition_uid, spec, trigger, scheduled_at, token)
            VALUES (%(id)s, %(connection)s, %(definition)s, %(spec)s, %(trigger)s, %(scheduled_at)s, %(token)s)
            ON CONFLICT DO NOTHING
            """,
            id=new.id,
            connection=new.connection_uid,
            definition=new.definition_uid,
            spec=Jsonb(new.spec),
            trigger="request" if new.token else "schedule",
            scheduled_at=new.scheduled_at,
            token=new.token,
        )
    )


async def claim_pending(connection: Connection, now: datetime, limit: int) -> list[Row]:
    """Give each run that waits for an attempt its next one, and return them; no other claimant gets the same."""
    return await many(
        connection,
        """
        WITH due AS (
            SELECT id FROM penstock.connector_runs WHERE phase = 'pending' AND next_attempt_at <= %(now)s
            ORDER BY next_attempt_at LIMIT %(limit)s FOR UPDATE SKIP LOCKED),
        taken AS (
            UPDATE penstock.connector_runs r SET phase = 'running', attempt = r.attempt + 1,
                started_at = coalesce(r.started_at, now())
            FROM due WHERE r.id = due.id RETURNING r.id, r.attempt)
        INSERT INTO penstock.run_attempts (run_id, attempt, job_name)
        SELECT id, attempt, 'penstock-' || id || '-' || attempt FROM taken RETURNING run_id, attempt
        """,
        now=now,
        limit=limit,
    )


async def hold_run(connection: Connection, run_id: str, attempt: int) -> bool:
    """Hold the run row for this transaction if the attempt is the current one: nothing can take over meanwhile."""
    row = await one(
        connection,
        "SELECT 1 AS held FROM penstock.connector_runs WHERE id = %(run)s AND attempt = %(attempt)s AND phase = 'running'"
        " FOR SHARE",
        run=run_id,
        attempt=attempt,
    )
    return row is not None


async def lock_run(connection: Connection, run_id: str) -> Row | None:
    """Lock a run to change its phase, and return it."""
    return await one(connection, "SELECT * FROM penstock.connector_runs WHERE id = %(run)s FOR UPDATE", run=run_id)


async def postpone_run(connection: Connection, run_id: str, at: datetime, streak: int, ending: Ending) -> None:
    """Put a run back to wait for its next attempt."""
    await run(
        connection,
        "UPDATE penstock.connector_runs SET phase = 'pending', next_attempt_at = %(at)s, streak = %(streak)s,"
        " reason = %(reason)s, error_class = %(error_class)s, message = %(message)s,"
        " operator_message = %(operator_message)s WHERE id = %(run)s",
        run=run_id,
        at=at,
        streak=streak,
        reason=ending.reason,
        error_class=ending.error_class,
        message=ending.message,
        operator_message=ending.operator_message,
    )


async def end_run(connection: Connection, run_id: str, phase: str, ending: Ending) -> None:
    """Give a run its final phase and its totals, which are the sums of its committed objects."""
    await run(
        connection,
        """
        UPDATE penstock.connector_runs SET phase = %(phase)s, finished_at = now(), reason = %(reason)s,
            error_class = %(error_class)s, message = %(message)s, operator_message = %(operator_message)s,
            metrics = coalesce((SELECT jsonb_object_agg(attempt::text, metrics) FROM penstock.run_attempts
                                WHERE run_id = %(run)s), '{}'),
            (records, rejected, bytes, objects) = (
                SELECT coalesce(sum(o.records) FILTER (WHERE o.kind = 'data'), 0),
                    coalesce(sum(o.records) FILTER (WHERE o.kind = 'rejected'), 0),
                    coalesce(sum(o.bytes) FILTER (WHERE o.kind = 'data'), 0), count(*) FILTER (WHERE o.kind = 'data')
                FROM penstock.bronze_objects o WHERE o.run_id = %(run)s AND o.committed_at IS NOT NULL)
        WHERE id = %(run)s
        """,
        run=run_id,
        phase=phase,
        reason=ending.reason,
        error_class=ending.error_class,
        message=ending.message,
        operator_message=ending.operator_message,
    )


async def request_cancel(connection: Connection, run_id: str) -> Row | None:
    """Ask for a run's end; None when there is no such run."""
    return await one(
        connection,
        "UPDATE penstock.connector_runs SET cancel_requested = true WHERE id = %(run)s RETURNING *",
        run=run_id,
    )


async def active_runs(connection: Connection, connection_uid: str) -> list[Row]:
    """Return the connection's runs that have not ended."""
    return await many(
        connection,
        "SELECT * FROM penstock.connector_runs WHERE connection_uid = %(uid)s AND phase IN ('pending', 'running')",
        uid=connection_uid,
    )


async def runs_of_deleted_connections(connection: Connection) -> list[str]:
    """Return the runs that have not ended though their connection is gone."""
    rows = await many(
        connection,
        """
        SELECT r.id FROM penstock.connector_runs r WHERE r.phase IN ('pending', 'running')
          AND (SELECT c.deleted_at FROM penstock.tenant_connections c WHERE c.uid = r.connection_uid) IS NOT NULL
        ORDER BY r.id
        """,
    )
    return [row["id"] for row in rows]


RUN = """
    SELECT r.*, c.namespace, c.name, d.name AS definition,
        (SELECT coalesce(sum(o.records), 0)::bigint FROM penstock.bronze_objects o
         WHERE o.run_id = r.id AND o.kind = 'data' AND o.committed_at IS NOT NULL) AS committed_records
    FROM penstock.connector_runs r
    JOIN penstock.tenant_connections c ON c.uid = r.connection_uid
    JOIN penstock.connector_definitions d ON d.uid = r.definition_uid
"""


async def newest_run(connection: Connection, connection_uid: str) -> Row | None:
    """Return the connection's newest run."""
    return await one(
        connection, RUN + " WHERE r.connection_uid = %(uid)s ORDER BY r.id DESC LIMIT 1", uid=connection_uid
    )


async def run_by_id(connection: Connection, run_id: str) -> Row | None:
    """Return one run."""
    return await one(connection, RUN + " WHERE r.id = %(run)s", run=run_id)


async def list_runs(connection: Connection, namespace: str | None, name: str | None, limit: int) -> list[Row]:
    """Return the newest runs, of one namespace and connection or of all."""
    return await many(
        connection,
        RUN
        + """ WHERE (%(namespace)s::text IS NULL OR c.namespace = %(namespace)s)
               AND (%(name)s::text IS NULL OR c.name = %(name)s) ORDER BY r.id DESC LIMIT %(limit)s""",
        namespace=namespace,
        name=name,
        limit=limit,
    )
