"""Base of the embedded servers: one process on one locked directory, started, awaited and stopped."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from abc import ABC, abstractmethod
from pathlib import Path
from typing import IO, ClassVar, Self

from penstock_operator.embedded import EmbeddedError
from penstock_operator.embedded.private_files import free_port, lock, start_time
from penstock_operator.launchers.lifeline import Lifeline

START_SECONDS, INSIST_SECONDS, END_SECONDS = 30.0, 20.0, 20.0
TAIL_LINES = 8


class EmbeddedServer(ABC):
    """One server on one data directory, bound to one address."""

    title: ClassVar[str]
    log_name: ClassVar[str]
    stop_with: ClassVar[signal.Signals]
    insist_with: ClassVar[signal.Signals]
    orphaned_with: ClassVar[signal.Signals] = signal.SIGKILL
    stop_seconds: ClassVar[float] = 20.0

    def __init__(self, directory: Path, host: str = "127.0.0.1", port: int | None = None) -> None:
        self._directory = directory.resolve()
        self._host = host
        self._port = port
        self._process: subprocess.Popen[bytes] | None = None
        self._lock: int | None = None
        self._lifeline: Lifeline | None = None

    def __enter__(self) -> Self:
        self.run()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def run(self) -> None:
        """Start the server. An orphan of a killed platform is ended first."""
        self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._lock = lock(self._directory)
        try:
            self._prepare()
            self._port = self._port or free_port(self._host)
            with (self._directory / self.log_name).open("ab") as log:
                self._process = self._tied(log)
            self._wait()
        except BaseException:
            self.stop()
            raise

    @abstractmethod
    def _prepare(self) -> None:
        """End an orphan on the directory, and make the files that the server needs."""

    def _tied(self, log: IO[bytes]) -> subprocess.Popen[bytes]:
        """Start the process so that the kernel stops it when this process ends, also by SIGKILL."""
        with Lifeline() as self._lifeline:
            process = self._launch(log, self._lifeline.child_end)
            self._lifeline.tie_process(process.pid, self.orphaned_with)
        return process

    @abstractmethod
    def _launch(self, log: IO[bytes], lifeline: int) -> subprocess.Popen[bytes]:
        """Start the process, in a session of its own; it keeps the descriptor."""

    @abstractmethod
    def _is_ready(self) -> bool:
        """Return True if the server answers, and create what its clients need in it."""

    def _wait(self) -> None:
        end = time.monotonic() + START_SECONDS
        while not self.has_ended() and time.monotonic() < end:
            if self._is_ready():
                return
            time.sleep(0.05)
        raise EmbeddedError(f"{self.title} does not start:\n{self.log_tail()}")

    def stop(self) -> None:
        """Stop the server; committed data stays. Without a server, do nothing."""
        if self._process is not None:
            self._process.send_signal(self.stop_with)
            try:
                self._process.wait(timeout=self.stop_seconds)
            except subprocess.TimeoutExpired:
                self._process.send_signal(self.insist_with)
                self._process.wait(timeout=INSIST_SECONDS)
            self._process = None
        if self._lifeline is not None:
            self._lifeline.close()
            self._lifeline = None
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    @property
    def pid(self) -> int:
        """The server's process."""
        if self._process is None:
            raise EmbeddedError(f"{self.title} is not started: call start() first")
        return self._process.pid

    def has_ended(self) -> bool:
        """Return True if the process has ended by itself."""
        return self._process is not None and self._process.poll() is not None

    def log_tail(self) -> str:
        """Return the last lines that the server wrote."""
        log = self._directory / self.log_name
        try:
            lines = log.read_text(errors="replace").splitlines()
        except OSError as error:
            return f"its log {log} cannot be read: {error.strerror}"
        return "\n".join(lines[-TAIL_LINES:])


def end_orphan(pid: int, started: str, sign: signal.Signals) -> None:
    """End a process that an earlier platform left behind; one that ignores the signal is killed."""
    with contextlib.suppress(ProcessLookupError):  # the kernel told it to end when its platform died
        os.kill(pid, sign)
    end = time.monotonic() + END_SECONDS
    while start_time(pid) == started and time.monotonic() < end:
        time.sleep(0.02)
    if start_time(pid) == started:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
