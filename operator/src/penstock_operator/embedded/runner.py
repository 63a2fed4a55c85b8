"""`penstock up`: run each connection once and report the results, or run what is due until stopped."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, Protocol

import psycopg
from psycopg_pool import PoolTimeout

from penstock_operator.connections import connection_store
from penstock_operator.connections.connection_store import ConnectionRow
from penstock_operator.controller.cancellation import raise_if_cancelled
from penstock_operator.controller.reconcile import reconcile_connection, reconcile_definition
from penstock_operator.embedded import EmbeddedError
from penstock_operator.embedded.documents import FolderError
from penstock_operator.embedded.platform import Platform
from penstock_operator.resources.documents import Connection, Definition, ResourceKey
from penstock_operator.runs import bronze_objects, run_store, stream_outcomes
from penstock_operator.runs.run_store import RunDetail
from penstock_operator.runs.stream_outcomes import RunStream
from penstock_operator.scheduling import upstream_store
from penstock_operator.scheduling.due import request_run
from penstock_operator.scheduling.upstreams import find_cycle

REGISTRY_TRIES = 20


@dataclass(frozen=True)
class RunProgress:
    """The progress of a connection's run; `records` are committed."""

    connection: str
    phase: str
    attempt: int
    records: int
    message: str = ""


class ProgressReporter(Protocol):
    """Reports progress to a person."""

    def line(self, text: str) -> None:
        """Report a line about the platform."""

    def run(self, seen: RunProgress) -> None:
        """Report the progress of a run."""


@dataclass(frozen=True)
class RunResult:
    """The result of one connection's run; `error` has class and message, None if it succeeded.

    `note` is a message of a run that succeeded, such as about an empty stream or rejected records.
    """

    namespace: str
    name: str
    definition: str | None
    phase: str
    run_id: str | None
    attempt: int
    records: int
    bytes: int
    objects: list[str]
    error: dict[str, str] | None
    rejected: int = 0
    note: str = ""
    streams: tuple[RunStream, ...] = ()


async def run_once(platform: Platform, report: ProgressReporter) -> list[RunResult]:
    """Run every connection of the folder once, all at the same time; return the results in the order of the files."""
    for definition in await platform.resources.read_all(Definition):
        found = await reconcile_definition(platform.pool, definition)
        ready = found.conditions[0]
        if ready.status != "True":
            report.line(f"definition {definition.name}: {ready.message}")
        await platform.resources.write_status(definition, found)
    connections = await platform.resources.read_all(Connection)
    loops = asyncio.create_task(platform.orchestrator.run())
    try:
        return await _in_order(platform, connections, report)
    finally:
        loops.cancel()
        await asyncio.gather(loops, return_exceptions=True)
        await platform.orchestrator.outbox_dispatcher.drain()


async def _in_order(platform: Platform, connections: list[Connection], report: ProgressReporter) -> list[RunResult]:
    """Run the connections at the same time, but each after those that its `spec.after` names."""
    tasks = dict[ResourceKey, asyncio.Task[RunResult]]()

    async def after_others(connection: Connection) -> RunResult:
        neighbours = [other for other in connections if other.namespace == connection.namespace]
        upstreams = {str(other.name): [upstream.name for upstream in other.spec.after] for other in neighbours}
        if not find_cycle(connection.name, upstreams):
            named = [name for name in upstreams[connection.name] if name in upstreams]
            await asyncio.gather(*(tasks[Connection.KIND, connection.namespace, name] for name in named))
        return await _once(platform, connection, report)

    for connection in connections:
        tasks[connection.key] = asyncio.create_task(after_others(connection))
    return list(await asyncio.gather(*tasks.values()))


async def _once(platform: Platform, connection: Connection, report: ProgressReporter) -> RunResult:
    namespace, name = connection.namespace, connection.name
    status = await reconcile_connection(platform.pool, connection)
    stalled = next(
        (
            condition
            for condition in status.conditions
            if condition.type == "Stalled" and condition.reason != "SecretNotFound"
        ),
        None,
    )
    async with platform.pool.connection() as db:
        row = await connection_store.connection_by_name(db, namespace, name)
        if row is None or not row.ready:
            message = stalled.message if stalled else "the connection is not valid"
            report.run(RunProgress(f"{namespace}/{name}", "invalid", 0, 0, message))
            error = {"class": stalled.reason if stalled else "InvalidSpec", "message": message}
            return RunResult(namespace, name, None, "invalid", None, 0, 0, 0, [], error)
        run_id = await request_run(db, row.uid, f"once-{secrets.token_hex(8)}")
        if run_id and row.upstreams:
            await upstream_store.record_followed(db, row.uid, await upstream_store.successes_to_follow(db, row.uid))
        if run_id is None:
            run_id = (await run_store.active_runs(db, row.uid))[0].id
    return await _follow(platform, run_id, report)


async def _follow(platform: Platform, run_id: str, report: ProgressReporter) -> RunResult:
    told: RunProgress | None = None
    while True:
        run = await _looked_up(platform, run_id)
        assert run is not None  # noqa: S101 - runs are not pruned while they are followed
        where = f"{run.namespace}/{run.name}"
        seen = RunProgress(where, run.phase, run.attempt, run.committed_records, run.message)
        if seen != told:
            told = seen
            report.run(seen)
        if not run.is_active:
            return await _result(platform, run)
        await asyncio.sleep(0.2)


async def _looked_up(platform: Platform, run_id: str) -> RunDetail | None:
    """Return the run. While the registry restarts, the read is repeated: runs wait for it too."""
    for _ in range(REGISTRY_TRIES):
        try:
            async with platform.pool.connection() as db:
                return await run_store.run_by_id(db, run_id)
        except psycopg.OperationalError:
            await asyncio.sleep(1)
    raise EmbeddedError("the registry does not answer; run `penstock up` again once it does, and the runs go on")


async def _result(platform: Platform, run: RunDetail) -> RunResult:
    async with platform.pool.connection() as db:
        found = await bronze_objects.objects_of_run(db, run.id)
        streams = tuple(await stream_outcomes.of_run(db, run.id))
    error = None if run.phase == "succeeded" else {"class": run.error_class or run.reason or "", "message": run.message}
    keys = [written.key for written in found if written.kind == "data"]
    return RunResult(
        run.namespace,
        run.name,
        run.definition,
        run.phase,
        run.id,
        run.attempt,
        run.records,
        run.bytes,
        keys,
        error,
        run.rejected,
        run.message if error is None else "",
        streams,
    )


def as_document(results: list[RunResult]) -> dict[str, Any]:
    """Return the results as `--output json` prints them."""
    return {"connections": [asdict(result) for result in results]}


async def run_on(platform: Platform, report: ProgressReporter) -> None:
    """Follow the folder and run what is due until cancelled."""
    async with asyncio.TaskGroup() as group:
        group.create_task(platform.orchestrator.run())
        group.create_task(_follow_folder(platform, report))
        group.create_task(_follow_connections(platform, report))


async def _follow_connections(platform: Platform, report: ProgressReporter) -> None:
    """Report the start and end of each run, each refused document and each next run, once each."""
    told, since = dict[str, str](), datetime.now(UTC)
    while True:
        raise_if_cancelled()
        await asyncio.sleep(1)
        try:
            async with platform.pool.connection() as db:
                newest = await run_store.list_runs(db, None, None, 200)
                rows = await connection_store.live_connections(db)
        except (psycopg.OperationalError, PoolTimeout):
            continue
        lines = [*_refused(platform), *_runs_told(newest, since), *_next(rows)]
        for key, line in lines:
            if told.get(key) != line:
                told[key] = line
                report.line(line)
        told = {key: told[key] for key, _ in lines}


def _refused(platform: Platform) -> Iterator[tuple[str, str]]:
    """Yield a line for each document that cannot be used."""
    for key, status in platform.resources.statuses.items():
        for condition in status.conditions:
            if condition.type == "Stalled" and condition.status == "True":
                where = "/".join(part for part in key[1:] if part)
                yield f"stalled {'/'.join(key)}", f"{key[0]} {where}: refused: {condition.message}"


def _runs_told(newest: list[RunDetail], since: datetime) -> Iterator[tuple[str, str]]:
    """Yield a line for each run since `since`: its start, its end with counts and reason, or its next attempt."""
    for run in reversed(newest):
        where, phase = f"{run.namespace}/{run.name}: run {run.id}", run.phase
        if not run.is_active and run.finished_at and run.finished_at < since:
            continue
        if phase == "running":
            yield run.id, f"{where} started, attempt {run.attempt}"
        elif not run.is_active:
            counts = f"{run.records:,} records, {run.rejected:,} rejected"
            why = "; ".join(filter(None, (run.reason, run.message)))
            yield run.id, f"{where} {phase}: {counts}; {why}"
        elif run.attempt:
            at = run.next_attempt_at.astimezone(UTC)
            yield run.id, f"{where} is tried again at {at:%Y-%m-%dT%H:%M:%SZ}: {run.message or run.waits}"


def _next(connections: list[ConnectionRow]) -> Iterator[tuple[str, str]]:
    """Yield a line for each connection that has a next run."""
    for connection in connections:
        if connection.ready and not connection.suspended and connection.next_run_at:
            at = connection.next_run_at.astimezone(UTC)
            yield (
                f"next {connection.uid}",
                f"{connection.namespace}/{connection.name}: runs next at {at:%Y-%m-%dT%H:%M:%SZ}",
            )


async def _follow_folder(platform: Platform, report: ProgressReporter) -> None:
    broken = ""
    while True:
        raise_if_cancelled()
        await asyncio.sleep(1)
        try:
            if platform.resources.refresh():
                await platform.orchestrator.sweeper.sweep()
                report.line("the folder changed")
            broken = ""
        except FolderError as error:
            if str(error) != broken:
                broken = str(error)
                report.line(f"{error}; the last good state stays in force")
