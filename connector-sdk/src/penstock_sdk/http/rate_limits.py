"""Keeping requests within the rate limit of a source."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Protocol

import httpx

from penstock_sdk import _waiting
from penstock_sdk.errors import TransientError
from penstock_sdk.http.retry_after import rate_limit_status


class RateLimiter(Protocol):
    """Decides when the next request may be sent. Used by several threads."""

    def acquire(self) -> None:
        """Return when a request may be sent. Raises TransientError with `retry_after` if that takes too long."""

    def observe(self, headers: httpx.Headers) -> None:
        """Learn from the headers of a response."""


class SourceRateLimiter:
    """Waits when the source's headers (RateLimit-*, X-RateLimit-*) say that no request remains until the limit's reset."""

    def __init__(
        self,
        *,
        longest_wait: float = 300.0,
        wait: Callable[[float], None] = _waiting.wait,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._wait, self._clock, self._longest_wait = wait, clock, longest_wait
        self._lock = threading.Lock()
        self._blocked_until = 0.0

    def acquire(self) -> None:
        """Wait for the reset, if no request remains."""
        with self._lock:
            seconds = self._blocked_until - self._clock()
        if seconds <= 0:
            return
        if seconds > self._longest_wait:
            raise TransientError(
                f"the source's rate limit is used up for {seconds:.0f} more seconds", retry_after=seconds
            )
        self._wait(seconds)

    def observe(self, headers: httpx.Headers) -> None:
        """Remember when the limit is reset, if no request remains."""
        status = rate_limit_status(headers)
        if status is not None and status.remaining <= 0:
            with self._lock:
                self._blocked_until = max(self._blocked_until, self._clock() + status.reset_seconds)
