"""The work queue and the pool: one key that hangs or fails delays no other."""

from __future__ import annotations

import asyncio

import pytest
from penstock_operator.attempts.task_pool import TaskPool
from penstock_operator.controller.workqueue import Key, WorkQueue

from tests.patience import PATIENCE


async def test_12_keys_that_hang_do_not_keep_the_workers() -> None:
    handled, forever = set[str](), asyncio.Event()

    async def handle(key: Key) -> None:
        if key[0] == "hangs":
            await forever.wait()
        handled.add(key[1])

    queue = WorkQueue(handle, workers=2, limit=0.05)
    for number in range(4):
        queue.add(("hangs", str(number)))
    queue.add(("good", "last"))
    working = asyncio.create_task(queue.work())
    async with asyncio.timeout(PATIENCE):
        while handled != {"last"}:
            await asyncio.sleep(0.01)
    working.cancel()


async def test_a_key_added_while_it_is_handled_is_handled_once_more() -> None:
    seen, go = list[Key](), asyncio.Event()

    async def handle(key: Key) -> None:
        seen.append(key)
        await go.wait()

    queue = WorkQueue(handle, workers=2)
    working = asyncio.create_task(queue.work())
    queue.add(("k",))
    async with asyncio.timeout(PATIENCE):
        while not seen:
            await asyncio.sleep(0)
        queue.add(("k",))
        queue.add(("k",))
        assert len(seen) == 1
        go.set()
        while len(seen) < 2:
            await asyncio.sleep(0)
    working.cancel()


async def test_a_task_pool_has_so_many_slots_and_outlives_what_its_tasks_raise() -> None:
    pool, go = TaskPool("test", 2, 10), asyncio.Event()

    async def fails() -> None:
        await go.wait()
        raise ValueError

    pool.start("a", fails())
    pool.start("b", fails())
    assert pool.free == 0
    assert "a" in pool
    waiting = asyncio.create_task(pool.slot())
    done, _ = await asyncio.wait([waiting], timeout=0.05)
    assert not done
    go.set()
    async with asyncio.timeout(PATIENCE):
        await waiting
        await pool.settled()
    assert pool.free == 2


async def test_a_closed_task_pool_leaves_nothing_running() -> None:
    pool, ended = TaskPool("test", 2, 10), asyncio.Event()

    async def waits() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    pool.start("a", waits())
    await asyncio.sleep(0)
    await pool.close()
    assert ended.is_set()


async def test_a_task_that_takes_too_long_gives_its_place_back(capsys: pytest.CaptureFixture[str]) -> None:
    pool = TaskPool("test", 1, 0.05)
    pool.start("a", asyncio.Event().wait())  # type: ignore[arg-type]
    async with asyncio.timeout(PATIENCE):
        await pool.slot()
    assert pool.free == 1
    assert "TimeoutError" in capsys.readouterr().out
