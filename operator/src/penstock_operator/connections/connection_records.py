"""tenant_connections as their documents want them: recorded, timed, and marked as deleted."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from psycopg.types.json import Jsonb

from penstock_operator.audit import audit_store
from penstock_operator.audit.callers import current_actor
from penstock_operator.audit.events import Action, AuditedObject, AuditEvent, Result
from penstock_operator.connections.connection_store import CONNECTION_COLUMNS, ConnectionKey, ConnectionRow
from penstock_operator.connections.predecessors import names_taken, retire_namesakes
from penstock_operator.ids import (
    ConnectionName,
    ConnectionUid,
    DefinitionName,
    DefinitionUid,
    Namespace,
    NamespaceUid,
)
from penstock_operator.registry.database import DatabaseConnection, fetch_all, fetch_one, fetch_value
from penstock_operator.resources.models import ConnectionSpec
from penstock_operator.resources.schedules import UTC_ZONE, CronSchedule, TimeZone


@dataclass(frozen=True, slots=True)
class ConnectionRecord:
    """A connection as a reconcile found it."""

    uid: ConnectionUid
    namespace: Namespace
    name: ConnectionName
    generation: int
    spec: ConnectionSpec
    definition_uid: DefinitionUid | None
    ready: bool
    namespace_uid: NamespaceUid | None = None
    stalled_message: str | None = None
    """Why it is not ready."""

    @property
    def suspended(self) -> bool:
        """Whether no tick makes a run."""
        return self.spec.suspend

    def is_held_by(self, row: ConnectionRow) -> bool:
        """Return True if the row says the same already."""
        held = (row.namespace, row.name, row.generation, row.definition_uid, row.ready, row.spec.document())
        recorded = (self.namespace, self.name, self.generation, self.definition_uid, self.ready, self.spec.document())
        return row.deleted_at is None and held == recorded


@dataclass(frozen=True, slots=True)
class Timing:
    """When a connection runs. `next_run_at` is when its next run is made, which is `jitter_seconds` after its tick."""

    schedule: CronSchedule | None = None
    time_zone: TimeZone = UTC_ZONE
    jitter_seconds: int = 0
    next_run_at: datetime | None = None

    def is_held_by(self, row: ConnectionRow) -> bool:
        """Return True if the row has this schedule already, whenever it is due."""
        held = row.schedule, row.time_zone, row.jitter_seconds
        return held == (self.schedule, self.time_zone, self.jitter_seconds)


async def upsert_connection(db: DatabaseConnection, record: ConnectionRecord) -> ConnectionRow:
    """Record a connection and return the row as it was before a changed schedule is applied to it.

    A connection of the same namespace and name with another uid was deleted and made anew. A changed spec or definition
    ends the pause after failures. One that cannot be used keeps the definition that it used last.
    """
    await retire_namesakes(db, record.uid, record.namespace, record.name)
    row = await fetch_one(
        db,
        ConnectionRow.parse,
        f"""
        INSERT INTO penstock.tenant_connections AS c
            (uid, namespace, name, generation, spec, definition_uid, ready, suspended, schedule, time_zone,
             namespace_uid, stalled_message, first_generation)
        VALUES (%(uid)s, %(namespace)s, %(name)s, %(generation)s, %(spec)s, %(definition)s, %(ready)s, %(suspended)s,
                NULL, '', %(namespace_uid)s, %(stalled_message)s, penstock.next_generation(%(namespace)s, %(name)s))
        ON CONFLICT (uid) DO UPDATE SET generation = excluded.generation, spec = excluded.spec, ready = excluded.ready,
            definition_uid = coalesce(excluded.definition_uid, c.definition_uid),
            namespace_uid = coalesce(excluded.namespace_uid, c.namespace_uid), suspended = excluded.suspended, updated_at = now(), deleted_at = NULL,
            released_at = NULL, stalled_message = excluded.stalled_message,
            purged_at = NULL,
            failures = CASE WHEN c.spec = excluded.spec AND c.definition_uid IS NOT DISTINCT FROM excluded.definition_uid
                            THEN c.failures ELSE 0 END,
            paused_until = CASE WHEN c.spec = excluded.spec AND c.definition_uid IS NOT DISTINCT FROM excluded.definition_uid
                                THEN c.paused_until END
        RETURNING {CONNECTION_COLUMNS}
        """,  # noqa: S608 - constants
        uid=record.uid,
        namespace=record.namespace,
        name=record.name,
        generation=record.generation,
        spec=Jsonb(record.spec.document()),
        definition=record.definition_uid,
        ready=record.ready,
        suspended=record.suspended,
        namespace_uid=record.namespace_uid,
        stalled_message=record.stalled_message,
    )
    assert row is not None  # noqa: S101 - INSERT … RETURNING always returns
    return row


async def insert_connections(db: DatabaseConnection, new: list[tuple[ConnectionRecord, Timing]]) -> list[ConnectionRow]:
    """Record connections that are new, in one statement, and return their rows.

    Where it, or another of its name, is there already or was once, a connection is left out: that takes
    `upsert_connection`.
    """
    async with db.transaction():
        rows = await _insert_connections(db, new)
        actor = current_actor()
        await audit_store.record_all(
            db,
            [
                AuditEvent(Action.connection_admit, AuditedObject("connection", row.namespace, row.name), actor=actor)
                for row in rows
            ],
        )
    return rows


async def _insert_connections(
    db: DatabaseConnection, new: list[tuple[ConnectionRecord, Timing]]
) -> list[ConnectionRow]:
    taken = await names_taken(db, [(record.namespace, record.name) for record, _ in new])
    new = [(record, timing) for record, timing in new if (record.namespace, record.name) not in taken]
    records, timings = [record for record, _ in new], [timing for _, timing in new]
    return await fetch_all(
        db,
        ConnectionRow.parse,
        f"""
        INSERT INTO penstock.tenant_connections AS c
            (uid, namespace, name, generation, spec, definition_uid, ready, suspended, schedule, time_zone,
             jitter_seconds, next_run_at, namespace_uid)
        SELECT * FROM unnest(
            %(uids)s::text[], %(namespaces)s::text[], %(names)s::text[], %(generations)s::bigint[], %(specs)s::jsonb[],
            %(definitions)s::text[], %(ready)s::boolean[], %(suspended)s::boolean[], %(schedules)s::text[],
            %(zones)s::text[], %(jitters)s::integer[], %(moments)s::timestamptz[],
            %(namespace_uids)s::text[])
        ON CONFLICT DO NOTHING
        RETURNING {CONNECTION_COLUMNS}
        """,  # noqa: S608 - constants
        uids=[record.uid for record in records],
        namespaces=[record.namespace for record in records],
        names=[record.name for record in records],
        generations=[record.generation for record in records],
        specs=[Jsonb(record.spec.document()) for record in records],
        definitions=[record.definition_uid for record in records],
        ready=[record.ready for record in records],
        suspended=[record.suspended for record in records],
        schedules=[timing.schedule for timing in timings],
        zones=[timing.time_zone for timing in timings],
        jitters=[timing.jitter_seconds for timing in timings],
        moments=[timing.next_run_at for timing in timings],
        namespace_uids=[record.namespace_uid for record in records],
    )


async def set_timing(db: DatabaseConnection, uid: ConnectionUid, timing: Timing) -> ConnectionRow | None:
    """Apply a changed schedule and return the row: the next tick is counted from now, so that a change never fires for the past."""
    return await fetch_one(
        db,
        ConnectionRow.parse,
        "UPDATE penstock.tenant_connections c SET schedule = %(schedule)s, time_zone = %(zone)s,"  # noqa: S608 - constants
        " jitter_seconds = %(jitter)s, next_run_at = %(at)s WHERE uid = %(uid)s"
        f" RETURNING {CONNECTION_COLUMNS}",
        uid=uid,
        schedule=timing.schedule,
        zone=timing.time_zone,
        jitter=timing.jitter_seconds,
        at=timing.next_run_at,
    )


async def moment_of(db: DatabaseConnection) -> datetime:
    """Return the registry's own time, which its rows' moments are of."""
    moment = await fetch_value(db, datetime.fromisoformat, "SELECT clock_timestamp()::text")
    assert moment is not None  # noqa: S101 - it always returns
    return moment


async def retire_connections(db: DatabaseConnection, live: list[ConnectionUid], before: datetime) -> int:
    """Mark every connection deleted whose uid is not in the list, and return how many.

    `before` is when the listing began: a connection that was recorded since then may be one that it missed.
    """
    async with db.transaction():
        gone = await fetch_all(
            db,
            ConnectionKey,
            "UPDATE penstock.tenant_connections SET deleted_at = now(), schedule = NULL, next_run_at = NULL"
            " WHERE deleted_at IS NULL AND uid <> ALL(%(live)s) AND updated_at < %(before)s RETURNING namespace, name",
            live=live,
            before=before,
        )
        actor = current_actor()
        await audit_store.record_all(
            db,
            [
                AuditEvent(Action.connection_delete, AuditedObject("connection", key.namespace, key.name), actor=actor)
                for key in gone
            ],
        )
    return len(gone)


@dataclass(frozen=True, slots=True)
class RetiredConnection:
    """A connection that was marked deleted, with the name of its definition."""

    uid: ConnectionUid
    definition: DefinitionName | None


async def retire_connection(db: DatabaseConnection, namespace: str, name: str) -> RetiredConnection | None:
    """Mark one connection deleted, and return it; None when there is none."""
    async with db.transaction():
        gone = await fetch_one(
            db,
            RetiredConnection,
            """
            UPDATE penstock.tenant_connections c SET deleted_at = now(), schedule = NULL, next_run_at = NULL
            WHERE deleted_at IS NULL AND namespace = %(namespace)s AND name = %(name)s
            RETURNING uid,
                (SELECT d.name FROM penstock.connector_definitions d WHERE d.uid = c.definition_uid) AS definition
            """,
            namespace=namespace,
            name=name,
        )
        if gone:
            await audit_store.record(
                db, Action.connection_delete, AuditedObject("connection", Namespace(namespace), name)
            )
    return gone


async def record_admission(
    db: DatabaseConnection, record: ConnectionRecord, definition: str, known: ConnectionRow | None
) -> None:
    """Audit whether a connection can be used, if that is new."""
    held = known and (known.generation, known.ready, known.stalled_message, known.definition_uid)
    if held == (record.generation, record.ready, record.stalled_message, record.definition_uid):
        return
    result: Result = "allowed" if record.ready else "refused"
    admitted = AuditedObject("connection", record.namespace, record.name)
    reason = definition if record.ready else record.stalled_message or ""
    await audit_store.record(db, Action.connection_admit, admitted, result, reason)
