"""From batches to commits: objects are rolled, uploaded beside the reading, and committed with the state they cover.

Memory is bounded whatever the stream's size: one object being encoded and at most two on their way.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime

from penstock_sdk import protocol as wire
from penstock_sdk.contract import Cursor, Op, Records
from penstock_sdk.errors import TransientError
from penstock_sdk.runtime.client import GrantExpired, RunClient
from penstock_sdk.runtime.encode import Envelope, FinishedObject, ObjectEncoder

IN_FLIGHT = 2
GRANTS = 10
GRANT_TRIES = 3


@dataclass
class Metrics:
    """What the attempt has done so far; cumulative."""

    records: int = 0
    bytes_uploaded: int = 0
    objects: int = 0
    checkpoints: int = 0
    committed: dict[str, int] = field(default_factory=dict)

    def numbers(self) -> dict[str, float]:
        """Return the metrics that a heartbeat carries."""
        shown = {"records": self.records, "bytes_uploaded": self.bytes_uploaded, "objects": self.objects}
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        committed = sum(list(self.committed.values()))
        return {**shown, "checkpoints": self.checkpoints, "records_committed": committed, "rss_peak_bytes": peak}


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
    ) -> None:
        self._client = client
        self._envelope = envelope
        self._limits = limits
        self._metrics = metrics
        self._clock = clock
        self._checkpoint = selected.checkpoint
        self._cursor: Cursor | None = selected.cursor
        self._promised = True
        self._encoder: ObjectEncoder | None = None
        self._sequence = 0
        self._grants: list[wire.UploadGrant] = []
        self._uploads: list[Future[wire.UploadedObject]] = []
        self._done: list[wire.UploadedObject] = []
        self._since_records = 0
        self._since_time = clock()
        self._pool = ThreadPoolExecutor(max_workers=IN_FLIGHT, thread_name_prefix="upload")

    def emit(self, records: Records, op: Op) -> None:
        """Encode records; a full object is rolled and uploaded while reading goes on."""
        if self._encoder is None:
            self._sequence += 1
            self._encoder = ObjectEncoder(self._envelope, self._sequence, _now())
        before = self._encoder.records
        try:
            self._encoder.add(records, op)
        finally:  # an author may catch the error of a record, and the ones before it are in
            self._count(self._encoder.records - before)
        if self._encoder.size >= self._limits.object_bytes:
            self._roll()

    def _count(self, added: int) -> None:
        self._promised = self._promised and not added
        self._since_records += added
        self._metrics.records += added

    def checkpoint(self, state: Cursor) -> None:
        """Take a promise; commit when enough has come together."""
        self._cursor, self._promised = state, True
        due = self._since_records >= self._limits.checkpoint_records
        if due or self._clock() - self._since_time >= self._limits.checkpoint_seconds:
            self._commit(done=False)

    def finish(self) -> None:
        """Commit what is left, and mark the stream as done for this run."""
        self._commit(done=True)

    def interrupt(self) -> None:
        """Commit what is covered by a promise; what is not stays uncommitted and is collected."""
        if self._promised and self._since_records:
            self._commit(done=False)

    def close(self) -> None:
        """End the uploading threads."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _roll(self) -> None:
        encoder, self._encoder = self._encoder, None
        if encoder is None:
            return
        if not encoder.records:
            self._sequence -= 1
            return
        while len(self._uploads) >= IN_FLIGHT:
            self._done.append(self._uploads.pop(0).result())
        grant = self._grant(encoder.sequence)
        self._uploads.append(self._pool.submit(self._upload, grant, encoder.finish()))

    def _grant(self, sequence: int) -> wire.UploadGrant:
        self._grants = [grant for grant in self._grants if grant.sequence >= sequence]
        if not self._grants:
            request = wire.UploadsRequest(stream=self._envelope.stream, count=GRANTS, after=sequence - 1)
            self._grants = self._client.uploads(request).grants
        return self._grants.pop(0)

    def _upload(self, grant: wire.UploadGrant, finished: FinishedObject) -> wire.UploadedObject:
        for _ in range(GRANT_TRIES):
            try:
                self._client.upload(grant, finished.body)
                break
            except GrantExpired:
                request = wire.UploadsRequest(stream=self._envelope.stream, count=1, after=finished.sequence - 1)
                grant = self._client.uploads(request).grants[0]
        else:
            message = "the bucket refuses the presigned places; check the clock and the S3 credentials of the server"
            raise TransientError(message)
        self._metrics.bytes_uploaded += len(finished.body)
        self._metrics.objects += 1
        return wire.UploadedObject(
            key=grant.key,
            sequence=finished.sequence,
            records=finished.records,
            bytes=len(finished.body),
            sha256=finished.sha256,
        )

    def _commit(self, *, done: bool) -> None:
        self._roll()
        objects = [*self._done, *(upload.result() for upload in self._uploads)]
        self._uploads, self._done = [], []
        request = wire.CheckpointRequest(
            stream=self._envelope.stream,
            checkpoint=self._checkpoint + 1,
            cursor=self._cursor,
            objects=objects,
            done=done,
            schema_version=self._envelope.schema_version,
        )
        self._checkpoint = self._client.checkpoint(request).checkpoint
        self._since_records, self._since_time = 0, self._clock()
        self._metrics.checkpoints += 1
        committed = self._metrics.committed
        committed[self._envelope.stream] = committed.get(self._envelope.stream, 0) + sum(
            each.records for each in objects
        )


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
