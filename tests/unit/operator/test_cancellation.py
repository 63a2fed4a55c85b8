"""Loops end when they are cancelled, whatever swallows the cancellation."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest
from penstock_operator.controller.health import Health
from penstock_operator.controller.orchestrator import repeat_step
from penstock_operator.controller.workqueue import Key, WorkQueue

from tests.patience import PATIENCE


async def swallow(reached: asyncio.Event) -> int:
    """Do what asyncio.wait_for of Python 3.11 does with a cancellation that comes too late."""
    reached.set()
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.Event().wait()
    return 0


async def cancelled(task: asyncio.Task[Any], reached: asyncio.Event) -> None:
    await asyncio.wait_for(reached.wait(), PATIENCE)
    task.cancel()
    done, _ = await asyncio.wait([task], timeout=PATIENCE)
    assert done, "the loop goes on"


@pytest.mark.parametrize("seconds", [0, 3600])
async def test_a_loop_ends_though_its_step_swallowed_the_cancellation(seconds: float) -> None:
    reached = asyncio.Event()
    await cancelled(asyncio.create_task(repeat_step(Health(), seconds, lambda: swallow(reached))), reached)


async def test_a_worker_ends_though_its_handler_swallowed_the_cancellation() -> None:
    reached = asyncio.Event()

    async def handle(_key: Key) -> None:
        await swallow(reached)

    queue = WorkQueue(handle, workers=1)
    queue.add(("a",))
    await cancelled(asyncio.create_task(queue.work()), reached)
