"""How many Jobs may be made now. Pure but for what it remembers."""

from __future__ import annotations

PLENTY = 1_000_000


class TokenBucket:
    """Lets `rate` a second through, and `burst` at once after a pause; a start is no pause. Without a rate, everything."""

    def __init__(self, rate: float | None, burst: int) -> None:
        self._rate = rate
        self._burst = float(max(burst, 1))
        self._tokens = min(self._burst, max(rate or 0.0, 1.0))
        self._at: float | None = None

    def room(self, now: float) -> int:
        """Return how many may go through; `now` is in seconds, and a clock that is put back gives nothing."""
        if self._rate is None:
            return PLENTY
        passed = max(0.0, now - self._at) if self._at is not None else 0.0
        self._at = now
        self._tokens = min(self._burst, self._tokens + passed * self._rate)
        return int(self._tokens)

    def take(self, count: int) -> None:
        """Count what went through."""
        self._tokens -= count
