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
from penstock_sdk.runtime.client import RunClient
from penstock_sdk.runtime.delivery import Delivery
from penstock_sdk.runtime.dropping import Dropper
from penstock_sdk.runtime.encode import Chunk, Cutter, Envelope, LineEncoder
from penstock_sdk.runtime.metrics import Metrics
from penstock_sdk.runtime.rejects import Fitter


class StreamPipeline:
    """The sink of one stream's read."""

    def __init__(
        self,
        client: RunClient,
        envelope: Envelope,
        selected: wire.SelectedStream,
        limits: wire.Limits,
        metrics: Metrics,
        clock: Callable[[], float] = time.monotonic,
        dropper: Dropper | None = None,
        fitter: Fitter | None = None,
    ) -> None:
        self._dropper = dropper
        self._envelope = envelope
        self._limits = limits
        self._metrics = metrics
        self._clock = clock
        self._cursor: Cursor | None = selected.cursor
        self._promised = True
        self._fitter = fitter
        self._cutter = Cutter(envelope.stream, fitter.bad_line if fitter else None)
        self._encoder = LineEncoder(envelope, 1, now())
        self._delivery = Delivery(client, envelope.stream, selected.checkpoint, limits.object_bytes, metrics)
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
        if not self._encoder.records:
            self._encoder = LineEncoder(self._envelope, self._encoder.sequence, now())
        rows = self._fitter.rows(chunk) if self._fitter else None
        lines = self._encoder.encode(chunk, op) if rows is None else self._encoder.lines(rows, op) if rows else b""
        added = len(chunk.rows)
        self._promised = False
        self._since_records += added
        self._metrics.records += added
        if lines:
            self._cutter.learn(added, len(lines))
            self._delivery.write(lines)

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
        """Commit what is left, mark the stream as done for this run, and wait for it."""
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
        if self._encoder.records:
            self._delivery.upload(self._encoder.sequence, self._encoder.records)
            self._encoder = LineEncoder(self._envelope, self._encoder.sequence + 1, now())

    def _commit(self, *, done: bool) -> None:
        self._roll()
        if self._fitter:
            self._fitter.check_share(done=done)
        self._delivery.commit(self._cursor, self._envelope.schema_version, done=done)
        self._since_records, self._since_time = 0, self._clock()


def now() -> str:
    """Return the moment as envelopes hold it."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
