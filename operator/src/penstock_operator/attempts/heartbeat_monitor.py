"""Which attempts have sent no heartbeat for too long: by the registry's clock, and as this process has seen it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime

from penstock_operator.runs.attempt_store import AttemptKey, LiveAttempt

WITNESSED_SHARE = 4


class HeartbeatMonitor:
    """Remembers since when each attempt's newest heartbeat has been the newest."""

    def __init__(self, deadline: float, clock: Callable[[], float]) -> None:
        self._deadline, self._clock = deadline, clock
        self._seen: dict[AttemptKey, tuple[datetime | None, float]] = {}

    def has_expired(self, attempt: LiveAttempt, seconds: float) -> bool:
        """Return True if no heartbeat came for `seconds`, more than the deadline, and this process saw a quarter of that.

        Without the second condition every attempt would be ended at once after the registry was away for minutes, or
        after its clock was put forward: their next heartbeats are on the way.
        """
        key, now = (attempt.run_id, attempt.attempt), self._clock()
        if self._seen.get(key, (None, 0.0))[0] != attempt.heartbeat_at:
            self._seen[key] = (attempt.heartbeat_at, now)
        witnessed = now - self._seen[key][1]
        return seconds > self._deadline and witnessed >= self._deadline / WITNESSED_SHARE

    def keep(self, attempts: Iterable[AttemptKey]) -> None:
        """Forget all other attempts."""
        live = set(attempts)
        self._seen = {key: seen for key, seen in self._seen.items() if key in live}
