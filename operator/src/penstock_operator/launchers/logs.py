"""What an attempt printed, as it is written: from its pod, or from its process's file."""

from __future__ import annotations

import asyncio
import fcntl
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import IO, Protocol

POLL_SECONDS = 0.2
CHUNK = 64 * 1024


class LogNotFound(Exception):  # noqa: N818 - it is not an error until somebody needs the log
    """There is nothing to read, not yet or not any more; the message says which."""


class LogUnreadable(LogNotFound):
    """There is a log, and it cannot be read now: the node does not answer, say."""


class LogSource(Protocol):
    """Where attempts' logs are while their carriers exist."""

    def read(self, namespace: str, job_name: str) -> AsyncGenerator[bytes]:
        """Yield what there is now. Raises LogGone."""

    def follow(self, namespace: str, job_name: str) -> AsyncGenerator[bytes]:
        """Yield what there is and what comes, until the writer has ended. Raises LogGone."""

    def forget(self, job_name: str) -> None:
        """Delete what this machine keeps of an attempt's log."""


class FileLogs:
    """Logs of processes, a file each. Whoever may write to one holds a lock on it, which the kernel ends with them."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def path(self, job_name: str) -> Path:
        """Return the file that holds an attempt's output."""
        return self._directory / f"{job_name}.log"

    def forget(self, job_name: str) -> None:
        """Delete the file."""
        self.path(job_name).unlink(missing_ok=True)

    def open_for_writing(self, job_name: str) -> IO[bytes]:
        """Open the file for a process that is to inherit it, with the lock that tells readers that it lives."""
        self._directory.mkdir(parents=True, exist_ok=True)
        file = self.path(job_name).open("ab")
        fcntl.flock(file, fcntl.LOCK_SH)
        return file

    async def read(self, namespace: str, job_name: str) -> AsyncGenerator[bytes]:
        """Yield what there is now."""
        del namespace
        with self._open(job_name) as file:
            while chunk := file.read(CHUNK):
                yield chunk

    async def follow(self, namespace: str, job_name: str) -> AsyncGenerator[bytes]:
        """Yield what there is and what comes, until no process has the file any more."""
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
