"""Ctrl-C and SIGTERM end a command in the same way: everything that it started is stopped first.

The handlers are installed whatever was inherited: a shell starts background commands with SIGINT ignored, and a command
that cannot be interrupted leaves its servers behind.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")
STOPS = (signal.SIGINT, signal.SIGTERM)


class StopRequested(Exception):  # noqa: N818 - a request, not an error
    """The command was asked to stop, and has cleaned up."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.exit_code = 128 + number


async def run_until_stopped(work: Coroutine[Any, Any, T]) -> T:
    """Run the work to its end, or cancel it on a signal and raise StopRequested once it has cleaned up."""
    loop, told = asyncio.get_running_loop(), list[int]()
    task = asyncio.ensure_future(work)

    def stop(number: int) -> None:
        told.append(number)
        task.cancel()

    for number in STOPS:
        loop.add_signal_handler(number, stop, number)
    try:
        return await task
    except asyncio.CancelledError:
        if told:
            raise StopRequested(told[0]) from None
        raise
    finally:
        for number in STOPS:
            loop.remove_signal_handler(number)
