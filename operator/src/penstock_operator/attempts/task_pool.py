"""Background tasks of the supervisor: a bounded number at a time, each with a time limit."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import structlog

log = structlog.get_logger()


class TaskPool:
    """Background tasks by key, of which at most `slots` run at the same time.

    An exception of a task is logged: the next round of its loop starts a task for the key again.
    """

    def __init__(self, title: str, slots: int, seconds: float) -> None:
        self._title, self._slots, self._seconds = title, slots, seconds
        self._tasks: dict[str, asyncio.Task[None]] = {}

    @property
    def free(self) -> int:
        """How many more tasks may start now."""
        return self._slots - len(self._tasks)

    def __contains__(self, key: str) -> bool:
        return key in self._tasks

    def start(self, key: str, work: Coroutine[Any, Any, None]) -> None:
        """Start a task. The caller has checked that there is a free slot, and that no task of this key runs."""
        task = self._tasks[key] = asyncio.create_task(self._limited(key, work))
        task.add_done_callback(lambda _: self._tasks.pop(key, None))

    async def slot(self) -> None:
        """Return once a slot is free, which takes no longer than the time limit."""
        while self.free <= 0:
            await asyncio.wait(self._tasks.values(), return_when=asyncio.FIRST_COMPLETED)

    async def settled(self) -> None:
        """Return once every task that runs now has ended."""
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    async def close(self) -> None:
        """Cancel every task, and return once they have ended."""
        for task in self._tasks.values():
            task.cancel()
        await self.settled()

    async def _limited(self, key: str, work: Coroutine[Any, Any, None]) -> None:
        try:
            async with asyncio.timeout(self._seconds):
                await work
        except Exception as error:  # noqa: BLE001 - one bad task must not stop the others; the caller's next round sees it
            log.warning("background task failed", task=self._title, key=key, error=f"{type(error).__name__}: {error}")
