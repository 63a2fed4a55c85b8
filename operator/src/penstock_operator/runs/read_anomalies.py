"""What a run's reads say once it has ended well: a stream that came empty, records that did not fit.

A green tick alone would hide both, so they become alerts and the run's message. The rules are pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from penstock_sdk.protocol import RejectRules

from penstock_operator import alerts
from penstock_operator.alerts import NewAlert
from penstock_operator.ids import ConnectionUid, RunId
from penstock_operator.registry.database import DatabaseConnection
from penstock_operator.resources.models import ConnectionSpec, Rejects
from penstock_operator.runs import bronze_objects, stream_reads
from penstock_operator.runs.attempt_store import HeldAttempt
from penstock_operator.runs.stream_reads import EarlierReads, StreamRead

EMPTY, REJECTED = "EmptyRead", "RecordsRejected"
ENOUGH_READS = 10
"""Incremental reads that must have brought something, each of them, before one that brings nothing is unusual."""
SHOWN = 5


@dataclass(frozen=True)
class CommittedCounts:
    """What a run committed of one stream, over all its attempts."""

    records: int = 0
    rejected: int = 0

    @property
    def read(self) -> int:
        """All that was read."""
        return self.records + self.rejected


def reject_rules(spec: ConnectionSpec) -> RejectRules:
    """Return what a connection says of records that do not fit: without thresholds they are put aside and counted."""
    rejects = spec.rejects or Rejects()
    return RejectRules(max_records=rejects.max_records, max_share=rejects.max_share, strict=spec.validation == "strict")


def over_threshold(rules: RejectRules, counts: Mapping[str, CommittedCounts]) -> str:
    """Say which stream has more rejected records than the connection allows; nothing when none has."""
    for stream, committed in sorted(counts.items()):
        found = (
            f"stream {stream!r}: {committed.rejected} of {committed.read} records were rejected, more than spec.rejects"
        )
        if rules.max_records is not None and committed.rejected > rules.max_records:
            return f"{found}.maxRecords ({rules.max_records}) allows"
        if rules.max_share is not None and committed.rejected > rules.max_share * committed.read:
            return f"{found}.maxShare ({rules.max_share:g}) allows"
    return ""


def empty_read(mode: str, recent: list[int], records: int) -> str:
    """Say why it is unusual that a read brought no records; nothing when it is not, or when it brought some.

    A full read that brings nothing after one that brought something has lost the stream. An incremental one often
    brings nothing, and is unusual only where none of the last reads, and enough of them, came empty.
    """
    if records or not recent:
        return ""
    if mode == "full":
        return f"a full read brought no records, the one before it brought {recent[-1]}" if recent[-1] else ""
    if len(recent) >= ENOUGH_READS and all(recent):
        return f"an incremental read brought no records, and none of the {len(recent)} reads before it was empty"
    return ""


async def counts_of(db: DatabaseConnection, run_id: str) -> dict[str, CommittedCounts]:
    """Return what a run has committed of each stream."""
    found = await bronze_objects.run_counts(db, run_id)
    return {counts.stream: CommittedCounts(counts.records, counts.rejected) for counts in found}


async def record_reads(db: DatabaseConnection, attempt: HeldAttempt, counts: Mapping[str, CommittedCounts]) -> str:
    """Judge a run's reads by the ones before, open and resolve alerts, and return the run's message."""
    uid, run_id = attempt.connection_uid, attempt.run_id
    incremental = set(attempt.incremental)
    done = [
        StreamRead(name, "incremental" if name in incremental else "full", counts.get(name, CommittedCounts()).records)
        for name in attempt.streams
    ]
    before = await stream_reads.reads_of(db, uid)
    found = [alert for read in done for alert in _alerts(read, before.get(read.stream), counts)]
    await _tell(db, uid, run_id, done, found)
    if done:
        await stream_reads.add_reads(db, uid, run_id, done)
    more = f"; and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
    return "; ".join(f"{alert.stream}: {alert.message}" for alert in found[:SHOWN]) + more


def _alerts(read: StreamRead, before: EarlierReads | None, counts: Mapping[str, CommittedCounts]) -> list[NewAlert]:
    recent = before.recent if before and before.mode == read.mode else []
    empty = empty_read(read.mode, recent, read.records)
    counted = counts.get(read.stream, CommittedCounts())
    rejected = f"{counted.rejected} of {counted.read} records were rejected" if counted.rejected else ""
    told = ((EMPTY, empty), (REJECTED, rejected))
    return [NewAlert(read.stream, kind, "", message) for kind, message in told if message]


async def _tell(
    db: DatabaseConnection, uid: ConnectionUid, run_id: RunId, done: list[StreamRead], found: list[NewAlert]
) -> None:
    """Open what was found, and resolve what it supersedes: an empty stream stays told until something comes."""
    open_ = [alert for alert in await alerts.open_alerts_of(db, uid) if alert.kind in (EMPTY, REJECTED)]
    came = {read.stream for read in done if read.records}
    told = {(new.stream, new.kind) for new in found}
    read = {read.stream for read in done}
    ended = [
        alert.id
        for alert in open_
        if (alert.stream, alert.kind) in told
        or (alert.kind == EMPTY and alert.stream in came)
        or (alert.kind == REJECTED and alert.stream in read)
    ]
    if ended:
        await alerts.resolve_alerts(db, ended)
    if found:
        await alerts.open_alerts(db, uid, run_id, found)
