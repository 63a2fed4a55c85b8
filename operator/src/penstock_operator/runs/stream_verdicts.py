"""What the source offers, set against the registry: versions, alerts, and a verdict for each selected stream."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from dataclasses import dataclass, replace

from penstock_sdk.protocol import SelectedStream, StreamsRequest, StreamVerdict

from penstock_operator import alerts
from penstock_operator.alerts import NewAlert, StreamAlert
from penstock_operator.bronze.keys import room_for_stream_name
from penstock_operator.errors import Invalid
from penstock_operator.ids import AlertId, ConnectionUid
from penstock_operator.registry.database import DatabaseConnection
from penstock_operator.resources.models import ConnectionSpec
from penstock_operator.runs import attempt_states, attempt_store, cursor_alerts, selection, stream_outcomes
from penstock_operator.runs.attempt_store import HeldAttempt
from penstock_operator.runs.selection import StreamChoice, StreamRefusal
from penstock_operator.schemas import drift_policy, schema_store
from penstock_operator.schemas.diff import StreamShape
from penstock_operator.schemas.drift_policy import (
    AcknowledgedDrift,
    DiscoveredVersion,
    DriftAlert,
    DriftVerdict,
    Policy,
    RegisteredVersion,
)
from penstock_operator.schemas.schema_store import RegisteredStream, StreamHead, StreamVersion


@dataclass(frozen=True)
class DiscoveredCatalog:
    """What a pod posted, read once: every stream by its identity."""

    request: StreamsRequest
    seen: dict[str, DiscoveredVersion]
    twice: frozenset[str] = frozenset()


@dataclass(frozen=True)
class _Registered:
    """What the registry holds of a connection's streams, as far as it is needed."""

    heads: dict[str, StreamHead]
    versions: dict[tuple[str, int], RegisteredStream]
    open: list[StreamAlert]
    acknowledged: list[StreamAlert]


async def read_offer(request: StreamsRequest) -> DiscoveredCatalog:
    """Fingerprint what a pod posted, outside the event loop: thousands of streams take a while.

    Two streams of one identity cannot be told apart: they count as not offered, and are refused where one is selected.
    """
    counted = Counter(stream.identity for stream in request.streams)
    twice = frozenset(identity for identity, times in counted.items() if times > 1)
    told = [stream for stream in request.streams if stream.identity not in twice]
    seen = await asyncio.to_thread(lambda: {version.stream: version for version in map(drift_policy.seen, told)})
    return DiscoveredCatalog(request.model_copy(update={"streams": told}), seen, twice)


async def judge_streams(
    db: DatabaseConnection, attempt: HeldAttempt, offer: DiscoveredCatalog, prefix: str
) -> list[StreamVerdict]:
    """Record versions and alerts of the selected streams, and return what to do with each, in order.

    `prefix` is that of all keys of the bucket.
    """
    uid = attempt.connection_uid
    states = await attempt_states.of_attempt(db, attempt)
    heads = await schema_store.stream_heads(db, uid)
    if offer.twice and not (offer.request.streams or attempt.spec.streams):
        raise Invalid("; ".join(map(_ambiguous, sorted(offer.twice))))
    found = selection.select(
        attempt.spec,
        offer.request.streams,
        states,
        attempt.run_id,
        _names(offer.seen, heads),
        attempt.first_generation,
        room_for_stream_name(prefix, attempt.namespace, attempt.name, attempt.run_id),
    )
    choices, refusals = found.choices, _with_the_ambiguous(found.refusals, attempt.spec, offer)
    refusals = [refusal for refusal in refusals if not attempt_states.is_done(states, refusal.stream, attempt.run_id)]
    window = attempt.spec.window
    choices = selection.windowed(choices, window, offer.request) if window else choices
    offer = _remembering(offer, heads)
    held = await _registered(db, uid, offer, choices, heads)
    verdicts = await asyncio.to_thread(lambda: [_judge(choice, offer, held) for choice in choices])
    await _record(db, attempt, offer, choices, verdicts, held, refusals)
    read = [_answer(choice, verdict) for choice, verdict in zip(choices, verdicts, strict=True)]
    failed = await _failed_before(db, attempt)
    return sorted(read, key=lambda verdict: verdict.name in failed) + [_refused(refusal) for refusal in refusals]


async def _failed_before(db: DatabaseConnection, attempt: HeldAttempt) -> set[str]:
    """Return the streams that failed in an earlier attempt of the run: they are read last, so that they hold up no other."""
    if attempt.attempt == 1:
        return set()
    told = await stream_outcomes.of_run(db, attempt.run_id)
    return {outcome.stream for outcome in told if outcome.outcome == "failed"}


def _with_the_ambiguous(
    refusals: list[StreamRefusal], spec: ConnectionSpec, offer: DiscoveredCatalog
) -> list[StreamRefusal]:
    """Return the refusals, where two streams of one identity are selected with that as the reason."""
    if not offer.twice:
        return refusals
    told = [
        replace(refusal, message=_ambiguous(refusal.stream)) if refusal.stream in offer.twice else refusal
        for refusal in refusals
    ]
    if spec.streams:
        return told
    return told + [StreamRefusal(stream, "full", _ambiguous(stream)) for stream in sorted(offer.twice)]


def _ambiguous(stream: str) -> str:
    return f"discover() returned two streams of the name or id {stream!r}, which cannot be told apart"


def _refused(refusal: StreamRefusal) -> StreamVerdict:
    return StreamVerdict(
        name=refusal.stream,
        read=False,
        schema_version=0,
        selected=SelectedStream(name=refusal.stream, mode=refusal.mode),
        reason=refusal.message,
        refused=True,
        error_class=refusal.error_class,
    )


def _remembering(offer: DiscoveredCatalog, heads: dict[str, StreamHead]) -> DiscoveredCatalog:
    known = {stream: head.pii_suggested for stream, head in heads.items() if head.pii_suggested}
    if not known:
        return offer
    seen = {stream: drift_policy.remembering(version, known.get(stream, {})) for stream, version in offer.seen.items()}
    return replace(offer, seen=seen)


def _names(seen: dict[str, DiscoveredVersion], heads: dict[str, StreamHead]) -> dict[str, str]:
    """Return each name that a stream has, had or is, with its identity; what it is goes before what it was called."""
    was = {name: stream for stream, head in heads.items() if stream in seen for name in head.names}
    return {
        **was,
        **{version.display_name: stream for stream, version in seen.items()},
        **{stream: stream for stream in seen},
    }


async def _registered(
    db: DatabaseConnection,
    uid: ConnectionUid,
    offer: DiscoveredCatalog,
    choices: list[StreamChoice],
    heads: dict[str, StreamHead],
) -> _Registered:
    found = await alerts.open_alerts_of(db, uid)
    acknowledged = await alerts.acknowledged_alerts_of(db, uid)
    wanted = {
        (name, heads[name].version)
        for name in (choice.stream for choice in choices)
        if name in heads and heads[name].fingerprint != offer.seen[name].fingerprint
    }
    wanted |= {(alert.stream, alert.baseline) for alert in found if alert.baseline is not None}
    versions = await schema_store.stream_versions(db, uid, wanted) if wanted else {}
    return _Registered(heads, versions, found, acknowledged)


def _judge(choice: StreamChoice, offer: DiscoveredCatalog, held: _Registered) -> DriftVerdict:
    now = offer.seen[choice.stream]
    head = held.heads.get(choice.stream)
    known = RegisteredVersion(head.version, _shape_of(held, choice.stream, head, now)) if head else None
    mine = [alert for alert in held.acknowledged if alert.stream == choice.stream]
    accepted = AcknowledgedDrift(
        frozenset(_drift(alert) for alert in mine),
        frozenset(alert.path for alert in mine if alert.kind == "PiiAdded"),
    )
    return drift_policy.judge(choice.policy, known, now, accepted, can_drop="drop" in offer.request.abilities)


def _shape_of(held: _Registered, stream: str, head: StreamHead, now: DiscoveredVersion) -> StreamShape:
    registered = held.versions.get((stream, head.version))
    return now.shape if registered is None or head.fingerprint == now.fingerprint else _shape(registered)


def _shape(registered: RegisteredStream) -> StreamShape:
    return StreamShape(registered.schema, tuple(registered.primary_key), registered.cursor_field, tuple(registered.pii))


def _drift(alert: StreamAlert) -> DriftAlert:
    return DriftAlert(alert.kind, alert.path, alert.message, alert.baseline)


async def _record(
    db: DatabaseConnection,
    attempt: HeldAttempt,
    offer: DiscoveredCatalog,
    choices: list[StreamChoice],
    verdicts: list[DriftVerdict],
    held: _Registered,
    refusals: list[StreamRefusal],
) -> None:
    uid, pairs = attempt.connection_uid, list(zip(choices, verdicts, strict=True))
    new = await asyncio.to_thread(lambda: [version for pair in pairs for version in _versions(*pair, offer, held)])
    if new:
        await schema_store.put_stream_versions(db, uid, new)
    told = [NewAlert(choice.stream, *_fields(alert)) for choice, verdict in pairs for alert in verdict.alerts]
    told += [*_removed(attempt, offer, held), *_announced(choices, offer, held)]
    told += await asyncio.to_thread(lambda: cursor_alerts.new_alerts(choices, offer.request, held.acknowledged))
    if told:
        await alerts.open_alerts(db, uid, attempt.run_id, told)
    resolved = await asyncio.to_thread(lambda: _resolved(pairs, offer, held))
    resolved += await asyncio.to_thread(lambda: cursor_alerts.resolved(choices, offer.request, held.open))
    if resolved:
        await alerts.resolve_alerts(db, resolved)
    refused = {choice.stream: verdict.refusal for choice, verdict in pairs if verdict.refusal}
    refused |= {refusal.stream: refusal.message for refusal in refusals}
    await attempt_store.set_streams(
        db,
        (attempt.run_id, attempt.attempt),
        [*(choice.stream for choice in choices), *(refusal.stream for refusal in refusals)],
        [choice.stream for choice in choices if choice.selected.mode == "incremental"],
        refused,
    )


def _fields(alert: DriftAlert) -> tuple[str, str, str, int | None]:
    return alert.kind, alert.path, alert.message, alert.baseline


def _versions(
    choice: StreamChoice, verdict: DriftVerdict, offer: DiscoveredCatalog, held: _Registered
) -> list[StreamVersion]:
    """Return the version to write: a new one, or the newest one in other words."""
    now, head = offer.seen[choice.stream], held.heads.get(choice.stream)
    shape = verdict.recorded
    digest = now.fingerprint if shape is now.shape else drift_policy.fingerprint(shape)
    if head and not verdict.changed and (head.fingerprint, head.display_name) == (digest, now.display_name):
        return []
    names = sorted({now.display_name, *(head.names if head else [])})
    documents = (shape.schema, shape.primary_key, now.modes, shape.pii, now.suggested, names)
    texts = [json.dumps(document) for document in documents]
    return [StreamVersion(choice.stream, verdict.version, digest, now.display_name, shape.cursor_field, *texts)]


def _removed(attempt: HeldAttempt, offer: DiscoveredCatalog, held: _Registered) -> list[NewAlert]:
    """A connection that selects all streams notices one that the source does not offer any more."""
    if attempt.spec.streams:
        return []
    known = {alert.stream for alert in held.acknowledged if alert.kind == drift_policy.STREAM_REMOVED}
    return [
        NewAlert(stream, drift_policy.STREAM_REMOVED, "", "the source does not offer the stream any more")
        for stream in sorted(held.heads.keys() - offer.seen.keys() - known)
    ]


def _announced(choices: list[StreamChoice], offer: DiscoveredCatalog, held: _Registered) -> list[NewAlert]:
    """Return what the connector itself says of selected streams, but for what somebody has acknowledged."""
    chosen = {choice.stream for choice in choices}
    known = {
        (alert.stream, alert.path, alert.message) for alert in held.acknowledged if alert.kind == drift_policy.ANNOUNCED
    }
    return [
        NewAlert(drift.stream, drift_policy.ANNOUNCED, drift.field, drift.message)
        for drift in offer.request.drift
        if drift.stream in chosen and (drift.stream, drift.field, drift.message) not in known
    ]


def _resolved(
    pairs: list[tuple[StreamChoice, DriftVerdict]], offer: DiscoveredCatalog, held: _Registered
) -> list[AlertId]:
    by_stream = {choice.stream: (choice.policy, verdict) for choice, verdict in pairs}
    return [
        alert.id for alert in held.open if alert.stream in by_stream and _is_resolved(alert, by_stream, offer, held)
    ]


def _is_resolved(
    alert: StreamAlert, by_stream: dict[str, tuple[Policy, DriftVerdict]], offer: DiscoveredCatalog, held: _Registered
) -> bool:
    policy, verdict = by_stream[alert.stream]
    if alert.kind == drift_policy.ANNOUNCED:
        said = {(drift.stream, drift.field, drift.message) for drift in offer.request.drift}
        return (alert.stream, alert.path, alert.message) not in said
    base = held.versions.get((alert.stream, alert.baseline)) if alert.baseline is not None else None
    now = offer.seen[alert.stream]
    return drift_policy.is_resolved(_drift(alert), policy, _shape(base) if base else None, now, verdict)


def _answer(choice: StreamChoice, verdict: DriftVerdict) -> StreamVerdict:
    return StreamVerdict(
        name=choice.stream,
        read=not choice.selected.done and not verdict.refusal,
        schema_version=verdict.version,
        selected=choice.selected,
        reason=verdict.refusal,
        refused=bool(verdict.refusal),
        drop=[list(steps) for steps in verdict.drop],
    )
