"""How long a server asks to be left alone: the header Retry-After, for sources and for providers of logins."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Protocol

LONGEST_SECONDS = 86_400.0
"""The longest time between two attempts (docs/retries.md). A longer Retry-After is reduced to this."""
DIGITS = re.compile(r"[0-9]+")


class Headers(Protocol):
    """The headers of a response, such as `httpx.Headers`."""

    def get(self, key: str, default: str) -> str:
        """Return the value of a header, whatever its case."""


def retry_after(headers: Headers, now: datetime | None = None) -> float | None:
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
    return min(max((until - current_time(headers, now)).total_seconds(), 0.0), LONGEST_SECONDS)


def current_time(headers: Headers, now: datetime | None) -> datetime:
    """Return the time at which a response was sent: its own Date header, or else NOW, or else this machine's time."""
    return _http_date(headers.get("Date", "")) or now or datetime.now(UTC)


def _http_date(text: str) -> datetime | None:
    try:
        date = parsedate_to_datetime(text.strip())
    except (TypeError, ValueError, IndexError, OverflowError):
        return None
    return date if date.tzinfo else date.replace(tzinfo=UTC)
