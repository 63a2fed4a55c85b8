"""Processes for attempts, forked from one that has the runtime imported already."""

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
    """One process that forks others, one at a time. It ends with us: its standard input does."""

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
        """Start a process with this environment in a room of its own."""
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
        """Return the exit code of the process that runs, or None when it has not ended in time."""
        line = self._line(seconds)
        return int(line) if line else None

    def _line(self, seconds: float | None) -> str:
        """Return the next line, or nothing when it does not come in time.

        Read from the descriptor: a line that a buffer holds already is not seen by select.
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
        """End."""
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
    """A process of an attempt."""

    def __init__(self, pid: int, spawner: ForkServer) -> None:
        self.pid = pid
        self._spawner = spawner
        self._ended = False

    def send(self, number: signal.Signals) -> None:
        """Send a signal, unless it has ended."""
        if not self._ended:
            os.kill(self.pid, number)

    def wait(self, seconds: float | None) -> int | None:
        """Return the exit code (negative: the signal that killed it), or None when it has not ended in time."""
        code = self._spawner.ending(seconds)
        self._ended = code is not None
        return code

    @property
    def ended(self) -> bool:
        """Whether its end was seen."""
        return self._ended


def base_environment() -> dict[str, str]:
    """Return what every process gets: what finds Python and its packages, and nothing else of ours."""
    inherited = {key: os.environ[key] for key in INHERITED if key in os.environ}
    paths = [str(Path(path).absolute()) for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
    return {
        **inherited,
        "HOME": os.environ.get("HOME", "/"),
        "PYTHONPATH": os.pathsep.join(paths),
        "PYTHONUSERBASE": site.getuserbase(),  # an attempt has another HOME, and packages may be below this one
        "PYTHONUNBUFFERED": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
