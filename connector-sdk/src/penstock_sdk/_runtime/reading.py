"""One stream's read: batches from the connector, through a pipeline, to the stream's commits."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

from penstock_sdk import protocol as wire
from penstock_sdk._runtime.assignment import AnyConnector
from penstock_sdk._runtime.client import RunClient
from penstock_sdk._runtime.commits import Cover, StreamCommits, whole
from penstock_sdk._runtime.dropping import Dropper
from penstock_sdk._runtime.encode import Envelope
from penstock_sdk._runtime.garbage import YoungGarbage
from penstock_sdk._runtime.metrics import Metrics
from penstock_sdk._runtime.pipeline import StreamPipeline, now
from penstock_sdk._runtime.rejects import Fitter, Tally
from penstock_sdk.contract import Cursor, Records, Stream, first_rows
from penstock_sdk.contract_checks import checked_batches
from penstock_sdk.errors import AttemptEnded, AttemptShutOut
from penstock_sdk.pii import suggest_fields

log = logging.getLogger("penstock")
SAMPLES = 30


@dataclass(frozen=True)
class Border:
    """What is looked at between two batches: whether the attempt is to end, and whether the connector wrote a file."""

    check: Callable[[], None]
    check_writes: Callable[[], None]


@dataclass(frozen=True)
class Task:
    """A stream to read, and what the platform says of it."""

    stream: Stream
    verdict: wire.StreamVerdict
    start: wire.StartResponse
    envelope: Envelope

    @property
    def cursor(self) -> Cursor | None:
        """Where the stream stands."""
        return self.verdict.selected.cursor


class StreamReader:
    """Reads a stream, or a part of it at a time; parts may be read side by side, each by a connector of its own."""

    def __init__(self, client: RunClient, metrics: Metrics, task: Task, border: Border) -> None:
        self.task = task
        self.border = border
        self.metrics = metrics
        self.shared = StreamCommits(client, task.envelope.stream, task.verdict.selected.checkpoint, metrics)

    def read_whole(self, connector: AnyConnector) -> None:
        """Read the stream in one."""
        task = self.task
        log.info("reading %s (%s)", task.stream.name, task.verdict.selected.mode)
        pipeline = self.pipeline(task.cursor, whole, task.start.limits, Tally())
        self.pump(connector, task.stream, task.cursor, pipeline, self.border)

    def pipeline(self, cursor: Cursor | None, cover: Cover, limits: wire.Limits, tally: Tally) -> StreamPipeline:
        """Return the way of one read's batches."""
        task = self.task
        dropper = Dropper(task.verdict.drop, task.stream.name) if task.verdict.drop else None
        rules = task.start.rejects
        fitter = Fitter(task.envelope, task.stream, rules, now, tally) if rules else None
        return StreamPipeline(self.shared, task.envelope, cursor, limits, cover, dropper=dropper, fitter=fitter)

    def pump(
        self,
        connector: AnyConnector,
        stream: Stream,
        cursor: Cursor | None,
        pipeline: StreamPipeline,
        border: Border,
    ) -> None:
        """Have the connector read from the cursor to the end; whatever ends it before leaves committed what a cursor covers.

        What went wrong is raised; that the rest could not be committed either is only logged, unless another attempt
        has taken over.
        """
        connector.sink = pipeline
        try:
            self._batches(connector, stream, cursor, border)
            border.check_writes()
            pipeline.finish()
        except AttemptShutOut:
            raise
        except AttemptEnded:
            pipeline.interrupt()
            raise
        except BaseException:
            _keep_progress(pipeline, stream.name)
            raise
        finally:
            pipeline.close()

    def _batches(self, connector: AnyConnector, stream: Stream, cursor: Cursor | None, border: Border) -> None:
        garbage = YoungGarbage()
        for batch in checked_batches(connector.read(stream, self.task.start.since, cursor), stream.name):
            border.check_writes()
            connector.emit(batch.records, batch.op)
            self._suggest(batch.records)
            garbage.batch_ended()
            if batch.cursor is not None:
                connector.checkpoint(batch.cursor)
            border.check()

    def _suggest(self, records: Records) -> None:
        """Look once, at a stream's first records, for fields whose values look like personal data."""
        stream, suggested = self.task.stream, self.metrics.suggested
        if stream.identity in suggested:
            return
        rows = first_rows(records, SAMPLES)
        if rows:
            suggested[stream.identity] = dict(suggest_fields(stream.schema, rows))


def _keep_progress(pipeline: StreamPipeline, stream: str) -> None:
    try:
        pipeline.interrupt()
    except AttemptShutOut:
        raise
    except Exception as error:  # noqa: BLE001 - what ended the read is raised instead
        log.warning("%s: what was read before the error could not be committed (%s)", stream, type(error).__name__)
