"""What a record's value means, so that two of them can be compared: numbers, and moments in UTC."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from penstock_sdk.errors import SourceContractError

Value = Any
"""What can be compared: a number, or a moment; all of one stream are of one kind."""


def utc_now() -> datetime:
    """Return the moment."""
    return datetime.now(UTC)


def has_clock(value: Value) -> bool:
    """Say whether the clock here can be compared with a value: it is a moment, and no number or local time."""
    return isinstance(value, datetime) and value.tzinfo is not None


def settled(lag: timedelta, now: datetime | None = None) -> datetime:
    """Return up to when a source may be read: records that are no more than `lag` late are there by then.

    `lag` covers how long a transaction of the source may last, how coarse its moments are, and how far its clock and
    this one are apart.
    """
    return (now or utc_now()) - lag


def to_utc(value: Any, zone: ZoneInfo | None = None) -> datetime:
    """Return a moment in UTC, from ISO 8601 text or a datetime.

    One that says no offset is taken as the time of `zone`, and refused without one. Where the clock is put back, the
    hour that comes twice is taken as the first.
    """
    try:
        found = value if isinstance(value, datetime) else datetime.fromisoformat(value)
    except (TypeError, ValueError):
        raise SourceContractError(
            f"a cursor's value is no moment: it is {type(value).__name__}, not ISO 8601"
        ) from None
    if found.tzinfo is None and zone is None:
        raise SourceContractError("a cursor's moment says no offset from UTC: say its zone, to_utc(value, zone)")
    try:
        return (found if found.tzinfo else found.replace(tzinfo=zone)).astimezone(UTC)
    except OverflowError:
        raise SourceContractError("a cursor's moment is before the year 1 or after 9999 in UTC") from None


def comparable(value: Any) -> Value:
    """Return what a value is compared by: a number as it is, text as a moment in UTC; nothing else has a safe order."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        if isinstance(value, float) and not math.isfinite(value):
            raise SourceContractError("a cursor's value is not a finite number, and has no place in an order")
        return value
    return to_utc(value)


def local_time(value: Any) -> datetime:
    """Return a local time as its clock shows it, for a source that filters by such; it goes back once a year.

    A trail of it needs an overlap of an hour or more: the hour that comes twice is read twice then.
    """
    try:
        found = value if isinstance(value, datetime) else datetime.fromisoformat(value)
    except (TypeError, ValueError):
        raise SourceContractError("a cursor's value is no local time in ISO 8601") from None
    return found.replace(tzinfo=None)
