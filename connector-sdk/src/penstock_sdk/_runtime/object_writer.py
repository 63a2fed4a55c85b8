"""Objects beside the read: they are compressed, uploaded, and committed with the cursor that covers them.

One thread compresses, two upload and one commits, each in the order of the requests. A commit never overtakes the commit
before it, nor the upload of an object that it names, so after a crash the committed records are a prefix of the records
that were read. A stream that is read in partitions has one writer for each partition, and one order of commits. The
reader waits when too much is in progress, which limits memory whatever the speed of the bucket. After a failure no later
commit is tried, and the reader gets the error at its next call.
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
    """An object to which lines are added, and the slices that the compressing thread has not taken yet."""

    def __init__(self) -> None:
        self.compressor = ObjectCompressor()
        self.lines: list[bytes] = []
        self.waiting = 0
        self.slices: deque[tuple[Future[None], int]] = deque()

    def settle(self, ahead: int = 0) -> None:
        """Wait until at most `ahead` slices wait for the compressing thread."""
        while len(self.slices) > ahead:
            self.slices.popleft()[0].result()

    def at_most(self) -> int:
        """Return an upper limit of the object's size: the waiting lines count as if they could not be compressed."""
        return self.compressor.size + self.waiting + sum(size for _, size in self.slices)


class ObjectWriter:
    """Writes the objects of one reader, and commits them with their cursors."""

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
        """Add a line to the open object of rejected records."""
        opened = self._rejected = self._rejected or OpenObject()
        opened.lines.append(line)
        opened.waiting += len(line)
        self._rejected_by_op[op] += 1
        if opened.waiting >= SLICE_BYTES:
            self._hand_over(opened)
            opened.settle(SLICES_AHEAD)
        if opened.at_most() >= self._object_bytes:
            self._upload_rejected()

    def _upload_rejected(self) -> None:
        if self._rejected is None:
            return
        number = self._shared.rejected_object_numbers.next()
        self._send(self._rejected, number, self._rejected_by_op, self._shared.rejected_grants)
        self._rejected, self._rejected_by_op = None, Counter()

    def full(self) -> bool:
        """Return True if the open object has reached its size. Waits for the compressor only if that is possible."""
        if self._open.at_most() < self._object_bytes:
            return False
        self._hand_over(self._open)
        self._open.settle()
        return self._open.compressor.size >= self._object_bytes

    def _hand_over(self, opened: OpenObject) -> None:
        lines, size = opened.lines, opened.waiting
        opened.lines, opened.waiting = [], 0
        if lines:
            compressed = self._submit(self._compressing, lambda: opened.compressor.write(b"".join(lines)))
            opened.slices.append((compressed, size))

    def upload(self, sequence: int, by_op: Mapping[Op, int]) -> None:
        """Close the open object, whose records `by_op` counts, and upload it."""
        closed, self._open = self._open, OpenObject()
        self._send(closed, sequence, by_op, self._shared.grants)

    def _send(self, closed: OpenObject, sequence: int, by_op: Mapping[Op, int], grants: UploadGrants) -> None:
        self._hand_over(closed)
        size = closed.at_most()
        self._make_room(size)
        finished = self._submit(self._compressing, lambda: self._finish(closed, sequence, by_op, grants))
        uploaded = self._submit(self._uploading, lambda: self._upload(finished, grants))
        self._uploads.append((uploaded, size))
        self._uncommitted.append(uploaded)

    def _finish(
        self, closed: OpenObject, sequence: int, by_op: Mapping[Op, int], grants: UploadGrants
    ) -> FinishedObject:
        finished = closed.compressor.finish(sequence, by_op)
        grants.announce(finished)
        return finished

    def _make_room(self, size: int) -> None:
        """Wait while too many objects, or more bytes than one object has, wait to be uploaded."""
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
        """Commit everything uploaded so far with the cursor that covers it. `done`: the stream or partition is at its end.

        `read` counts the records that were read since the previous commit.
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
        """Wait until every requested commit has ended. Raises the first failure."""
        while self._commits:
            self._commits.popleft().result()
        self._raise_failure()

    def close(self) -> None:
        """Wait for the commits in progress, drop objects that no commit names, and end the threads."""
        for upload in self._uncommitted:
            upload.cancel()
        for stage in (self._compressing, self._uploading, self._committing):
            stage.shutdown(wait=True)
