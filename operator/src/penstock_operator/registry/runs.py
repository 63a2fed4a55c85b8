"""connector_runs and run_attempts: every run and every try of it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from psycopg.types.json import Jsonb

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


LAUNCH = """
    SELECT a.run_id, a.attempt, a.job_name, a.job_uid, a.phase AS attempt_phase, a.launched_at, a.started_at AS attempt_started_at,
           a.heartbeat_at, r.phase, r.attempt AS current_attempt, r.spec, r.cancel_requested, r.connection_uid, c.namespace,
           c.name, d.image, d.manifest, d.name AS definition
    FROM penstock.run_attempts a
    JOIN penstock.connector_runs r ON r.id = a.run_id
    JOIN penstock.tenant_connections c ON c.uid = r.connection_uid
    JOIN penstock.connector_definitions d ON d.uid = r.definition_uid
"""


async def attempt_to_launch(connection: Connection, run_id: str, attempt: int) -> Row | None:
    """Return all that a launcher needs to know of an attempt, None when it is not the current one any more."""
    return await one(
        connection,
        LAUNCH
        + " WHERE a.run_id = %(run)s AND a.attempt = %(attempt)s AND r.attempt = a.attempt AND r.phase = 'running'",
        run=run_id,
        attempt=attempt,
    )


async def attempt_by_job(connection: Connection, job_name: str) -> Row | None:
    """Return the attempt that a Job was made for."""
    return await one(connection, LAUNCH + " WHERE a.job_name = %(job)s", job=job_name)


async def live_attempts(connection: Connection) -> list[Row]:
    """Return every attempt that has not ended, oldest first."""
    return await many(connection, LAUNCH + " WHERE a.finished_at IS NULL ORDER BY a.launched_at")


async def record_job(connection: Connection, run_id: str, attempt: int, job_uid: str) -> None:
    """Bind the attempt to its Job; only that Job's pod can claim it."""
    await run(
        connection,
        "UPDATE penstock.run_attempts SET job_uid = %(uid)s WHERE run_id = %(run)s AND attempt = %(attempt)s",
        run=run_id,
        attempt=attempt,
        uid=job_uid,
    )


async def claim_attempt(connection: Connection, run_id: str, attempt: int, pod_uid: str, token: bytes) -> bool:
    """Give the attempt to a pod; False when another pod has it. The same pod may ask again: its reply was lost."""
    return bool(
        await run(
            connection,
            "UPDATE penstock.run_attempts SET phase = 'running', pod_uid = %(pod)s, token_sha256 = %(token)s,"
            " started_at = coalesce(started_at, now()), heartbeat_at = now()"
            " WHERE run_id = %(run)s AND attempt = %(attempt)s AND finished_at IS NULL"
            " AND (pod_uid IS NULL OR pod_uid = %(pod)s)",
            run=run_id,
            attempt=attempt,
            pod=pod_uid,
            token=token,
        )
    )


async def attempt_by_token(connection: Connection, token: bytes) -> Row | None:
    """Return the attempt that holds a run token, with its run; ended or not."""
    return await one(
        connection,
        """
        SELECT a.*, r.phase AS run_phase, r.attempt AS current_attempt, r.connection_uid, r.spec, r.streak,
               r.cancel_requested, c.namespace, c.name, d.manifest
        FROM penstock.run_attempts a
        JOIN penstock.connector_runs r ON r.id = a.run_id
        JOIN penstock.tenant_connections c ON c.uid = r.connection_uid
        JOIN penstock.connector_definitions d ON d.uid = r.definition_uid
        WHERE a.token_sha256 = %(token)s
        """,
        token=token,
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


async def heartbeat(connection: Connection, run_id: str, attempt: int, metrics: dict[str, float]) -> Row | None:
    """Record a sign of life; None when the attempt is not the current one any more."""
    return await one(
        connection,
        """
        UPDATE penstock.run_attempts a SET heartbeat_at = now(), metrics = a.metrics || %(metrics)s
        FROM penstock.connector_runs r
        WHERE a.run_id = %(run)s AND a.attempt = %(attempt)s AND a.finished_at IS NULL
          AND r.id = a.run_id AND r.attempt = a.attempt AND r.phase = 'running'
        RETURNING r.cancel_requested
        """,
        run=run_id,
        attempt=attempt,
        metrics=Jsonb(metrics),
    )


async def set_streams(connection: Connection, run_id: str, attempt: int, streams: list[str]) -> None:
    """Remember which streams the attempt has to finish."""
    await run(
        connection,
        "UPDATE penstock.run_attempts SET streams = %(streams)s WHERE run_id = %(run)s AND attempt = %(attempt)s",
        run=run_id,
        attempt=attempt,
        streams=Jsonb(streams),
    )


@dataclass(frozen=True)
class Ending:
    """How an attempt ended."""

    phase: str
    reason: str
    error_class: str | None = None
    message: str = ""
    operator_message: str = ""
    exit_code: int | None = None
    metrics: dict[str, float] | None = None


async def end_attempt(connection: Connection, run_id: str, attempt: int, ending: Ending) -> bool:
    """Record an attempt's end; False when it has ended already."""
    return bool(
        await run(
            connection,
            """
            UPDATE penstock.run_attempts SET phase = %(phase)s, finished_at = now(), reason = %(reason)s,
                error_class = %(error_class)s, message = %(message)s, operator_message = %(operator_message)s,
                exit_code = %(exit_code)s, metrics = metrics || %(metrics)s
            WHERE run_id = %(run)s AND attempt = %(attempt)s AND finished_at IS NULL
            """,
            run=run_id,
            attempt=attempt,
            phase=ending.phase,
            reason=ending.reason,
            error_class=ending.error_class,
            message=ending.message,
            operator_message=ending.operator_message,
            exit_code=ending.exit_code,
            metrics=Jsonb(ending.metrics or {}),
        )
    )


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
            (records, bytes, objects) = (
                SELECT coalesce(sum(o.records), 0), coalesce(sum(o.bytes), 0), count(*) FROM penstock.bronze_objects o
                WHERE o.run_id = %(run)s AND o.committed_at IS NOT NULL)
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


RUN = """
    SELECT r.*, c.namespace, c.name, d.name AS definition,
        (SELECT coalesce(sum(o.records), 0)::bigint FROM penstock.bronze_objects o
         WHERE o.run_id = r.id AND o.committed_at IS NOT NULL) AS committed_records
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


async def attempts_of(connection: Connection, run_id: str) -> list[Row]:
    """Return a run's attempts in order, without what only their pods may know."""
    rows = await many(
        connection, "SELECT * FROM penstock.run_attempts WHERE run_id = %(run)s ORDER BY attempt", run=run_id
    )
    return [{key: value for key, value in row.items() if key != "token_sha256"} for row in rows]
