"""tenant_connections: which are due, how they fare, and who asks."""

from __future__ import annotations

from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any, NamedTuple, Self

from penstock_operator.ids import (
    ConnectionName,
    ConnectionUid,
    DefinitionUid,
    Namespace,
    NamespaceUid,
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
from penstock_operator.resources.models import ConnectionSpec, StateAnswer
from penstock_operator.resources.schedules import CronSchedule, TimeZone

QUEUE_LIMIT = 10
ROOM = f"""
    (SELECT count(*) FROM penstock.connector_runs r
     WHERE r.connection_uid = c.uid AND r.phase IN ('pending', 'running') AND NOT (r.trigger = 'backfill' AND r.attempt = 0))
    < CASE c.spec ->> 'concurrencyPolicy' WHEN 'Allow' THEN {QUEUE_LIMIT} WHEN 'Replace' THEN 1000000 ELSE 1 END
"""  # noqa: S608 - a constant


SCHEDULED = {"schedule": CronSchedule, "time_zone": TimeZone}
"""The columns of a schedule, with the types that parse them."""


class ConnectionKey(NamedTuple):
    """Namespace and name of a connection."""

    namespace: Namespace
    name: ConnectionName


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionSummary(ParsedRow):
    """A connection's row without its spec, as a sweep compares many of them."""

    PARSERS = {**SCHEDULED, "spec": ConnectionSpec.parse, "state_answer": StateAnswer.parse}
    uid: ConnectionUid
    generation: int
    definition_uid: DefinitionUid | None
    ready: bool
    suspended: bool
    schedule: CronSchedule | None
    time_zone: TimeZone
    jitter_seconds: int
    next_run_at: datetime | None
    paused_until: datetime | None
    failures: int
    last_scheduled_at: datetime | None
    last_success_at: datetime | None
    handled_request: str | None
    handled_reset: str | None
    handled_rewind: str | None
    state_answer: StateAnswer | None
    """The answer to the newest state annotation, as the status shows it."""
    upstream_reason: Reason | None
    released_at: datetime | None
    deleted_at: datetime | None

    def handled_state_request(self, action: str) -> str | None:
        """Return the token of the newest state annotation of that action which was handled."""
        return self.handled_reset if action == "reset" else self.handled_rewind


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionRow(ConnectionSummary):
    """A connection's row."""

    namespace: Namespace
    name: ConnectionName
    spec: ConnectionSpec
    namespace_uid: NamespaceUid | None
    first_generation: int
    last_success_run: RunId | None
    upstreams: list[str]
    upstream_message: str
    stalled_message: str | None
    """Why it is not ready."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunnableConnection(ParsedRow):
    """A connection that is ready, as far as its next run depends on it."""

    PARSERS = {**SCHEDULED, "spec": ConnectionSpec.parse}

    uid: ConnectionUid
    namespace: Namespace
    name: ConnectionName
    definition_uid: DefinitionUid
    spec: ConnectionSpec
    schedule: CronSchedule | None
    time_zone: TimeZone
    jitter_seconds: int
    next_run_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class FailedConnection(RunnableConnection):
    """A connection whose newest run failed."""

    failed_run: RunId


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestedConnection:
    """A connection that a run is requested of."""

    namespace: Namespace
    name: ConnectionName
    runnable: RunnableConnection | None
    """None while the connection is not ready."""
    room: bool
    """Whether it may have another run now."""
    handled_request: str | None

    @classmethod
    def parse(cls, *, ready: bool, room: bool, handled_request: str | None, **columns: Any) -> Self:
        """Return the connection that the row of a claim describes."""
        return cls(
            namespace=columns["namespace"],
            name=columns["name"],
            runnable=RunnableConnection.parse(**columns) if ready else None,
            room=room,
            handled_request=handled_request,
        )


def _columns(row: type[Any]) -> str:
    return ", ".join(f"c.{field.name}" for field in fields(row))


SUMMARY_COLUMNS = _columns(ConnectionSummary)
CONNECTION_COLUMNS = _columns(ConnectionRow)
RUNNABLE_COLUMNS = _columns(RunnableConnection)


async def claim_due(db: DatabaseConnection, now: datetime, limit: int) -> list[RunnableConnection]:
    """Lock and return the connections that are due and may have another run now; no other claimant sees them.

    One that may not (concurrencyPolicy, a pause after failures) stays due.
    """
    locked = await fetch_all(
        db,
        RunnableConnection.parse,
        f"""
        SELECT {RUNNABLE_COLUMNS} FROM penstock.tenant_connections c
        WHERE c.next_run_at <= %(now)s AND c.ready AND NOT c.suspended AND c.deleted_at IS NULL
          AND (c.paused_until IS NULL OR c.paused_until <= %(now)s) AND {ROOM}
        ORDER BY c.next_run_at LIMIT %(limit)s FOR UPDATE OF c SKIP LOCKED
        """,  # noqa: S608 - constants
        now=now,
        limit=limit,
    )
    return await _with_room(db, [connection.uid for connection in locked])


async def _with_room(db: DatabaseConnection, locked: list[ConnectionUid]) -> list[RunnableConnection]:
    """Return those of the connections, held by now, that may have another run.

    Asked in a statement of its own: the one that waited for the locks sees the runs of the moment when it began.
    """
    if not locked:
        return []
    return await fetch_all(
        db,
        RunnableConnection.parse,
        f"SELECT {RUNNABLE_COLUMNS} FROM penstock.tenant_connections c"  # noqa: S608 - constants
        f" WHERE c.uid = ANY(%(uids)s) AND {ROOM} ORDER BY c.next_run_at",
        uids=locked,
    )


async def claim_for_request(db: DatabaseConnection, uid: ConnectionUid) -> RequestedConnection | None:
    """Lock the connection, and return it with whether it may have another run now (`room`), asked once it is held."""
    held = await fetch_value(
        db,
        ConnectionUid,
        "SELECT uid FROM penstock.tenant_connections WHERE uid = %(uid)s AND deleted_at IS NULL FOR UPDATE",
        uid=uid,
    )
    if held is None:
        return None
    return await fetch_one(
        db,
        RequestedConnection.parse,
        f"SELECT {RUNNABLE_COLUMNS}, c.ready, c.handled_request, {ROOM} AS room"  # noqa: S608 - constants
        " FROM penstock.tenant_connections c WHERE c.uid = %(uid)s",
        uid=uid,
    )


async def claim_for_recheck(
    db: DatabaseConnection, now: datetime, reasons: tuple[Reason, ...], first_seconds: float, limit: int
) -> list[FailedConnection]:
    """Lock and return the connections whose newest run (`failed_run`) failed for one of the reasons, long enough ago.

    Long enough is `first_seconds` after the first failure, three times as long after each further one, an hour at most.
    """
    return await fetch_all(
        db,
        FailedConnection.parse,
        f"""
        SELECT {RUNNABLE_COLUMNS}, f.id AS failed_run FROM penstock.tenant_connections c
        CROSS JOIN LATERAL (SELECT r.id, r.phase, r.reason, r.finished_at FROM penstock.connector_runs r
                            WHERE r.connection_uid = c.uid ORDER BY r.id DESC LIMIT 1) f
        WHERE c.failures > 0 AND c.deleted_at IS NULL AND c.ready AND NOT c.suspended
          AND f.phase = 'failed' AND f.reason = ANY(%(reasons)s)
          AND f.finished_at <= %(now)s - interval '1 s'
              * least(%(first)s * 3.0 ^ (least(c.failures, 20) - 1), greatest(%(first)s, 3600))
        ORDER BY f.finished_at LIMIT %(limit)s FOR UPDATE OF c SKIP LOCKED
        """,  # noqa: S608 - constants
        now=now,
        reasons=list(reasons),
        first=first_seconds,
        limit=limit,
    )


async def record_schedule(
    db: DatabaseConnection, uid: ConnectionUid, tick: datetime | None, next_run_at: datetime | None
) -> None:
    """Move the connection on to its next tick; `tick` is the one that a run was made for, None where it was missed."""
    await execute(
        db,
        "UPDATE penstock.tenant_connections SET next_run_at = %(next)s,"
        " last_scheduled_at = coalesce(%(tick)s, last_scheduled_at) WHERE uid = %(uid)s",
        uid=uid,
        tick=tick,
        next=next_run_at,
    )


async def record_handled_request(db: DatabaseConnection, uid: ConnectionUid, token: str) -> None:
    """Remember the newest handled run-now token, which the status echoes."""
    await execute(
        db,
        "UPDATE penstock.tenant_connections SET handled_request = %(token)s WHERE uid = %(uid)s",
        uid=uid,
        token=token,
    )


async def forgive_failures(db: DatabaseConnection, uid: ConnectionUid) -> None:
    """End the pause after failures: somebody asks for a run."""
    await execute(
        db,
        "UPDATE penstock.tenant_connections SET failures = 0, paused_until = NULL WHERE uid = %(uid)s",
        uid=uid,
    )


async def record_success(db: DatabaseConnection, uid: ConnectionUid, run_id: RunId) -> None:
    """Remember which run succeeded last, and when; the connection does not fail any more."""
    await execute(
        db,
        "UPDATE penstock.tenant_connections SET last_success_at = now(), last_success_run = %(run)s, failures = 0,"
        " paused_until = NULL WHERE uid = %(uid)s",
        uid=uid,
        run=run_id,
    )


async def count_failure(db: DatabaseConnection, uid: ConnectionUid) -> int:
    """Count a failed run, and return how many there are in a row."""
    failures = await fetch_value(
        db,
        int,
        "UPDATE penstock.tenant_connections SET failures = failures + 1 WHERE uid = %(uid)s RETURNING failures",
        uid=uid,
    )
    return failures or 0


async def pause(db: DatabaseConnection, uid: ConnectionUid, seconds: float) -> None:
    """Let no tick make a run for a while."""
    await execute(
        db,
        "UPDATE penstock.tenant_connections SET paused_until = now() + %(seconds)s * interval '1 s' WHERE uid = %(uid)s",
        uid=uid,
        seconds=seconds,
    )


async def connection_by_name(db: DatabaseConnection, namespace: str, name: str) -> ConnectionRow | None:
    """Return the live connection of that name."""
    return await fetch_one(
        db,
        ConnectionRow.parse,
        f"SELECT {CONNECTION_COLUMNS} FROM penstock.tenant_connections c"  # noqa: S608 - constants
        " WHERE c.namespace = %(namespace)s AND c.name = %(name)s AND c.deleted_at IS NULL",
        namespace=namespace,
        name=name,
    )


async def connection_by_uid(db: DatabaseConnection, uid: ConnectionUid) -> ConnectionRow | None:
    """Return the connection, deleted or not."""
    sql = f"SELECT {CONNECTION_COLUMNS} FROM penstock.tenant_connections c WHERE c.uid = %(uid)s"  # noqa: S608
    return await fetch_one(db, ConnectionRow.parse, sql, uid=uid)


async def connections_by_uid(db: DatabaseConnection, uids: list[ConnectionUid]) -> list[ConnectionSummary]:
    """Return what a sweep compares of many connections, deleted or not."""
    sql = f"SELECT {SUMMARY_COLUMNS} FROM penstock.tenant_connections c WHERE c.uid = ANY(%(uids)s)"  # noqa: S608
    return await fetch_all(db, ConnectionSummary.parse, sql, uids=uids)


async def connections_of_definition(db: DatabaseConnection, name: str) -> list[ConnectionKey]:
    """Return the live connections that select a version of the definition's connector method."""
    return await fetch_all(
        db,
        ConnectionKey,
        """
        SELECT c.namespace, c.name FROM penstock.tenant_connections c
        JOIN (SELECT DISTINCT connector, method FROM penstock.connector_definitions WHERE name = %(name)s) d
            ON c.spec -> 'connector' ->> 'name' = d.connector AND c.spec -> 'connector' ->> 'method' = d.method
        WHERE c.deleted_at IS NULL
        """,
        name=name,
    )


async def live_connections(db: DatabaseConnection) -> list[ConnectionRow]:
    """Return the live connections of this installation by namespace and name."""
    return await fetch_all(
        db,
        ConnectionRow.parse,
        f"SELECT {CONNECTION_COLUMNS} FROM penstock.tenant_connections c"  # noqa: S608 - constants
        " WHERE c.deleted_at IS NULL AND c.released_at IS NULL ORDER BY c.namespace, c.name",
    )


async def live_names(db: DatabaseConnection, uids: list[ConnectionUid]) -> list[ConnectionKey]:
    """Return the keys of those of the connections that are not deleted."""
    return await fetch_all(
        db,
        ConnectionKey,
        "SELECT namespace, name FROM penstock.tenant_connections WHERE uid = ANY(%(uids)s) AND deleted_at IS NULL",
        uids=uids,
    )
