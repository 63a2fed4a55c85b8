"""From batches to commits: when an object is full, and when a promise becomes a commit.

Memory is bounded whatever the stream's size and the batch's: a batch is encoded in chunks, and an object rolled in the
middle of one where need be.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from penstock_sdk import protocol as wire
from penstock_sdk.contract import Cursor, Op, Records
from penstock_sdk.errors import SourceContractError
from penstock_sdk.runtime.commits import Cover, StreamCommits, whole
from penstock_sdk.runtime.delivery import Delivery
from penstock_sdk.runtime.dropping import Dropper
from penstock_sdk.runtime.encode import Chunk, Cutter, Envelope, LineEncoder
from penstock_sdk.runtime.rejects import Fitter


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
        self._cursor = cursor
        self._promised = True
        self._fitter = fitter
        self._cutter = Cutter(envelope.stream, fitter.bad_line if fitter else None)
        self._encoder: LineEncoder | None = None
        self._delivery = Delivery(shared, cover, limits.object_bytes)
        if fitter:
            fitter.to(self._delivery.reject)
        self._since_records = 0
        self._since_time = clock()

    def emit(self, records: Records, op: Op) -> None:
        """Encode records; a full object is rolled and uploaded while reading goes on."""
        if self._fitter:
            self._fitter.op = op
        for chunk in self._cutter.cut(records):
            self._add(self._dropper(chunk) if self._dropper else chunk, op)
            if self._delivery.full():
                self._roll()

    def _add(self, chunk: Chunk, op: Op) -> None:
        encoder = self._encoder = self._begun()
        rows = self._fitter.rows(chunk) if self._fitter else None
        lines = encoder.encode(chunk, op) if rows is None else encoder.lines(rows, op) if rows else b""
        added = len(chunk.rows)
        self._promised = False
        self._since_records += added
        self._shared.metrics.took(added)
        if lines:
            self._cutter.learn(added, len(lines))
            self._delivery.write(lines)

    def _begun(self) -> LineEncoder:
        """Return the open object's encoder; an object says when its first records came."""
        if self._encoder and self._encoder.records:
            return self._encoder
        number = self._encoder.sequence if self._encoder else self._shared.numbers.take()
        return LineEncoder(self._envelope, number, now())

    def reject(self, data: Any, message: str) -> None:
        """Put aside what the connector could not make a record of; a server that knows no rejects has it fail."""
        if self._fitter is None:
            raise SourceContractError(f"stream {self._envelope.stream!r}: {message}")
        self._promised = False
        self._since_records += 1
        self._fitter.unreadable(data, message)

    def checkpoint(self, state: Cursor) -> None:
        """Take a promise; have it committed, while reading goes on, when enough has come together."""
        self._cursor, self._promised = state, True
        due = self._since_records >= self._limits.checkpoint_records
        if due or self._clock() - self._since_time >= self._limits.checkpoint_seconds:
            self._commit(done=False)

    def finish(self) -> None:
        """Commit what is left, mark what was read as done for this run, and wait for it."""
        self._commit(done=True)
        self.settle()

    def interrupt(self) -> None:
        """Commit what is covered by a promise, and wait; what is not stays uncommitted and is collected."""
        if self._promised and self._since_records:
            self._commit(done=False)
        self.settle()

    def settle(self) -> None:
        """Wait until every commit under way is answered; raises what went wrong."""
        self._delivery.settle()

    def close(self) -> None:
        """Let the commits under way end."""
        self._delivery.close()

    def _roll(self) -> None:
        if self._encoder and self._encoder.records:
            self._delivery.upload(self._encoder.sequence, self._encoder.records)
            self._encoder = None

    def _commit(self, *, done: bool) -> None:
        self._roll()
        if self._fitter:
            self._fitter.check_share(done=done)
        self._delivery.commit(self._cursor, self._envelope.schema_version, done=done)
        self._since_records, self._since_time = 0, self._clock()


def now() -> str:
    """Return the moment as envelopes hold it."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
