"""Processes that end with the process that started them, however that one ended.

Starter and child share a pipe: the starter keeps the only end that can be written to, and never writes. The kernel
closes that end when the starter dies, also by SIGKILL, and then sends the child the signal that was asked for with
`F_SETSIG`. The child takes no part in it: it can be starting, blocked in C code, or ignoring signals. Where the kernel
offers no such signal, and in the moment between the start and the request, a child can watch its end of the pipe, whose
number is in its environment (`penstock_sdk._runtime.parent_watch`).

`PR_SET_PDEATHSIG` is not used: it comes when the *thread* that started the child ends, reaches no grandchild, and needs
code that runs between fork and exec.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
from typing import Self

from penstock_sdk.protocol import PARENT_PIPE_VARIABLE


class Lifeline:
    """One child's pipe. Pass `child_end` to the child, then call `tie_group` or `tie_process` with its pid."""

    def __init__(self) -> None:
        self.child_end, self._own_end = os.pipe()
        self._open = [self.child_end, self._own_end]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, failed: type[BaseException] | None, *_: object) -> None:
        """Close the child's end in this process; without a child, close both."""
        self._close(self.child_end)
        if failed:
            self.close()

    @property
    def environment(self) -> dict[str, str]:
        """Tells a child that can watch the pipe which descriptor it is."""
        return {PARENT_PIPE_VARIABLE: str(self.child_end)}

    def tie_group(self, leader: int) -> None:
        """Have the process group killed when this process dies."""
        self._send(signal.SIGKILL, -leader)

    def tie_process(self, pid: int, number: signal.Signals) -> None:
        """Have the process sent the signal when this process dies."""
        self._send(number, pid)

    def _send(self, number: signal.Signals, owner: int) -> None:
        request = getattr(fcntl, "F_SETSIG", None)
        if request is None:  # not Linux
            return
        with contextlib.suppress(ProcessLookupError):  # it has ended already
            fcntl.fcntl(self.child_end, fcntl.F_SETOWN, owner)
            fcntl.fcntl(self.child_end, request, number)
            flags = fcntl.fcntl(self.child_end, fcntl.F_GETFL)
            fcntl.fcntl(self.child_end, fcntl.F_SETFL, flags | os.O_ASYNC)

    def close(self) -> None:
        """Close the pipe of a child that has ended; a child that has not ended is sent the signal."""
        self._close(self.child_end)
        self._close(self._own_end)

    def _close(self, descriptor: int) -> None:
        if descriptor in self._open:
            self._open.remove(descriptor)
            os.close(descriptor)


def kill_group(leader: int) -> None:
    """Kill a child and every process of its group; most groups have none left."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, signal.SIGKILL)
