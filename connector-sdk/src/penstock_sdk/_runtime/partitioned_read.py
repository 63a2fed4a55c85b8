"""The read of a stream in partitions, several at a time.

The attempt's own thread is one worker and uses the connector that exists already. Every other worker has its own thread
and its own connector. Workers share a queue of partitions and the stream's commits, and nothing else. If a worker fails,
the others stop after their current batch, and everything that a cursor covers is committed.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Sequence

import msgspec

from penstock_sdk import protocol as wire
from penstock_sdk._runtime.assignment import AnyConnector
from penstock_sdk._runtime.commits import PartitionedCursor
from penstock_sdk._runtime.connector_factory import ConnectorFactory
from penstock_sdk._runtime.partition_plan import (
    PartitionPlan,
    PartitionProgress,
    is_partitioned,
    new_plan,
    plan_from_cursor,
)
from penstock_sdk._runtime.rejects import RejectCounts
from penstock_sdk._runtime.stream_reader import BatchChecks, ReadTask, StreamReader
from penstock_sdk.contract import Partition
from penstock_sdk.errors import AttemptEnded, AttemptRefused, SourceContractError, TransientError

log = logging.getLogger("penstock")
SMALLEST_OBJECT = 4 << 20


class _Halted(AttemptEnded):
    """Another worker has failed; this one stops after its batch."""


def plan_read(connector: AnyConnector, task: ReadTask, run: str) -> PartitionPlan | None:
    """Return the plan of the partitions to read, or None to read the stream as a whole.

    Within a run the plan stays as it was first committed. A new run asks the connector again.
    """
    stream, cursor, since = task.stream, task.cursor, task.start.since
    if not is_partitioned(cursor):
        if not stream.partitioned or task.start.limits.parallelism == 1:
            return None
        found = connector.partitions(stream, since, cursor, ())
        return new_plan(run, found, None, stream.name) if found else None
    known = plan_from_cursor(cursor, stream.name)
    if not stream.partitioned:
        raise _unreadable_state(task, known, "the connector does not divide the stream any more")
    if known.run == run:
        return known
    found = connector.partitions(stream, since, None, known.partitions)
    if not found:
        raise _unreadable_state(task, known, "the connector returns no partitions any more")
    _log_plan_change(task, known, found)
    return new_plan(run, found, known, stream.name)


def _unreadable_state(task: ReadTask, known: PartitionPlan, why: str) -> SourceContractError:
    return SourceContractError(
        f"stream {task.stream.name!r}: its state holds {len(known.progress)} partitions, and {why};"
        " reset the state, or use the connector version that wrote it"
    )


def _log_plan_change(task: ReadTask, known: PartitionPlan, found: Sequence[Partition]) -> None:
    before, now = {partition.id for partition in known.progress}, {partition.id for partition in found}
    if before != now:
        log.info(
            "%s: %d partitions are new, %d no longer exist", task.stream.name, len(now - before), len(before - now)
        )


class PartitionedRead:
    """The read of one stream's partitions."""

    def __init__(self, reader: StreamReader, plan: PartitionPlan, factory: ConnectorFactory) -> None:
        self._reader = reader
        self._factory = factory
        self._cursor = PartitionedCursor(plan)
        self._remaining = deque(plan.unfinished)
        self._workers = max(1, min(reader.task.start.limits.parallelism, len(self._remaining)))
        self._limits = _worker_limits(reader.task.start.limits, self._workers)
        self._reject_counts = RejectCounts(len(self._remaining))
        self._batch_checks = BatchChecks(self._check, reader.batch_checks.check_writes)
        self._failures = list[BaseException]()
        self._planned_count = len(plan.progress)

    def run(self, connector: AnyConnector) -> None:
        """Read the remaining partitions. Raises the error of the worker that failed."""
        task = self._reader.task
        shown = (task.stream.name, task.verdict.selected.mode, len(self._remaining), self._planned_count, self._workers)
        log.info("reading %s (%s): %d of %d partitions, %d at a time", *shown)
        self._reader.metrics.add_planned_partitions(len(self._remaining))
        if not self._remaining:
            self._commit_end()
            return
        workers = [
            threading.Thread(target=self._run_worker, name=f"worker-{n}", daemon=True)
            for n in range(2, self._workers + 1)
        ]
        for worker in workers:
            worker.start()
        self._work(connector)
        for worker in workers:
            worker.join()
        if self._failures:
            raise next(
                (failure for failure in self._failures if isinstance(failure, AttemptRefused)), self._failures[0]
            )

    def _commit_end(self) -> None:
        """Commit the end of a stream whose partitions are all read: its state was rewound to that checkpoint."""
        task = self._reader.task
        self._reader.shared.commit(self._cursor.unchanged, None, (), task.envelope.schema_version, {}, done=True)

    def _run_worker(self) -> None:
        """Work with an own connector. If the source refuses another session, the other workers read on without this one."""
        try:
            with self._factory.authenticated() as connector:
                self._work(connector)
        except TransientError as error:
            log.warning("reading with one worker less: %s", error.message)
        except BaseException as error:  # noqa: BLE001 - the attempt's thread raises it again
            self._failures.append(error)

    def _work(self, connector: AnyConnector) -> None:
        try:
            while not self._failures and (partition := self._next()):
                self._read(connector, partition)
        except _Halted:
            return
        except BaseException as error:  # noqa: BLE001 - raised again when all workers have stopped
            self._failures.append(error)

    def _next(self) -> PartitionProgress | None:
        try:
            return self._remaining.popleft()
        except IndexError:
            return None

    def _read(self, connector: AnyConnector, partition: PartitionProgress) -> None:
        reader = self._reader
        stream = msgspec.structs.replace(reader.task.stream, partition=partition.partition)
        pipeline = reader.pipeline(
            partition.cursor, self._cursor.merging(partition.id), self._limits, self._reject_counts
        )
        reader.read_batches(connector, stream, partition.cursor, pipeline, self._batch_checks)
        reader.metrics.add_finished_partition()

    def _check(self) -> None:
        self._reader.batch_checks.check()
        if self._failures:
            raise _Halted


def _worker_limits(limits: wire.Limits, workers: int) -> wire.Limits:
    """Return smaller objects, so that all workers together need the memory of one reader."""
    size = max(limits.object_bytes // workers, min(limits.object_bytes, SMALLEST_OBJECT))
    return limits.model_copy(update={"object_bytes": size})
