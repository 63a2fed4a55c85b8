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

CURSOR_KEY = "penstock/partitions"
VERSION = 1
MAX_PARTITIONS = 1000


class PartitionProgress(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
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
    version: int = msgspec.field(name=CURSOR_KEY)
    run: str
    partitions: tuple[PartitionProgress, ...] = msgspec.field(name="ranges")


class PartitionPlan(msgspec.Struct, frozen=True):
    """All parts of a stream, in the plan's order; `run` is the run whose plan it is."""

    run: str
    progress: tuple[PartitionProgress, ...]

    def as_cursor(self) -> Cursor:
        """Return the stream's cursor."""
        return msgspec.to_builtins(_Document(VERSION, self.run, self.progress))

    def advanced(self, name: str, cursor: Cursor | None, *, done: bool) -> PartitionPlan:
        """Return the plan with a new cursor of the partition that has this id."""
        moved = tuple(
            msgspec.structs.replace(partition, cursor=cursor, done=done) if partition.id == name else partition
            for partition in self.progress
        )
        return PartitionPlan(self.run, moved)

    @property
    def unfinished(self) -> tuple[PartitionProgress, ...]:
        """The parts that are not read to their end."""
        return tuple(partition for partition in self.progress if not partition.done)

    def remaining(self, run: str) -> tuple[PartitionProgress, ...]:
        """The parts that a run has yet to read."""
        return self.unfinished if run == self.run else self.progress

    @property
    def partitions(self) -> tuple[Partition, ...]:
        """The parts as their author made them."""
        return tuple(partition.partition for partition in self.progress)


def is_partitioned(cursor: Cursor | None) -> bool:
    """Say whether a cursor is one of parts."""
    return isinstance(cursor, dict) and CURSOR_KEY in cursor


def plan_from_cursor(cursor: Cursor, stream: str) -> PartitionPlan:
    """Return the parts that a cursor holds; raises SourceContractError for one that this version cannot read."""
    try:
        document = msgspec.convert(cursor, _Document)
    except msgspec.ValidationError as error:
        raise _unreadable(stream, str(error)) from None
    if document.version != VERSION:
        raise _unreadable(stream, f"it is of version {document.version}, and this connector's SDK reads {VERSION}")
    if len({partition.id for partition in document.partitions}) != len(document.partitions) or not document.partitions:
        raise _unreadable(stream, "its parts are not told apart by their ids")
    return PartitionPlan(document.run, document.partitions)


def _unreadable(stream: str, why: str) -> SourceContractError:
    return SourceContractError(
        f"stream {stream!r}: the state of its parts cannot be read: {why};"
        " use the connector version that wrote it, or reset the state"
    )


def new_plan(run: str, partitions: Sequence[Partition], known: PartitionPlan | None, stream: str) -> PartitionPlan:
    """Return the plan of a run: parts that stayed go on from their cursors, new ones start, others are forgotten.

    Raises DefectError for parts that cannot be told apart, or kept.
    """
    ids = [partition.id for partition in partitions]
    doubled = next((identifier for identifier in ids if ids.count(identifier) > 1 or not identifier), None)
    if doubled is not None:
        raise DefectError(
            f"stream {stream!r}: partitions() returned the id {doubled!r} more than once, or an empty one"
        )
    if len(ids) > MAX_PARTITIONS:
        raise DefectError(
            f"stream {stream!r}: partitions() returned {len(ids)} parts; at most {MAX_PARTITIONS} are kept"
        )
    cursors = {partition.id: partition.cursor for partition in known.progress} if known else {}
    return PartitionPlan(
        run,
        tuple(
            PartitionProgress(partition.id, _as_json(partition, stream), cursors.get(partition.id))
            for partition in partitions
        ),
    )


def _as_json(partition: Partition, stream: str) -> Any:
    """Return the bounds in the form that they have when they come back from the state."""
    try:
        return msgspec.json.decode(msgspec.json.encode(partition.bounds))
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise DefectError(
            f"stream {stream!r}: the bounds of part {partition.id!r} are no JSON", operator_message=str(error)
        ) from None
