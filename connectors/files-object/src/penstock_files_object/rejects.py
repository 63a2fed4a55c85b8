"""Rows that cannot be read: named by file and line, and either the end of the read or put aside, as the stream says."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from penstock_sdk import SourceContractError

log = logging.getLogger("penstock")
NAMED = 20
PutAside = Callable[[Any, str], None]


@dataclass
class BadRows:
    """What one file's bad rows lead to. A message holds no value of the row: it may be anybody's data."""

    stream: str
    path: str
    policy: Literal["fail", "skip"]
    put_aside: PutAside
    unit: Literal["line", "row"] = "line"
    count: int = field(default=0, init=False)

    def take(self, line: int, reason: str, row: list[str] | dict[str, Any] | bytes) -> None:
        """Name a bad row; raises SourceContractError unless the stream skips them."""
        where = f"{self.path}, {self.unit} {line}: {reason}"
        if self.policy == "fail":
            raise SourceContractError(
                f"stream {self.stream!r}: {where}; correct the file, or set onBadRow: skip on the stream"
            )
        self.count += 1
        if self.count <= NAMED:
            log.warning("stream %r: put aside: %s", self.stream, where)
        kept = row.decode(errors="backslashreplace") if isinstance(row, bytes) else row
        self.put_aside({"file": self.path, self.unit: line, "values" if self.unit == "row" else "row": kept}, where)

    def close(self) -> None:
        """Say how many there were, where not all were named."""
        if self.count > NAMED:
            log.warning("stream %r: %s: %d bad rows were put aside", self.stream, self.path, self.count)


def nowhere(data: Any, message: str) -> None:
    """Forget a bad row of a sample: the read names it."""
