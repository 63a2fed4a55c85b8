"""Logs of running attempts: from the pod, or from the file of the process."""

from __future__ import annotations

import asyncio
import fcntl
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import IO, Protocol

POLL_SECONDS = 0.2
CHUNK = 64 * 1024


class LogNotFound(Exception):  # noqa: N818 - it is not an error until somebody needs the log
    """There is no log yet, or not any more; the message says which."""


class LogUnreadable(LogNotFound):
    """There is a log, and it cannot be read now, as while the node does not answer."""


class LogSource(Protocol):
    """Reads attempts' logs while their pods or processes exist."""

    def read(self, namespace: str, job_name: str) -> AsyncGenerator[bytes]:
        """Yield what is there now. Raises LogNotFound."""

    def follow(self, namespace: str, job_name: str) -> AsyncGenerator[bytes]:
        """Yield what is there and what follows, until the writer has ended. Raises LogNotFound."""

    def forget(self, job_name: str) -> None:
        """Delete the attempt's log on this machine."""


class FileLogs:
    """Logs of processes, one file each. A process that may write to the file holds a lock on it, which ends with the process."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def path(self, job_name: str) -> Path:
        """Return the file that holds an attempt's output."""
        return self._directory / f"{job_name}.log"

    def forget(self, job_name: str) -> None:
        """Delete the file."""
        self.path(job_name).unlink(missing_ok=True)

    def open_for_writing(self, job_name: str) -> IO[bytes]:
        """Open and lock the file for a process that inherits it; the lock shows readers that the process runs."""
        self._directory.mkdir(parents=True, exist_ok=True)
        file = self.path(job_name).open("ab")
        fcntl.flock(file, fcntl.LOCK_SH)
        return file

    async def read(self, namespace: str, job_name: str) -> AsyncGenerator[bytes]:
        """Yield what is there now."""
        del namespace
        with self._open(job_name) as file:
            while chunk := file.read(CHUNK):
                yield chunk

    async def follow(self, namespace: str, job_name: str) -> AsyncGenerator[bytes]:
        """Yield what is there and what follows, until no process has the file open."""
        del namespace
        with self._open(job_name) as file:
            while True:
                over = not _has_writer(file)
                while chunk := file.read(CHUNK):
                    yield chunk
                if over:
                    return
                await asyncio.sleep(POLL_SECONDS)

    def _open(self, job_name: str) -> IO[bytes]:
        try:
            return self.path(job_name).open("rb")
        except FileNotFoundError:
            raise LogNotFound("the attempt has printed nothing") from None


def _has_writer(file: IO[bytes]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    fcntl.flock(file, fcntl.LOCK_UN)
    return False
