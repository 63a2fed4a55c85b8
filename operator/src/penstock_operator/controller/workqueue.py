"""A work queue: each key is queued once, a few are handled at a time, and a failing key is delayed longer each time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable

import structlog
from prometheus_client import Gauge

from penstock_operator.controller.cancellation import raise_if_cancelled

Key = tuple[str, ...]
log = structlog.get_logger()
WAITING = Gauge("penstock_queue_keys", "Resources and Jobs that wait to be handled")
FIRST_DELAY, LONGEST_DELAY = 1.0, 300.0
LIMIT = 60.0  # seconds that one key may take, so that keys that hang do not occupy all workers


class WorkQueue:
    """Keys to be handled. A key added while it is handled is handled once more afterwards."""

    def __init__(self, handle: Callable[[Key], Awaitable[None]], workers: int = 8, limit: float = LIMIT) -> None:
        self._handle = handle
        self._ready: asyncio.Queue[Key] = asyncio.Queue()
        self._waiting: set[Key] = set()
        self._busy: set[Key] = set()
        self._again: set[Key] = set()
        self._failures: dict[Key, int] = {}
        self._moved = asyncio.Event()
        self._workers = workers
        self._limit = limit

    def add(self, key: Key) -> None:
        """Queue a key."""
        if key in self._busy:
            self._again.add(key)
        elif key not in self._waiting:
            self._waiting.add(key)
            self._ready.put_nowait(key)
            WAITING.set(len(self._waiting))

    def __contains__(self, key: Key) -> bool:
        """Return True if the key waits to be handled."""
        return key in self._waiting or key in self._again

    @property
    def is_idle(self) -> bool:
        """Whether no key waits and none is being handled."""
        return not self._waiting and not self._busy

    async def room(self, count: int) -> None:
        """Return once fewer than `count` keys wait."""
        while len(self._waiting) >= count:
            await self._moved.wait()

    async def handled(self, keys: Iterable[Key]) -> None:
        """Return once none of the keys waits or is being handled."""
        left = set(keys)
        while left & (self._waiting | self._busy):
            await self._moved.wait()

    async def work(self) -> None:
        """Handle keys until cancelled."""
        async with asyncio.TaskGroup() as group:
            for _ in range(self._workers):
                group.create_task(self._worker())

    async def drain(self) -> None:
        """Handle the keys that are queued now, and return; for a caller that runs no workers."""
        while not self._ready.empty():
            await self._next()

    async def _worker(self) -> None:
        while True:
            await self._next()
            raise_if_cancelled()

    async def _next(self) -> None:
        key = await self._ready.get()
        self._waiting.discard(key)
        WAITING.set(len(self._waiting))
        self._busy.add(key)
        try:
            async with asyncio.timeout(self._limit):
                await self._handle(key)
            self._failures.pop(key, None)
        except Exception as error:  # noqa: BLE001 - one bad key must not stop the others
            self._later(key, error)
        finally:
            self._busy.discard(key)
            if key in self._again:
                self._again.discard(key)
                self.add(key)
            self._moved.set()
            self._moved = asyncio.Event()

    def _later(self, key: Key, error: Exception) -> None:
        count = self._failures[key] = self._failures.get(key, 0) + 1
        delay = min(FIRST_DELAY * 2 ** (count - 1), LONGEST_DELAY)
        log.warning("reconcile failed", key="/".join(key), retry_in=delay, error=f"{type(error).__name__}: {error}")
        asyncio.get_running_loop().call_later(delay, self.add, key)
