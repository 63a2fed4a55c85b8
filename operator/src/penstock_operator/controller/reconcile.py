"""Reconcile: the ordered steps that record a resource in the registry and make its status."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from penstock_operator import alerts, definitions
from penstock_operator.alerts import StreamAlert
from penstock_operator.audit import audit_store
from penstock_operator.audit.events import Action, AuditedObject
from penstock_operator.connections import connection_records, connection_store
from penstock_operator.connections.connection_records import ConnectionRecord
from penstock_operator.connections.connection_store import ConnectionRow
from penstock_operator.connections.predecessors import retire_namesakes
from penstock_operator.controller.dependencies import record_upstreams, upstream_finding
from penstock_operator.controller.desired import (
    DefinitionCache,
    DesiredConnection,
    Stalled,
    check_resource,
    desired_connection,
    record_of,
    stands_alone,
    unknown_annotations,
)
from penstock_operator.controller.identity import NamespaceUidReader, one_namespace, settle
from penstock_operator.controller.state_requests import handle_state_requests
from penstock_operator.controller.status import finding_for, open_alert, pauses, recorded_fields, status_of
from penstock_operator.registry.database import DatabaseConnection, Pool, snapshot
from penstock_operator.resources.conditions import (
    SHOWN_ALERTS,
    Finding,
    UndatedCondition,
    alert_conditions,
    conditions_for,
    note,
)
from penstock_operator.resources.documents import Connection, Definition, Metadata
from penstock_operator.resources.models import NO_SPEC, REQUESTED_AT, ConnectionStatus, DefinitionStatus, Stage
from penstock_operator.resources.storable import shown_text
from penstock_operator.runs import run_store
from penstock_operator.runs.run_store import RunDetail
from penstock_operator.scheduling.due import handle_request


async def reconcile_definition(pool: Pool, definition: Definition) -> DefinitionStatus:
    """Record the definition, and return its status."""
    generation, count = definition.metadata.generation, 0
    try:
        check_resource(definition)
        assert definition.spec is not None  # noqa: S101 - a definition without problems has one
        async with pool.connection() as db:
            await definitions.upsert_definition(db, definition.uid, definition.name, generation, definition.spec)
            count = await definitions.connection_count(db, definition.name)
        finding = _definition_finding(definition.spec.stage)
    except Stalled as stalled:
        finding = stalled.finding
        await _audit_refusal(pool, definition, finding)
    admitted = UndatedCondition("Admitted", finding.reason, finding.message, holds=finding.state == "ready")
    conditions = conditions_for(finding, generation, definition.status.conditions, datetime.now(UTC), admitted)
    return DefinitionStatus(observed_generation=generation, conditions=conditions, connections=count)


async def _audit_refusal(pool: Pool, definition: Definition, finding: Finding) -> None:
    """Audit that a definition was refused, unless its status says so already."""
    told = any(
        condition.type == "Admitted"
        and condition.reason == finding.reason
        and condition.observed_generation == definition.metadata.generation
        for condition in definition.status.conditions
    )
    if told:
        return
    refused = AuditedObject("definition", name=definition.name)
    async with pool.connection() as db:
        await audit_store.record(
            db, Action.definition_admit, refused, "refused", f"{finding.reason}: {finding.message}"
        )


def _definition_finding(stage: Stage) -> Finding:
    if stage == "withdrawn":
        return Finding("ready", "Withdrawn", "new runs do not use this version; runs under way go on")
    if stage == "preview":
        return Finding("ready", "Admitted", "the version is preview: connections that name it exactly may use it")
    return Finding("ready", "Admitted", f"the version is {stage} and may be used")


async def reconcile_connection(
    pool: Pool, connection: Connection, namespace_uid: NamespaceUidReader = one_namespace
) -> ConnectionStatus:
    """Record the connection, make a requested run, and return its status.

    `namespace_uid` tells one namespace from another of the same name.
    """
    now, annotations = datetime.now(UTC), connection.metadata.annotations
    async with pool.connection() as db:
        try:
            before = await connection_store.connection_by_uid(db, connection.uid)
            current = before.definition_uid if before else None
            desired = await desired_connection(connection, DefinitionCache(db), current)
            row, known = await _record(db, desired, now, namespace_uid)
            await handle_state_requests(db, connection.metadata, row)
            await record_upstreams(db, row, desired.record.spec, now)
            await _handle_request(db, annotations.get(REQUESTED_AT), row)
            problem, definition, about = None, desired.definition.name, desired.notes
            untouched = not known and stands_alone(connection)
        except Stalled as stalled:
            problem, definition, about, untouched = stalled.finding, None, (), False
            row = await _record_stalled(db, connection, problem, namespace_uid)
            if not connection.metadata.problems:
                await handle_state_requests(db, connection.metadata, row)
        recorded = RecordedConnection(row) if untouched else await recorded_connection(db, row)
    finding = problem or upstream_finding(recorded.row) or finding_for(recorded.row, recorded.newest, recorded.failure)
    extra = [
        *pauses(recorded.row, now),
        *annotation_notes(connection.metadata),
        *about,
        *alert_conditions([open_alert(alert) for alert in reversed(recorded.alerts)]),
    ]
    generation = connection.metadata.generation
    conditions = conditions_for(finding, generation, connection.status.conditions, now, *extra)
    fields = recorded_fields(recorded.row, definition, now)
    return status_of(generation, conditions, fields, recorded.newest, len(recorded.alerts), recorded.waiting)


def annotation_notes(metadata: Metadata) -> list[UndatedCondition]:
    """Return the condition of annotations that nobody reads, if there are any: what they ask for does not happen."""
    found = unknown_annotations(metadata)
    return [note("UnknownAnnotation", "; ".join(found[:SHOWN_ALERTS]))] if found else []


@dataclass(frozen=True)
class RecordedConnection:
    """The registry's records of a connection once its document is applied; a new connection has its row only."""

    row: ConnectionRow
    newest: RunDetail | None = None
    alerts: list[StreamAlert] = field(default_factory=list)
    waiting: int = 0
    failure: RunDetail | None = None


async def recorded_connection(db: DatabaseConnection, row: ConnectionRow) -> RecordedConnection:
    """Read everything that the status shows in one snapshot, so that no run begins or ends between two fields."""
    async with snapshot(db):
        row = await connection_store.connection_by_uid(db, row.uid) or row
        newest = await run_store.newest_run(db, row.uid)
        failing = row.failures and newest and newest.is_active
        return RecordedConnection(
            row,
            newest,
            await alerts.open_alerts_of(db, row.uid),
            await run_store.waiting_count(db, row.uid),
            await run_store.newest_failure(db, row.uid) if failing else None,
        )


async def _record(
    db: DatabaseConnection, desired: DesiredConnection, now: datetime, namespace_uid: NamespaceUidReader
) -> tuple[ConnectionRow, bool]:
    """Record the connection and return its row, and whether there was one before."""
    known = await connection_store.connection_by_uid(db, desired.record.uid)
    if known and desired.is_held_by(known) and known.namespace_uid:
        return known, True
    desired = replace(desired, record=await _placed(desired.record, known, namespace_uid))
    timed = desired.timed(now)
    if known is None:
        for new in await connection_records.insert_connections(db, [(desired.record, timed)]):
            return new, False
        await retire_namesakes(db, desired.record.uid, desired.record.namespace, desired.record.name)
    async with db.transaction():
        await settle(db, desired.record, known, valid=True)
        row = await connection_records.upsert_connection(db, desired.record)
        await connection_records.record_admission(db, desired.record, desired.definition.name, known)
        if not timed.is_held_by(row):
            row = await connection_records.set_timing(db, row.uid, timed) or row
    return row, known is not None


async def _placed(
    record: ConnectionRecord, known: ConnectionRow | None, namespace_uid: NamespaceUidReader
) -> ConnectionRecord:
    """Return the record with the uid of its namespace, which is read once for each connection."""
    held = known.namespace_uid if known else None
    return replace(record, namespace_uid=held or await namespace_uid(record.namespace))


async def _record_stalled(
    db: DatabaseConnection, connection: Connection, problem: Finding, namespace_uid: NamespaceUidReader
) -> ConnectionRow:
    """Record a connection that cannot be used; a spec that the API server would refuse does not replace the last good one."""
    known = await connection_store.connection_by_uid(db, connection.uid)
    valid = not connection.problems
    spec = connection.spec if valid else known.spec if known else NO_SPEC
    why = shown_text(f"{problem.reason}: {problem.message}")
    record = await _placed(record_of(connection, spec, None, why), known, namespace_uid)
    if known is None:
        await retire_namesakes(db, record.uid, record.namespace, record.name)
    async with db.transaction():
        await settle(db, record, known, valid=valid)
        if not valid and not known:
            taken = await connection_store.connection_by_uid(db, record.uid)
            record = replace(record, spec=taken.spec if taken else NO_SPEC)
        row = await connection_records.upsert_connection(db, record)
        seen = known and replace(known, definition_uid=None)
        await connection_records.record_admission(db, record, "", seen)
        return row


async def _handle_request(db: DatabaseConnection, token: str | None, row: ConnectionRow) -> None:
    if token and token != row.handled_request:
        await handle_request(db, row.uid, token)
