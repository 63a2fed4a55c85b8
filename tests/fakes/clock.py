"""A clock that a test turns."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from penstock_operator.attempts.supervisor import Clock


class FakeClock:
    """The time, and as much ahead of it as the test says."""

    def __init__(self, ahead: timedelta = timedelta(0)) -> None:
        self.ahead = ahead

    def __call__(self) -> datetime:
        """Return the moment."""
        return datetime.now(UTC) + self.ahead


_: Clock = FakeClock()
