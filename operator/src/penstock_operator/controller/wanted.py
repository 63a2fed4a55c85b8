"""What a document wants, checked: the row of a connection, its definition, and when it runs. Nothing is written here."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from difflib import get_close_matches

from penstock_sdk.manifest import Manifest, config_problems, manifest_problems

from penstock_operator.controller.manifests import manifest_for
from penstock_operator.controller.resources import Document
from penstock_operator.registry import definitions
from penstock_operator.registry.database import Connection, Row
from penstock_operator.registry.recording import ConnectionRecord, Timing
from penstock_operator.resources.conditions import Finding, Reason
from penstock_operator.resources.crds import defaulted, resource_problems
from penstock_operator.resources.models import ANNOTATIONS, GROUP, REQUESTED_AT, parse_duration, parse_instant
from penstock_operator.resources.storable import shown_text, storage_problems
from penstock_operator.resources.versions import best_match
from penstock_operator.runs.state_annotations import requests
from penstock_operator.scheduling.due import next_time
from penstock_operator.scheduling.ticks import ScheduleError, check_schedule, jitter_of

CLOCKS_DIFFER = timedelta(minutes=5)


class Stalled(Exception):  # noqa: N818 - named by the reaction it wants
    """The resource cannot be used until its owner changes it."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.finding = Finding("stalled", reason, message)


def check_document(document: Document) -> None:
    """Raise Stalled for what the API server would refuse; a folder has no API server before it."""
    found = annotation_problems(document) + spec_problems(document)
    if not found and document["kind"] == "ConnectorDefinition":
        found = manifest_problems(document["spec"]["manifest"], "spec.manifest")
    if found:
        reason: Reason = "InvalidSpec"
        raise Stalled(reason, "; ".join(found))
    if document["kind"] == "TenantConnection":
        _check_times(defaulted(document)["spec"], datetime.now(UTC))


def spec_problems(document: Document) -> list[str]:
    """Return what the API server would refuse of a document; one that it took under an older schema may be wrong now."""
    return storage_problems(document.get("spec"), "spec") or resource_problems(document)


def annotation_problems(document: Document) -> list[str]:
    """Return which of the annotations that ask for something cannot be stored."""
    annotations = document["metadata"].get("annotations") or {}
    ours = {key: value for key, value in annotations.items() if str(key).startswith(f"{GROUP}/")}
    return storage_problems(ours, "metadata.annotations")


def unknown_annotations(document: Document) -> list[str]:
    """Return what is wrong with the names of our group's annotations. A CRD's rules see no annotations."""
    annotations = document["metadata"].get("annotations") or {}
    ours = [key for key in map(str, annotations) if key.startswith(f"{GROUP}/") and key not in ANNOTATIONS]
    return [f"metadata.annotations.{shown_text(key[:100])}: is not known; {_nearest(key)}" for key in sorted(ours)]


def _nearest(key: str) -> str:
    by_lower = {known.lower(): known for known in ANNOTATIONS}
    near = get_close_matches(key.lower(), list(by_lower), 1, 0.75)
    known = f"Penstock reads {', '.join(ANNOTATIONS)}"
    return f"did you mean {by_lower[near[0]]}?" if near else f"remove it: {known}"


def stands_alone(document: Document) -> bool:
    """Say whether its row is all that a new connection needs: it follows nobody, and no annotation asks for something."""
    annotations = document["metadata"].get("annotations") or {}
    return not (document["spec"].get("after") or REQUESTED_AT in annotations or any(requests(annotations)))


@dataclass(frozen=True)
class Wanted:
    """What the registry is to hold of a connection."""

    record: ConnectionRecord
    definition: Row
    timing: Timing

    def timed(self, now: datetime) -> Timing:
        """Return when the connection runs, with its next run counted from now."""
        at = next_time(self.timing.schedule, self.timing.time_zone, self.timing.jitter_seconds, now)
        return replace(self.timing, next_run_at=at)

    def is_held_by(self, row: Row) -> bool:
        """Say whether the row says all this already, whenever it is due."""
        return self.record.is_held_by(row) and self.timing.is_held_by(row)


class Definitions:
    """What connections resolve to, looked up once each; for as long as definitions may be taken as unchanged."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._found: dict[tuple[str, ...], Row] = {}

    async def resolve(self, spec: Document) -> tuple[Row, Manifest]:
        """Return the definition that `spec.connector` means, with its manifest. Raises Stalled."""
        wanted = spec["connector"]
        key = (wanted["name"], wanted["method"], wanted.get("version", "*"))
        if key not in self._found:
            self._found[key] = await _resolve(self._connection, *key)
        return self._found[key], await manifest_for(self._connection, self._found[key])


async def wanted_of(document: Document, known: Definitions) -> Wanted:
    """Return what a connection's document wants. Raises Stalled where it cannot be had."""
    check_document(document)
    spec = defaulted(document)["spec"]
    definition, manifest = await known.resolve(spec)
    _check_against(spec, definition["name"], manifest)
    record = record_of(document, spec, definition["uid"])
    jitter = jitter_of(record.namespace, record.name, parse_duration(spec["jitter"]))
    return Wanted(record, definition, Timing(spec.get("schedule"), spec["timeZone"], jitter))


def record_of(document: Document, spec: Document, definition_uid: str | None) -> ConnectionRecord:
    """Return the row's part that a document decides; it is ready when there is a definition."""
    meta = document["metadata"]
    generation, ready = meta.get("generation", 1), definition_uid is not None
    return ConnectionRecord(meta["uid"], meta["namespace"], meta["name"], generation, spec, definition_uid, ready=ready)


async def _resolve(connection: Connection, name: str, method: str, reach: str) -> Row:
    rows = await definitions.versions_of(connection, name, method)
    if not rows:
        everything = await definitions.list_definitions(connection)
        known = ", ".join(sorted({f"{row['connector']}/{row['method']}" for row in everything})) or "none"
        reason: Reason = "DefinitionNotFound"
        message = f"spec.connector: there is no connector {name}/{method}; there are: {known}"
        raise Stalled(reason, message)
    version = best_match([row["version"] for row in rows], reach)
    if version is None:
        versions = ", ".join(sorted(row["version"] for row in rows))
        reason = "NoVersionInRange"
        message = f"spec.connector.version: no version matches {reach!r}; there are: {versions}"
        raise Stalled(reason, message)
    return next(row for row in rows if row["version"] == version)


def _check_times(spec: Document, now: datetime) -> None:
    """Check what no rule of a CRD can: that schedule and time zone mean something, and that `since` is in the past."""
    try:
        check_schedule(spec.get("schedule"), spec["timeZone"])
    except ScheduleError as error:
        reason: Reason = "InvalidSchedule"
        raise Stalled(reason, str(error)) from None
    try:
        since = parse_instant(spec.get("since"))
    except ValueError as error:
        raise Stalled("InvalidSpec", f"spec.since: {spec['since']!r} is not a moment: {error}") from None
    if since and since > now + CLOCKS_DIFFER:
        raise Stalled("InvalidSpec", f"spec.since: {spec['since']} is in the future, so that nothing would be read")


def _check_against(spec: Document, name: str, manifest: Manifest) -> None:
    """Check what only the definition can tell: config, credentials, modes."""
    found = config_problems(spec.get("config", {}), manifest.config_schema)
    if found:
        reason: Reason = "InvalidConfig"
        raise Stalled(reason, "; ".join(found))
    needed = [name for name, required in manifest.credentials().items() if required]
    if needed and not spec.get("secretRef"):
        reason = "SecretRequired"
        message = (
            f"spec.secretRef: name a Secret with the keys {', '.join(needed)}; the connector authenticates with them"
        )
        raise Stalled(reason, message)
    for index, stream in enumerate(spec.get("streams", [])):
        if stream["mode"] not in manifest.capabilities.modes:
            reason = "InvalidSpec"
            message = f"spec.streams[{index}].mode: {name} can only read {', '.join(manifest.capabilities.modes)}"
            raise Stalled(reason, message)
