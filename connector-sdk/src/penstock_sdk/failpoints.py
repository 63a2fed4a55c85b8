"""Places in the code at which a test kills the process, as if the machine had failed there.

`PENSTOCK_FAILPOINTS=checkpoints.answered:3` kills the process with SIGKILL when it reaches that failpoint for the third
time. Without the variable, `reach` does nothing. `FAILPOINTS` are those of the connector's runtime; the operator has its
own list.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable

__all__ = ["FAILPOINTS", "FAILPOINTS_VARIABLE", "reach"]

FAILPOINTS_VARIABLE = "PENSTOCK_FAILPOINTS"
"""Environment variable: failpoints with the number of the visit that kills, such as `object.sent:2,finish.asked`."""
CALLS = ("start", "streams", "uploads", "checkpoints", "finish")
FAILPOINTS = (
    *(f"{call}.asked" for call in CALLS),
    *(f"{call}.answered" for call in CALLS),
    "object.asked",
    "object.sent",
)
"""The failpoints of a connector's process: before and after each call to the run API and each upload."""


def _do_nothing(_name: str) -> None:
    """Continue."""


def _killer(orders: str) -> Callable[[str], None]:
    """Return the function that counts the visits of each failpoint, and kills the process at the visit that was ordered."""
    remaining: dict[str, int] = {}
    lock = threading.Lock()  # several workers reach the same failpoint
    for order in orders.split(","):
        name, _, count = order.partition(":")
        remaining[name] = int(count or 1)

    def reach(name: str) -> None:
        if name in remaining:
            with lock:
                remaining[name] -= 1
                if not remaining[name]:
                    os.kill(os.getpid(), signal.SIGKILL)

    return reach


reach: Callable[[str], None] = (
    _killer(os.environ[FAILPOINTS_VARIABLE]) if os.environ.get(FAILPOINTS_VARIABLE) else _do_nothing
)
"""Mark a failpoint: the process is killed here if the environment variable orders it."""
