"""Which attempts have gone silent: by the registry's clock, and as this process has witnessed it.

The registry's clock alone would condemn every attempt at once after the registry was away for minutes, or after its
clock was put forward: their next heartbeats are on the way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime

from penstock_operator.registry.database import Row

WITNESSED_SHARE = 4
Attempt = tuple[str, int]


class HeartbeatMonitor:
    """Remembers since when each attempt's newest heartbeat has been the newest."""

    def __init__(self, deadline: float, clock: Callable[[], float]) -> None:
        self._deadline, self._clock = deadline, clock
        self._seen: dict[Attempt, tuple[datetime, float]] = {}

    def lasts(self, row: Row, seconds: float) -> bool:
        """Say whether the attempt, silent for so long, has been so for too long, a quarter of that before our own eyes."""
        key, now = (row["run_id"], row["attempt"]), self._clock()
        if self._seen.get(key, (None, 0.0))[0] != row["heartbeat_at"]:
            self._seen[key] = (row["heartbeat_at"], now)
        witnessed = now - self._seen[key][1]
        return seconds > self._deadline and witnessed >= self._deadline / WITNESSED_SHARE

    def keep(self, attempts: Iterable[Attempt]) -> None:
        """Forget all other attempts."""
        live = set(attempts)
        self._seen = {key: seen for key, seen in self._seen.items() if key in live}
