"""run_attempts: the attempts of runs, and the Jobs that carry them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Literal

from penstock_sdk.manifest import Manifest
from penstock_sdk.protocol import ErrorClass
from psycopg.types.json import Jsonb

from penstock_operator.audit.events import AuditedObject
from penstock_operator.ids import (
    ActorUid,
    AttemptNumber,
    ConnectionName,
    ConnectionUid,
    DefinitionName,
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
)
from penstock_operator.resources.conditions import Reason
from penstock_operator.resources.stored import parse_stored
from penstock_operator.runs.run_spec import RunSpec

RunPhase = Literal["pending", "running", "succeeded", "failed", "cancelled"]
ENDED_PHASES: tuple[RunPhase, ...] = ("succeeded", "failed", "cancelled")
"""The phases of a run that has ended."""
AttemptPhase = Literal["launching", "running", "succeeded", "failed", "cancelled", "interrupted", "lost"]
AttemptKey = tuple[RunId, AttemptNumber]
LIVE = """
    a.run_id, a.attempt, a.job_name, a.job_uid, a.phase AS attempt_phase, a.started_at AS attempt_started_at, a.heartbeat_at,
    r.phase, r.attempt AS current_attempt, r.waits, r.waits_reason, r.cancel_requested, c.namespace, c.name,
    extract(epoch FROM now() - a.launched_at)::float AS age_seconds,
    extract(epoch FROM now() - a.heartbeat_at)::float AS silent_seconds,
    extract(epoch FROM now() - r.cancel_requested_at)::float AS cancelling_seconds
"""
LAUNCH = f"""
    SELECT {LIVE}, a.metrics, r.spec, r.memory, r.connection_uid, d.image, d.manifest, d.name AS definition
    FROM penstock.run_attempts a
    JOIN penstock.connector_runs r ON r.id = a.run_id
    JOIN penstock.tenant_connections c ON c.uid = r.connection_uid
    JOIN penstock.connector_definitions d ON d.uid = r.definition_uid
"""  # noqa: S608 - a constant


@dataclass(frozen=True, kw_only=True)
class LiveAttempt:
    """An attempt that has not ended, with its run. Ages are in seconds, by the registry's clock."""

    run_id: RunId
    attempt: AttemptNumber
    job_name: str
    job_uid: str | None
    """None until the launcher has made the Job and this was recorded."""
    attempt_phase: AttemptPhase
    attempt_started_at: datetime | None
    heartbeat_at: datetime | None
    phase: RunPhase
    current_attempt: AttemptNumber
    waits: str
    waits_reason: Reason | None
    cancel_requested: bool
    namespace: Namespace
    name: ConnectionName
    age_seconds: float
    silent_seconds: float | None
    cancelling_seconds: float | None
    """None, also of a cancelled run, if a server of an earlier version took the request: that one records no time."""

    @property
    def is_current(self) -> bool:
        """Whether the run runs, and this is its current attempt."""
        return self.phase == "running" and self.current_attempt == self.attempt


@dataclass(frozen=True, kw_only=True)
class CarriedAttempt(LiveAttempt, ParsedRow):
    """An attempt with all that its Job is made from."""

    PARSERS = {"spec": RunSpec.parse, "manifest": partial(parse_stored, Manifest)}

    metrics: dict[str, float]
    spec: RunSpec
    memory: str | None
    """The limit that replaces the spec's, after an earlier attempt ran out of memory."""
    connection_uid: ConnectionUid
    image: str
    manifest: Manifest
    definition: DefinitionName

    @property
    def memory_limit(self) -> str:
        """The memory that the attempt may use, as Kubernetes writes it."""
        return self.memory or self.spec.resources.limits.memory


@dataclass(frozen=True, kw_only=True)
class HeldAttempt(ParsedRow):
    """An attempt as its pod's token names it, with its run; ended or not."""

    PARSERS = {"spec": RunSpec.parse}

    run_id: RunId
    attempt: AttemptNumber
    phase: AttemptPhase
    finished_at: datetime | None
    streams: list[str]
    """The streams that it has to finish."""
    incremental: list[str]
    """Those of the streams that it reads incrementally."""
    refused: dict[str, str]
    """Streams that it may not read, and why."""
    run_phase: RunPhase
    connection_uid: ConnectionUid
    spec: RunSpec
    namespace: Namespace
    name: ConnectionName
    first_generation: int
    state_version: int
    """The version of state that the definition reads and writes."""
    credentials: list[str]
    """Names of the credentials that the definition's manifest declares."""
    job_name: str
    pod_uid: ActorUid | None

    @property
    def audited(self) -> AuditedObject:
        """The attempt, as the audit names it."""
        return AuditedObject("attempt", self.namespace, self.name, ObjectId(f"{self.run_id}/{self.attempt}"))


@dataclass(frozen=True, kw_only=True)
class AttemptLog:
    """Where an attempt's log is, and whether the attempt has ended. `note` says what is missing of it."""

    job_name: str
    finished_at: datetime | None
    log_key: str | None
    log_bytes: int | None
    log_note: str | None


async def attempt_to_launch(db: DatabaseConnection, run_id: str, attempt: int) -> CarriedAttempt | None:
    """Return an attempt, None when it is not the current one any more."""
    return await fetch_one(
        db,
        CarriedAttempt.parse,
        LAUNCH
        + " WHERE a.run_id = %(run)s AND a.attempt = %(attempt)s AND r.attempt = a.attempt AND r.phase = 'running'",
        run=run_id,
        attempt=attempt,
    )


async def attempts_to_launch(db: DatabaseConnection, attempts: Iterable[AttemptKey]) -> list[CarriedAttempt]:
    """Return those of the attempts that are the current ones of their runs."""
    keys = list(attempts)
    return await fetch_all(
        db,
        CarriedAttempt.parse,
        LAUNCH
        + """
        JOIN unnest(%(runs)s::text[], %(attempts)s::int[]) AS t (run_id, attempt)
            ON t.run_id = a.run_id AND t.attempt = a.attempt
        WHERE r.attempt = a.attempt AND r.phase = 'running'
        """,
        runs=[run_id for run_id, _ in keys],
        attempts=[attempt for _, attempt in keys],
    )


async def attempt_by_job(db: DatabaseConnection, job_name: str) -> CarriedAttempt | None:
    """Return the attempt that a Job was made for."""
    return await fetch_one(db, CarriedAttempt.parse, LAUNCH + " WHERE a.job_name = %(job)s", job=job_name)


async def live_attempts(db: DatabaseConnection) -> list[LiveAttempt]:
    """Return every attempt that has not ended, oldest first."""
    return await fetch_all(
        db,
        LiveAttempt,
        f"""
        SELECT {LIVE}
        FROM penstock.run_attempts a
        JOIN penstock.connector_runs r ON r.id = a.run_id
        JOIN penstock.tenant_connections c ON c.uid = r.connection_uid
        WHERE a.finished_at IS NULL ORDER BY a.launched_at
        """,  # noqa: S608 - a constant
    )


async def record_job(db: DatabaseConnection, run_id: str, attempt: int, job_uid: str) -> bool:
    """Bind the attempt to its Job, as only that Job's pod can claim it; False when it has ended meanwhile."""
    return bool(
        await execute(
            db,
            "UPDATE penstock.run_attempts SET job_uid = %(uid)s"
            " WHERE run_id = %(run)s AND attempt = %(attempt)s AND finished_at IS NULL",
            run=run_id,
            attempt=attempt,
            uid=job_uid,
        )
    )


async def claim_attempt(
    db: DatabaseConnection, run_id: RunId, attempt: AttemptNumber, pod_uid: str, key: bytes, salt: bytes
) -> bytes | None:
    """Give the attempt to a process, by its pod and the digest of its key, and return the salt of its token.

    The same process may ask again, as its reply may be lost, and gets the salt of the first time. None when another one has
    the attempt, or it has ended.
    """
    return await fetch_value(
        db,
        bytes,
        "UPDATE penstock.run_attempts SET phase = 'running', pod_uid = %(pod)s, start_key_sha256 = %(key)s,"
        " token_salt = coalesce(token_salt, %(salt)s), started_at = coalesce(started_at, now()), heartbeat_at = now()"
        " WHERE run_id = %(run)s AND attempt = %(attempt)s AND finished_at IS NULL"
        " AND (pod_uid IS NULL OR (pod_uid = %(pod)s AND start_key_sha256 = %(key)s)) RETURNING token_salt",
        run=run_id,
        attempt=attempt,
        pod=pod_uid,
        key=key,
        salt=salt,
    )


async def set_token(db: DatabaseConnection, run_id: RunId, attempt: AttemptNumber, token: bytes) -> None:
    """Record the digest of the token of an attempt that a process has just claimed."""
    await execute(
        db,
        "UPDATE penstock.run_attempts SET token_sha256 = %(token)s WHERE run_id = %(run)s AND attempt = %(attempt)s",
        run=run_id,
        attempt=attempt,
        token=token,
    )


async def attempt_by_token(db: DatabaseConnection, token: bytes) -> HeldAttempt | None:
    """Return the attempt that holds a run token, with its run; ended or not."""
    return await fetch_one(
        db,
        HeldAttempt.parse,
        """
        SELECT a.run_id, a.attempt, a.phase, a.finished_at, a.streams, a.incremental, a.refused, r.phase AS run_phase,
            r.connection_uid, r.spec, c.namespace, c.name, c.first_generation, a.job_name, a.pod_uid,
            coalesce((d.manifest ->> 'stateVersion')::int, 1) AS state_version,
            to_json(ARRAY(SELECT DISTINCT jsonb_path_query(d.manifest, '$.authentication.methods[*].credentials[*].name') #>> '{}'))
                AS credentials
        FROM penstock.run_attempts a
        JOIN penstock.connector_runs r ON r.id = a.run_id
        JOIN penstock.tenant_connections c ON c.uid = r.connection_uid
        JOIN penstock.connector_definitions d ON d.uid = r.definition_uid
        WHERE a.token_sha256 = %(token)s
        """,
        token=token,
    )


async def has_token(db: DatabaseConnection, token: bytes) -> bool:
    """Return True if an attempt, ended or not, has this run token."""
    sql = "SELECT true FROM penstock.run_attempts WHERE token_sha256 = %(token)s"
    return bool(await fetch_value(db, bool, sql, token=token))


async def heartbeat(db: DatabaseConnection, run_id: str, attempt: int, metrics: Mapping[str, float]) -> bool | None:
    """Record a heartbeat, and return whether the run is to be cancelled; None when the attempt is not the current one."""
    return await fetch_value(
        db,
        bool,
        """
        UPDATE penstock.run_attempts a SET heartbeat_at = now(), metrics = a.metrics || %(metrics)s
        FROM penstock.connector_runs r
        WHERE a.run_id = %(run)s AND a.attempt = %(attempt)s AND a.finished_at IS NULL
          AND r.id = a.run_id AND r.attempt = a.attempt AND r.phase = 'running'
        RETURNING r.cancel_requested
        """,
        run=run_id,
        attempt=attempt,
        metrics=Jsonb(dict(metrics)),
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
    await execute(
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

    phase: AttemptPhase
    reason: Reason
    error_class: ErrorClass | None = None
    message: str = ""
    operator_message: str = ""
    exit_code: int | None = None
    metrics: Mapping[str, float] | None = None


async def end_attempt(db: DatabaseConnection, run_id: str, attempt: int, ending: AttemptOutcome) -> bool:
    """Record an attempt's end; False when it has ended already."""
    return bool(
        await execute(
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
            metrics=Jsonb(dict(ending.metrics or {})),
        )
    )


async def carried_attempt(db: DatabaseConnection, run_id: str, attempt: int) -> CarriedAttempt | None:
    """Return an attempt, current or not."""
    sql = LAUNCH + " WHERE a.run_id = %(run)s AND a.attempt = %(attempt)s"
    return await fetch_one(db, CarriedAttempt.parse, sql, run=run_id, attempt=attempt)


async def record_log(db: DatabaseConnection, run_id: str, attempt: int, key: str, size: int, note: str | None) -> None:
    """Remember where an attempt's log is kept, and how much it had printed; one that had printed more stays."""
    await execute(
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
    await execute(
        db,
        "UPDATE penstock.run_attempts SET log_note = %(note)s"
        " WHERE run_id = %(run)s AND attempt = %(attempt)s AND log_key IS NULL",
        run=run_id,
        attempt=attempt,
        note=note,
    )


async def log_of_attempt(db: DatabaseConnection, run_id: str, attempt: int) -> AttemptLog | None:
    """Return where an attempt's log is; None when there is no such attempt."""
    return await fetch_one(
        db,
        AttemptLog,
        "SELECT job_name, finished_at, log_key, log_bytes, log_note FROM penstock.run_attempts"
        " WHERE run_id = %(run)s AND attempt = %(attempt)s",
        run=run_id,
        attempt=attempt,
    )
