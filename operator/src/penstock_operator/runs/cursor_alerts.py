"""Cursors that can lose records, as alerts: a connection that runs goes on, and its owner knows. Pure.

Conformance and `penstock-connector check` refuse such a stream before it is published; a run only tells of it, so that
nothing stops that ran before. An SDK whose streams cannot declare what they take care of is not judged.
"""

from __future__ import annotations

from penstock_sdk.manifest import Followed, unsafe_cursor
from penstock_sdk.protocol import DiscoveredStream, StreamsRequest

from penstock_operator.alerts import NewAlert
from penstock_operator.registry.database import Row
from penstock_operator.runs.selection import StreamChoice

UNSAFE_CURSOR = "CursorUnsafe"
Told = tuple[str, str, str]


def new_alerts(choices: list[StreamChoice], request: StreamsRequest, acknowledged: list[Row]) -> list[NewAlert]:
    """Return what is to be told of selected incremental streams, but for what somebody has acknowledged."""
    known = {_told(row) for row in acknowledged if row["kind"] == UNSAFE_CURSOR}
    return [
        NewAlert(stream, UNSAFE_CURSOR, field, said)
        for stream, field, said in sorted(_unsafe(choices, request) - known)
    ]


def resolved(choices: list[StreamChoice], request: StreamsRequest, open_: list[Row]) -> list[int]:
    """Return the open alerts that are not so any more: the cursor is another, or taken care of, or not followed now."""
    if not _is_judged(request):
        return []
    chosen, unsafe = {choice.stream for choice in choices}, _unsafe(choices, request)
    mine = [row for row in open_ if row["kind"] == UNSAFE_CURSOR and row["stream"] in chosen]
    return [row["id"] for row in mine if _told(row) not in unsafe]


def _is_judged(request: StreamsRequest) -> bool:
    return "care" in request.abilities


def _unsafe(choices: list[StreamChoice], request: StreamsRequest) -> set[Told]:
    if not _is_judged(request):
        return set()
    followed = {choice.stream for choice in choices if choice.selected.mode == "incremental"}
    return {
        (each.identity, each.cursor_field or "", f"cursor {each.cursor_field!r}: {rule}")
        for each in request.streams
        if each.identity in followed
        for rule in unsafe_cursor(_followed(each))
    }


def _followed(each: DiscoveredStream) -> Followed:
    return Followed(
        each.schema_, tuple(each.primary_key), each.cursor_field, tuple(each.modes), tuple(each.cursor_care)
    )


def _told(row: Row) -> Told:
    return row["stream"], row["path"], row["message"]
