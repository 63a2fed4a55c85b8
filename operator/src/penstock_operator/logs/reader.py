"""Reads a run's log as one text: live while the attempt runs, and from S3 afterwards."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import aclosing
from datetime import UTC, datetime

import zstandard

from penstock_operator.bronze.store import BronzeStore
from penstock_operator.errors import NotFound
from penstock_operator.launchers.logs import LogNotFound, LogSource
from penstock_operator.registry.database import Pool
from penstock_operator.resources.conditions import moment
from penstock_operator.runs import attempt_store, run_store
from penstock_operator.runs.attempt_store import AttemptLog
from penstock_operator.runs.run_store import RunDetail


class RunLogs:
    """Reads and follows runs' logs. No connection to the registry is held while a text is sent."""

    def __init__(self, pool: Pool, source: LogSource, store: BronzeStore, poll: float = 1.0) -> None:
        self._pool = pool
        self._source = source
        self._store = store
        self._poll = poll

    async def read(self, run: RunDetail, attempt: int) -> AsyncGenerator[bytes]:
        """Yield what an attempt has printed so far. Raises NotFound, with the reason, where there is nothing."""
        known = await self._attempt(run.id, attempt)
        if known is None:
            raise NotFound(_no_attempt(run, attempt))
        if known.log_key is None:
            try:
                async with aclosing(self._source.read(run.namespace, known.job_name)) as live:
                    async for chunk in live:
                        yield chunk
                return
            except LogNotFound as gone:
                known = await self._attempt(run.id, attempt) or known
                if known.log_key is None:
                    raise NotFound(known.log_note or str(gone)) from None
        yield await self._kept(known.log_key)

    async def follow(self, run: RunDetail, attempt: int | None) -> AsyncGenerator[bytes]:
        """Yield an attempt's log until it has ended; without one, the run's, attempt by attempt, until the run has."""
        if attempt is not None:
            if await self._attempt(run.id, attempt) is None:
                raise NotFound(_no_attempt(run, attempt))
            async with aclosing(self._follow_attempt(run, attempt)) as text:
                async for chunk in text:
                    yield chunk
            return
        printed, told = max(run.attempt - 1, 0), ""
        while True:
            if await self._attempt(run.id, printed + 1) is not None:
                async with aclosing(self._follow_attempt(run, printed + 1)) as text:
                    async for chunk in text:
                        yield chunk
                printed += 1
                continue
            now = await self._run(run.id)
            if now is None or (not now.is_active and now.attempt <= printed):
                return
            if now.attempt <= printed and (news := _waiting(now)) != told:
                told = news
                yield _line(news, now, printed)
            await asyncio.sleep(self._poll)

    async def _follow_attempt(self, run: RunDetail, number: int) -> AsyncGenerator[bytes]:
        """Yield an attempt's log until the registry says that it has ended; nothing if there is no such attempt yet."""
        printed = False
        while (known := await self._attempt(run.id, number)) is not None:
            if not printed:
                async for chunk in self._from_the_start(run, known):
                    printed = True
                    yield chunk
            if known.finished_at is not None:
                if not printed and known.log_note:
                    yield _line(known.log_note, run, number)
                return
            await asyncio.sleep(self._poll)

    async def _from_the_start(self, run: RunDetail, known: AttemptLog) -> AsyncGenerator[bytes]:
        if known.log_key is not None and known.finished_at is not None:
            yield await self._kept(known.log_key)
            return
        try:
            async with aclosing(self._source.follow(run.namespace, known.job_name)) as live:
                async for chunk in live:
                    yield chunk
        except LogNotFound:
            return

    async def _kept(self, key: str) -> bytes:
        body = await asyncio.to_thread(self._store.read, key)
        return zstandard.ZstdDecompressor().decompressobj().decompress(body)

    async def _attempt(self, run_id: str, attempt: int) -> AttemptLog | None:
        async with self._pool.connection() as db:
            return await attempt_store.log_of_attempt(db, run_id, attempt)

    async def _run(self, run_id: str) -> RunDetail | None:
        async with self._pool.connection() as db:
            return await run_store.run_by_id(db, run_id)


def _no_attempt(run: RunDetail, attempt: int) -> str:
    if not run.attempt:
        return f"run {run.id} has not been launched yet"
    return f"run {run.id} has no attempt {attempt}; its last one is {run.attempt}"


def _waiting(run: RunDetail) -> str:
    if not run.attempt:
        return "the run waits to be launched"
    due = moment(run.next_attempt_at)
    return f"attempt {run.attempt} ended ({run.reason}): {run.message}; the next is due at {due}"


def _line(message: str, run: RunDetail, attempt: int) -> bytes:
    line = {"ts": moment(datetime.now(UTC)), "level": "info", "logger": "penstock", "message": message}
    return f"{json.dumps({**line, 'run': run.id, 'attempt': attempt})}\n".encode()
