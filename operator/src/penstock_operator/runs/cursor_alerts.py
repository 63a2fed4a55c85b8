"""Cursors that can lose records, as alerts: a connection that runs goes on, and its owner knows. Pure.

Conformance and `penstock-connector check` refuse such a stream before it is published; a run only tells of it, so that
nothing stops that ran before. An SDK whose streams cannot declare what they take care of is not judged.
"""

from __future__ import annotations

from penstock_sdk.manifest import Followed, unsafe_cursor
from penstock_sdk.protocol import DiscoveredStream, StreamsRequest

from penstock_operator.alerts import NewAlert, StreamAlert
from penstock_operator.ids import AlertId
from penstock_operator.runs.selection import StreamChoice

UNSAFE_CURSOR = "CursorUnsafe"
Told = tuple[str, str, str]


def new_alerts(choices: list[StreamChoice], request: StreamsRequest, acknowledged: list[StreamAlert]) -> list[NewAlert]:
    """Return what is to be told of selected incremental streams, but for what somebody has acknowledged."""
    known = {_told(alert) for alert in acknowledged if alert.kind == UNSAFE_CURSOR}
    return [
        NewAlert(stream, UNSAFE_CURSOR, field, said)
        for stream, field, said in sorted(_unsafe(choices, request) - known)
    ]


def resolved(choices: list[StreamChoice], request: StreamsRequest, open_: list[StreamAlert]) -> list[AlertId]:
    """Return the open alerts that are not so any more: the cursor is another, or taken care of, or not followed now."""
    if not _is_judged(request):
        return []
    chosen, unsafe = {choice.stream for choice in choices}, _unsafe(choices, request)
    mine = [alert for alert in open_ if alert.kind == UNSAFE_CURSOR and alert.stream in chosen]
    return [alert.id for alert in mine if _told(alert) not in unsafe]


def _is_judged(request: StreamsRequest) -> bool:
    return "care" in request.abilities


def _unsafe(choices: list[StreamChoice], request: StreamsRequest) -> set[Told]:
    if not _is_judged(request):
        return set()
    followed = {choice.stream for choice in choices if choice.selected.mode == "incremental"}
    return {
        (stream.identity, stream.cursor_field or "", f"cursor {stream.cursor_field!r}: {rule}")
        for stream in request.streams
        if stream.identity in followed
        for rule in unsafe_cursor(_followed(stream))
    }


def _followed(stream: DiscoveredStream) -> Followed:
    return Followed(
        stream.schema_,
        tuple(stream.primary_key),
        stream.cursor_field,
        tuple(stream.modes),
        tuple(stream.cursor_care),
    )


def _told(alert: StreamAlert) -> Told:
    return alert.stream, alert.path, alert.message
