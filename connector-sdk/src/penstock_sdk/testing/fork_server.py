"""Processes for attempts, forked from one that has imported the runtime already."""

from __future__ import annotations

import json
import os
import select
import signal
import site
import subprocess
import sys
import time
from pathlib import Path

INHERITED = ("PATH", "LANG", "LC_ALL", "TZ", "SSL_CERT_FILE", "SSL_CERT_DIR", "VIRTUAL_ENV")


class ForkServer:
    """A process that forks attempts, one at a time. It ends with this process, because its standard input then closes."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "penstock_sdk.testing.process_probe"],
            env=base_environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        self._read = b""

    def spawn(self, environment: dict[str, str], room: Path) -> AttemptProcess:
        """Start a process with this environment, in its own directories below `room`."""
        order = {
            "environment": environment,
            "directory": str(room / "work"),
            "output": str(room / "output"),
            "observations": str(room / "observations"),
        }
        assert self._process.stdin  # noqa: S101 - a pipe was asked for
        self._process.stdin.write(json.dumps(order).encode() + b"\n")
        self._process.stdin.flush()
        return AttemptProcess(int(self._line(None)), self)

    def ending(self, seconds: float | None) -> int | None:
        """Return the exit code of the running process, or None if it has not ended within `seconds`."""
        line = self._line(seconds)
        return int(line) if line else None

    def _line(self, seconds: float | None) -> str:
        """Return the next line, or nothing if it does not arrive within `seconds`.

        It reads from the descriptor, because select does not see a line that is already in a buffer.
        """
        assert self._process.stdout  # noqa: S101 - a pipe was asked for
        pipe, end = self._process.stdout.fileno(), None if seconds is None else time.monotonic() + seconds
        while b"\n" not in self._read:
            left = None if end is None else max(0.0, end - time.monotonic())
            if not select.select([pipe], [], [], left)[0]:
                return ""
            data = os.read(pipe, 4096)
            if not data:
                raise RuntimeError(f"the process that starts attempts ended with {self._process.wait()}; see above")
            self._read += data
        line, self._read = self._read.split(b"\n", 1)
        return line.decode()

    def close(self) -> None:
        """End the process."""
        if self._process.stdin:
            self._process.stdin.close()
        try:
            self._process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdout:
            self._process.stdout.close()


class AttemptProcess:
    """The process of one attempt."""

    def __init__(self, pid: int, spawner: ForkServer) -> None:
        self.pid = pid
        self._spawner = spawner
        self._ended = False

    def send(self, number: signal.Signals) -> None:
        """Send a signal, unless the process has ended."""
        if not self._ended:
            os.kill(self.pid, number)

    def wait(self, seconds: float | None) -> int | None:
        """Return the exit code, or None if the process has not ended in time. A negative code is the signal that killed it."""
        code = self._spawner.ending(seconds)
        self._ended = code is not None
        return code

    @property
    def ended(self) -> bool:
        """True if the process has ended and its exit code was read."""
        return self._ended


def base_environment() -> dict[str, str]:
    """Return the environment of every process: the variables that Python needs to find its packages."""
    inherited = {key: os.environ[key] for key in INHERITED if key in os.environ}
    paths = [str(Path(path).absolute()) for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
    return {
        **inherited,
        "HOME": os.environ.get("HOME", "/"),
        "PYTHONPATH": os.pathsep.join(paths),
        "PYTHONUSERBASE": site.getuserbase(),  # an attempt has another HOME, and packages may be installed below this one
        "PYTHONUNBUFFERED": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
