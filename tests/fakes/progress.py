"""A reporter that keeps what it is told."""

from __future__ import annotations

from penstock_operator.embedded.runner import ProgressReporter, RunProgress


class FakeProgressReporter:
    """Keeps the lines, and the progress of runs."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.seen: list[RunProgress] = []

    def line(self, text: str) -> None:
        """Keep a line."""
        self.lines.append(text)

    def run(self, seen: RunProgress) -> None:
        """Keep the progress of a run."""
        self.seen.append(seen)


_: ProgressReporter = FakeProgressReporter()
