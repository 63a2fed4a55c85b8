"""Reconcile: an ordered list of small steps from a document to the registry and back to a status."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from penstock_operator import alerts, definitions
from penstock_operator.connections import connection_records, connection_store
from penstock_operator.connections.connection_records import ConnectionRecord
from penstock_operator.connections.connection_store import ConnectionRow
from penstock_operator.connections.predecessors import retire_namesakes
from penstock_operator.controller.dependencies import record_upstreams, upstream_finding
from penstock_operator.controller.desired import (
    DefinitionCache,
    DesiredConnection,
    Stalled,
    annotation_problems,
    check_document,
    desired_connection,
    record_of,
    spec_problems,
    stands_alone,
    unknown_annotations,
)
from penstock_operator.controller.identity import NamespaceUidReader, one_namespace, settle
from penstock_operator.controller.resource_client import Document, key_of
from penstock_operator.controller.state_requests import handle_state_requests
from penstock_operator.controller.status import finding_for, open_alert, pauses, status_of
from penstock_operator.registry.database import DatabaseConnection, Pool, Row, snapshot
from penstock_operator.resources.conditions import SHOWN_ALERTS, Finding, Note, alert_conditions, conditions_for
from penstock_operator.resources.crds import defaulted
from penstock_operator.resources.models import NO_SPEC, REQUESTED_AT, ConnectionSpec
from penstock_operator.resources.storable import shown_text
from penstock_operator.runs import run_store
from penstock_operator.runs.run_store import RunDetail
from penstock_operator.scheduling.due import handle_request


async def reconcile_definition(pool: Pool, document: Document) -> Document:
    """Record the definition, and return its status."""
    meta, now = document["metadata"], datetime.now(UTC)
    generation = meta.get("generation", 1)
    count = 0
    try:
        check_document(document)
        async with pool.connection() as db:
            await definitions.upsert_definition(db, meta["uid"], meta["name"], generation, defaulted(document)["spec"])
            count = await definitions.connection_count(db, meta["name"])
        finding = _definition_finding(document["spec"].get("stage", "preview"))
    except Stalled as stalled:
        finding = stalled.finding
    admitted = {
        "type": "Admitted",
        "status": str(finding.state == "ready"),
        "reason": finding.reason,
        "message": finding.message,
    }
    previous = document.get("status", {}).get("conditions", [])
    listed = conditions_for(finding, generation, previous, now, admitted)
    return {"observedGeneration": generation, "conditions": listed, "connections": count}


def _definition_finding(stage: str) -> Finding:
    if stage == "withdrawn":
        return Finding("ready", "Withdrawn", "new runs do not use this version; runs under way go on")
    if stage == "preview":
        return Finding("ready", "Admitted", "the version is preview: connections that name it exactly may use it")
    return Finding("ready", "Admitted", f"the version is {stage} and may be used")


async def reconcile_connection(
    pool: Pool, document: Document, namespace_uid: NamespaceUidReader = one_namespace
) -> Document:
    """Record the connection, make a requested run, and return its status."""
    generation, now = document["metadata"].get("generation", 1), datetime.now(UTC)
    async with pool.connection() as db:
        try:
            before = await connection_store.connection_by_uid(db, document["metadata"]["uid"])
            current = before.definition_uid if before else None
            wanted = await desired_connection(document, DefinitionCache(db), current)
            row, known = await _record(db, wanted, now, namespace_uid)
            await handle_state_requests(db, document, row)
            await record_upstreams(db, row, wanted.record.spec, now)
            await _handle_request(db, document, row)
            problem, definition, about = None, wanted.definition, wanted.notes
            untouched = not known and stands_alone(document)
        except Stalled as stalled:
            problem, definition, about, untouched = stalled.finding, None, (), False
            row = await _record_stalled(db, document, problem, namespace_uid)
            if not annotation_problems(document):
                await handle_state_requests(db, document, row)
        recorded = RecordedConnection(row) if untouched else await recorded_connection(db, row)
    finding = problem or upstream_finding(recorded.row) or finding_for(recorded.row, recorded.newest, recorded.failure)
    previous = document.get("status", {}).get("conditions", [])
    extra = [
        *pauses(recorded.row, now),
        *notes(document),
        *(note.as_condition() for note in about),
        *alert_conditions([open_alert(alert) for alert in reversed(recorded.alerts)]),
    ]
    listed = conditions_for(finding, generation, previous, now, *extra)
    counted = {"alerts": len(recorded.alerts), **({"waitingRuns": recorded.waiting} if recorded.waiting else {})}
    return {**status_of(generation, listed, recorded.row, recorded.newest, definition), **counted}


def notes(document: Document) -> list[dict[str, str]]:
    """Return the condition of annotations that nobody reads, if there are any: what was meant by them does not happen."""
    found = unknown_annotations(document)
    if not found:
        return []
    words = "; ".join(found[:SHOWN_ALERTS])
    return [Note("UnknownAnnotation", words).as_condition()]


@dataclass(frozen=True)
class RecordedConnection:
    """What the registry says of a connection once its document is applied; of one that is new, that is its row."""

    row: ConnectionRow
    newest: RunDetail | None = None
    alerts: list[Row] = field(default_factory=list)
    waiting: int = 0
    failure: RunDetail | None = None


async def recorded_connection(db: DatabaseConnection, row: ConnectionRow) -> RecordedConnection:
    """Read what a status tells in one snapshot: no run of it begins or ends between two of its fields."""
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
    db: DatabaseConnection, wanted: DesiredConnection, now: datetime, namespace_uid: NamespaceUidReader
) -> tuple[ConnectionRow, bool]:
    """Return the connection's row as it is wanted, and whether there was one before."""
    known = await connection_store.connection_by_uid(db, wanted.record.uid)
    if known and wanted.is_held_by(known) and known.namespace_uid:
        return known, True
    wanted = replace(wanted, record=await _placed(wanted.record, known, namespace_uid))
    timed = wanted.timed(now)
    if known is None:
        for new in await connection_records.insert_connections(db, [(wanted.record, timed)]):
            return new, False
        await retire_namesakes(db, wanted.record.uid, wanted.record.namespace, wanted.record.name)
    async with db.transaction():
        await settle(db, wanted.record, known, valid=True)
        row = await connection_records.upsert_connection(db, wanted.record)
        if not timed.is_held_by(row):
            row = await connection_records.set_timing(db, row.uid, timed) or row
    return row, known is not None


async def _placed(
    record: ConnectionRecord, known: ConnectionRow | None, namespace_uid: NamespaceUidReader
) -> ConnectionRecord:
    """Return the record with its namespace's uid, asked for once in a connection's life."""
    held = known.namespace_uid if known else None
    return replace(record, namespace_uid=held or await namespace_uid(record.namespace))


async def _record_stalled(
    db: DatabaseConnection, document: Document, problem: Finding, namespace_uid: NamespaceUidReader
) -> ConnectionRow:
    """Record a connection that cannot be used; a spec that the API server would refuse does not replace the last good one."""
    known = await connection_store.connection_by_uid(db, document["metadata"]["uid"])
    valid = not spec_problems(document)
    spec = ConnectionSpec.parse(defaulted(document)["spec"]) if valid else known.spec if known else NO_SPEC
    record = await _placed(
        record_of(document, spec, None, shown_text(f"{problem.reason}: {problem.message}")), known, namespace_uid
    )
    if known is None:
        await retire_namesakes(db, record.uid, record.namespace, record.name)
    async with db.transaction():
        await settle(db, record, known, valid=valid)
        if not valid and not known:
            taken = await connection_store.connection_by_uid(db, record.uid)
            record = replace(record, spec=taken.spec if taken else NO_SPEC)
        return await connection_records.upsert_connection(db, record)


async def _handle_request(db: DatabaseConnection, document: Document, row: ConnectionRow) -> None:
    token = document["metadata"].get("annotations", {}).get(REQUESTED_AT)
    if token and token != row.handled_request:
        await handle_request(db, row.uid, token)


async def reconcile(pool: Pool, document: Document, namespace_uid: NamespaceUidReader = one_namespace) -> Document:
    """Return the document's new status. `namespace_uid` tells one namespace from another of the same name."""
    if key_of(document)[0] == "ConnectorDefinition":
        return await reconcile_definition(pool, document)
    return await reconcile_connection(pool, document, namespace_uid)
