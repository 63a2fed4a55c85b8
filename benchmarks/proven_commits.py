"""What it costs that a commit is proven: 1,000,000 records through the embedded platform, with and without the bucket's word.

Rounds with and without the comparison of objects with the bucket follow each other on one platform. Grants and comparisons
run beside the read; the share of the attempt's time that the server spends on them is the most that they could add to it if
nothing ran beside anything.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from statistics import median
from typing import Any, ParamSpec, TypeVar

from full_path import CHECKPOINT, measure, write_resources
from penstock_operator.bronze.store import BronzeStore, ObjectContent
from penstock_operator.embedded.platform import DataDirectory, platform
from penstock_operator.runs.protocol import RunProtocol
from penstock_sdk.protocol import Limits

PAIRS = int(os.environ.get("PAIRS", "5"))
P = ParamSpec("P")
T = TypeVar("T")


class Stopwatch:
    """Seconds that pass in calls."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def around(self, function: Callable[P, Coroutine[Any, Any, T]]) -> Callable[P, Coroutine[Any, Any, T]]:
        """Return the function, with its time counted."""

        async def timed(*args: P.args, **kwargs: P.kwargs) -> T:
            begin = time.perf_counter()
            try:
                return await function(*args, **kwargs)
            finally:
                self.seconds += time.perf_counter() - begin

        return timed


async def believe(_store: BronzeStore, _expected: Mapping[str, ObjectContent]) -> dict[str, str]:
    """Take every object as it was granted."""
    return {}


async def main() -> None:
    """Measure, and print medians."""
    looking, granting = Stopwatch(), Stopwatch()
    proven = looking.around(BronzeStore.differences)
    RunProtocol.uploads = granting.around(RunProtocol.uploads)  # type: ignore[method-assign]
    ratios, shares = list[float](), list[tuple[float, float]]()
    with tempfile.TemporaryDirectory() as directory:
        folder = Path(directory) / "resources"
        folder.mkdir()
        write_resources(folder)
        async with platform(
            folder, DataDirectory(Path(directory) / "data"), Limits(checkpoint_records=CHECKPOINT)
        ) as up:
            for pair in range(PAIRS):
                seconds = dict[bool, float]()
                for is_proven in (pair % 2 == 0, pair % 2 == 1):
                    BronzeStore.differences = proven if is_proven else believe  # type: ignore[method-assign,assignment]
                    looking.seconds = granting.seconds = 0.0
                    seconds[is_proven] = (await measure(up)).seconds
                    if is_proven:
                        shares.append((looking.seconds / seconds[True], granting.seconds / seconds[True]))
                ratios.append(seconds[True] / seconds[False])
    listed = ", ".join(f"{ratio:.3f}" for ratio in ratios)
    print(f"a run with proven commits takes {median(ratios):.3f} of one without (median of {PAIRS} pairs: {listed})")
    looks, grants = (median(share) for share in zip(*shares, strict=True))
    print(f"beside the read, the server spends {looks:.1%} of its time on comparisons and {grants:.1%} on grants")


if __name__ == "__main__":
    asyncio.run(main())
