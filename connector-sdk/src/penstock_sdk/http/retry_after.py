"""How long a source asks to be left alone: Retry-After and the headers of rate limits."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import httpx

LONGEST_SECONDS = 86_400.0
"""The longest time between two attempts (docs/retries.md). A longer Retry-After is reduced to this."""
EPOCH_SECONDS, EPOCH_MILLISECONDS = 1_000_000_000, 100_000_000_000
"""A reset at or above these numbers is a time since 1970 in seconds or milliseconds; below, it is a number of seconds."""
DIGITS = re.compile(r"[0-9]+")
DECIMAL = re.compile(r"[0-9]{1,15}(\.[0-9]{1,9})?")
POLICY = re.compile(r"(?:^|;)\s*([rt])=([0-9]{1,15})")


def retry_after(headers: httpx.Headers, now: datetime | None = None) -> float | None:
    """Return the seconds of the Retry-After header, from 0 to 86,400, or None without a valid header.

    The header has a number of seconds or a date. A date is compared with the response's own Date header, so that it does not
    matter if the clock of the source differs from this one.
    """
    text = headers.get("Retry-After", "").strip()
    if DIGITS.fullmatch(text):
        return LONGEST_SECONDS if len(text) > len("86400") else min(float(text), LONGEST_SECONDS)
    until = _http_date(text)
    if until is None:
        return None
    return min(max((until - _current_time(headers, now)).total_seconds(), 0.0), LONGEST_SECONDS)


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
        number -= _current_time(headers, now).timestamp()
    return min(max(number, 0.0), LONGEST_SECONDS)


def _current_time(headers: httpx.Headers, now: datetime | None) -> datetime:
    return _http_date(headers.get("Date", "")) or now or datetime.now(UTC)


def _http_date(text: str) -> datetime | None:
    try:
        date = parsedate_to_datetime(text.strip())
    except (TypeError, ValueError, IndexError, OverflowError):
        return None
    return date if date.tzinfo else date.replace(tzinfo=UTC)
