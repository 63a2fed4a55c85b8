"""Work beside the loops: a few at a time, each with a time limit, so that one that hangs holds up nobody else."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import structlog

log = structlog.get_logger()


class TaskPool:
    """Tasks by key, of which at most `places` run at the same time. What a task raises is logged: its key comes again."""

    def __init__(self, title: str, places: int, seconds: float) -> None:
        self._title, self._places, self._seconds = title, places, seconds
        self._tasks: dict[str, asyncio.Task[None]] = {}

    @property
    def free(self) -> int:
        """How many more tasks may start now."""
        return self._places - len(self._tasks)

    def __contains__(self, key: str) -> bool:
        return key in self._tasks

    def start(self, key: str, work: Coroutine[Any, Any, None]) -> None:
        """Start a task beside the caller, who has seen that there is a place for it and that its key is not at work."""
        task = self._tasks[key] = asyncio.create_task(self._limited(key, work))
        task.add_done_callback(lambda _: self._tasks.pop(key, None))

    async def place(self) -> None:
        """Return once a task may start; that is within the time limit."""
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
            log.warning("failed beside the loops", task=self._title, key=key, error=f"{type(error).__name__}: {error}")
