"""run_attempts: every try of a run, and who carries it."""

from __future__ import annotations

from dataclasses import dataclass

from psycopg.types.json import Jsonb

from penstock_operator.registry.database import DatabaseConnection, Row, many, one, run

AGES = """
    extract(epoch FROM now() - a.launched_at)::float AS age_seconds,
    extract(epoch FROM now() - a.heartbeat_at)::float AS silent_seconds,
    extract(epoch FROM now() - r.cancel_requested_at)::float AS cancelling_seconds
"""
LAUNCH = f"""
    SELECT a.run_id, a.attempt, a.job_name, a.job_uid, a.phase AS attempt_phase, a.launched_at, a.started_at AS attempt_started_at,
           a.heartbeat_at, a.metrics, r.phase, r.attempt AS current_attempt, r.spec, r.memory, r.cancel_requested,
           r.waits, r.waits_reason, r.cancel_requested_at, r.connection_uid, c.namespace, c.name, d.image, d.manifest, d.name AS definition,
           {AGES}
    FROM penstock.run_attempts a
    JOIN penstock.connector_runs r ON r.id = a.run_id
    JOIN penstock.tenant_connections c ON c.uid = r.connection_uid
    JOIN penstock.connector_definitions d ON d.uid = r.definition_uid
"""  # noqa: S608 - a constant


async def attempt_to_launch(db: DatabaseConnection, run_id: str, attempt: int) -> Row | None:
    """Return all that a launcher needs to know of an attempt, None when it is not the current one any more."""
    return await one(
        db,
        LAUNCH
        + " WHERE a.run_id = %(run)s AND a.attempt = %(attempt)s AND r.attempt = a.attempt AND r.phase = 'running'",
        run=run_id,
        attempt=attempt,
    )


async def attempts_to_launch(db: DatabaseConnection, taken: list[Row]) -> list[Row]:
    """Return what `attempt_to_launch` does, of many attempts by `run_id` and `attempt`."""
    return await many(
        db,
        LAUNCH
        + """
        JOIN unnest(%(runs)s::text[], %(attempts)s::int[]) AS t (run_id, attempt)
            ON t.run_id = a.run_id AND t.attempt = a.attempt
        WHERE r.attempt = a.attempt AND r.phase = 'running'
        """,
        runs=[each["run_id"] for each in taken],
        attempts=[each["attempt"] for each in taken],
    )


async def attempt_by_job(db: DatabaseConnection, job_name: str) -> Row | None:
    """Return the attempt that a Job was made for."""
    return await one(db, LAUNCH + " WHERE a.job_name = %(job)s", job=job_name)


async def live_attempts(db: DatabaseConnection) -> list[Row]:
    """Return every attempt that has not ended, oldest first, without what only a launch needs of it."""
    return await many(
        db,
        f"""
        SELECT a.run_id, a.attempt, a.job_name, a.job_uid, a.phase AS attempt_phase, a.launched_at,
               a.started_at AS attempt_started_at, a.heartbeat_at, r.phase, r.attempt AS current_attempt,
               r.waits, r.waits_reason, r.cancel_requested, c.namespace, c.name, {AGES}
        FROM penstock.run_attempts a
        JOIN penstock.connector_runs r ON r.id = a.run_id
        JOIN penstock.tenant_connections c ON c.uid = r.connection_uid
        WHERE a.finished_at IS NULL ORDER BY a.launched_at
        """,  # noqa: S608 - a constant
    )


async def record_job(db: DatabaseConnection, run_id: str, attempt: int, job_uid: str) -> bool:
    """Bind the attempt to its Job, as only that Job's pod can claim it; False when it has ended meanwhile."""
    return bool(
        await run(
            db,
            "UPDATE penstock.run_attempts SET job_uid = %(uid)s"
            " WHERE run_id = %(run)s AND attempt = %(attempt)s AND finished_at IS NULL",
            run=run_id,
            attempt=attempt,
            uid=job_uid,
        )
    )


async def claim_attempt(db: DatabaseConnection, run_id: str, attempt: int, pod_uid: str, token: bytes) -> bool:
    """Give the attempt to a pod; False when another pod has it. The same pod may ask again: its reply was lost."""
    return bool(
        await run(
            db,
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


async def attempt_by_token(db: DatabaseConnection, token: bytes) -> Row | None:
    """Return the attempt that holds a run token, with its run; ended or not."""
    return await one(
        db,
        """
        SELECT a.*, r.phase AS run_phase, r.attempt AS current_attempt, r.connection_uid, r.spec, r.streak,
               r.cancel_requested, c.namespace, c.name, c.first_generation, d.manifest
        FROM penstock.run_attempts a
        JOIN penstock.connector_runs r ON r.id = a.run_id
        JOIN penstock.tenant_connections c ON c.uid = r.connection_uid
        JOIN penstock.connector_definitions d ON d.uid = r.definition_uid
        WHERE a.token_sha256 = %(token)s
        """,
        token=token,
    )


async def heartbeat(db: DatabaseConnection, run_id: str, attempt: int, metrics: dict[str, float]) -> Row | None:
    """Record a sign of life; None when the attempt is not the current one any more."""
    return await one(
        db,
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


async def set_streams(
    db: DatabaseConnection,
    holder: tuple[str, int],
    streams: list[str],
    incremental: list[str],
    refused: dict[str, str],
) -> None:
    """Remember which streams the attempt has to finish, and which of them it may not even read, each with why.

    `holder` is run and attempt.
    """
    await run(
        db,
        "UPDATE penstock.run_attempts SET streams = %(streams)s, incremental = %(incremental)s,"
        " refused = %(refused)s"
        " WHERE run_id = %(run)s AND attempt = %(attempt)s",
        run=holder[0],
        attempt=holder[1],
        streams=Jsonb(streams),
        incremental=Jsonb(incremental),
        refused=Jsonb(refused),
    )


@dataclass(frozen=True)
class AttemptOutcome:
    """How an attempt ended."""

    phase: str
    reason: str
    error_class: str | None = None
    message: str = ""
    operator_message: str = ""
    exit_code: int | None = None
    metrics: dict[str, float] | None = None


async def end_attempt(db: DatabaseConnection, run_id: str, attempt: int, ending: AttemptOutcome) -> bool:
    """Record an attempt's end; False when it has ended already."""
    return bool(
        await run(
            db,
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


async def attempts_of(db: DatabaseConnection, run_id: str) -> list[Row]:
    """Return a run's attempts in order, without what only their pods may know."""
    rows = await many(db, "SELECT * FROM penstock.run_attempts WHERE run_id = %(run)s ORDER BY attempt", run=run_id)
    return [{key: value for key, value in row.items() if key != "token_sha256"} for row in rows]


async def carried_attempt(db: DatabaseConnection, run_id: str, attempt: int) -> Row | None:
    """Return what a launcher needs to know of an attempt, current or not."""
    return await one(db, LAUNCH + " WHERE a.run_id = %(run)s AND a.attempt = %(attempt)s", run=run_id, attempt=attempt)


async def record_log(db: DatabaseConnection, run_id: str, attempt: int, key: str, size: int, note: str | None) -> None:
    """Remember where an attempt's log is kept, and how much it had printed; one that had printed more stays."""
    await run(
        db,
        "UPDATE penstock.run_attempts SET log_key = %(key)s, log_bytes = %(size)s, log_note = %(note)s"
        " WHERE run_id = %(run)s AND attempt = %(attempt)s AND coalesce(log_bytes, 0) <= %(size)s",
        run=run_id,
        attempt=attempt,
        key=key,
        size=size,
        note=note,
    )


async def record_no_log(db: DatabaseConnection, run_id: str, attempt: int, note: str) -> None:
    """Remember why an attempt has no log; one that was kept before stays."""
    await run(
        db,
        "UPDATE penstock.run_attempts SET log_note = %(note)s"
        " WHERE run_id = %(run)s AND attempt = %(attempt)s AND log_key IS NULL",
        run=run_id,
        attempt=attempt,
        note=note,
    )


async def log_of_attempt(db: DatabaseConnection, run_id: str, attempt: int) -> Row | None:
    """Return where an attempt's log is, and whether the attempt has ended."""
    return await one(
        db,
        "SELECT job_name, finished_at, log_key, log_bytes, log_note, phase, message FROM penstock.run_attempts"
        " WHERE run_id = %(run)s AND attempt = %(attempt)s",
        run=run_id,
        attempt=attempt,
    )
