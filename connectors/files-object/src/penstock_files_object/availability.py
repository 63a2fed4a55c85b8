"""Which hosts, buckets and paths are left alone for the rest of an attempt.

One that does not answer costs a timeout each time it is asked, and one that asks for patience means it. Their streams fail
at once, with the reason; the streams of every other host are read. What an attempt learned ends with it.
"""

from __future__ import annotations

from collections import Counter

import httpx
from penstock_sdk import TransientError

from penstock_files_object.config import origin, shown

SILENT_PATHS = 2
"""Paths of a host that time out one after the other before the host counts as silent: one slow file is no silent host."""
FAILURES = 3
"""Requests of a host that fail one after the other before it counts as away; as many streams in a row as the SDK takes."""


class LeftAloneError(TransientError):
    """The host, or the path, is not asked again in this attempt."""


class Availability:
    """What the answers of one attempt said of the hosts."""

    def __init__(self, endpoint: str) -> None:
        self._endpoint = origin(endpoint)
        self._left_alone = dict[str, TransientError]()
        self._timeouts, self._failures = Counter[str](), Counter[str]()

    def check(self, path: str) -> None:
        """Raise LeftAloneError for a path that is not to be asked for any more."""
        for place in (self._host(path), self._bucket(path), path):
            reason = self._left_alone.get(place)
            if reason:
                raise LeftAloneError(
                    f"{shown(path)}: not asked for again in this attempt: {reason.message}",
                    retry_after=reason.retry_after,
                    scope="stream",
                ) from reason

    def answered(self, path: str) -> None:
        """Note that a host gives answers."""
        host = self._host(path)
        self._timeouts[host] = self._failures[host] = 0

    def asked_for_patience(self, path: str, error: TransientError) -> None:
        """Leave a bucket, or an HTTP server, alone."""
        self._left_alone[self._bucket(path)] = error

    def failed(self, path: str, error: TransientError) -> None:
        """Note a request that got no good answer: one of several in a row has the host left alone."""
        host, cause = self._host(path), error.__cause__
        self._failures[host] += 1
        if isinstance(cause, httpx.TimeoutException):
            self._left_alone[path] = error
            self._timeouts[host] += 1
        if (
            isinstance(cause, httpx.ConnectTimeout)
            or self._timeouts[host] >= SILENT_PATHS
            or self._failures[host] >= FAILURES
        ):
            self._left_alone[host] = error

    def _host(self, path: str) -> str:
        return self._endpoint if path.startswith("s3://") else origin(path)

    def _bucket(self, path: str) -> str:
        return f"s3://{path.split('/')[2]}" if path.startswith("s3://") else origin(path)
