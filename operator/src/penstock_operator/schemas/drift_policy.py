"""What a connection's policy makes of a stream's drift: which version it is, what to tell, what not to read. Pure.

| policy      | a change of schema, keys or cursor field                  | a field that holds personal data            |
|-------------|------------------------------------------------------------|---------------------------------------------|
| evolve      | a new version; an alert where it is incompatible           | an alert when it is declared so             |
| freeze      | the stream is not read until it is accepted or gone        | as every other change                       |
| discard-new | new fields are left out; the rest as evolve                | as evolve                                   |
| block-pii   | as evolve                                                  | the stream is not read until it is accepted |

Acknowledging an alert accepts exactly the change that it names, against the version that it names.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from penstock_sdk.field_paths import format_path, top_level_field
from penstock_sdk.json_types import properties_of
from penstock_sdk.protocol import DiscoveredStream

from penstock_operator.schemas.diff import COMPATIBLE, KINDS, SchemaChange, StreamShape, diff_schema
from penstock_operator.schemas.types import Path

Policy = Literal["evolve", "freeze", "discard-new", "block-pii"]
Step = tuple[str, ...]
SHOWN = 5
DISCARDED, STREAM_REMOVED, ANNOUNCED = "FieldDiscarded", "StreamRemoved", "DriftAnnounced"
DRIFT_KINDS = (*KINDS, DISCARDED, STREAM_REMOVED, ANNOUNCED)


@dataclass(frozen=True)
class DiscoveredVersion:
    """A stream as it was discovered. `suggested` are fields whose names suggest personal data, with its class."""

    stream: str
    display_name: str
    shape: StreamShape
    modes: tuple[str, ...]
    suggested: dict[str, str]
    fingerprint: str


@dataclass(frozen=True)
class RegisteredVersion:
    """The newest version of a stream that the registry holds."""

    version: int
    shape: StreamShape


@dataclass(frozen=True)
class DriftAlert:
    """Something to tell about a stream; `baseline` is the version that it is a change against."""

    kind: str
    path: str
    message: str
    baseline: int | None = None


@dataclass(frozen=True)
class AcknowledgedDrift:
    """What was acknowledged: changes against the newest version, and fields that may hold personal data."""

    alerts: frozenset[DriftAlert] = frozenset()
    personal: frozenset[str] = frozenset()


@dataclass(frozen=True)
class DriftVerdict:
    """What to do with a stream. `recorded` becomes `version` when it is not that already; `refusal` says why not to read."""

    version: int
    recorded: StreamShape
    changed: bool
    alerts: tuple[DriftAlert, ...] = ()
    drop: tuple[Step, ...] = ()
    refusal: str = ""


def seen(stream: DiscoveredStream) -> DiscoveredVersion:
    """Return a discovered stream with its fingerprint."""
    shape = StreamShape(stream.schema_, tuple(stream.primary_key), stream.cursor_field, tuple(stream.pii))
    suggested = {path: kind for path, kind in stream.pii_suggested.items() if path not in stream.pii}
    return DiscoveredVersion(stream.identity, stream.name, shape, tuple(stream.modes), suggested, fingerprint(shape))


def remembering(now: DiscoveredVersion, suggested: Mapping[str, str]) -> DiscoveredVersion:
    """Return the stream with what was suggested of it before, by the values of an earlier read, of fields that it has."""
    fields = properties_of(now.shape.schema)
    kept = {
        path: kind
        for path, kind in suggested.items()
        if top_level_field(path) in fields and path not in now.shape.pii and path not in now.suggested
    }
    return dataclasses.replace(now, suggested={**now.suggested, **kept}) if kept else now


def fingerprint(shape: StreamShape) -> str:
    """Return a digest of what consumers rely on: two of the same need not be compared field by field."""
    said: dict[str, Any] = {"schema": shape.schema, "key": list(shape.primary_key), "cursor": shape.cursor_field}
    if shape.pii:
        said["pii"] = sorted(shape.pii)
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


def judge(
    policy: Policy,
    known: RegisteredVersion | None,
    now: DiscoveredVersion,
    accepted: AcknowledgedDrift,
    *,
    can_drop: bool,
) -> DriftVerdict:
    """Return what the policy makes of a stream; `can_drop` says whether the pod's SDK can leave fields out."""
    if policy == "freeze":
        return _freeze(known, now, accepted)
    if policy == "discard-new":
        return _discard_new(known, now, accepted, can_drop=can_drop)
    verdict = _evolve(known, now.shape)
    return verdict if policy == "evolve" else _block_pii(verdict, now, accepted)


def _evolve(known: RegisteredVersion | None, shape: StreamShape) -> DriftVerdict:
    if known is None:
        return DriftVerdict(1, shape, changed=True)
    changes = diff_schema(known.shape, shape)
    alerts = [_alert(change, known) for change in changes if not change.compatible]
    return DriftVerdict(known.version + bool(changes), shape, bool(changes), tuple(alerts))


def _alert(change: SchemaChange, known: RegisteredVersion) -> DriftAlert:
    return DriftAlert(change.kind, change.path, change.message, known.version)


def _freeze(known: RegisteredVersion | None, now: DiscoveredVersion, accepted: AcknowledgedDrift) -> DriftVerdict:
    if known is None:
        return _evolve(known, now.shape)
    changes = [_alert(change, known) for change in diff_schema(known.shape, now.shape)]
    pending = [alert for alert in changes if alert not in accepted.alerts]
    if not pending:
        return DriftVerdict(known.version + bool(changes), now.shape, bool(changes))
    refusal = (
        f"stream {now.display_name!r} is frozen (schemaPolicy: freeze) and was not read: {_listed(pending)}."
        " Put the source back, or accept the change: `penstock alerts ack`, or schemaPolicy: evolve"
    )
    return DriftVerdict(known.version, known.shape, changed=False, alerts=tuple(pending), refusal=refusal)


def _listed(alerts: list[DriftAlert]) -> str:
    more = f"; and {len(alerts) - SHOWN} more" if len(alerts) > SHOWN else ""
    return "; ".join(alert.message for alert in alerts[:SHOWN]) + more


def _discard_new(
    known: RegisteredVersion | None, now: DiscoveredVersion, accepted: AcknowledgedDrift, *, can_drop: bool
) -> DriftVerdict:
    if known is None:
        return _evolve(known, now.shape)
    new = _new_fields(known.shape, now.shape)
    kept = without(now.shape, [change.steps for change in new])
    verdict = _evolve(known, kept)
    if _new_fields(known.shape, kept):  # they come by a reference or a choice: no version may hold them
        verdict = dataclasses.replace(verdict, version=known.version, recorded=known.shape, changed=False)
    told = [
        DriftAlert(DISCARDED, path, f"field {path!r} is new and left out (schemaPolicy: discard-new)", known.version)
        for path in (change.renamed_to or change.path for change in new)
    ]
    drop = tuple(tuple(step for step in change.steps if step is not None) for change in new)
    refusal = _too_old(now, told) if drop and not can_drop else ""
    told = [alert for alert in told if alert not in accepted.alerts]
    return dataclasses.replace(verdict, alerts=(*verdict.alerts, *told), drop=drop, refusal=refusal)


def _new_fields(old: StreamShape, new: StreamShape) -> list[SchemaChange]:
    """Return the additions that can be left out: what names a record, or orders the read, cannot."""
    keys = {*new.primary_key, new.cursor_field}
    changes = diff_schema(old, new)
    return [
        change for change in changes if change.kind in ("FieldAdded", "FieldRenamed") and change.steps[0] not in keys
    ]


def _too_old(now: DiscoveredVersion, told: list[DriftAlert]) -> str:
    return (
        f"stream {now.display_name!r} was not read: {_listed(told)}. The connector's SDK is too old to leave fields out:"
        " use a version that is built with a newer one, or schemaPolicy: evolve"
    )


def without(shape: StreamShape, paths: list[Path]) -> StreamShape:
    """Return the shape without the fields at these paths."""
    schema = json.loads(json.dumps(shape.schema))
    for path in paths:
        _remove(schema, path)
    gone = {format_path(step for step in path if step is not None) for path in paths}
    return dataclasses.replace(shape, schema=schema, pii=tuple(path for path in shape.pii if path not in gone))


def _remove(node: dict[str, Any], path: Path) -> None:
    *way, last = path
    for step in way:
        node = node.get("items", {}) if step is None else node.get("properties", {}).get(step, {})
    node.get("properties", {}).pop(last, None)
    if isinstance(node.get("required"), list) and last in node["required"]:
        node["required"].remove(last)


def _block_pii(verdict: DriftVerdict, now: DiscoveredVersion, accepted: AcknowledgedDrift) -> DriftVerdict:
    declared = {path: f"field {path!r} is declared to hold personal data" for path in sorted(now.shape.pii)}
    suggested = {
        path: f"field {path!r} looks like personal data ({kind})" for path, kind in sorted(now.suggested.items())
    }
    pending = [
        DriftAlert("PiiAdded", path, message, verdict.version)
        for path, message in {**suggested, **declared}.items()
        if path not in accepted.personal
    ]
    others = tuple(alert for alert in verdict.alerts if alert.kind != "PiiAdded")
    if not pending:
        return dataclasses.replace(verdict, alerts=others)
    refusal = (
        f"stream {now.display_name!r} holds personal data and was not read (schemaPolicy: block-pii): {_listed(pending)}."
        " Whoever may decide that accepts the fields: `penstock alerts list`, `penstock alerts ack`"
    )
    return dataclasses.replace(verdict, alerts=(*others, *pending), refusal=refusal)


def is_resolved(
    alert: DriftAlert, policy: Policy, baseline: StreamShape | None, now: DiscoveredVersion, verdict: DriftVerdict
) -> bool:
    """Say whether what an open alert tells is not so any more: the schema went back, or the policy takes it now."""
    if _told(alert) in map(_told, verdict.alerts):
        return False
    if alert.kind in (DISCARDED, STREAM_REMOVED):
        return True
    if alert.kind == "PiiAdded":
        return alert.path not in now.shape.pii and not (policy == "block-pii" and alert.path in now.suggested)
    if baseline is None or alert.kind not in KINDS:
        return False
    if alert.kind in COMPATIBLE and policy != "freeze":
        return True
    return _told(alert) not in {
        (change.kind, change.path, change.message) for change in diff_schema(baseline, now.shape)
    }


def _told(alert: DriftAlert) -> tuple[str, str, str]:
    return alert.kind, alert.path, alert.message
