"""What happens to objects while reading goes on: they are compressed, uploaded, and committed with the state they cover.

One thread compresses, two upload and one commits, each in the order in which it was asked: a commit overtakes neither
the one before it nor the upload of an object that it names, so whatever crash comes in between leaves a prefix of what
is read committed. A stream that is read in parts has a delivery for each, and one order of commits. The reader is held up when too much is on its way, which bounds memory whatever the bucket's speed.
After a failure no later commit is tried, and the reader hears of it at its next call.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from penstock_sdk import protocol as wire
from penstock_sdk._runtime.commits import MergeCursor, StreamCommits
from penstock_sdk._runtime.encode import FinishedObject, ObjectCompressor
from penstock_sdk._runtime.upload_grants import UploadGrants
from penstock_sdk.contract import Cursor, Op

T = TypeVar("T")
SLICE_BYTES = 2 << 20
SLICES_AHEAD = 2
UPLOADS = 2
OBJECTS_AHEAD = 4
COMMITS_AHEAD = 4


class OpenObject:
    """An object that lines are added to, and the slices of it that the compressing thread has yet to take."""

    def __init__(self) -> None:
        self.compressor = ObjectCompressor()
        self.lines: list[bytes] = []
        self.waiting = 0
        self.slices: deque[tuple[Future[None], int]] = deque()

    def settle(self, ahead: int = 0) -> None:
        """Wait until so few slices are ahead of the compressing thread."""
        while len(self.slices) > ahead:
            self.slices.popleft()[0].result()

    def at_most(self) -> int:
        """Return a size that the object has not exceeded, were nothing of what waits compressible."""
        return self.compressor.size + self.waiting + sum(size for _, size in self.slices)


class ObjectWriter:
    """The way of one reader's objects and promises."""

    def __init__(self, shared: StreamCommits, merge_cursor: MergeCursor, object_bytes: int) -> None:
        self._shared = shared
        self._merge_cursor = merge_cursor
        self._object_bytes = object_bytes
        self._open = OpenObject()
        self._rejected: OpenObject | None = None
        self._rejected_by_op = Counter[Op]()
        self._uploads: deque[tuple[Future[wire.UploadedObject], int]] = deque()
        self._uncommitted: list[Future[wire.UploadedObject]] = []
        self._commits: deque[Future[None]] = deque()
        self._failure: Exception | None = None
        self._compressing = ThreadPoolExecutor(1, "compress")
        self._uploading = ThreadPoolExecutor(UPLOADS, "upload")
        self._committing = ThreadPoolExecutor(1, "commit")

    def write(self, lines: bytes) -> None:
        """Add lines to the open object."""
        self._open.lines.append(lines)
        self._open.waiting += len(lines)
        if self._open.waiting >= SLICE_BYTES:
            self._hand_over(self._open)
            self._open.settle(SLICES_AHEAD)

    def reject(self, line: bytes, op: Op) -> None:
        """Add a line to the open object of records that do not fit."""
        held = self._rejected = self._rejected or OpenObject()
        held.lines.append(line)
        held.waiting += len(line)
        self._rejected_by_op[op] += 1
        if held.waiting >= SLICE_BYTES:
            self._hand_over(held)
            held.settle(SLICES_AHEAD)
        if held.at_most() >= self._object_bytes:
            self._upload_rejected()

    def _upload_rejected(self) -> None:
        if self._rejected is None:
            return
        number = self._shared.rejected_object_numbers.next()
        self._send(self._rejected, number, self._rejected_by_op, self._shared.rejected_grants)
        self._rejected, self._rejected_by_op = None, Counter()

    def full(self) -> bool:
        """Say whether the open object has reached its size; waits for the compressor only when that may be."""
        if self._open.at_most() < self._object_bytes:
            return False
        self._hand_over(self._open)
        self._open.settle()
        return self._open.compressor.size >= self._object_bytes

    def _hand_over(self, held: OpenObject) -> None:
        lines, size = held.lines, held.waiting
        held.lines, held.waiting = [], 0
        if lines:
            compressed = self._submit(self._compressing, lambda: held.compressor.write(b"".join(lines)))
            held.slices.append((compressed, size))

    def upload(self, sequence: int, by_op: Mapping[Op, int]) -> None:
        """Close the open object, which holds so many records, and send it on its way."""
        closed, self._open = self._open, OpenObject()
        self._send(closed, sequence, by_op, self._shared.grants)

    def _send(self, closed: OpenObject, sequence: int, by_op: Mapping[Op, int], grants: UploadGrants) -> None:
        self._hand_over(closed)
        size = closed.at_most()
        self._make_room(size)
        finished = self._submit(self._compressing, lambda: closed.compressor.finish(sequence, by_op))
        uploaded = self._submit(self._uploading, lambda: self._upload(finished, grants))
        self._uploads.append((uploaded, size))
        self._uncommitted.append(uploaded)

    def _make_room(self, size: int) -> None:
        """Hold the reader up while too many objects, or more than one object's bytes, wait to be uploaded."""
        while self._uploads and (
            len(self._uploads) >= OBJECTS_AHEAD
            or size + sum(waiting for _, waiting in self._uploads) > self._object_bytes
        ):
            self._uploads.popleft()[0].result()

    def _upload(self, finished: Future[FinishedObject], grants: UploadGrants) -> wire.UploadedObject:
        self._raise_failure()
        uploaded = grants.upload(finished.result())
        self._shared.metrics.add_object(uploaded.bytes)
        return uploaded

    def commit(self, cursor: Cursor, schema_version: int, read: Mapping[Op, int], *, done: bool) -> None:
        """Have everything uploaded so far committed with the cursor that covers it; `done` marks the end.

        `read` counts the records that were read since the commit before.
        """
        self._upload_rejected()
        uploads, self._uncommitted = self._uncommitted, []
        before = self._commits[-1] if self._commits else None

        def step() -> None:
            if before:
                before.result()
            objects = [upload.result() for upload in uploads]
            self._shared.commit(self._merge_cursor, cursor, objects, schema_version, read, done=done)

        self._commits.append(self._submit(self._committing, step))
        while len(self._commits) > COMMITS_AHEAD:
            self._commits.popleft().result()

    def _submit(self, stage: ThreadPoolExecutor, step: Callable[[], T]) -> Future[T]:
        def work() -> T:
            try:
                return step()
            except Exception as error:
                self._failure = self._failure or error
                raise

        self._raise_failure()
        return stage.submit(work)

    def _raise_failure(self) -> None:
        if self._failure:
            raise self._failure

    def settle(self) -> None:
        """Wait until everything that was asked for is committed; raises what went wrong."""
        while self._commits:
            self._commits.popleft().result()
        self._raise_failure()

    def close(self) -> None:
        """Let the commits under way end, drop what no commit names, and end the threads; what failed was raised."""
        for upload in self._uncommitted:
            upload.cancel()
        for stage in (self._compressing, self._uploading, self._committing):
            stage.shutdown(wait=True)
