"""Named places where a test has the process killed, as if the machine had ended there.

`PENSTOCK_FAILPOINTS=checkpoints.answered:3` kills the process when it comes to that place for the third time. Without the
variable, `reach` is a function that does nothing.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable

VARIABLE = "PENSTOCK_FAILPOINTS"
CALLS = ("start", "streams", "uploads", "checkpoints", "finish")
CONNECTOR = (
    *(f"{call}.asked" for call in CALLS),
    *(f"{call}.answered" for call in CALLS),
    "object.asked",
    "object.sent",
)
SERVER = tuple(f"server.{call}" for call in CALLS)
OPERATOR = (
    "schedule.inserted",
    "schedule.committed",
    "attempt.claimed",
    "attempt.launched",
    "attempt.recorded",
    "attempt.failed",
    "outbox.taken",
    "outbox.acted",
    "outbox.done",
)


def _nothing(_name: str) -> None:
    """Go on."""


def _killing(orders: str) -> Callable[[str], None]:
    left: dict[str, int] = {}
    counting = threading.Lock()  # several workers come to the same place
    for order in orders.split(","):
        name, _, count = order.partition(":")
        left[name] = int(count or 1)

    def reach(name: str) -> None:
        if name in left:
            with counting:
                left[name] -= 1
                if not left[name]:
                    os.kill(os.getpid(), signal.SIGKILL)

    return reach


reach: Callable[[str], None] = _killing(os.environ[VARIABLE]) if os.environ.get(VARIABLE) else _nothing
