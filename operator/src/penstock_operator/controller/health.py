"""Health of the controller's loops: their last successes and failures, for probes and metrics."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from prometheus_client import Counter, Gauge, Summary

LEADING = Gauge("penstock_leading", "1 while this replica is the leader")
FAILURES = Counter("penstock_loop_failures", "Rounds of a loop that failed", ["loop"])
LAST_SUCCESS = Gauge("penstock_loop_last_success_timestamp_seconds", "When a loop's round last succeeded", ["loop"])
ROUND = Summary("penstock_loop_round_seconds", "How long the rounds of a loop took that succeeded", ["loop"])
Role = Literal["standby", "leader"]


@dataclass
class LoopHealth:
    """The state of one loop. Times are those of the monotonic clock, in seconds."""

    period: float
    last_end: float
    failing_since: float | None = None
    error: str = ""


class Health:
    """Records the rounds of each loop. A round that hangs fails liveness, rounds that fail for long fail readiness."""

    def __init__(
        self,
        *,
        hang_seconds: float = 300.0,
        patience_seconds: float = 60.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._hang, self._patience, self._clock = hang_seconds, patience_seconds, clock
        self._loops: dict[str, LoopHealth] = {}
        self.warnings: dict[str, str] = {}
        self.role: Role = "standby"

    def lead(self) -> None:
        """Record that this replica is the leader."""
        self.role = "leader"
        LEADING.set(1)

    def warn(self, subject: str, message: str) -> None:
        """Record what an operator should know and no restart helps; an empty message takes it back."""
        self.warnings = {name: told for name, told in self.warnings.items() if name != subject}
        if message:
            self.warnings[subject] = message

    def expect(self, loop: str, period: float) -> None:
        """Record that a loop begins."""
        self._loops[loop] = LoopHealth(period, self._clock())

    def succeeded(self, loop: str, took: float = 0.0) -> None:
        """Record that a round has succeeded, and its duration in seconds."""
        state = self._loops[loop]
        state.last_end, state.failing_since, state.error = self._clock(), None, ""
        LAST_SUCCESS.labels(loop).set_to_current_time()
        ROUND.labels(loop).observe(took)

    def failed(self, loop: str, error: str) -> None:
        """Record that a round has failed."""
        state = self._loops[loop]
        state.last_end, state.error = self._clock(), error
        state.failing_since = state.failing_since or state.last_end
        FAILURES.labels(loop).inc()

    def hanging(self) -> dict[str, str]:
        """Return the loops whose round does not end, each with a message: only a restart helps."""
        now = self._clock()
        return {
            name: f"no round has ended for {now - loop.last_end:.0f} s"
            for name, loop in self._loops.items()
            if now - loop.last_end > loop.period + self._hang
        }

    def failing(self) -> dict[str, str]:
        """Return the loops that have failed for longer than a restart of a server takes, each with its last error."""
        now = self._clock()
        return {
            name: loop.error
            for name, loop in self._loops.items()
            if loop.failing_since is not None and now - loop.failing_since > self._patience
        }
