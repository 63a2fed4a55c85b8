"""A circuit breaker for hosts, buckets and paths: after failures they are not asked again in the same attempt.

Each request to a host that does not answer costs a timeout, and a host that answers Retry-After expects a pause. The
streams of such a host fail at once, with the reason, and the streams of other hosts are read. The next attempt starts
without this knowledge.
"""

from __future__ import annotations

from collections import Counter

import httpx
from penstock_sdk import TransientError

from penstock_files_object.config import display_path, origin

TIMED_OUT_PATHS = 2
"""Paths of a host that time out in a row before the host is not asked again: one slow file does not condemn its host."""
FAILED_REQUESTS = 3
"""Requests to a host that fail in a row before it is not asked again; the SDK ends a run after as many failed streams."""


class CircuitOpenError(TransientError):
    """The host, bucket or path is not asked again in this attempt."""


class CircuitBreaker:
    """Counts the failures of one attempt, by host, bucket and path."""

    def __init__(self, endpoint: str) -> None:
        self._endpoint = origin(endpoint)
        self._open = dict[str, TransientError]()
        self._timeouts, self._failures = Counter[str](), Counter[str]()

    def check(self, path: str) -> None:
        """Raise CircuitOpenError if a path, its bucket or its host is not to be asked again."""
        for target in (self._host(path), self._bucket(path), path):
            reason = self._open.get(target)
            if reason:
                raise CircuitOpenError(
                    f"{display_path(path)}: not requested again in this attempt: {reason.message}",
                    retry_after=reason.retry_after,
                    scope="stream",
                ) from reason

    def record_success(self, path: str) -> None:
        """Record an answer from the path's host."""
        host = self._host(path)
        self._timeouts[host] = self._failures[host] = 0

    def record_throttling(self, path: str, error: TransientError) -> None:
        """Record that the server asked for a pause: its bucket, or the HTTP server, is not asked again."""
        self._open[self._bucket(path)] = error

    def record_failure(self, path: str, error: TransientError) -> None:
        """Record a request that failed. After several in a row, the host is not asked again."""
        host, cause = self._host(path), error.__cause__
        self._failures[host] += 1
        if isinstance(cause, httpx.TimeoutException):
            self._open[path] = error
            self._timeouts[host] += 1
        if (
            isinstance(cause, httpx.ConnectTimeout)
            or self._timeouts[host] >= TIMED_OUT_PATHS
            or self._failures[host] >= FAILED_REQUESTS
        ):
            self._open[host] = error

    def _host(self, path: str) -> str:
        return self._endpoint if path.startswith("s3://") else origin(path)

    def _bucket(self, path: str) -> str:
        return f"s3://{path.split('/')[2]}" if path.startswith("s3://") else origin(path)
