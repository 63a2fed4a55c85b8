"""The row that a connection needs, its definition, and its schedule, checked. Nothing is written here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import NoReturn

from penstock_sdk.manifest import Manifest, config_problems

from penstock_operator import definitions
from penstock_operator.connections.connection_records import ConnectionRecord, Timing
from penstock_operator.connections.connection_store import ConnectionRow
from penstock_operator.definitions import DefinitionVersion
from penstock_operator.ids import DefinitionUid
from penstock_operator.registry.database import DatabaseConnection
from penstock_operator.resources.conditions import Finding, Reason, UndatedCondition, note
from penstock_operator.resources.documents import Connection, Definition, Metadata
from penstock_operator.resources.models import ANNOTATIONS, GROUP, REQUESTED_AT, ConnectionSpec, Stage
from penstock_operator.resources.schedules import ScheduleError
from penstock_operator.resources.spelling import nearest_word
from penstock_operator.resources.storable import shown_text
from penstock_operator.resources.versions import is_pin, parse_version, selectable
from penstock_operator.scheduling.due import next_time
from penstock_operator.scheduling.ticks import jitter_of
from penstock_operator.state.annotations import requests

CLOCKS_DIFFER = timedelta(minutes=5)
ANNOTATION_LIKENESS = 0.75  # the prefix that all share makes any two of them similar

MOST_MANIFESTS = 500
_MANIFESTS: dict[str, Manifest] = {}
"""Parsed manifests by the digest of their text, for all caches of the process."""


class Stalled(Exception):  # noqa: N818 - named by the reaction it wants
    """The resource cannot be used until its owner changes it."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.finding = Finding("stalled", reason, message)


def check_resource(resource: Connection | Definition) -> None:
    """Raise Stalled for each mistake that the API server would refuse; a folder has no API server before it."""
    found = [*resource.metadata.problems, *resource.problems]
    if found:
        raise Stalled("InvalidSpec", "; ".join(found))
    if isinstance(resource, Connection):
        _check_times(resource.spec, datetime.now(UTC))


def unknown_annotations(metadata: Metadata) -> list[str]:
    """Return the problems with the names of our group's annotations. A CRD's rules see no annotations."""
    ours = [key for key in metadata.annotations if key.startswith(f"{GROUP}/") and key not in ANNOTATIONS]
    return [f"metadata.annotations.{shown_text(key[:100])}: is not known; {_meant(key)}" for key in sorted(ours)]


def _meant(key: str) -> str:
    near = nearest_word(key, ANNOTATIONS, ANNOTATION_LIKENESS)
    return f"did you mean {near}?" if near else f"remove it: Penstock reads {', '.join(ANNOTATIONS)}"


def stands_alone(connection: Connection) -> bool:
    """Return True if a new connection needs nothing but its row: it has no upstreams, and no annotation asks for something."""
    annotations = connection.metadata.annotations
    return not (connection.spec.after or REQUESTED_AT in annotations or any(requests(annotations)))


@dataclass(frozen=True)
class DesiredConnection:
    """The row that a connection needs. `notes` are conditions about the version that it uses."""

    record: ConnectionRecord
    definition: DefinitionVersion
    timing: Timing
    notes: tuple[UndatedCondition, ...] = ()

    def timed(self, now: datetime) -> Timing:
        """Return when the connection runs, with its next run counted from now."""
        at = next_time(self.timing.schedule, self.timing.time_zone, self.timing.jitter_seconds, now)
        return replace(self.timing, next_run_at=at)

    def is_held_by(self, row: ConnectionRow) -> bool:
        """Return True if the row has these values already; the due time does not count."""
        return self.record.is_held_by(row) and self.timing.is_held_by(row)


class DefinitionCache:
    """The definitions that connections use, each read once. Keep a cache only as long as definitions may be taken as unchanged."""

    def __init__(self, db: DatabaseConnection) -> None:
        self._db = db
        self._offers: dict[tuple[str, str], list[DefinitionVersion]] = {}

    async def resolve(
        self, spec: ConnectionSpec, current: DefinitionUid | None
    ) -> tuple[DefinitionVersion, tuple[UndatedCondition, ...]]:
        """Return the definition that a connection's next run uses, with conditions about the choice. Raises Stalled.

        It is the newest version that `spec.connector` selects and whose requirements the connection meets. `current` is the
        definition in use: it is not replaced by an older version, nor because its resource was deleted.
        """
        name, method, reach = spec.connector.name, spec.connector.method, spec.connector.version
        if (name, method) not in self._offers:
            self._offers[name, method] = await definitions.versions_of(self._db, name, method)
        used = await definitions.version_by_uid(self._db, current) if current else None
        offers = _with_deleted(self._offers[name, method], used, (name, method))
        if not offers:
            await self._stall(name, method)
        by_version = {offer.version: offer for offer in offers}
        stages = {offer.version: offer.stage for offer in offers}
        chosen = selectable(stages, reach)
        if not chosen:
            raise Stalled("NoVersionInRange", no_version_matches(stages, reach))
        kept = next((index for index, version in enumerate(chosen) if by_version[version].uid == current), None)
        candidates = chosen if kept is None else chosen[: kept + 1]
        return await self._first_fitting(spec, [by_version[version] for version in candidates], in_use=kept is not None)

    async def _first_fitting(
        self, spec: ConnectionSpec, candidates: list[DefinitionVersion], *, in_use: bool
    ) -> tuple[DefinitionVersion, tuple[UndatedCondition, ...]]:
        """Return the newest definition that the connection fits. If it fits none, the error is about the one in use, else the newest."""
        unfit = list[tuple[DefinitionVersion, Stalled]]()
        for candidate in candidates:
            try:
                check_against(spec, candidate.name, await self._manifest(candidate))
            except Stalled as stalled:
                unfit.append((candidate, stalled))
            else:
                return candidate, _notes_on(candidate, unfit)
        raise unfit[-1 if in_use else 0][1]

    async def _manifest(self, definition: DefinitionVersion) -> Manifest:
        """Return a definition's manifest, read and parsed once for all definitions with the same digest."""
        if definition.digest not in _MANIFESTS:
            manifest = await definitions.manifest_of(self._db, definition.uid)
            if manifest is None:
                raise LookupError(f"definition {definition.name}: this release cannot read its manifest")
            if len(_MANIFESTS) >= MOST_MANIFESTS:
                _MANIFESTS.clear()
            _MANIFESTS[definition.digest] = manifest
        return _MANIFESTS[definition.digest]

    async def _stall(self, name: str, method: str) -> NoReturn:
        everything = await definitions.list_versions(self._db)
        known = ", ".join(sorted({f"{version.connector}/{version.method}" for version in everything})) or "none"
        message = f"spec.connector: there is no connector {name}/{method}; there are: {known}"
        raise Stalled("DefinitionNotFound", message)


def _with_deleted(
    offers: list[DefinitionVersion], used: DefinitionVersion | None, connector: tuple[str, str]
) -> list[DefinitionVersion]:
    """Return the available versions, and the one in use if it was deleted and no definition has the same version."""
    if used is None or (used.connector, used.method) != connector or used.deleted_at is None:
        return offers
    return offers if used.version in {offer.version for offer in offers} else [*offers, used]


def no_version_matches(stages: Mapping[str, Stage], reach: str) -> str:
    """Return the message for a range that selects none of the versions, whose stages are given."""
    there = ", ".join(
        version if stages[version] == "certified" else f"{version} ({stages[version]})"
        for version in sorted(stages, key=parse_version)
    )
    pin = "" if is_pin(reach) else "; a range selects certified versions only, a preview is used by its exact version"
    return f"spec.connector.version: no version matches {reach!r}; there are: {there}{pin}"


def _notes_on(used: DefinitionVersion, unfit: list[tuple[DefinitionVersion, Stalled]]) -> tuple[UndatedCondition, ...]:
    notes = list[UndatedCondition]()
    if unfit:
        newer, stalled = unfit[0]
        words = f"{newer.name} is newer than {used.name} and is not used: {stalled.finding.message}"
        notes.append(note("VersionNotSelected", words))
    if used.deleted_at:
        words = f"{used.name} was deleted, and runs go on with it: apply it again, or another version that is in range"
        notes.append(note("DefinitionDeleted", words))
    return tuple(notes)


async def desired_connection(
    connection: Connection, known: DefinitionCache, current: DefinitionUid | None = None
) -> DesiredConnection:
    """Return the row that a connection needs, which uses the definition `current` now. Raises Stalled."""
    check_resource(connection)
    spec = connection.spec
    definition, notes = await known.resolve(spec, current)
    record = record_of(connection, spec, definition.uid)
    jitter = jitter_of(record.namespace, record.name, spec.jitter.seconds)
    return DesiredConnection(record, definition, Timing(spec.schedule, spec.time_zone, jitter), notes)


def record_of(
    connection: Connection, spec: ConnectionSpec, definition_uid: DefinitionUid | None, stalled: str | None = None
) -> ConnectionRecord:
    """Return the part of the row that comes from the document; it is ready with a definition, else `stalled` says why."""
    return ConnectionRecord(
        uid=connection.uid,
        namespace=connection.namespace,
        name=connection.name,
        generation=connection.metadata.generation,
        spec=spec,
        definition_uid=definition_uid,
        ready=definition_uid is not None,
        stalled_message=stalled,
    )


def _check_times(spec: ConnectionSpec, now: datetime) -> None:
    """Check schedule, time zone and `since`, which a rule of a CRD cannot check."""
    try:
        _ = spec.time_zone.zone
        if spec.schedule:
            spec.schedule.check()
    except ScheduleError as error:
        raise Stalled("InvalidSchedule", str(error)) from None
    try:
        since = spec.since.datetime if spec.since else None
    except ValueError as error:
        raise Stalled("InvalidSpec", f"spec.since: {str(spec.since)!r} is not a moment: {error}") from None
    if since and since > now + CLOCKS_DIFFER:
        raise Stalled("InvalidSpec", f"spec.since: {spec.since} is in the future, so that nothing would be read")


def check_against(spec: ConnectionSpec, name: str, manifest: Manifest) -> None:
    """Check config, credentials and modes against the definition's manifest. Raises Stalled."""
    found = config_problems(spec.config, manifest.config_schema)
    if found:
        raise Stalled("InvalidConfig", "; ".join(found))
    needed = [name for name, required in manifest.credentials().items() if required]
    if needed and not spec.secret_ref:
        message = (
            f"spec.secretRef: name a Secret with the keys {', '.join(needed)}; the connector authenticates with them"
        )
        raise Stalled("SecretRequired", message)
    for index, stream in enumerate(spec.streams):
        if stream.mode not in manifest.capabilities.modes:
            message = f"spec.streams[{index}].mode: {name} can only read {', '.join(manifest.capabilities.modes)}"
            raise Stalled("InvalidSpec", message)
