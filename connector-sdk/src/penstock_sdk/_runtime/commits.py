"""The commits of one stream, one at a time, with consecutive numbers, for all readers of the stream.

The readers also share the numbers of objects, so that each key belongs to one object. After a failed commit no other
commit is tried: it is unknown whether the failed one took effect, and the server could take a later commit with the same
number for a repetition of it.
"""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from pydantic import ValidationError

from penstock_sdk import protocol as wire
from penstock_sdk._runtime.client import RunClient
from penstock_sdk._runtime.discovery import limit_message
from penstock_sdk._runtime.masking import Mask
from penstock_sdk._runtime.metrics import Metrics
from penstock_sdk._runtime.partition_plan import PartitionPlan
from penstock_sdk._runtime.upload_grants import UploadGrants
from penstock_sdk.contract import Cursor, Op
from penstock_sdk.errors import DefectError, SourceContractError

MergeCursor = Callable[[Cursor, bool], tuple[Cursor, bool]]
"""Converts a reader's cursor, and whether its partition is at its end, to those of the stream. Called for one commit at a
time."""


class SequenceNumbers:
    """Consecutive numbers from 1. Thread-safe."""

    def __init__(self) -> None:
        self._last = 0
        self._lock = threading.Lock()

    def next(self) -> int:
        """Return the next number."""
        with self._lock:
            self._last += 1
            return self._last


class StreamCommits:
    """The state that the readers of one stream share. Thread-safe."""

    def __init__(
        self, client: RunClient, stream: str, checkpoint: int, metrics: Metrics, mask: Mask | None = None
    ) -> None:
        self._mask = mask
        self.metrics = metrics
        self.object_numbers, self.rejected_object_numbers = SequenceNumbers(), SequenceNumbers()
        self.id_series = (
            SequenceNumbers()
        )  # part of the records' ids; an object begins a series, which may end in the next object
        self.grants, self.rejected_grants = UploadGrants(client, stream), UploadGrants(client, stream, "rejected")
        self._client = client
        self._stream = stream
        self._checkpoint = checkpoint
        self._failure: Exception | None = None
        self._lock = threading.Lock()

    def commit(
        self,
        merge_cursor: MergeCursor,
        cursor: Cursor,
        objects: Sequence[wire.UploadedObject],
        schema_version: int,
        read: Mapping[Op, int],
        *,
        done: bool,
    ) -> None:
        """Commit uploaded objects with the cursor that covers them. `read` must equal their records, by operation."""
        with self._lock:
            if self._failure:
                raise self._failure
            try:
                self._check(objects, read)
                self._send(*merge_cursor(cursor, done), objects, schema_version, read)
            except Exception as error:
                self._failure = error
                raise
        rejected = sum(uploaded.records for uploaded in objects if uploaded.kind == "rejected")
        self.metrics.add_checkpoint(self._stream, sum(uploaded.records for uploaded in objects) - rejected, rejected)

    def _check(self, objects: Sequence[wire.UploadedObject], read: Mapping[Op, int]) -> None:
        counted = Counter[Op]()
        for uploaded in objects:
            counted.update(uploaded.by_op or {})
        if +counted != +Counter(read):
            raise not_conserved(self._stream, read, objects)

    def _send(
        self,
        cursor: Cursor,
        done: bool,  # noqa: FBT001 - as Cover gives it
        objects: Sequence[wire.UploadedObject],
        schema_version: int,
        read: Mapping[Op, int],
    ) -> None:
        if self._mask is not None:
            check_no_secret(self._mask, self._stream, cursor)
        self._checkpoint += 1
        try:
            request = wire.CheckpointRequest(
                stream=self._stream,
                checkpoint=self._checkpoint,
                cursor=cursor,
                objects=list(objects),
                done=done,
                schema_version=schema_version,
                read=dict(read),
            )
        except ValidationError as error:
            raise SourceContractError(f"stream {self._stream!r}: {limit_message(error)}") from None
        self._client.checkpoint(request)


def check_no_secret(mask: Mask, stream: str, cursor: Cursor) -> None:
    """Raise DefectError if the cursor holds a credential in a form that the mask knows: the registry would keep and show it."""
    if mask.is_in(json.dumps(cursor, ensure_ascii=False, default=str).encode(errors="surrogatepass")):
        raise DefectError(
            f"the cursor of stream {stream!r} holds a credential of the connection; nothing of it is committed."
            " Put what identifies the place in the stream into the cursor, such as a page's number, and not a whole URL"
        )


def not_conserved(stream: str, read: Mapping[Op, int], objects: Sequence[wire.UploadedObject]) -> DefectError:
    """Return the error of a commit whose objects do not hold the records that were read."""
    counts = {kind: Counter[Op]() for kind in ("data", "rejected")}
    for uploaded in objects:
        counts[uploaded.kind].update(uploaded.by_op or {})
    return DefectError(
        f"stream {stream!r}: {_counts_text(read)} were read, {_counts_text(counts['data'])} would be committed and"
        f" {_counts_text(counts['rejected'])} were rejected; none of them is committed."
        " This is a defect of the SDK: please report it with the connector's version"
    )


def _counts_text(by_op: Mapping[Op, int]) -> str:
    return f"{by_op.get('upsert', 0)} upserts and {by_op.get('delete', 0)} deletes"


def unpartitioned(cursor: Cursor, done: bool) -> tuple[Cursor, bool]:  # noqa: FBT001 - a Cover
    """Return the arguments: in a stream that is read as a whole, the reader's cursor is the stream's."""
    return cursor, done


class PartitionedCursor:
    """The committed cursor of a stream that is read in partitions."""

    def __init__(self, plan: PartitionPlan) -> None:
        self._plan = plan

    def merging(self, partition: str) -> MergeCursor:
        """Return the function that puts the cursor of one partition into the stream's cursor."""

        def merge_cursor(cursor: Cursor, done: bool) -> tuple[Cursor, bool]:  # noqa: FBT001 - a Cover
            self._plan = self._plan.advanced(partition, cursor, done=done)
            return self._plan.as_cursor(), not self._plan.unfinished

        return merge_cursor

    def unchanged(self, _cursor: Cursor, _done: bool) -> tuple[Cursor, bool]:  # noqa: FBT001 - a Cover
        """Return the stream's cursor without a change."""
        return self._plan.as_cursor(), not self._plan.unfinished
