"""Reconcile: an ordered list of small steps from a document to the registry and back to a status."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime

from penstock_sdk.manifest import Manifest, config_problems, manifest_problems

from penstock_operator.controller.following import record_upstreams, upstream_finding
from penstock_operator.controller.manifests import manifest_for
from penstock_operator.controller.resources import Document, key_of
from penstock_operator.controller.state_requests import handle_state_requests
from penstock_operator.controller.statuses import finding_for, open_alert, pauses, status_of
from penstock_operator.registry import alerts, connections, definitions, runs
from penstock_operator.registry.connections import ConnectionRecord
from penstock_operator.registry.database import Connection, Pool, Row
from penstock_operator.resources.conditions import Finding, Reason, alert_conditions, conditions_for
from penstock_operator.resources.crds import defaulted, resource_problems
from penstock_operator.resources.models import GROUP, REQUESTED_AT, parse_duration, parse_instant
from penstock_operator.resources.quantities import memory_bytes
from penstock_operator.resources.storable import storage_problems
from penstock_operator.resources.versions import best_match
from penstock_operator.runs.state_annotations import requests
from penstock_operator.scheduling.due import handle_request, next_time
from penstock_operator.scheduling.ticks import ScheduleError, check_schedule, jitter_of


class Stalled(Exception):  # noqa: N818 - named by the reaction it wants
    """The resource cannot be used until its owner changes it."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.finding = Finding("stalled", reason, message)


def check_document(document: Document) -> None:
    """Raise Stalled for what the API server would refuse; a folder has no API server before it."""
    found = annotation_problems(document) + _spec_problems(document)
    if not found and document["kind"] == "ConnectorDefinition":
        found = manifest_problems(document["spec"]["manifest"], "spec.manifest")
    if found:
        reason: Reason = "InvalidSpec"
        raise Stalled(reason, "; ".join(found))


def _spec_problems(document: Document) -> list[str]:
    return storage_problems(document.get("spec"), "spec") or resource_problems(document)


def annotation_problems(document: Document) -> list[str]:
    """Return which of the annotations that ask for something cannot be stored."""
    annotations = document["metadata"].get("annotations") or {}
    ours = {key: value for key, value in annotations.items() if str(key).startswith(f"{GROUP}/")}
    return storage_problems(ours, "metadata.annotations")


async def reconcile_definition(pool: Pool, document: Document) -> Document:
    """Record the definition, and return its status."""
    meta, now = document["metadata"], datetime.now(UTC)
    generation = meta.get("generation", 1)
    count = 0
    try:
        check_document(document)
        async with pool.connection() as connection:
            await definitions.upsert_definition(
                connection, meta["uid"], meta["name"], generation, defaulted(document)["spec"]
            )
            count = await definitions.connection_count(connection, meta["name"])
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
    return Finding("ready", "Admitted", f"the version is {stage} and may be used")


async def reconcile_connection(pool: Pool, document: Document) -> Document:
    """Record the connection, make a requested run, and return its status."""
    generation, now = document["metadata"].get("generation", 1), datetime.now(UTC)
    async with pool.connection() as connection:
        try:
            check_document(document)
            spec = defaulted(document)["spec"]
            definition = await _resolve(connection, spec)
            _check_against(spec, definition["name"], await manifest_for(connection, definition))
            row, known = await _record(connection, document, spec, definition, now)
            await handle_state_requests(connection, document, row)
            await record_upstreams(connection, row, spec, now)
            await _handle_request(connection, document, row)
            problem = None
            untouched = not (known or _asks_for_something(document) or spec.get("after"))
        except Stalled as stalled:
            problem, definition, untouched = stalled.finding, None, False
            row = await _record_stalled(connection, document)
            if not annotation_problems(document):
                await handle_state_requests(connection, document, row)
        facts = Facts(row) if untouched else await _facts(connection, row)
    finding = problem or upstream_finding(facts.row) or finding_for(facts.row, facts.newest)
    previous = document.get("status", {}).get("conditions", [])
    extra = [*pauses(facts.row, now), *alert_conditions([open_alert(each) for each in reversed(facts.alerts)])]
    listed = conditions_for(finding, generation, previous, now, *extra)
    counted = {"alerts": len(facts.alerts), **({"waitingRuns": facts.waiting} if facts.waiting else {})}
    return {**status_of(generation, listed, facts.row, facts.newest, definition), **counted}


@dataclass(frozen=True)
class Facts:
    """What the registry says of a connection once its document is applied; of one that is new, that is its row."""

    row: Row
    newest: Row | None = None
    alerts: list[Row] = field(default_factory=list)
    waiting: int = 0


async def _facts(connection: Connection, row: Row) -> Facts:
    return Facts(
        await connections.connection_by_uid(connection, row["uid"]) or row,
        await runs.newest_run(connection, row["uid"]),
        await alerts.open_alerts_of(connection, row["uid"]),
        await runs.waiting_count(connection, row["uid"]),
    )


def _asks_for_something(document: Document) -> bool:
    """Say whether annotations ask for a run or a change of state, whether or not it was done before."""
    annotations = document["metadata"].get("annotations") or {}
    return REQUESTED_AT in annotations or any(requests(annotations))


async def _resolve(connection: Connection, spec: Document) -> Row:
    wanted = spec["connector"]
    rows = await definitions.versions_of(connection, wanted["name"], wanted["method"])
    if not rows:
        everything = await definitions.list_definitions(connection)
        known = ", ".join(sorted({f"{row['connector']}/{row['method']}" for row in everything})) or "none"
        reason: Reason = "DefinitionNotFound"
        message = f"spec.connector: there is no connector {wanted['name']}/{wanted['method']}; there are: {known}"
        raise Stalled(reason, message)
    version = best_match([row["version"] for row in rows], wanted.get("version", "*"))
    if version is None:
        versions = ", ".join(sorted(row["version"] for row in rows))
        reason = "NoVersionInRange"
        message = f"spec.connector.version: no version matches {wanted['version']!r}; there are: {versions}"
        raise Stalled(reason, message)
    return next(row for row in rows if row["version"] == version)


def _check_against(spec: Document, name: str, manifest: Manifest) -> None:
    """Check what only the definition can tell: config, credentials, modes; and the schedule."""
    try:
        check_schedule(spec.get("schedule"), spec["timeZone"])
    except ScheduleError as error:
        reason: Reason = "InvalidSchedule"
        raise Stalled(reason, str(error)) from None
    try:
        parse_instant(spec.get("since"))
    except ValueError as error:
        raise Stalled("InvalidSpec", f"spec.since: {spec['since']!r} is not a moment: {error}") from None
    found = config_problems(spec.get("config", {}), manifest.config_schema)
    if found:
        reason = "InvalidConfig"
        raise Stalled(reason, "; ".join(found))
    needed = [name for name, required in manifest.credentials().items() if required]
    if needed and not spec.get("secretRef"):
        reason = "SecretRequired"
        message = (
            f"spec.secretRef: name a Secret with the keys {', '.join(needed)}; the connector authenticates with them"
        )
        raise Stalled(reason, message)
    _check_memory(spec)
    for index, stream in enumerate(spec.get("streams", [])):
        if stream["mode"] not in manifest.capabilities.modes:
            reason = "InvalidSpec"
            message = f"spec.streams[{index}].mode: {name} can only read {', '.join(manifest.capabilities.modes)}"
            raise Stalled(reason, message)


def _check_memory(spec: Document) -> None:
    policy = spec["resources"].get("onOutOfMemory")
    limit = spec["resources"]["limits"]["memory"]
    if policy and memory_bytes(policy["max"]) <= memory_bytes(limit):
        reason: Reason = "InvalidSpec"
        message = (
            f"spec.resources.onOutOfMemory.max: {policy['max']} is not more than spec.resources.limits.memory ({limit});"
            " raise it, or remove onOutOfMemory"
        )
        raise Stalled(reason, message)


async def _record(
    connection: Connection, document: Document, spec: Document, definition: Row, now: datetime
) -> tuple[Row, bool]:
    """Return the connection's row as the document wants it, and whether there was one before."""
    meta = document["metadata"]
    record = ConnectionRecord(
        meta["uid"], meta["namespace"], meta["name"], meta.get("generation", 1), spec, definition["uid"], ready=True
    )
    schedule, zone = spec.get("schedule"), spec["timeZone"]
    jitter = jitter_of(record.namespace, record.name, parse_duration(spec["jitter"]))
    timing = (schedule, zone, jitter)
    known = await connections.connection_by_uid(connection, record.uid)
    if known and record.is_held_by(known) and _timing(known) == timing:
        return known, True
    if known is None:
        new = await connections.insert_connection(
            connection, record, schedule, zone, next_time(schedule, zone, jitter, now), jitter
        )
        if new:
            return new, False
    async with connection.transaction():
        row = await connections.upsert_connection(connection, record)
        if _timing(row) != timing:
            at = next_time(schedule, zone, jitter, now)
            row = await connections.set_schedule(connection, row["uid"], schedule, zone, at, jitter) or row
    return row, known is not None


def _timing(row: Row) -> tuple[str | None, str, int]:
    return row["schedule"], row["time_zone"], row["jitter_seconds"]


async def _record_stalled(connection: Connection, document: Document) -> Row:
    """Record a connection that cannot be used; a spec that the API server would refuse does not replace the last good one."""
    meta = document["metadata"]
    if _spec_problems(document):
        known = await connections.connection_by_uid(connection, meta["uid"])
        spec = known["spec"] if known else {}
    else:
        spec = defaulted(document)["spec"]
    record = ConnectionRecord(
        meta["uid"], meta["namespace"], meta["name"], meta.get("generation", 1), spec, definition_uid=None, ready=False
    )
    async with connection.transaction():
        return await connections.upsert_connection(connection, record)


async def _handle_request(connection: Connection, document: Document, row: Row) -> None:
    token = document["metadata"].get("annotations", {}).get(REQUESTED_AT)
    if token:
        await handle_request(connection, row, token)


async def reconcile(pool: Pool, document: Document) -> Document:
    """Return the document's new status."""
    kind = key_of(document)[0]
    return await (reconcile_definition if kind == "ConnectorDefinition" else reconcile_connection)(pool, document)
