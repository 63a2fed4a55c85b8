"""Keeping requests within the rate limit of a source."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Protocol

import httpx

from penstock_sdk import _waiting
from penstock_sdk._rate_leases import LeaseRequests, lease_function
from penstock_sdk.errors import TransientError
from penstock_sdk.http.rate_limit_headers import rate_limit_status

MAX_LEASED_REQUESTS = 1000
"""Requests that one call may ask for, as the protocol says."""


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


class SharedRateLimiter:
    """Takes requests from a budget that all connections to the source share, several at a time.

    The manifest declares the limit (`rateLimits`), and the platform keeps the budget. A lease is asked for when the one before
    it is used up or no longer valid; it is larger after one that was used up, and smaller after one that was not.
    """

    def __init__(
        self,
        host: str,
        port: int,
        lease: LeaseRequests,
        *,
        longest_wait: float = 300.0,
        wait: Callable[[float], None] = _waiting.wait,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._source = SourceRateLimiter(longest_wait=longest_wait, wait=wait, clock=clock)
        self._host, self._port, self._lease = host, port, lease
        self._wait, self._clock, self._longest_wait = wait, clock, longest_wait
        self._lock = threading.Lock()
        self._is_limited = True
        self._size, self._remaining, self._valid_until = 1, 0, 0.0

    def acquire(self) -> None:
        """Take a request of the lease, or of a new one."""
        self._source.acquire()
        if not self._is_limited:
            return
        with self._lock:
            if not self._remaining or self._clock() >= self._valid_until:
                self._renew()
            self._remaining -= self._is_limited

    def observe(self, headers: httpx.Headers) -> None:
        """Learn from the headers of a response."""
        self._source.observe(headers)

    def _renew(self) -> None:
        """Ask for requests until some are granted, and wait for them."""
        self._size = (
            max(1, self._size - self._remaining) if self._remaining else min(2 * self._size, MAX_LEASED_REQUESTS)
        )
        waited = 0.0
        while True:
            asked_at = self._clock()
            lease = self._lease(self._host, self._port, self._size)
            if lease is None:
                self._is_limited = False
                return
            if waited + lease.wait_seconds > self._longest_wait:
                raise TransientError(
                    f"the rate limit of {self._host} is used up by this and other connections",
                    retry_after=max(lease.wait_seconds, 1.0),
                )
            if lease.wait_seconds > 0:
                self._wait(lease.wait_seconds)
                waited += lease.wait_seconds
            if lease.requests:
                break
        # From the time of the question, so that a slow answer does not make the lease longer. One request is always sent:
        # otherwise a run API that is slower than leases are valid would stop the read.
        self._valid_until = asked_at + lease.wait_seconds + lease.valid_seconds
        self._size = self._remaining = lease.requests if self._clock() < self._valid_until else 1


def default_rate_limiter(
    host: str, port: int, *, longest_wait: float, wait: Callable[[float], None], clock: Callable[[], float]
) -> RateLimiter:
    """Return the limiter of a client: with a platform, one that shares the budget of the source."""
    lease = lease_function()
    if lease is None:
        return SourceRateLimiter(longest_wait=longest_wait, wait=wait, clock=clock)
    return SharedRateLimiter(host, port, lease, longest_wait=longest_wait, wait=wait, clock=clock)
