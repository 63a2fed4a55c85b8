"""Waits that end when the attempt has to end."""

from __future__ import annotations

import time
from collections.abc import Callable

_wait: Callable[[float], None] = time.sleep


def wait(seconds: float) -> None:
    """Wait. In a pod, raises AttemptEnded as soon as the attempt has to end."""
    _wait(seconds)


def use_wait(function: Callable[[float], None]) -> None:
    """Have `wait` call this function. The runtime calls it when the heartbeat begins."""
    global _wait  # noqa: PLW0603 - one process runs one attempt
    _wait = function
