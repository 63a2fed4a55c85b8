"""From batches to commits: when an object is complete, and when a cursor is committed.

Lines wait in memory until a cursor covers them. So if a read ends at any point, by an error of the connector or of the
source, everything that a cursor covers is committed, and nothing else. Memory is limited whatever the size of the stream
and of its batches: a batch is encoded in chunks, an object can end in the middle of a batch, and if too many lines wait,
the records that the last cursor covers are committed and the waiting lines are written to the next object.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from penstock_sdk import protocol as wire
from penstock_sdk._contract_checks import check_cursor, check_op, check_records
from penstock_sdk._runtime.commits import MergeCursor, StreamCommits, unpartitioned
from penstock_sdk._runtime.encode import Chunk, Chunker, Envelope, LineEncoder
from penstock_sdk._runtime.field_removal import FieldRemover
from penstock_sdk._runtime.object_writer import ObjectWriter
from penstock_sdk._runtime.rejects import RecordValidator
from penstock_sdk.contract import Cursor, Op, Records
from penstock_sdk.errors import DefectError, SourceContractError

LEAST_UNCOVERED_BYTES = 4 << 20
"""So many bytes may wait for a cursor, also where objects are smaller."""


class UncoveredLines:
    """Lines that no cursor covers yet, with their record counts and operations, and the lines of rejected records."""

    def __init__(self) -> None:
        self.lines: list[tuple[bytes, int, Op]] = []
        self.rejected: list[tuple[bytes, Op]] = []
        self.size = 0

    def add(self, lines: bytes, records: int, op: Op) -> None:
        """Add lines of records."""
        self.lines.append((lines, records, op))
        self.size += len(lines)

    def reject(self, line: bytes, op: Op) -> None:
        """Add the line of a rejected record."""
        self.rejected.append((line, op))
        self.size += len(line)


class StreamPipeline:
    """The sink of one read: of a stream, or of one of its partitions. The read begins at `cursor`."""

    def __init__(
        self,
        shared: StreamCommits,
        envelope: Envelope,
        cursor: Cursor | None,
        limits: wire.Limits,
        merge_cursor: MergeCursor = unpartitioned,
        clock: Callable[[], float] = time.monotonic,
        field_remover: FieldRemover | None = None,
        validator: RecordValidator | None = None,
        most_uncovered_bytes: int | None = None,
    ) -> None:
        self._field_remover = field_remover
        self._envelope = envelope
        self._limits = limits
        self._shared = shared
        self._clock = clock
        self._cursor = self._committed_cursor = cursor
        self._validator = validator
        self._chunker = Chunker(envelope.stream, self._bad_line if validator else None)
        self._encoder: LineEncoder | None = None
        self._delivery = ObjectWriter(shared, merge_cursor, limits.object_bytes)
        self._uncovered = UncoveredLines()
        self._most_uncovered_bytes = most_uncovered_bytes or max(limits.object_bytes, LEAST_UNCOVERED_BYTES)
        self._flushed_early = False  # lines that no cursor covers are written already
        self._in_object = Counter[Op]()
        self._rejected = 0
        self._read = Counter[Op]()  # since the last commit
        self._covered = Counter[Op]()  # the part of `_read` that a cursor covers
        self._since_time = clock()
        if validator:
            validator.send_to(self._take_rejected)

    def emit(self, records: Records, op: Op) -> None:
        """Encode records. They are written when a cursor covers them, or when too many lines wait."""
        check_op(op, self._envelope.stream)
        check_records(records, self._envelope.stream)
        if self._validator:
            self._validator.op = op
        handed_over, taken = record_count(records), 0
        for chunk in self._chunker.chunks(records):
            taken += len(chunk.rows)
            self._add(self._field_remover(chunk) if self._field_remover else chunk, op)
            if self._uncovered.size > self._most_uncovered_bytes:
                self._flush_early()
        if self._validator:
            self._validator.op = "upsert"  # for data that the connector rejects between batches
        if handed_over is not None and taken != handed_over:
            raise self._not_conserved(handed_over, taken, 0)

    def _add(self, chunk: Chunk, op: Op) -> None:
        encoder = self._encoder = self._encoder or LineEncoder(
            self._envelope, self._shared.id_series.next(), timestamp_now()
        )
        before, rejected = encoder.records, self._rejected
        rows = self._validator.rows(chunk) if self._validator else encoder.rows(chunk)
        lines = encoder.lines(rows, op) if rows else b""
        added, rejected_now = len(chunk.rows), self._rejected - rejected
        # No row contains a line break, so the number of lines equals the number of records if the size is exactly this.
        size = rows.size + encoder.size_of_envelopes(before, encoder.records, op)
        if encoder.records - before != added - rejected_now or len(lines) != size:
            raise self._not_conserved(added, lines.count(b"\n"), rejected_now)
        self._shared.metrics.add_records(added)
        self._count(added, op)
        if lines:
            self._chunker.learn(added, len(lines))
            self._take(lines, encoder.records - before, op)

    def _count(self, read: int, op: Op) -> None:
        self._read[op] += read
        self._shared.metrics.add_read(self._envelope.stream, op, read)

    def _take(self, lines: bytes, records: int, op: Op) -> None:
        if self._flushed_early:
            self._write(lines, records, op)
        else:
            self._uncovered.add(lines, records, op)

    def _not_conserved(self, read: int, lines: int, rejected: int) -> DefectError:
        return DefectError(
            f"stream {self._envelope.stream!r}: {read} records were read, {lines} encoded and {rejected} rejected;"
            " none of them is committed. This is a defect of the SDK: please report it with the connector's version"
        )

    def _take_rejected(self, line: bytes) -> None:
        self._rejected += 1
        op: Op = self._validator.op if self._validator else "upsert"
        if self._flushed_early:
            self._delivery.reject(line, op)
        else:
            self._uncovered.reject(line, op)

    def _write(self, lines: bytes, records: int, op: Op) -> None:
        self._delivery.write(lines)
        self._in_object[op] += records
        if self._delivery.full():
            self._close_object()

    def _flush_uncovered(self) -> None:
        """Write the waiting lines."""
        waiting, self._uncovered = self._uncovered, UncoveredLines()
        for line, op in waiting.rejected:
            self._delivery.reject(line, op)
        for lines, records, op in waiting.lines:
            self._write(lines, records, op)

    def _flush_early(self) -> None:
        """Commit what the last cursor covers, and write all lines directly until the next cursor."""
        if self._is_ahead:
            self._commit(done=False)
        self._flush_uncovered()
        self._flushed_early = True

    def reject(self, data: Any, message: str) -> None:
        """Set aside data that the connector rejects. With a server that does not support rejects, the read fails."""
        if self._validator is None:
            raise SourceContractError(f"stream {self._envelope.stream!r}: {message}")
        self._count(1, self._validator.op)
        self._validator.reject_data(data, message)

    def _bad_line(self, line: bytes, reason: str) -> None:
        if self._validator:
            self._count(1, self._validator.op)
            self._validator.reject_line(line, reason)

    def checkpoint(self, state: Cursor) -> None:
        """Take the cursor that covers everything emitted so far, and commit it if enough records or seconds have passed."""
        if state is not None:
            check_cursor(state, self._envelope.stream)
        self._cover(state)
        due = self._read.total() >= self._limits.checkpoint_records
        if due or self._clock() - self._since_time >= self._limits.checkpoint_seconds:
            self._commit(done=False)

    def _cover(self, state: Cursor) -> None:
        self._flush_uncovered()
        self._cursor, self._flushed_early, self._covered = state, False, self._read.copy()

    def finish(self) -> None:
        """Commit the rest, mark the stream or partition as done for this run, and wait for the commit."""
        self._cover(self._cursor)
        self._commit(done=True)
        self.settle()

    def interrupt(self) -> None:
        """Commit what a cursor covers, and wait. Other lines are dropped, or stay in uncommitted objects that are collected."""
        self._uncovered = UncoveredLines()
        if self._is_ahead and not self._flushed_early:
            self._commit(done=False)
        self.settle()

    @property
    def _is_ahead(self) -> bool:
        """True if the last cursor covers more than is committed: records, or a part of the source without records."""
        return self._covered.total() > 0 or self._cursor != self._committed_cursor

    def settle(self) -> None:
        """Wait until every commit has ended. Raises the first failure."""
        self._delivery.settle()

    def close(self) -> None:
        """Wait for the commits in progress."""
        self._delivery.close()

    def _close_object(self) -> None:
        if self._in_object:
            self._delivery.upload(self._shared.object_numbers.next(), self._in_object)
            self._encoder, self._in_object = None, Counter()

    def _commit(self, *, done: bool) -> None:
        self._close_object()
        if self._validator:
            self._validator.check_share(done=done)
        self._delivery.commit(self._cursor, self._envelope.schema_version, self._covered, done=done)
        self._committed_cursor = self._cursor
        self._read -= self._covered
        self._covered, self._since_time = Counter(), self._clock()


def timestamp_now() -> str:
    """Return the current time as envelopes hold it."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def record_count(records: Records) -> int | None:
    """Return the number of records of a batch; None for a page of JSON, which does not know it."""
    if isinstance(records, bytes):
        return None
    rows = getattr(records, "num_rows", None)
    return int(rows) if rows is not None else len(records) if isinstance(records, list | tuple) else None
