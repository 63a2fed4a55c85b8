"""Requests side by side, with results in the order of the requests."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")
MOST_WORKERS = 32


def map_in_order(
    function: Callable[[ItemT], ResultT], items: Iterable[ItemT], *, workers: int = 4
) -> Iterator[ResultT]:
    """Yield the result of `function` for each item, in the order of the items, with `workers` calls at a time.

    At most `workers` results are held in memory. If a call raises, its error is raised in its turn, after the results before
    it, and no further item is taken. The function must not use the connector's `emit` or `checkpoint`.
    """
    if not 1 <= workers <= MOST_WORKERS:
        raise ValueError(f"workers is {workers}; it must be from 1 to {MOST_WORKERS}")
    remaining = iter(items)
    pool = ThreadPoolExecutor(workers, thread_name_prefix="http")
    try:
        running = deque[Future[ResultT]](pool.submit(function, item) for item in islice(remaining, workers))
        while running:
            result = running.popleft().result()
            running.extend(pool.submit(function, item) for item in islice(remaining, 1))
            yield result
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
