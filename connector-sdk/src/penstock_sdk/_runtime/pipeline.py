"""From batches to commits: when an object is full, and when a cursor becomes a commit.

Lines are held back until a cursor covers them, so that what ends a read at any point, an error of the connector or of
the source, leaves everything committed that a cursor covers, and nothing else. Memory is bounded whatever the size of
the stream and of its batches: a batch is encoded in chunks, an object is rolled in the middle of one where need be, and
once too much is held back, what the last cursor covers is committed and the rest goes on its way.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from penstock_sdk import protocol as wire
from penstock_sdk._runtime.commits import Cover, StreamCommits, whole
from penstock_sdk._runtime.delivery import Delivery
from penstock_sdk._runtime.dropping import Dropper
from penstock_sdk._runtime.encode import Chunk, Cutter, Envelope, LineEncoder
from penstock_sdk._runtime.rejects import Fitter
from penstock_sdk.contract import Cursor, Op, Records
from penstock_sdk.contract_checks import check_cursor, check_op, check_records
from penstock_sdk.errors import DefectError, SourceContractError

LEAST_HELD_BYTES = 4 << 20


class Held:
    """Lines that no cursor covers yet, with their numbers of records and op, and those of rejected records, in order."""

    def __init__(self) -> None:
        self.lines: list[tuple[bytes, int, Op]] = []
        self.rejected: list[tuple[bytes, Op]] = []
        self.size = 0

    def add(self, lines: bytes, records: int, op: Op) -> None:
        """Hold lines of records."""
        self.lines.append((lines, records, op))
        self.size += len(lines)

    def reject(self, line: bytes, op: Op) -> None:
        """Hold the line of a rejected record."""
        self.rejected.append((line, op))
        self.size += len(line)


class StreamPipeline:
    """The sink of one read: of a stream, or of one part of it. `cursor` is where the read begins."""

    def __init__(
        self,
        shared: StreamCommits,
        envelope: Envelope,
        cursor: Cursor | None,
        limits: wire.Limits,
        cover: Cover = whole,
        clock: Callable[[], float] = time.monotonic,
        dropper: Dropper | None = None,
        fitter: Fitter | None = None,
    ) -> None:
        self._dropper = dropper
        self._envelope = envelope
        self._limits = limits
        self._shared = shared
        self._clock = clock
        self._cursor = self._committed_cursor = cursor
        self._fitter = fitter
        self._cutter = Cutter(envelope.stream, self._bad_line if fitter else None)
        self._encoder: LineEncoder | None = None
        self._delivery = Delivery(shared, cover, limits.object_bytes)
        self._held = Held()
        self._held_most = max(limits.object_bytes, LEAST_HELD_BYTES)
        self._beyond = False  # lines that no cursor covers are on their way already
        self._in_object = Counter[Op]()
        self._rejected = 0
        self._read = Counter[Op]()  # since the last commit
        self._covered = Counter[Op]()  # of these, those that a cursor covers
        self._since_time = clock()
        if fitter:
            fitter.to(self._take_rejected)

    def emit(self, records: Records, op: Op) -> None:
        """Encode records; they go on their way once a cursor covers them, or when too many are held back."""
        check_op(op, self._envelope.stream)
        check_records(records, self._envelope.stream)
        if self._fitter:
            self._fitter.op = op
        handed_over, taken = size_of(records), 0
        for chunk in self._cutter.cut(records):
            taken += len(chunk.rows)
            self._add(self._dropper(chunk) if self._dropper else chunk, op)
            if self._held.size > self._held_most:
                self._go_beyond()
        if self._fitter:
            self._fitter.op = "upsert"  # of what the connector rejects between batches
        if handed_over is not None and taken != handed_over:
            raise self._not_conserved(handed_over, taken, 0)

    def _add(self, chunk: Chunk, op: Op) -> None:
        encoder = self._encoder = self._encoder or LineEncoder(self._envelope, self._shared.series.take(), now())
        before, rejected = encoder.records, self._rejected
        rows = self._fitter.rows(chunk) if self._fitter else encoder.rows(chunk)
        lines = encoder.lines(rows, op) if rows else b""
        added, put_aside = len(chunk.rows), self._rejected - rejected
        # No row has a line break in it, so that the lines are as many as the records if they have all bytes and no more.
        size = rows.size + encoder.size_of_envelopes(before, encoder.records, op)
        if encoder.records - before != added - put_aside or len(lines) != size:
            raise self._not_conserved(added, lines.count(b"\n"), put_aside)
        self._shared.metrics.took(added)
        self._count(added, op)
        if lines:
            self._cutter.learn(added, len(lines))
            self._take(lines, encoder.records - before, op)

    def _count(self, read: int, op: Op) -> None:
        self._read[op] += read
        self._shared.metrics.read(self._envelope.stream, op, read)

    def _take(self, lines: bytes, records: int, op: Op) -> None:
        if self._beyond:
            self._write(lines, records, op)
        else:
            self._held.add(lines, records, op)

    def _not_conserved(self, read: int, lines: int, rejected: int) -> DefectError:
        return DefectError(
            f"stream {self._envelope.stream!r}: {read} records were read, {lines} encoded and {rejected} rejected;"
            " nothing of them is committed. This is a defect of the SDK: please report it with the connector's version"
        )

    def _take_rejected(self, line: bytes) -> None:
        self._rejected += 1
        op: Op = self._fitter.op if self._fitter else "upsert"
        if self._beyond:
            self._delivery.reject(line, op)
        else:
            self._held.reject(line, op)

    def _write(self, lines: bytes, records: int, op: Op) -> None:
        self._delivery.write(lines)
        self._in_object[op] += records
        if self._delivery.full():
            self._roll()

    def _let_go(self) -> None:
        """Send what is held back on its way."""
        held, self._held = self._held, Held()
        for line, op in held.rejected:
            self._delivery.reject(line, op)
        for lines, records, op in held.lines:
            self._write(lines, records, op)

    def _go_beyond(self) -> None:
        """Commit what the last cursor covers, while it can be told from the rest, and hold nothing back until the next."""
        if self._is_ahead:
            self._commit(done=False)
        self._let_go()
        self._beyond = True

    def reject(self, data: Any, message: str) -> None:
        """Put aside what the connector could not make a record of; a server that knows no rejects has it fail."""
        if self._fitter is None:
            raise SourceContractError(f"stream {self._envelope.stream!r}: {message}")
        self._count(1, self._fitter.op)
        self._fitter.unreadable(data, message)

    def _bad_line(self, line: bytes, reason: str) -> None:
        if self._fitter:
            self._count(1, self._fitter.op)
            self._fitter.bad_line(line, reason)

    def checkpoint(self, state: Cursor) -> None:
        """Take the cursor that covers everything until now; have it committed when enough has come together."""
        if state is not None:
            check_cursor(state, self._envelope.stream)
        self._cover(state)
        due = self._read.total() >= self._limits.checkpoint_records
        if due or self._clock() - self._since_time >= self._limits.checkpoint_seconds:
            self._commit(done=False)

    def _cover(self, state: Cursor) -> None:
        self._let_go()
        self._cursor, self._beyond, self._covered = state, False, self._read.copy()

    def finish(self) -> None:
        """Commit what is left, mark what was read as done for this run, and wait for it."""
        self._cover(self._cursor)
        self._commit(done=True)
        self.settle()

    def interrupt(self) -> None:
        """Commit what a cursor covers, and wait; what none covers is dropped, or stays uncommitted and is collected."""
        self._held = Held()
        if self._is_ahead and not self._beyond:
            self._commit(done=False)
        self.settle()

    @property
    def _is_ahead(self) -> bool:
        """Whether the last cursor covers more than what is committed: records, or a span of the source without any."""
        return self._covered.total() > 0 or self._cursor != self._committed_cursor

    def settle(self) -> None:
        """Wait until every commit under way is answered; raises what went wrong."""
        self._delivery.settle()

    def close(self) -> None:
        """Let the commits under way end."""
        self._delivery.close()

    def _roll(self) -> None:
        if self._in_object:
            self._delivery.upload(self._shared.numbers.take(), self._in_object)
            self._encoder, self._in_object = None, Counter()

    def _commit(self, *, done: bool) -> None:
        self._roll()
        if self._fitter:
            self._fitter.check_share(done=done)
        self._delivery.commit(self._cursor, self._envelope.schema_version, self._covered, done=done)
        self._committed_cursor = self._cursor
        self._read -= self._covered
        self._covered, self._since_time = Counter(), self._clock()


def now() -> str:
    """Return the moment as envelopes hold it."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def size_of(records: Records) -> int | None:
    """Return how many records a batch holds, by its own count; None for a page, which has none."""
    if isinstance(records, bytes):
        return None
    rows = getattr(records, "num_rows", None)
    return int(rows) if rows is not None else len(records) if isinstance(records, list | tuple) else None
