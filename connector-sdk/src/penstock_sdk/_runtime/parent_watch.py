"""Ends this process together with the `penstock up` that started it.

`penstock up` keeps the other end of a pipe open as long as it lives, and never writes. When it dies, the kernel usually
kills this process. The thread does it where the kernel has no such signal, or if `penstock up` died before it asked for it.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Mapping

from penstock_sdk.protocol import PARENT_PIPE_VARIABLE


def exit_with_parent(environment: Mapping[str, str]) -> None:
    """Watch the pipe that the environment names. A pod has none, because Kubernetes ends its processes."""
    descriptor = environment.get(PARENT_PIPE_VARIABLE, "")
    if descriptor.isdecimal():
        threading.Thread(target=_wait, args=(int(descriptor),), name="parent-watch", daemon=True).start()


def _wait(descriptor: int) -> None:
    try:
        os.read(descriptor, 1)
    except OSError:  # the connector closed it; the kernel's signal remains
        return
    if os.getpgrp() == os.getpid():
        os.killpg(os.getpid(), signal.SIGKILL)  # with all processes that the connector started
    os.kill(os.getpid(), signal.SIGKILL)
