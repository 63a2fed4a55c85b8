"""What a source says about its rate limit in the headers of a response."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from datetime import datetime

import httpx

from penstock_sdk._retry_after import DIGITS, LONGEST_SECONDS, current_time

EPOCH_SECONDS, EPOCH_MILLISECONDS = 1_000_000_000, 100_000_000_000
"""A reset at or above these numbers is a time since 1970 in seconds or milliseconds; below, it is a number of seconds."""
DECIMAL = re.compile(r"[0-9]{1,15}(\.[0-9]{1,9})?")
POLICY = re.compile(r"(?:^|;)\s*([rt])=([0-9]{1,15})")


@dataclass(frozen=True, slots=True)
class RateLimitStatus:
    """What a response says about the rate limit: the requests that remain, the seconds until its reset, and the limit."""

    remaining: int
    reset_seconds: float
    limit: int | None = None


def rate_limit_status(headers: httpx.Headers, now: datetime | None = None) -> RateLimitStatus | None:
    """Return the rate limit of the headers RateLimit, RateLimit-*, X-RateLimit-* or X-Rate-Limit-*; None without them."""
    policy: dict[str, str] = dict(POLICY.findall(headers.get("RateLimit", "")))
    remaining, reset_in = policy.get("r"), policy.get("t")
    if remaining is not None and reset_in is not None:
        return RateLimitStatus(int(remaining), min(float(reset_in), LONGEST_SECONDS))
    for prefix in ("RateLimit", "X-RateLimit", "X-Rate-Limit"):
        remaining = headers.get(f"{prefix}-Remaining", "").strip()
        reset = _reset_seconds(headers.get(f"{prefix}-Reset", "").strip(), headers, now)
        if DECIMAL.fullmatch(remaining) and reset is not None:
            limit = headers.get(f"{prefix}-Limit", "").strip()
            known = int(limit) if DIGITS.fullmatch(limit) and len(limit) < len("1000000000") else None
            return RateLimitStatus(math.floor(float(remaining)), reset, known)
    return None


def _reset_seconds(text: str, headers: httpx.Headers, now: datetime | None) -> float | None:
    if not DECIMAL.fullmatch(text):
        return None
    number = float(text)
    if number >= EPOCH_MILLISECONDS:
        number /= 1000
    if number >= EPOCH_SECONDS:
        number -= current_time(headers, now).timestamp()
    return min(max(number, 0.0), LONGEST_SECONDS)
