"""Rows that cannot be read: named by file and line, and either the end of the read or left out, as the stream says."""

from __future__ import annotations

import logging
from typing import Literal

from penstock_sdk import SourceContractError

log = logging.getLogger("penstock")
NAMED = 20


class BadRows:
    """What one file's bad rows lead to. A message holds no value of the row: it may be anybody's data."""

    def __init__(self, stream: str, path: str, policy: Literal["fail", "skip"]) -> None:
        self._stream = stream
        self._path = path
        self._policy = policy
        self.count = 0

    def take(self, line: int, reason: str, unit: str = "line") -> None:
        """Name a bad row; raises SourceContractError unless the stream skips them."""
        said = f"stream {self._stream!r}: {self._path}, {unit} {line}: {reason}"
        if self._policy == "fail":
            raise SourceContractError(f"{said}; correct the file, or set onBadRow: skip on the stream")
        self.count += 1
        if self.count <= NAMED:
            log.warning("skipped: %s", said)

    def close(self) -> None:
        """Say how many there were."""
        if self.count:
            log.warning("stream %r: %s: %d bad rows were skipped", self._stream, self._path, self.count)
