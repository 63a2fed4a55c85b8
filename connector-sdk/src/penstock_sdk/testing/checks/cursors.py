"""Whether an incremental read's cursor can lose records, by what the stream says and what its records show."""

from __future__ import annotations

from penstock_sdk import protocol as wire
from penstock_sdk.manifest import Followed, unsafe_cursor, unsafe_values
from penstock_sdk.testing.checks.model import Check
from penstock_sdk.testing.harness import Failed, Harness, NotApplicable


def cursor_safety(harness: Harness) -> str:
    """Judge each stream that is read on by a field."""
    followed = [stream for stream in harness.catalog if "incremental" in stream.modes]
    if not followed:
        raise NotApplicable("no stream is read incrementally")
    wrong = [(each, rule) for each in followed for rule in unsafe_cursor(_followed(each))]
    wrong = wrong or [
        (each, rule) for each in followed for rule in unsafe_values(_followed(each), _values(harness, each))
    ]
    if wrong:
        raise Failed("; ".join(f"stream {each.name!r}, cursor {each.cursor_field!r}: {rule}" for each, rule in wrong))
    by_field = [each for each in followed if each.cursor_field]
    return (
        f"{len(by_field)} streams are followed by a field, {len(followed) - len(by_field)} by a position of their own"
    )


def _followed(stream: wire.DiscoveredStream) -> Followed:
    keys, care = tuple(stream.primary_key), tuple(stream.cursor_care)
    return Followed(stream.schema_, keys, stream.cursor_field, tuple(stream.modes), care)


def _values(harness: Harness, stream: wire.DiscoveredStream) -> list[object]:
    rows = harness.baseline("incremental").records(stream.name)
    return [row.get(stream.cursor_field or "") for row in rows]


CURSOR_SAFETY = Check(
    "cursor-safety",
    "No incremental stream follows a field that passes records over.",
    "See docs/authors/cursors.md: each reason, why records get lost, and what to follow, read with or declare instead.",
    cursor_safety,
)
