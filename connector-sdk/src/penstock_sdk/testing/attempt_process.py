"""Attempts in their own processes: the real runtime, with new directories, and the files that it wrote."""

from __future__ import annotations

import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import msgspec

from penstock_sdk.protocol import (
    API_URL_VARIABLE,
    ATTEMPT_VARIABLE,
    CONNECTOR_VARIABLE,
    CREDENTIAL_VARIABLE_PREFIX,
    RUN_ID_VARIABLE,
    TOKEN_FILE_VARIABLE,
)
from penstock_sdk.testing.fork_server import AttemptProcess, ForkServer, base_environment
from penstock_sdk.testing.run_api import RUN, RunApi
from penstock_sdk.testing.target import Target

MOST_PATIENCE = 20


class Observation(msgspec.Struct, frozen=True):
    """One line that the probe of a process wrote (process_probe.py, connection_trace.py). `event` decides which fields it has.

    `lookup`: a name is looked up. `resolved`: its addresses. `connect`: a connection is opened, by the program if that is a
    child. `child`: a program is started. `watch`: whether all connections are seen, or the `reason` why not. `unseen`: why one
    was not. `peak`: the memory peak in bytes.
    """

    event: Literal["lookup", "resolved", "connect", "child", "watch", "unseen", "peak"]
    host: str = ""
    port: int | str | None = None
    kind: Literal["tcp", "udp"] = "tcp"
    addresses: list[str] = []
    program: str = ""
    complete: bool = False
    reason: str = ""
    bytes: int | None = None


@dataclass(frozen=True)
class AttemptResult:
    """The result of an attempt's process. `exit_code` is None if the process had to be killed."""

    exit_code: int | None
    output: str = field(repr=False)
    seconds: float
    observations: tuple[Observation, ...] = ()
    written: tuple[str, ...] = ()

    @property
    def peak_bytes(self) -> int | None:
        """The memory peak of the process, if it ended by itself."""
        return next((observation.bytes for observation in self.observations if observation.event == "peak"), None)


class RunningAttempt:
    """The process of an attempt."""

    def __init__(self, child: AttemptProcess, room: Path) -> None:
        self.child = child
        self._room = room
        self._before = _tree(room)
        self._began = time.monotonic()

    def kill(self) -> None:
        """Kill the process."""
        self.child.send(signal.SIGKILL)

    def wait(self, patience: float, progressed: Callable[[], float]) -> AttemptResult:
        """Wait for the end. Kill the process after `patience` seconds without progress, or after twenty times as many in total.

        `progressed` returns the time of the last progress. A slow machine makes a run longer, but not a single step.
        """
        code = None
        while code is None:
            now = time.monotonic()
            left = min(max(self._began, progressed()) + patience, self._began + MOST_PATIENCE * patience) - now
            if left <= 0:
                break
            code = self.child.wait(left)
        if code is None:
            self.kill()
            self.child.wait(None)
        output = (self._room / "output").read_text(errors="replace")
        notes = (self._room / "observations").read_text().splitlines()
        written = sorted(_tree(self._room) - self._before)
        return AttemptResult(
            code,
            output,
            time.monotonic() - self._began,
            tuple(msgspec.json.decode(note, type=Observation) for note in notes),
            tuple(written),
        )


@contextmanager
def start_attempt(target: Target, api: RunApi, fork_server: ForkServer) -> Iterator[RunningAttempt]:
    """Start the next attempt of the run. Its process has ended when the block is left."""
    with tempfile.TemporaryDirectory(prefix="penstock-", ignore_cleanup_errors=True) as directory:
        room = Path(directory)
        running = RunningAttempt(fork_server.spawn(_environment(target, api, room), room), room)
        try:
            yield running
        finally:
            if not running.child.ended:
                running.kill()
                running.child.wait(None)


def _environment(target: Target, api: RunApi, room: Path) -> dict[str, str]:
    for name in ("work", "home", "tmp"):
        (room / name).mkdir()
    for name in ("output", "observations"):
        (room / name).touch()
    number = api.next_attempt()
    (room / "token").write_text(api.token)
    return {
        **base_environment(),
        **{f"{CREDENTIAL_VARIABLE_PREFIX}{name}": value for name, value in target.credentials.items()},
        "HOME": str(room / "home"),
        "TMPDIR": str(room / "tmp"),
        API_URL_VARIABLE: api.url,
        RUN_ID_VARIABLE: RUN,
        ATTEMPT_VARIABLE: str(number),
        CONNECTOR_VARIABLE: target.artifact,
        TOKEN_FILE_VARIABLE: str(room / "token"),
    }


def _tree(room: Path) -> set[str]:
    """Return the files in the working directory and in the home directory. The temporary directory may be used."""
    return {
        f"~/{path.relative_to(room / 'home')}" if part == "home" else str(path.relative_to(room / "work"))
        for part in ("work", "home")
        for path in (room / part).rglob("*")
    }
