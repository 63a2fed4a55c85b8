"""connector_runs: every execution for one connection and one due time or token."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from penstock_sdk.protocol import ErrorClass
from psycopg.types.json import Jsonb

from penstock_operator.audit import audit_store
from penstock_operator.audit.events import Action, AuditedObject
from penstock_operator.definitions import manifest_of
from penstock_operator.ids import (
    AttemptNumber,
    ConnectionName,
    ConnectionUid,
    DefinitionName,
    DefinitionUid,
    Namespace,
    ObjectId,
    RunId,
)
from penstock_operator.registry.database import (
    DatabaseConnection,
    ParsedRow,
    execute,
    fetch_all,
    fetch_one,
    fetch_value,
    fetch_values,
)
from penstock_operator.resources.conditions import Reason
from penstock_operator.resources.hosts import source_host
from penstock_operator.runs.attempt_store import ENDED_PHASES, AttemptOutcome, RunPhase
from penstock_operator.runs.run_spec import RunSpec

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
    reason: Reason | None
    words: str


@dataclass(frozen=True, kw_only=True)
class Run(ParsedRow):
    """A run, as far as its transitions depend on it."""

    PARSERS = {"spec": RunSpec.parse}

    id: RunId
    connection_uid: ConnectionUid
    definition_uid: DefinitionUid
    spec: RunSpec
    trigger: Trigger
    scheduled_at: datetime | None
    phase: RunPhase
    attempt: AttemptNumber
    """The current attempt, 0 before the first."""
    streak: int
    """Failed attempts in a row without progress."""
    disruptions: int
    """Attempts in a row that the platform took away."""
    memory: str | None
    """The limit that replaces the spec's, after an attempt ran out of memory."""
    cancel_requested: bool
    next_attempt_at: datetime
    reason: Reason | None

    @property
    def is_active(self) -> bool:
        """Whether it has not ended."""
        return self.phase not in ENDED_PHASES


RUN_COLUMNS = (
    "id, connection_uid, definition_uid, spec, trigger, scheduled_at, phase, attempt, streak, disruptions, memory,"
    " cancel_requested, next_attempt_at, reason"
)


@dataclass(frozen=True, kw_only=True)
class RunDetail(ParsedRow):
    """A run with the names of its connection and definition, and with its committed counts so far."""

    PARSERS = {"spec": RunSpec.parse}

    id: RunId
    namespace: Namespace
    name: ConnectionName
    definition: DefinitionName
    connection_uid: ConnectionUid
    definition_uid: DefinitionUid
    spec: RunSpec
    trigger: Trigger
    scheduled_at: datetime | None
    token: str | None
    phase: RunPhase
    attempt: AttemptNumber
    streak: int
    disruptions: int
    memory: str | None
    next_attempt_at: datetime
    cancel_requested: bool
    cancel_requested_at: datetime | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    attempt_started_at: datetime | None
    records: int
    deletes: int
    rejected: int
    bytes: int
    objects: int
    reason: Reason | None
    error_class: ErrorClass | None
    message: str
    waits: str
    waits_reason: Reason | None
    committed_records: int
    failed_streams: list[str]

    @property
    def is_active(self) -> bool:
        """Whether it has not ended."""
        return self.phase not in ENDED_PHASES


@dataclass(frozen=True, kw_only=True)
class CommittedProgress:
    """How many records a run under way has committed."""

    id: RunId
    namespace: Namespace
    name: ConnectionName
    records: int


async def _hosts_of(db: DatabaseConnection, definition: DefinitionUid) -> list[str]:
    manifest = await manifest_of(db, definition)
    return [egress.host for egress in manifest.network.egress] if manifest else []


async def insert_run(db: DatabaseConnection, new: NewRun) -> bool:
    """Insert a run; False when its due time or token has made one already."""
    trigger = new.trigger or ("request" if new.token else "schedule")
    async with db.transaction():
        made = await execute(
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
            trigger=trigger,
            scheduled_at=new.scheduled_at,
            token=new.token,
            host=source_host(await _hosts_of(db, DefinitionUid(new.definition_uid)), new.spec.get("config", {})),
        )
        if made:
            created = AuditedObject("run", id=ObjectId(new.id), connection_uid=ConnectionUid(new.connection_uid))
            await audit_store.record(db, Action.run_create, created, reason=trigger)
    return bool(made)


async def hold_run(db: DatabaseConnection, run_id: str, attempt: int) -> bool:
    """Hold the run row for this transaction if the attempt is the current one: nothing can take over meanwhile."""
    held = await fetch_value(
        db,
        bool,
        "SELECT true FROM penstock.connector_runs WHERE id = %(run)s AND attempt = %(attempt)s AND phase = 'running'"
        " FOR SHARE",
        run=run_id,
        attempt=attempt,
    )
    return bool(held)


async def lock_run(db: DatabaseConnection, run_id: str) -> Run | None:
    """Lock a run to change its phase, and return it."""
    sql = f"SELECT {RUN_COLUMNS} FROM penstock.connector_runs WHERE id = %(run)s FOR UPDATE"  # noqa: S608
    return await fetch_one(db, Run.parse, sql, run=run_id)


async def carry_over(db: DatabaseConnection, run_id: str, disruptions: int, memory: str | None) -> None:
    """Remember how often the run was disrupted in a row, and the memory that replaces its spec's limit."""
    await execute(
        db,
        "UPDATE penstock.connector_runs SET disruptions = %(disruptions)s, memory = coalesce(%(memory)s, memory)"
        " WHERE id = %(run)s",
        run=run_id,
        disruptions=disruptions,
        memory=memory,
    )


async def postpone_run(db: DatabaseConnection, run_id: str, at: datetime, streak: int, ending: AttemptOutcome) -> None:
    """Put a run back to wait for its next attempt."""
    await execute(
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
    await execute(
        db,
        "UPDATE penstock.connector_runs SET estimate = %(estimate)s WHERE id = %(run)s AND estimate IS NULL",
        run=run_id,
        estimate=Jsonb(estimate),
    )


async def end_run(db: DatabaseConnection, run_id: str, phase: RunPhase, ending: AttemptOutcome) -> None:
    """Give a run its final phase and its totals, which are the sums of its committed objects."""
    await execute(
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


async def request_cancel(db: DatabaseConnection, run_id: str) -> bool:
    """Ask for a run's end; False when there is no such run."""
    async with db.transaction():
        connection = await fetch_value(
            db,
            ConnectionUid,
            "UPDATE penstock.connector_runs SET cancel_requested = true,"
            " cancel_requested_at = coalesce(cancel_requested_at, now()) WHERE id = %(run)s RETURNING connection_uid",
            run=run_id,
        )
        if connection:
            await record_cancel(db, RunId(run_id), connection)
    return connection is not None


async def record_cancel(db: DatabaseConnection, run_id: RunId, connection: ConnectionUid) -> None:
    """Audit that somebody asked for the end of a run."""
    await audit_store.record(
        db, Action.run_cancel, AuditedObject("run", id=ObjectId(run_id), connection_uid=connection)
    )


async def active_runs(db: DatabaseConnection, connection_uid: str) -> list[Run]:
    """Return the connection's runs that have not ended."""
    return await fetch_all(
        db,
        Run.parse,
        f"SELECT {RUN_COLUMNS} FROM penstock.connector_runs"  # noqa: S608 - a constant
        " WHERE connection_uid = %(uid)s AND phase IN ('pending', 'running')",
        uid=connection_uid,
    )


async def runs_of_deleted_connections(db: DatabaseConnection) -> list[RunId]:
    """Return the runs that have not ended though their connection is gone."""
    return await fetch_values(
        db,
        RunId,
        """
        SELECT r.id FROM penstock.connector_runs r WHERE r.phase IN ('pending', 'running')
          AND (SELECT c.deleted_at FROM penstock.tenant_connections c WHERE c.uid = r.connection_uid) IS NOT NULL
        ORDER BY r.id
        """,
    )


RUNS = """
    penstock.connector_runs r
    JOIN penstock.tenant_connections c ON c.uid = r.connection_uid
    JOIN penstock.connector_definitions d ON d.uid = r.definition_uid
    LEFT JOIN penstock.run_attempts a ON a.run_id = r.id AND a.attempt = r.attempt
"""
"""Runs, each with its connection, its definition and its current attempt."""
SHOWN_COLUMNS = """
    r.id, c.namespace, c.name, d.name AS definition, r.spec, r.trigger, r.token, r.scheduled_at, r.phase, r.attempt,
    a.started_at AS attempt_started_at, r.next_attempt_at, r.cancel_requested, r.waits_reason, r.reason, r.error_class,
    r.message, r.created_at, r.started_at, r.finished_at, r.records, r.deletes, r.rejected, r.bytes, r.objects, r.memory,
    CASE WHEN r.phase = 'pending' OR r.phase = 'running' AND a.started_at IS NULL THEN r.waits ELSE '' END AS waits,
    (SELECT coalesce(sum(o.records), 0)::bigint FROM penstock.bronze_objects o
     WHERE o.run_id = r.id AND o.kind = 'data' AND o.committed_at IS NOT NULL) AS committed_records,
    ARRAY(SELECT f.stream FROM penstock.run_streams f WHERE f.run_id = r.id AND f.outcome = 'failed'
          ORDER BY f.stream LIMIT 20) AS failed_streams
"""
"""Columns of RUNS that the read API shows and the platform itself needs."""
RUN = f"""
    SELECT {SHOWN_COLUMNS}, r.connection_uid, r.definition_uid, r.streak, r.disruptions, r.cancel_requested_at FROM {RUNS}
"""  # noqa: S608 - constants


TELLING = """ WHERE r.id = coalesce(
    (SELECT id FROM penstock.connector_runs WHERE connection_uid = %(uid)s AND phase IN ('pending', 'running') AND attempt > 0),
    (SELECT id FROM penstock.connector_runs WHERE connection_uid = %(uid)s AND trigger <> 'backfill' ORDER BY id DESC LIMIT 1),
    (SELECT id FROM penstock.connector_runs WHERE connection_uid = %(uid)s ORDER BY id DESC LIMIT 1))
"""


async def newest_run(db: DatabaseConnection, connection_uid: str) -> RunDetail | None:
    """Return the run that tells how the connection is: the one that has begun, else the newest; a backfill's last."""
    return await fetch_one(db, RunDetail.parse, RUN + TELLING, uid=connection_uid)


async def newest_failure(db: DatabaseConnection, connection_uid: str) -> RunDetail | None:
    """Return the newest run that failed."""
    sql = f"{RUN} WHERE r.connection_uid = %(uid)s AND r.phase = 'failed' ORDER BY r.id DESC LIMIT 1"
    return await fetch_one(db, RunDetail.parse, sql, uid=connection_uid)


async def progress_of_running(db: DatabaseConnection) -> list[CommittedProgress]:
    """Return how many records each run under way has committed."""
    return await fetch_all(
        db,
        CommittedProgress,
        """
        SELECT r.id, c.namespace, c.name,
            (SELECT coalesce(sum(o.records), 0)::bigint FROM penstock.bronze_objects o
             WHERE o.run_id = r.id AND o.kind = 'data' AND o.committed_at IS NOT NULL) AS records
        FROM penstock.connector_runs r JOIN penstock.tenant_connections c ON c.uid = r.connection_uid
        WHERE r.phase = 'running'
        """,
    )


async def note_waits(db: DatabaseConnection, waits: Sequence[WaitReason]) -> list[ConnectionUid]:
    """Note why attempts have not started, and return the connections of those whose reason or words changed."""
    return await fetch_values(
        db,
        ConnectionUid,
        """
        UPDATE penstock.connector_runs r SET waits = n.words, waits_reason = n.reason
        FROM unnest(%(runs)s::text[], %(attempts)s::int[], %(reasons)s::text[], %(words)s::text[])
            AS n (run, attempt, reason, words)
        WHERE r.id = n.run AND r.attempt = n.attempt AND r.phase = 'running'
          AND (r.waits, r.waits_reason) IS DISTINCT FROM (n.words, n.reason)
        RETURNING r.connection_uid
        """,
        runs=[wait.run_id for wait in waits],
        attempts=[wait.attempt for wait in waits],
        reasons=[wait.reason for wait in waits],
        words=[wait.words for wait in waits],
    )


async def waiting_count(db: DatabaseConnection, connection_uid: str) -> int:
    """Return how many runs of the connection wait for their turn."""
    count = await fetch_value(
        db,
        int,
        "SELECT count(*) FROM penstock.connector_runs WHERE connection_uid = %(uid)s"
        " AND phase IN ('pending', 'running') AND attempt = 0",
        uid=connection_uid,
    )
    return count or 0


async def lock_replaceable(db: DatabaseConnection, connection_uid: str) -> list[Run] | None:
    """Lock the runs that a newer one replaces, all that wait or run but a backfill's; None when one is in use just now.

    It never waits: whoever ends a run holds that run first and its connection second, and here it is the other way round.
    """
    statement = (
        f"SELECT {RUN_COLUMNS} FROM penstock.connector_runs"  # noqa: S608 - a constant
        " WHERE connection_uid = %(uid)s AND phase IN ('pending', 'running')"
        " AND trigger <> 'backfill'"
    )
    locked = await fetch_all(db, Run.parse, f"{statement} ORDER BY id FOR UPDATE SKIP LOCKED", uid=connection_uid)
    seen = await fetch_all(db, Run.parse, statement, uid=connection_uid)
    return locked if len(locked) == len(seen) else None


def _moment(value: datetime) -> datetime:
    return value


async def ticks_made(db: DatabaseConnection, connection_uid: str, start: datetime, end: datetime) -> set[datetime]:
    """Return the ticks from `start` on and before `end` that have made a run."""
    ticks = await fetch_values(
        db,
        _moment,
        "SELECT scheduled_at FROM penstock.connector_runs WHERE connection_uid = %(uid)s"
        " AND scheduled_at >= %(start)s AND scheduled_at < %(end)s",
        uid=connection_uid,
        start=start,
        end=end,
    )
    return set(ticks)


async def run_by_id(db: DatabaseConnection, run_id: str) -> RunDetail | None:
    """Return one run."""
    return await fetch_one(db, RunDetail.parse, RUN + " WHERE r.id = %(run)s", run=run_id)


async def list_runs(db: DatabaseConnection, namespace: str | None, name: str | None, limit: int) -> list[RunDetail]:
    """Return the newest runs, of one namespace and connection or of all."""
    return await fetch_all(
        db,
        RunDetail.parse,
        RUN
        + """ WHERE (%(namespace)s::text IS NULL OR c.namespace = %(namespace)s)
               AND (%(name)s::text IS NULL OR c.name = %(name)s) ORDER BY r.id DESC LIMIT %(limit)s""",
        namespace=namespace,
        name=name,
        limit=limit,
    )
