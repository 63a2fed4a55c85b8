"""A loop ends when it is cancelled, also when the cancellation was lost on its way."""

from __future__ import annotations

import asyncio


def heed_cancellation() -> None:
    """Raise CancelledError if this task was cancelled and something swallowed it.

    `asyncio.wait_for` of Python 3.11, with which the pool waits for a connection, loses a cancellation that comes just
    as what it waits for is there. A loop that goes on then never ends: a replica that lost the lead would go on leading.
    """
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError
