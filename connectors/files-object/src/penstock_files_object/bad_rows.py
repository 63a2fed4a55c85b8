"""Rows that cannot be read: each is reported by file and line, and ends the read or is rejected (`onBadRow`)."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from penstock_sdk import Record, SourceContractError

log = logging.getLogger("penstock")
MOST_LOGGED = 20
RejectHandler = Callable[[object, str], None]


@dataclass
class BadRows:
    """The bad rows of one file. Messages do not quote a row, as its data may be confidential."""

    stream: str
    path: str
    policy: Literal["fail", "skip"]
    reject: RejectHandler
    unit: Literal["line", "row"] = "line"
    count: int = field(default=0, init=False)

    def add(self, line: int, reason: str, row: Sequence[str] | Record | bytes) -> None:
        """Report a bad row. Raises SourceContractError unless the stream has onBadRow: skip."""
        where = f"{self.path}, {self.unit} {line}: {reason}"
        if self.policy == "fail":
            raise SourceContractError(
                f"stream {self.stream!r}: {where}; correct the file, or set onBadRow: skip on the stream"
            )
        self.count += 1
        if self.count <= MOST_LOGGED:
            log.warning("stream %r: row rejected: %s", self.stream, where)
        kept = row.decode(errors="backslashreplace") if isinstance(row, bytes) else row
        self.reject({"file": self.path, self.unit: line, "values" if self.unit == "row" else "row": kept}, where)

    def close(self) -> None:
        """Log the number of bad rows, if they were not all logged."""
        if self.count > MOST_LOGGED:
            log.warning("stream %r: %s: %d bad rows were rejected", self.stream, self.path, self.count)


def discard(data: object, message: str) -> None:
    """Ignore a bad row of a sample: the read reports it."""
