"""The partitions of a stream, and how far each is read. Pure functions.

The platform stores one cursor for each stream and does not look into it. A stream that is read in partitions therefore
commits a cursor of the runtime's own: `{"penstock/partitions": 1, "run": …, "ranges": [{"id", "bounds", "cursor", "done"}]}`.
`done` is valid only within the run that wrote it. docs/design/0007 explains the consequences.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from penstock_sdk.contract import Cursor, Partition
from penstock_sdk.errors import DefectError, SourceContractError
from penstock_sdk.json_types import JsonObject, JsonValue

CURSOR_KEY = "penstock/partitions"
VERSION = 1
MAX_PARTITIONS = 1000


class PartitionProgress(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One partition of a stream, its cursor, and whether it is read to its end."""

    id: str
    bounds: JsonValue = None
    cursor: Cursor | None = None
    done: bool = False

    @property
    def partition(self) -> Partition:
        """The partition as the connector returned it."""
        return Partition(id=self.id, bounds=self.bounds)


class _Document(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    version: int = msgspec.field(name=CURSOR_KEY)
    run: str
    partitions: tuple[PartitionProgress, ...] = msgspec.field(name="ranges")


class PartitionPlan(msgspec.Struct, frozen=True):
    """All partitions of a stream, in the order of the plan. `run` is the run that made the plan."""

    run: str
    progress: tuple[PartitionProgress, ...]

    def as_cursor(self) -> Cursor:
        """Return the stream's cursor."""
        document: JsonObject = msgspec.to_builtins(_Document(VERSION, self.run, self.progress))
        return document

    def advanced(self, name: str, cursor: Cursor | None, *, done: bool) -> PartitionPlan:
        """Return the plan with a new cursor of the partition that has this id."""
        moved = tuple(
            msgspec.structs.replace(partition, cursor=cursor, done=done) if partition.id == name else partition
            for partition in self.progress
        )
        return PartitionPlan(self.run, moved)

    @property
    def unfinished(self) -> tuple[PartitionProgress, ...]:
        """The partitions that are not read to their end."""
        return tuple(partition for partition in self.progress if not partition.done)

    def remaining(self, run: str) -> tuple[PartitionProgress, ...]:
        """The partitions that a run still has to read."""
        return self.unfinished if run == self.run else self.progress

    @property
    def partitions(self) -> tuple[Partition, ...]:
        """The partitions as the connector returned them."""
        return tuple(partition.partition for partition in self.progress)


def is_partitioned(cursor: Cursor | None) -> bool:
    """Return True for the cursor of a stream that is read in partitions."""
    return isinstance(cursor, dict) and CURSOR_KEY in cursor


def plan_from_cursor(cursor: Cursor, stream: str) -> PartitionPlan:
    """Return the plan that a cursor holds. Raises SourceContractError for a cursor that this version cannot read."""
    try:
        document = msgspec.convert(cursor, _Document)
    except msgspec.ValidationError as error:
        raise _unreadable(stream, str(error)) from None
    if document.version != VERSION:
        raise _unreadable(stream, f"it is of version {document.version}, and this connector's SDK reads {VERSION}")
    if len({partition.id for partition in document.partitions}) != len(document.partitions) or not document.partitions:
        raise _unreadable(stream, "the ids of its partitions are not unique")
    return PartitionPlan(document.run, document.partitions)


def _unreadable(stream: str, why: str) -> SourceContractError:
    return SourceContractError(
        f"stream {stream!r}: the state of its partitions cannot be read: {why};"
        " use the connector version that wrote it, or reset the state"
    )


def new_plan(run: str, partitions: Sequence[Partition], known: PartitionPlan | None, stream: str) -> PartitionPlan:
    """Return the plan of a run. Known partitions resume from their cursors, new ones begin, others are forgotten.

    Raises DefectError for ids that are not unique, for too many partitions, and for bounds that are not JSON.
    """
    ids = [partition.id for partition in partitions]
    repeated = next((identifier for identifier in ids if ids.count(identifier) > 1 or not identifier), None)
    if repeated is not None:
        raise DefectError(
            f"stream {stream!r}: partitions() returned the id {repeated!r} more than once, or an empty one"
        )
    if len(ids) > MAX_PARTITIONS:
        raise DefectError(
            f"stream {stream!r}: partitions() returned {len(ids)} partitions; at most {MAX_PARTITIONS} are allowed"
        )
    cursors = {partition.id: partition.cursor for partition in known.progress} if known else {}
    return PartitionPlan(
        run,
        tuple(
            PartitionProgress(partition.id, _as_json(partition, stream), cursors.get(partition.id))
            for partition in partitions
        ),
    )


def _as_json(partition: Partition, stream: str) -> JsonValue:
    """Return the bounds as JSON returns them from the state."""
    try:
        bounds: JsonValue = msgspec.json.decode(msgspec.json.encode(partition.bounds))
        return bounds
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise DefectError(
            f"stream {stream!r}: the bounds of partition {partition.id!r} are not JSON", operator_message=str(error)
        ) from None
