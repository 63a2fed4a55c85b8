"""Stores the log of an attempt in S3 before its Job is deleted."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import aclosing

import structlog
import zstandard

from penstock_operator.bronze.keys import log_key
from penstock_operator.bronze.store import BronzeStore
from penstock_operator.launchers import AttemptLaunch, AttemptObservation, LaunchedAttempt, Launcher, LeftoverJob
from penstock_operator.launchers.logs import LogNotFound, LogSource, LogUnreadable
from penstock_operator.registry.database import Pool
from penstock_operator.runs import attempt_store

log = structlog.get_logger()
PATIENCE_SECONDS = 20.0
SNAPSHOT_SECONDS = 5.0
TAIL_SHARE = 0.75
STOPPED = "kept when the attempt was stopped; its last words may be missing"


class HeadAndTail:
    """Keeps the first and the last lines of a text within a number of bytes, and counts the bytes in between."""

    def __init__(self, limit: int) -> None:
        self._longest_line = limit // 4
        self._head_room = limit - int(limit * TAIL_SHARE)
        self._tail_room = int(limit * TAIL_SHARE)
        self._head: list[bytes] = []
        self._tail: deque[bytes] = deque()
        self._begun = b""
        self._left_out = [0, 0]
        self.total = 0

    def add(self, chunk: bytes) -> None:
        """Add a piece of the text."""
        self.total += len(chunk)
        *lines, self._begun = (self._begun + chunk).split(b"\n")
        for line in lines:
            self._add_line(line + b"\n")
        if len(self._begun) > self._longest_line:
            self._add_line(self._begun)
            self._begun = b""

    def _add_line(self, line: bytes) -> None:
        if not self._tail and len(line) <= self._head_room:
            self._head.append(line)
            self._head_room -= len(line)
            return
        self._tail.append(line)
        self._tail_room -= len(line)
        while self._tail_room < 0 and len(self._tail) > 1:
            dropped = self._tail.popleft()
            self._tail_room += len(dropped)
            self._left_out = [self._left_out[0] + 1, self._left_out[1] + len(dropped)]

    @property
    def left_out(self) -> str | None:
        """Return a line about the bytes that were left out, None if there are none."""
        lines, size = self._left_out
        return f"{lines} lines ({size} bytes) in the middle were left out" if lines else None

    def text(self) -> bytes:
        """Return the text; a line between head and tail reports the bytes that were left out."""
        gap = [f"… {self.left_out} …\n".encode()] if self.left_out else []
        return b"".join([*self._head, *gap, *self._tail, self._begun])


class LogKeeper:
    """Stores logs of attempts in S3. A repeated call is harmless: a shorter log never replaces a longer one."""

    def __init__(self, pool: Pool, source: LogSource, store: BronzeStore, limit: int) -> None:
        self._pool = pool
        self._source = source
        self._store = store
        self._limit = limit

    async def keep(self, launch: LaunchedAttempt, patience: float = PATIENCE_SECONDS) -> None:
        """Store the attempt's log up to the end of its pod or process, or record why there is none."""
        kept, note = HeadAndTail(self._limit), None
        try:
            async with asyncio.timeout(patience):
                async with aclosing(self._source.follow(launch.namespace, launch.job_name)) as text:
                    async for chunk in text:
                        kept.add(chunk)
        except LogUnreadable:
            raise
        except LogNotFound as gone:
            note = f"{gone}; its log, or the end of it, could not be kept"
        except TimeoutError:
            note = "kept while the connector was still running; what it printed later may be missing"
        await self._store_log(launch, kept, note)

    async def snapshot(self, launch: LaunchedAttempt) -> None:
        """Store the log so far before the attempt is stopped. An error is only logged, so that it does not delay the stop."""
        kept = HeadAndTail(self._limit)
        try:
            async with asyncio.timeout(SNAPSHOT_SECONDS):
                async with aclosing(self._source.read(launch.namespace, launch.job_name)) as text:
                    async for chunk in text:
                        kept.add(chunk)
                if kept.total:
                    await self._store_log(launch, kept, STOPPED)
        except LogNotFound:
            return
        except Exception as error:  # noqa: BLE001 - the stop goes first
            log.warning("log not stored", run=launch.run_id, error=f"{type(error).__name__}: {error}")

    async def give_up(self, launch: LaunchedAttempt, error: str) -> None:
        """Record that the log could not be stored after many tries."""
        async with self._pool.connection() as db:
            await attempt_store.record_no_log(db, launch.run_id, launch.attempt, f"the log could not be kept: {error}")

    async def _store_log(self, launch: LaunchedAttempt, kept: HeadAndTail, note: str | None) -> None:
        async with self._pool.connection() as db:
            known = await attempt_store.log_of_attempt(db, launch.run_id, launch.attempt)
            if known is None or (known.log_bytes or 0) > kept.total:
                return
            if not kept.total:
                await attempt_store.record_no_log(
                    db, launch.run_id, launch.attempt, note or "the attempt printed nothing"
                )
                return
        key = log_key(self._store.settings.prefix, launch.namespace, launch.connection, (launch.run_id, launch.attempt))
        await self._store.put(key, zstandard.compress(kept.text()), "application/zstd")
        notes = "; ".join(filter(None, (kept.left_out, note))) or None
        async with self._pool.connection() as db:
            await attempt_store.record_log(db, launch.run_id, launch.attempt, key, kept.total, notes)


class KeepingLauncher:
    """A launcher that stores the log of a Job before it deletes the Job."""

    def __init__(self, launcher: Launcher, keeper: LogKeeper) -> None:
        self._launcher = launcher
        self._keeper = keeper

    async def launch(self, launch: AttemptLaunch) -> str:
        """Launch the attempt."""
        return await self._launcher.launch(launch)

    async def observe(self, launch: LaunchedAttempt) -> AttemptObservation:
        """Return the state of the attempt's Job."""
        return await self._launcher.observe(launch)

    async def observe_many(self, attempts: list[LaunchedAttempt]) -> dict[str, AttemptObservation]:
        """Return the states of many attempts by Job name."""
        return await self._launcher.observe_many(attempts)

    async def stop(self, launch: LaunchedAttempt) -> None:
        """Store the log so far, then end the Job; the rest is stored when the Job is retired."""
        await self._keeper.snapshot(launch)
        await self._launcher.stop(launch)

    async def retire(self, launch: LaunchedAttempt) -> None:
        """Store the log, then delete the Job."""
        await self._keeper.keep(launch)
        await self._launcher.retire(launch)

    def leftovers(self) -> AsyncIterator[list[LeftoverJob]]:
        """Yield the existing Jobs."""
        return self._launcher.leftovers()

    async def discard(self, leftover: LeftoverJob) -> None:
        """Delete a Job that was left over."""
        await self._launcher.discard(leftover)

    async def let_go(self, launch: LaunchedAttempt) -> None:
        """Delete the Job without storing its log."""
        await self._launcher.retire(launch)
