"""Whether the cursor of an incremental read can lose records, judged by the stream's schema and by its records."""

from __future__ import annotations

from penstock_sdk import protocol as wire
from penstock_sdk.manifest import Followed, unsafe_cursor, unsafe_values
from penstock_sdk.testing.checks.model import Check
from penstock_sdk.testing.harness import Failed, Harness, NotApplicable


def cursor_safety(harness: Harness) -> str:
    """Check each stream that follows a cursor field."""
    followed = [stream for stream in harness.catalog if "incremental" in stream.modes]
    if not followed:
        raise NotApplicable("no stream is read incrementally")
    wrong = [(stream, rule) for stream in followed for rule in unsafe_cursor(_followed(stream))]
    wrong = wrong or [
        (stream, rule) for stream in followed for rule in unsafe_values(_followed(stream), _values(harness, stream))
    ]
    if wrong:
        raise Failed(
            "; ".join(f"stream {stream.name!r}, cursor {stream.cursor_field!r}: {rule}" for stream, rule in wrong)
        )
    by_field = [stream for stream in followed if stream.cursor_field]
    return f"{len(by_field)} streams follow a field, {len(followed) - len(by_field)} have cursors of their own"


def _followed(stream: wire.DiscoveredStream) -> Followed:
    keys, care = tuple(stream.primary_key), tuple(stream.cursor_care)
    return Followed(stream.schema_, keys, stream.cursor_field, tuple(stream.modes), care)


def _values(harness: Harness, stream: wire.DiscoveredStream) -> list[object]:
    rows = harness.baseline("incremental").records(stream.name)
    return [row.get(stream.cursor_field or "") for row in rows]


CURSOR_SAFETY = Check(
    "cursor-safety",
    "No incremental stream follows a field with which records are lost.",
    "See docs/authors/cursors.md: for each reason, why records are lost, and what to follow or declare instead.",
    cursor_safety,
)
