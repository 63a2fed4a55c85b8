"""A stream that is read in parts, several at a time.

The attempt's own thread is one worker, with the connector that there is already; each further one has a thread and a
connector of its own. Workers share a queue of parts and the stream's commits, and nothing else. Whatever ends one has the
others stop at their batch border; what they have promised is committed.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Sequence

import msgspec

from penstock_sdk import protocol as wire
from penstock_sdk._runtime.assignment import AnyConnector
from penstock_sdk._runtime.commits import SplitCursor
from penstock_sdk._runtime.connectors import Connectors
from penstock_sdk._runtime.ranges import Range, Ranges, is_split, planned, ranges_of
from penstock_sdk._runtime.reading import Border, StreamReader, Task
from penstock_sdk._runtime.rejects import Tally
from penstock_sdk.contract import Partition
from penstock_sdk.errors import AttemptEnded, AttemptShutOut, SourceContractError, TransientError

log = logging.getLogger("penstock")
SMALLEST_OBJECT = 4 << 20


class _Halted(AttemptEnded):
    """Another worker has ended the read; this one stops at its batch border."""


def plan_of(connector: AnyConnector, task: Task, run: str) -> Ranges | None:
    """Return the parts to read, or None for a read in one.

    Within a run the plan stays as it was first committed; between runs the connector is asked again.
    """
    stream, cursor, since = task.stream, task.cursor, task.start.since
    if not is_split(cursor):
        if not stream.partitioned or task.start.limits.parallelism == 1:
            return None
        found = connector.partitions(stream, since, cursor, ())
        return planned(run, found, None, stream.name) if found else None
    known = ranges_of(cursor, stream.name)
    if not stream.partitioned:
        raise _cannot_go_on(task, known, "the connector does not split it any more")
    if known.run == run:
        return known
    found = connector.partitions(stream, since, None, known.partitions)
    if not found:
        raise _cannot_go_on(task, known, "the connector returns no parts any more")
    _say_what_changed(task, known, found)
    return planned(run, found, known, stream.name)


def _cannot_go_on(task: Task, known: Ranges, why: str) -> SourceContractError:
    return SourceContractError(
        f"stream {task.stream.name!r}: its state is of {len(known.parts)} parts, and {why};"
        " reset the state, or use the connector version that wrote it"
    )


def _say_what_changed(task: Task, known: Ranges, found: Sequence[Partition]) -> None:
    before, now = {each.id for each in known.parts}, {each.id for each in found}
    if before != now:
        log.info("%s: %d parts are new, %d are gone", task.stream.name, len(now - before), len(before - now))


class SplitRead:
    """The read of one stream's parts."""

    def __init__(self, reader: StreamReader, ranges: Ranges, connectors: Connectors) -> None:
        self._reader = reader
        self._connectors = connectors
        self._cursor = SplitCursor(ranges)
        self._left = deque(ranges.open)
        self._workers = max(1, min(reader.task.start.limits.parallelism, len(self._left)))
        self._limits = _shared_out(reader.task.start.limits, self._workers)
        self._tally = Tally(len(self._left))
        self._border = Border(self._check, reader.border.check_writes)
        self._failures = list[BaseException]()
        self._planned = len(ranges.parts)

    def run(self, connector: AnyConnector) -> None:
        """Read what is left; raises what ended it before its end."""
        task = self._reader.task
        shown = (task.stream.name, task.verdict.selected.mode, len(self._left), self._planned, self._workers)
        log.info("reading %s (%s): %d of %d parts, %d at a time", *shown)
        self._reader.metrics.planned(len(self._left))
        if not self._left:
            self._mark_done()
            return
        helpers = [
            threading.Thread(target=self._help, name=f"worker-{n}", daemon=True) for n in range(2, self._workers + 1)
        ]
        for helper in helpers:
            helper.start()
        self._work(connector)
        for helper in helpers:
            helper.join()
        if self._failures:
            raise next((each for each in self._failures if isinstance(each, AttemptShutOut)), self._failures[0])

    def _mark_done(self) -> None:
        """Commit the end of a stream whose parts were all read before its state was put back to that point."""
        task = self._reader.task
        self._reader.shared.commit(self._cursor.unchanged, None, (), task.envelope.schema_version, {}, done=True)

    def _help(self) -> None:
        """Work with a connector of one's own. A source that lets no further session in is read by those that are in."""
        try:
            with self._connectors.another() as connector:
                self._work(connector)
        except TransientError as error:
            log.warning("a further worker is done without: %s", error.message)
        except BaseException as error:  # noqa: BLE001 - raised again by the thread that waits
            self._failures.append(error)

    def _work(self, connector: AnyConnector) -> None:
        try:
            while not self._failures and (part := self._next()):
                self._read(connector, part)
        except _Halted:
            return
        except BaseException as error:  # noqa: BLE001 - raised again when all have stopped
            self._failures.append(error)

    def _next(self) -> Range | None:
        try:
            return self._left.popleft()
        except IndexError:
            return None

    def _read(self, connector: AnyConnector, part: Range) -> None:
        reader = self._reader
        stream = msgspec.structs.replace(reader.task.stream, partition=part.partition)
        pipeline = reader.pipeline(part.cursor, self._cursor.covering(part.id), self._limits, self._tally)
        reader.pump(connector, stream, part.cursor, pipeline, self._border)
        reader.metrics.part_done()

    def _check(self) -> None:
        self._reader.border.check()
        if self._failures:
            raise _Halted


def _shared_out(limits: wire.Limits, workers: int) -> wire.Limits:
    """Let the workers' objects together take the memory that one reader's would."""
    size = max(limits.object_bytes // workers, min(limits.object_bytes, SMALLEST_OBJECT))
    return limits.model_copy(update={"object_bytes": size})
