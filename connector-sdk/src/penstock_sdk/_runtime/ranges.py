"""Where a stream that is read in parts stands: one cursor that holds the plan and each part's own cursor. Pure.

The platform keeps one cursor per stream and looks into none. So what a split stream commits is a cursor of the runtime's
own, marked as such: `{"penstock/partitions": 1, "run": …, "ranges": [{"id", "bounds", "cursor", "done"}]}`. `done` holds
within the run that wrote it. docs/design/0007 argues what follows from it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from penstock_sdk.contract import Cursor, Partition
from penstock_sdk.errors import DefectError, SourceContractError

MARK = "penstock/partitions"
VERSION = 1
MOST_RANGES = 1000


class Range(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One part of a stream, and where its read stands."""

    id: str
    bounds: Any = None
    cursor: Cursor | None = None
    done: bool = False

    @property
    def partition(self) -> Partition:
        """The part as its author made it."""
        return Partition(id=self.id, bounds=self.bounds)


class _Document(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    version: int = msgspec.field(name=MARK)
    run: str
    ranges: tuple[Range, ...]


class Ranges(msgspec.Struct, frozen=True):
    """All parts of a stream, in the plan's order; `run` is the run whose plan it is."""

    run: str
    parts: tuple[Range, ...]

    def as_cursor(self) -> Cursor:
        """Return the stream's cursor."""
        return msgspec.to_builtins(_Document(VERSION, self.run, self.parts))

    def advanced(self, part: str, cursor: Cursor | None, *, done: bool) -> Ranges:
        """Return where the stream stands when one part has got so far."""
        moved = tuple(
            msgspec.structs.replace(each, cursor=cursor, done=done) if each.id == part else each for each in self.parts
        )
        return Ranges(self.run, moved)

    @property
    def open(self) -> tuple[Range, ...]:
        """The parts that are not read to their end."""
        return tuple(each for each in self.parts if not each.done)

    def left(self, run: str) -> tuple[Range, ...]:
        """The parts that a run has yet to read."""
        return self.open if run == self.run else self.parts

    @property
    def partitions(self) -> tuple[Partition, ...]:
        """The parts as their author made them."""
        return tuple(each.partition for each in self.parts)


def is_split(cursor: Cursor | None) -> bool:
    """Say whether a cursor is one of parts."""
    return isinstance(cursor, dict) and MARK in cursor


def ranges_of(cursor: Cursor, stream: str) -> Ranges:
    """Return the parts that a cursor holds; raises SourceContractError for one that this version cannot read."""
    try:
        document = msgspec.convert(cursor, _Document)
    except msgspec.ValidationError as error:
        raise _unreadable(stream, str(error)) from None
    if document.version != VERSION:
        raise _unreadable(stream, f"it is of version {document.version}, and this connector's SDK reads {VERSION}")
    if len({each.id for each in document.ranges}) != len(document.ranges) or not document.ranges:
        raise _unreadable(stream, "its parts are not told apart by their ids")
    return Ranges(document.run, document.ranges)


def _unreadable(stream: str, why: str) -> SourceContractError:
    return SourceContractError(
        f"stream {stream!r}: the state of its parts cannot be read: {why};"
        " use the connector version that wrote it, or reset the state"
    )


def planned(run: str, partitions: Sequence[Partition], known: Ranges | None, stream: str) -> Ranges:
    """Return the plan of a run: parts that stayed go on from their cursors, new ones start, others are forgotten.

    Raises DefectError for parts that cannot be told apart, or kept.
    """
    ids = [each.id for each in partitions]
    doubled = next((each for each in ids if ids.count(each) > 1 or not each), None)
    if doubled is not None:
        raise DefectError(
            f"stream {stream!r}: partitions() returned the id {doubled!r} more than once, or an empty one"
        )
    if len(ids) > MOST_RANGES:
        raise DefectError(f"stream {stream!r}: partitions() returned {len(ids)} parts; at most {MOST_RANGES} are kept")
    cursors = {each.id: each.cursor for each in known.parts} if known else {}
    return Ranges(run, tuple(Range(each.id, _as_json(each, stream), cursors.get(each.id)) for each in partitions))


def _as_json(partition: Partition, stream: str) -> Any:
    """Return the bounds in the form that they have when they come back from the state."""
    try:
        return msgspec.json.decode(msgspec.json.encode(partition.bounds))
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise DefectError(
            f"stream {stream!r}: the bounds of part {partition.id!r} are no JSON", operator_message=str(error)
        ) from None
