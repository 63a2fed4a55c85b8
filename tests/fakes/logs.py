"""Logs of attempts whose output the test writes itself, with a process's lock on the file."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import IO

from penstock_operator.launchers.logs import FileLogs, LogSource


class FakeLogs:
    """`opened` and `closed` are set when somebody begins to follow a log, and when they end."""

    def __init__(self, directory: Path) -> None:
        self.files = FileLogs(directory)
        self.opened, self.closed = asyncio.Event(), asyncio.Event()
        self._writing: dict[str, IO[bytes]] = {}

    def print(self, job_name: str, text: str) -> None:
        """Write a text as the attempt's process would."""
        if job_name not in self._writing:
            self._writing[job_name] = self.files.open_for_writing(job_name)
        self._writing[job_name].write(text.encode())
        self._writing[job_name].flush()

    def end(self, job_name: str) -> None:
        """End the attempt's process."""
        self._writing.pop(job_name).close()

    def read(self, namespace: str, job_name: str) -> AsyncGenerator[bytes]:
        """Yield what there is now."""
        return self.files.read(namespace, job_name)

    async def follow(self, namespace: str, job_name: str) -> AsyncGenerator[bytes]:
        """Yield what there is and what comes."""
        self.opened.set()
        try:
            async for chunk in self.files.follow(namespace, job_name):
                yield chunk
        finally:
            self.closed.set()

    def forget(self, job_name: str) -> None:
        """Delete the file."""
        self.files.forget(job_name)


_: LogSource = FakeLogs(Path("/nonexistent"))
