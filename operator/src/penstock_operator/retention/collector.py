"""The collector: deletes by policy what nobody needs any more. The leader's; a second one does no harm."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import timedelta

import structlog
from prometheus_client import Counter

from penstock_operator import outbox
from penstock_operator.ids import ConnectionUid
from penstock_operator.launchers import Launcher, LeftoverJob
from penstock_operator.retention import purge, statements
from penstock_operator.retention.batches import (
    CollectionContext,
    collect_audit_events,
    collect_history,
    collect_messages,
    collect_orphans,
    collect_runs,
    collect_superseded,
    next_page,
)
from penstock_operator.retention.bucket_sweep import sweep_page
from penstock_operator.retention.purge import PurgedAttempt
from penstock_operator.retention.statements import JobAttempt, OldAttempt

log = structlog.get_logger()
COLLECTED = Counter("penstock_collected", "What the collector deleted", ["kind"])
ROUND_SECONDS = 120.0
FIRST_SWEEP = timedelta(minutes=10)
"""How long after its start a collector sweeps the bucket for the first time."""
JOB_AGE = timedelta(minutes=30)
"""A Job whose attempt ended this long ago should have been deleted when its log was kept."""


class CollectionError(Exception):
    """Some steps of a round failed; the others were taken."""


class Collector:
    """Takes every step of the collection, in batches."""

    def __init__(
        self,
        context: Callable[[], CollectionContext],
        launcher: Launcher,
        forget_log: Callable[[str], None],
        first_sweep: timedelta = FIRST_SWEEP,
    ) -> None:
        self._context = context
        self._launcher = launcher
        self._forget_log = forget_log
        self._swept: str | None = None
        self._sweep_after = context().now + first_sweep

    async def collect(self) -> int:
        """Take each step until it finds nothing, or the round has lasted long enough; 1 when there is more to do."""
        deadline = asyncio.get_running_loop().time() + ROUND_SECONDS
        steps: dict[str, Callable[[], AsyncIterator[int]]] = {
            "orphans": lambda: _again(lambda: collect_orphans(self._context())),
            "superseded": lambda: _again(lambda: collect_superseded(self._context())),
            "purged": self._purge,
            "runs": self._runs,
            "history": self._history,
            "messages": lambda: _again(lambda: collect_messages(self._context())),
            "audit events": lambda: _again(lambda: collect_audit_events(self._context())),
            "jobs": self._jobs,
        }
        failed, more = [], 0
        for name, step in steps.items():
            try:
                more |= await self._take(name, step, deadline)
            except Exception as error:  # noqa: BLE001 - one step must not keep the others from theirs
                failed.append(f"{name}: {type(error).__name__}: {error}")
        if failed:
            raise CollectionError("; ".join(failed))
        return more

    async def _take(self, name: str, step: Callable[[], AsyncIterator[int]], deadline: float) -> int:
        async for count in step():
            if count:
                COLLECTED.labels(name).inc(count)
                log.info("collected", what=name, count=count)
            if asyncio.get_running_loop().time() > deadline:
                return 1
        return 0

    async def _purge(self) -> AsyncIterator[int]:
        await purge.begin_due_purges(self._context())
        for purging in await purge.purges(self._context()):
            while count := await purge.purge_objects(self._context(), purging):
                yield count
            while attempts := await purge.purge_runs(self._context(), purging):
                self._forget_logs(attempts)
                yield len(attempts)
            if await purge.finish_purge(self._context(), purging):
                log.info("purge ended", connection=f"{purging.namespace}/{purging.name}", uid=purging.uid)
            yield 0

    async def _pages(self) -> AsyncIterator[ConnectionUid]:
        after: ConnectionUid | None = ConnectionUid("")
        while after is not None:
            end = await next_page(self._context(), after)
            if end is not None:
                yield after
            after = end

    async def _runs(self) -> AsyncIterator[int]:
        async for after in self._pages():
            while rows := await collect_runs(self._context(), after):
                self._forget_logs(rows)
                yield len({row.id for row in rows})
            yield 0

    async def _history(self) -> AsyncIterator[int]:
        async for after in self._pages():
            while count := await collect_history(self._context(), after):
                yield count
            yield 0

    def _forget_logs(self, rows: Sequence[OldAttempt | PurgedAttempt]) -> None:
        for row in rows:
            if row.job_name:
                self._forget_log(row.job_name)

    async def _jobs(self) -> AsyncIterator[int]:
        """Delete Jobs whose deletion was missed, or whose end nobody acted on."""
        context = self._context()
        async for jobs in self._launcher.leftovers():
            async with context.pool.connection() as db:
                known = await statements.attempts_of_jobs(db, [job.job_name for job in jobs])
            by_name = {row.job_name: row for row in known}
            count = 0
            for job in jobs:
                count += await self._judge(context, job, by_name.get(job.job_name))
            yield count

    async def _judge(self, context: CollectionContext, job: LeftoverJob, row: JobAttempt | None) -> int:
        ended = row.finished_at if row else job.finished_at
        if ended is None or context.now - ended < JOB_AGE:
            return 0
        if row and not (row.log_key or row.log_note):
            if not row.posted:
                async with context.pool.connection() as db:
                    await outbox.post_retirement(db, row.run_id, row.attempt)
            return 0
        await self._launcher.discard(job)
        return 1

    async def sweep_bucket(self) -> int:
        """Look at one page of the bucket for objects that are nobody's; 0 behind the last page, and until it is time."""
        context = self._context()
        if not context.retention.sweep_hours or context.now < self._sweep_after:
            return 0
        count, self._swept = await sweep_page(context, self._swept)
        if count:
            COLLECTED.labels("strangers").inc(count)
            log.info("collected", what="objects that the registry does not know", count=count)
        if self._swept:
            return 1
        self._sweep_after = context.now + timedelta(hours=context.retention.sweep_hours)
        return 0


async def _again(step: Callable[[], Awaitable[int]]) -> AsyncIterator[int]:
    while count := await step():
        yield count
