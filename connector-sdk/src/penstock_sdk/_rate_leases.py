"""How the HTTP client asks the platform for requests to a source whose rate limit is shared."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True, slots=True)
class RequestLease:
    """`requests` may be sent after `wait_seconds`, within `valid_seconds` from then; with 0, ask again after `wait_seconds`."""

    requests: int
    wait_seconds: float
    valid_seconds: float


LeaseRequests: TypeAlias = Callable[[str, int, int], RequestLease | None]
"""Asks for a number of requests to a host and a port. None: the host has no limit that is shared."""
_lease_requests: LeaseRequests | None = None


def lease_function() -> LeaseRequests | None:
    """Return how to ask the platform; None without a platform."""
    return _lease_requests


def use_leases(function: LeaseRequests | None) -> None:
    """Have HTTP clients ask by this function. The runtime calls it before the connector is made."""
    global _lease_requests  # noqa: PLW0603 - one process runs one attempt
    _lease_requests = function
