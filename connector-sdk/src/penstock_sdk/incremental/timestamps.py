"""Values of a cursor field in a form that can be compared: numbers, and timestamps in UTC."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from typing import Any, TypeAlias, cast
from zoneinfo import ZoneInfo

from penstock_sdk.errors import SourceContractError

Value: TypeAlias = Any
"""A number, or a datetime. All values of one stream are of one kind (`kind_of`), so they can be compared with each other.

It is `Any` because a type checker refuses to compare two values of a union.
"""


def utc_now() -> datetime:
    """Return the current time."""
    return datetime.now(UTC)


def has_clock(value: Value) -> bool:
    """Return True if a value can be compared with the current time: an aware datetime."""
    return isinstance(value, datetime) and value.tzinfo is not None


def settled(lag: timedelta, now: datetime | None = None) -> datetime:
    """Return the time up to which a source can be read: records that are at most `lag` late have arrived by now.

    Choose a `lag` that covers the longest transaction of the source, the resolution of its timestamps, and the difference
    between its clock and this one.
    """
    return (now or utc_now()) - lag


def to_utc(value: object, zone: ZoneInfo | None = None) -> datetime:
    """Return a timestamp in UTC, from ISO 8601 text or a datetime. Raises SourceContractError for another value.

    A timestamp without an offset is taken as local time of `zone`, and is refused without a zone. In the hour that occurs
    twice when a clock is put back, the first is taken.
    """
    try:
        found = value if isinstance(value, datetime) else datetime.fromisoformat(cast("str", value))
    except (TypeError, ValueError):
        raise SourceContractError(
            f"a cursor's value is not a timestamp: it is of type {type(value).__name__}, not ISO 8601"
        ) from None
    if found.tzinfo is None and zone is None:
        raise SourceContractError("a cursor's timestamp has no offset from UTC: give its zone, to_utc(value, zone)")
    try:
        return (found if found.tzinfo else found.replace(tzinfo=zone)).astimezone(UTC)
    except OverflowError:
        raise SourceContractError("a cursor's timestamp is before the year 1 or after 9999 in UTC") from None


def comparable(value: object) -> Value:
    """Return a number as it is, and text as a timestamp in UTC. No other value has a safe order."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        if isinstance(value, float) and not math.isfinite(value):
            raise SourceContractError("a cursor's value is not a finite number and cannot be compared")
        return value
    return to_utc(value)


def local_time(value: object) -> datetime:
    """Return a local time without its zone, for a source that filters by local time.

    Local clocks go back one hour once a year. A `CursorField` with this order needs an overlap of one hour or more, so that
    the hour that occurs twice is read twice.
    """
    try:
        found = value if isinstance(value, datetime) else datetime.fromisoformat(cast("str", value))
    except (TypeError, ValueError):
        raise SourceContractError("a cursor's value is not a local time in ISO 8601") from None
    return found.replace(tzinfo=None)
