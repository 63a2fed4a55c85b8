"""End with the `penstock up` that started this process.

`penstock up` keeps the other end of a pipe open for as long as it lives, and never writes. Mostly the kernel kills this
process at its death; a thread does it where the kernel offers no such signal, or the death came before the request.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Mapping

from penstock_sdk.protocol import PARENT_PIPE_VARIABLE


def exit_with_parent(environment: Mapping[str, str]) -> None:
    """Watch the pipe that the environment names; in a pod there is none, as Kubernetes ends what it started."""
    descriptor = environment.get(PARENT_PIPE_VARIABLE, "")
    if descriptor.isdecimal():
        threading.Thread(target=_wait, args=(int(descriptor),), name="lifeline", daemon=True).start()


def _wait(descriptor: int) -> None:
    try:
        os.read(descriptor, 1)
    except OSError:  # closed by the connector: the kernel's signal is left
        return
    if os.getpgrp() == os.getpid():
        os.killpg(os.getpid(), signal.SIGKILL)  # what the connector started ends too
    os.kill(os.getpid(), signal.SIGKILL)
