"""Records read = records committed + records rejected, per stream and operation: what an attempt's end is checked for.

Each checkpoint was checked when it was committed. This compares the pod's own totals with the registry's, so that a
checkpoint that got lost, or came from a pod that does not count, is found as well. A difference fails the run for good: its
streams are marked as read, so another attempt would read nothing and succeed.
"""

from __future__ import annotations

from collections.abc import Mapping

from penstock_sdk.protocol import FinishRequest, ObjectKind

from penstock_operator.registry.database import DatabaseConnection
from penstock_operator.runs import bronze_objects
from penstock_operator.runs.attempt_store import HeldAttempt

REMEDY = (
    "report it with the connector's version; then read the run's records again: put the streams back with"
    " `penstock state rewind`, or read them anew with `penstock state reset`"
)


async def lost(db: DatabaseConnection, attempt: HeldAttempt, request: FinishRequest) -> str:
    """Say which counts differ, and what to do; nothing when all agree.

    Of an attempt that has not succeeded, only the streams count that it has read to their end: of the others, records
    that no cursor covered were rightly left out.
    """
    run = (attempt.run_id, attempt.attempt)
    told: tuple[tuple[ObjectKind, Mapping[str, int]], ...] = (("data", request.records), ("rejected", request.rejected))
    for kind, numbers in told:
        found = difference(request, numbers, await bronze_objects.committed_counts(db, *run, kind), kind)
        if found:
            return f"{found}; {REMEDY}"
    found = not_conserved(request) or not_conserved_by_op(request, await bronze_objects.counts_by_op(db, *run))
    return f"{found}; {REMEDY}" if found else ""


def difference(request: FinishRequest, said: Mapping[str, int], counted: Mapping[str, int], kind: ObjectKind) -> str:
    """Say of which stream the pod committed another number of records than the registry knows."""
    word = "committed" if kind == "data" else "rejected"
    for stream in sorted(name for name in {*said, *counted} if _is_whole(request, name)):
        if said.get(stream, 0) != counted.get(stream, 0):
            return (
                f"stream {stream!r}: the pod counted {said.get(stream, 0)} records that it {word},"
                f" the registry {counted.get(stream, 0)}"
            )
    return ""


def not_conserved(request: FinishRequest) -> str:
    """Say of which stream the pod read another number of records than were committed and rejected; nothing of none.

    An older SDK says nothing of what it read, and is not asked.
    """
    for stream, by_op in sorted(request.read.items()):
        read, kept = sum(by_op.values()), request.records.get(stream, 0) + request.rejected.get(stream, 0)
        if read != kept and _is_whole(request, stream):
            return f"stream {stream!r}: {read} records were read, and {kept} committed or rejected"
    return ""


def not_conserved_by_op(request: FinishRequest, kept: Mapping[str, Mapping[str, int]]) -> str:
    """Say of which stream another number of upserts, or of deletes, was read than was committed and rejected."""
    for stream, by_op in sorted(request.read.items()):
        if stream not in kept or not _is_whole(request, stream):
            continue
        for op in sorted({*by_op, *kept[stream]}):
            read, found = by_op.get(op, 0), kept[stream].get(op, 0)
            if read != found:
                return f"stream {stream!r}: {read} records of op {op!r} were read, and {found} committed or rejected"
    return ""


def _is_whole(request: FinishRequest, stream: str) -> bool:
    """Return True if the attempt has read the stream to its end."""
    if request.outcome == "succeeded":
        return True
    told = request.streams.get(stream)
    return stream in request.read and told is not None and told.outcome == "succeeded"
