"""Cancellation of loops, also where Python loses the CancelledError."""

from __future__ import annotations

import asyncio


def raise_if_cancelled() -> None:
    """Raise CancelledError if this task was cancelled and something swallowed it.

    `asyncio.wait_for` of Python 3.11, with which the pool waits for a connection, loses a cancellation that arrives
    at the moment when the wait succeeds. The loop would then never end: a replica that lost the lease would go on leading.
    """
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError
