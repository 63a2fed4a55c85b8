"""connector_runs: every execution for one connection and one due time or token."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from psycopg.types.json import Jsonb

from penstock_operator.definitions import manifest_of
from penstock_operator.registry.database import DatabaseConnection, Row, many, one, run
from penstock_operator.resources.hosts import source_host
from penstock_operator.runs.attempt_store import AttemptOutcome

Trigger = Literal["schedule", "request", "backfill", "upstream", "recheck"]


@dataclass(frozen=True)
class NewRun:
    """A run to be: of a due time, or of a request token; the trigger follows from which, unless it is given."""

    id: str
    connection_uid: str
    definition_uid: str
    spec: dict[str, Any]
    scheduled_at: datetime | None = None
    token: str | None = None
    trigger: Trigger | None = None


@dataclass(frozen=True)
class WaitReason:
    """Why an attempt's pod has not started; `words` are Kubernetes' own."""

    run_id: str
    attempt: int
    reason: str | None
    words: str


async def insert_run(db: DatabaseConnection, new: NewRun) -> bool:
    """Insert a run; False when its due time or token has made one already."""
    return bool(
        await run(
            db,
            """
            INSERT INTO penstock.connector_runs
                (id, connection_uid, definition_uid, spec, trigger, scheduled_at, token, source_host, tenant)
            VALUES (%(id)s, %(connection)s, %(definition)s, %(spec)s, %(trigger)s, %(scheduled_at)s, %(token)s, %(host)s,
                (SELECT namespace FROM penstock.tenant_connections WHERE uid = %(connection)s))
            ON CONFLICT DO NOTHING
            """,
            id=new.id,
            connection=new.connection_uid,
            definition=new.definition_uid,
            spec=Jsonb(new.spec),
            trigger=new.trigger or ("request" if new.token else "schedule"),
            scheduled_at=new.scheduled_at,
            token=new.token,
            host=source_host(await manifest_of(db, new.definition_uid) or {}, new.spec.get("config", {})),
        )
    )


async def hold_run(db: DatabaseConnection, run_id: str, attempt: int) -> bool:
    """Hold the run row for this transaction if the attempt is the current one: nothing can take over meanwhile."""
    row = await one(
        db,
        "SELECT 1 AS held FROM penstock.connector_runs WHERE id = %(run)s AND attempt = %(attempt)s AND phase = 'running'"
        " FOR SHARE",
        run=run_id,
        attempt=attempt,
    )
    return row is not None


async def lock_run(db: DatabaseConnection, run_id: str) -> Row | None:
    """Lock a run to change its phase, and return it."""
    return await one(db, "SELECT * FROM penstock.connector_runs WHERE id = %(run)s FOR UPDATE", run=run_id)


async def carry_over(db: DatabaseConnection, run_id: str, disruptions: int, memory: str | None) -> None:
    """Remember how often the run was disrupted in a row, and the memory that replaces its spec's limit."""
    await run(
        db,
        "UPDATE penstock.connector_runs SET disruptions = %(disruptions)s, memory = coalesce(%(memory)s, memory)"
        " WHERE id = %(run)s",
        run=run_id,
        disruptions=disruptions,
        memory=memory,
    )


async def postpone_run(db: DatabaseConnection, run_id: str, at: datetime, streak: int, ending: AttemptOutcome) -> None:
    """Put a run back to wait for its next attempt."""
    await run(
        db,
        "UPDATE penstock.connector_runs SET phase = 'pending', next_attempt_at = %(at)s, streak = %(streak)s,"
        " waits = '', waits_reason = NULL,"
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


async def set_estimate(db: DatabaseConnection, run_id: str, estimate: dict[str, Any]) -> None:
    """Keep what a run's first attempt expected it to cost; a later one knows of the rest only."""
    await run(
        db,
        "UPDATE penstock.connector_runs SET estimate = %(estimate)s WHERE id = %(run)s AND estimate IS NULL",
        run=run_id,
        estimate=Jsonb(estimate),
    )


async def end_run(db: DatabaseConnection, run_id: str, phase: str, ending: AttemptOutcome) -> None:
    """Give a run its final phase and its totals, which are the sums of its committed objects."""
    await run(
        db,
        """
        UPDATE penstock.connector_runs SET phase = %(phase)s, finished_at = now(), reason = %(reason)s,
            waits = '', waits_reason = NULL,
            error_class = %(error_class)s, message = %(message)s, operator_message = %(operator_message)s,
            metrics = coalesce((SELECT jsonb_object_agg(attempt::text, metrics) FROM penstock.run_attempts
                                WHERE run_id = %(run)s), '{}'),
            (records, deletes, rejected, bytes, objects) = (
                SELECT coalesce(sum(o.records) FILTER (WHERE o.kind = 'data'), 0),
                    coalesce(sum(o.deletes) FILTER (WHERE o.kind = 'data'), 0),
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


async def request_cancel(db: DatabaseConnection, run_id: str) -> Row | None:
    """Ask for a run's end; None when there is no such run."""
    return await one(
        db,
        "UPDATE penstock.connector_runs SET cancel_requested = true,"
        " cancel_requested_at = coalesce(cancel_requested_at, now()) WHERE id = %(run)s RETURNING *",
        run=run_id,
    )


async def active_runs(db: DatabaseConnection, connection_uid: str) -> list[Row]:
    """Return the connection's runs that have not ended."""
    return await many(
        db,
        "SELECT * FROM penstock.connector_runs WHERE connection_uid = %(uid)s AND phase IN ('pending', 'running')",
        uid=connection_uid,
    )


async def runs_of_deleted_connections(db: DatabaseConnection) -> list[str]:
    """Return the runs that have not ended though their connection is gone."""
    rows = await many(
        db,
        """
        SELECT r.id FROM penstock.connector_runs r WHERE r.phase IN ('pending', 'running')
          AND (SELECT c.deleted_at FROM penstock.tenant_connections c WHERE c.uid = r.connection_uid) IS NOT NULL
        ORDER BY r.id
        """,
    )
    return [row["id"] for row in rows]


RUN = """
    SELECT r.*, c.namespace, c.name, d.name AS definition, a.started_at AS attempt_started_at,
        CASE WHEN r.phase = 'pending' OR r.phase = 'running' AND a.started_at IS NULL THEN r.waits ELSE '' END AS waits,
        (SELECT coalesce(sum(o.records), 0)::bigint FROM penstock.bronze_objects o
         WHERE o.run_id = r.id AND o.kind = 'data' AND o.committed_at IS NOT NULL) AS committed_records,
        ARRAY(SELECT s.stream FROM penstock.run_streams s WHERE s.run_id = r.id AND s.outcome = 'failed'
              ORDER BY s.stream LIMIT 20) AS failed_streams
    FROM penstock.connector_runs r
    JOIN penstock.tenant_connections c ON c.uid = r.connection_uid
    JOIN penstock.connector_definitions d ON d.uid = r.definition_uid
    LEFT JOIN penstock.run_attempts a ON a.run_id = r.id AND a.attempt = r.attempt
"""


TELLING = """ WHERE r.id = coalesce(
    (SELECT id FROM penstock.connector_runs WHERE connection_uid = %(uid)s AND phase IN ('pending', 'running') AND attempt > 0),
    (SELECT id FROM penstock.connector_runs WHERE connection_uid = %(uid)s AND trigger <> 'backfill' ORDER BY id DESC LIMIT 1),
    (SELECT id FROM penstock.connector_runs WHERE connection_uid = %(uid)s ORDER BY id DESC LIMIT 1))
"""


async def newest_run(db: DatabaseConnection, connection_uid: str) -> Row | None:
    """Return the run that tells how the connection is: the one that has begun, else the newest; a backfill's last."""
    return await one(db, RUN + TELLING, uid=connection_uid)


async def newest_failure(db: DatabaseConnection, connection_uid: str) -> Row | None:
    """Return the newest run that failed."""
    sql = f"{RUN} WHERE r.connection_uid = %(uid)s AND r.phase = 'failed' ORDER BY r.id DESC LIMIT 1"
    return await one(db, sql, uid=connection_uid)


async def progress_of_running(db: DatabaseConnection) -> list[Row]:
    """Return how many records each run under way has committed, with its connection's namespace and name."""
    return await many(
        db,
        """
        SELECT r.id, c.namespace, c.name,
            (SELECT coalesce(sum(o.records), 0)::bigint FROM penstock.bronze_objects o
             WHERE o.run_id = r.id AND o.kind = 'data' AND o.committed_at IS NOT NULL) AS records
        FROM penstock.connector_runs r JOIN penstock.tenant_connections c ON c.uid = r.connection_uid
        WHERE r.phase = 'running'
        """,
    )


async def note_waits(db: DatabaseConnection, waits: list[WaitReason]) -> list[str]:
    """Note why attempts have not started, and return the connections of those whose reason or words changed."""
    rows = await many(
        db,
        """
        UPDATE penstock.connector_runs r SET waits = n.words, waits_reason = n.reason
        FROM unnest(%(runs)s::text[], %(attempts)s::int[], %(reasons)s::text[], %(words)s::text[])
            AS n (run, attempt, reason, words)
        WHERE r.id = n.run AND r.attempt = n.attempt AND r.phase = 'running'
          AND (r.waits, r.waits_reason) IS DISTINCT FROM (n.words, n.reason)
        RETURNING r.connection_uid
        """,
        runs=[each.run_id for each in waits],
        attempts=[each.attempt for each in waits],
        reasons=[each.reason for each in waits],
        words=[each.words for each in waits],
    )
    return [row["connection_uid"] for row in rows]


async def waiting_count(db: DatabaseConnection, connection_uid: str) -> int:
    """Return how many runs of the connection wait for their turn."""
    row = await one(
        db,
        "SELECT count(*) AS n FROM penstock.connector_runs WHERE connection_uid = %(uid)s"
        " AND phase IN ('pending', 'running') AND attempt = 0",
        uid=connection_uid,
    )
    return int(row["n"]) if row else 0


async def lock_replaceable(db: DatabaseConnection, connection_uid: str) -> list[Row] | None:
    """Lock the runs that a newer one replaces, all that wait or run but a backfill's; None when one is in use just now.

    It never waits: whoever ends a run holds that run first and its connection second, and here it is the other way round.
    """
    wanted = (
        "SELECT * FROM penstock.connector_runs WHERE connection_uid = %(uid)s AND phase IN ('pending', 'running')"
        " AND trigger <> 'backfill'"
    )
    locked = await many(db, f"{wanted} ORDER BY id FOR UPDATE SKIP LOCKED", uid=connection_uid)
    seen = await many(db, wanted, uid=connection_uid)
    return locked if len(locked) == len(seen) else None


async def ticks_made(db: DatabaseConnection, connection_uid: str, start: datetime, end: datetime) -> set[datetime]:
    """Return the ticks from `start` on and before `end` that have made a run."""
    rows = await many(
        db,
        "SELECT scheduled_at FROM penstock.connector_runs WHERE connection_uid = %(uid)s"
        " AND scheduled_at >= %(start)s AND scheduled_at < %(end)s",
        uid=connection_uid,
        start=start,
        end=end,
    )
    return {row["scheduled_at"] for row in rows}


async def run_by_id(db: DatabaseConnection, run_id: str) -> Row | None:
    """Return one run."""
    return await one(db, RUN + " WHERE r.id = %(run)s", run=run_id)


async def list_runs(db: DatabaseConnection, namespace: str | None, name: str | None, limit: int) -> list[Row]:
    """Return the newest runs, of one namespace and connection or of all."""
    return await many(
        db,
        RUN
        + """ WHERE (%(namespace)s::text IS NULL OR c.namespace = %(namespace)s)
               AND (%(name)s::text IS NULL OR c.name = %(name)s) ORDER BY r.id DESC LIMIT %(limit)s""",
        namespace=namespace,
        name=name,
        limit=limit,
    )
