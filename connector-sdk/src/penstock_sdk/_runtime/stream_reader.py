"""The read of one stream: batches from the connector, through a pipeline, to the stream's commits."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

from penstock_sdk import protocol as wire
from penstock_sdk._contract_checks import checked_batches
from penstock_sdk._runtime.assignment import AnyConnector
from penstock_sdk._runtime.client import RunClient
from penstock_sdk._runtime.commits import MergeCursor, StreamCommits, unpartitioned
from penstock_sdk._runtime.encode import Envelope
from penstock_sdk._runtime.field_removal import FieldRemover
from penstock_sdk._runtime.gc_tuning import YoungGenerationCollector
from penstock_sdk._runtime.masking import Mask
from penstock_sdk._runtime.metrics import Metrics
from penstock_sdk._runtime.pipeline import StreamPipeline, timestamp_now
from penstock_sdk._runtime.rejects import RecordValidator, RejectCounts
from penstock_sdk.contract import Cursor, Records, Stream, first_rows
from penstock_sdk.errors import AttemptEnded, AttemptRefused
from penstock_sdk.pii import suggest_fields

log = logging.getLogger("penstock")
SAMPLES = 30


@dataclass(frozen=True)
class BatchChecks:
    """The checks between two batches: whether the attempt has to end, and whether the connector wrote a file."""

    check: Callable[[], None]
    check_writes: Callable[[], None]


@dataclass(frozen=True)
class ReadTask:
    """A stream to read, with the platform's verdict and limits."""

    stream: Stream
    verdict: wire.StreamVerdict
    start: wire.StartResponse
    envelope: Envelope

    @property
    def cursor(self) -> Cursor | None:
        """The committed cursor of the stream."""
        return self.verdict.selected.cursor


class StreamReader:
    """Reads a stream, or one of its partitions. Partitions can be read in parallel, each by its own connector."""

    def __init__(
        self, client: RunClient, metrics: Metrics, task: ReadTask, batch_checks: BatchChecks, mask: Mask | None = None
    ) -> None:
        self.task = task
        self.batch_checks = batch_checks
        self.metrics = metrics
        self._mask = mask
        self.shared = StreamCommits(client, task.envelope.stream, task.verdict.selected.checkpoint, metrics, mask)

    def read_unpartitioned(self, connector: AnyConnector) -> None:
        """Read the stream as a whole."""
        task = self.task
        log.info("reading %s (%s)", task.stream.name, task.verdict.selected.mode)
        pipeline = self.pipeline(task.cursor, unpartitioned, task.start.limits, RejectCounts())
        self.read_batches(connector, task.stream, task.cursor, pipeline, self.batch_checks)

    def pipeline(
        self, cursor: Cursor | None, merge_cursor: MergeCursor, limits: wire.Limits, counts: RejectCounts
    ) -> StreamPipeline:
        """Return the pipeline for the batches of one read."""
        task = self.task
        field_remover = FieldRemover(task.verdict.drop, task.stream.name) if task.verdict.drop else None
        rules = task.start.rejects
        validator = (
            RecordValidator(task.envelope, task.stream, rules, timestamp_now, counts, self._mask) if rules else None
        )
        return StreamPipeline(
            self.shared, task.envelope, cursor, limits, merge_cursor, field_remover=field_remover, validator=validator
        )

    def read_batches(
        self,
        connector: AnyConnector,
        stream: Stream,
        cursor: Cursor | None,
        pipeline: StreamPipeline,
        batch_checks: BatchChecks,
    ) -> None:
        """Let the connector read from the cursor to the end. On any error, everything that a cursor covers is committed.

        Raises the error of the read. If that commit fails too, this is only logged, unless another attempt has replaced
        this one.
        """
        connector.sink = pipeline
        try:
            self._batches(connector, stream, cursor, batch_checks)
            batch_checks.check_writes()
            pipeline.finish()
        except AttemptRefused:
            raise
        except AttemptEnded:
            pipeline.interrupt()
            raise
        except BaseException:
            _keep_progress(pipeline, stream.name)
            raise
        finally:
            pipeline.close()

    def _batches(
        self, connector: AnyConnector, stream: Stream, cursor: Cursor | None, batch_checks: BatchChecks
    ) -> None:
        collector = YoungGenerationCollector()
        for batch in checked_batches(connector.read(stream, self.task.start.since, cursor), stream.name):
            batch_checks.check_writes()
            connector.emit(batch.records, batch.op)
            self._suggest(batch.records)
            collector.batch_ended()
            if batch.cursor is not None:
                connector.checkpoint(batch.cursor)
            batch_checks.check()

    def _suggest(self, records: Records) -> None:
        """Search the first records of a stream, once, for fields whose values look like personal data."""
        stream, suggested = self.task.stream, self.metrics.suggested
        if stream.identity in suggested:
            return
        rows = first_rows(records, SAMPLES)
        if rows:
            suggested[stream.identity] = dict(suggest_fields(stream.schema, rows))


def _keep_progress(pipeline: StreamPipeline, stream: str) -> None:
    try:
        pipeline.interrupt()
    except AttemptRefused:
        raise
    except Exception as error:  # noqa: BLE001 - the error of the read is raised instead
        log.warning("%s: the records before the error could not be committed (%s)", stream, type(error).__name__)
