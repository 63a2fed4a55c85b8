"""Half-open time windows: each instant is in exactly one window, however the source treats ends and local clocks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import date, datetime, time, timedelta
from zoneinfo import ZoneInfo

import msgspec

from penstock_sdk.contract import Batch, Cursor, Record, Window
from penstock_sdk.errors import SourceContractError
from penstock_sdk.incremental.record_checks import RecordCheck, Reject, RepeatGuard
from penstock_sdk.incremental.timestamps import to_utc
from penstock_sdk.incremental.watermark import CursorField

MOST_EQUAL = 100
"""Pages of one window that may be equal: records without a key or a timestamp, such as counts, can be equal."""


def windows(start: datetime, until: datetime, step: timedelta) -> Iterator[Window]:
    """Divide [start, until) into windows of length `step`, in UTC. The last window may be shorter."""
    if step <= timedelta():
        raise ValueError("step: must be greater than zero")
    begin, last = to_utc(start), to_utc(until)
    while begin < last:
        end = min(begin + step, last)
        yield Window(begin, end)
        begin = end


def local_days(start: datetime, until: datetime, zone: ZoneInfo) -> Iterator[Window]:
    """Yield the days of a time zone, from the day that contains `start` to the last day that has ended at `until`.

    A day has 23 or 25 hours when the clock changes. A day that has not ended is left to a later read.
    """
    day = to_utc(start).astimezone(zone).date()
    while (window := Window(_midnight(day, zone), _midnight(day + timedelta(days=1), zone))).end <= to_utc(until):
        yield window
        day += timedelta(days=1)


def _midnight(day: date, zone: ZoneInfo) -> datetime:
    return to_utc(datetime.combine(day, time(), zone))


def in_windows(
    fetch: Callable[[Window], Iterable[Sequence[Record]]],
    spans: Callable[[datetime], Iterable[Window]],
    cursor: Cursor | None,
    *,
    since: datetime,
    inclusive: CursorField | None = None,
    reject: Reject | None = None,
) -> Iterator[Batch]:
    """Read window by window. The cursor is the end of the last complete window, so a window's records may be in any order.

    `spans(start)` returns the windows from `start` on, such as `lambda start: windows(start, settled(lag), step)`. They must
    have ended. `fetch(window)` yields the pages of a window. If the source treats the end of a window as inclusive, pass the
    `CursorField` as `inclusive`: records at the end are then left to the next window. If records may arrive later than the
    windows wait, let `spans` begin earlier; records that were read before are then read again. With `inclusive`, a record
    without its key or value goes to `reject` (pass `self.reject`); without `reject` it raises SourceContractError.
    """
    start = _start(cursor, since)
    check = None if inclusive is None else RecordCheck(inclusive.comparable_value, reject, "timestamps", inclusive.name)
    for window in spans(start):
        if window.end <= window.start:
            raise ValueError("spans: a window's end must be after its start")
        guard = RepeatGuard("page", MOST_EQUAL)
        for page in fetch(window):
            guard(page)
            rows = page if check is None else [row for value, row in check(page) if value < window.end]
            if rows:
                yield Batch(rows)
        if check:
            check.finish()
        yield Batch([], cursor={"from": window.end.isoformat()})


class _CommittedEnd(msgspec.Struct, frozen=True):
    """The end of the last complete window, as it stands in a cursor."""

    end: object = msgspec.field(name="from")


def _start(cursor: Cursor | None, since: datetime) -> datetime:
    if cursor is None:
        return to_utc(since)
    try:
        return to_utc(msgspec.convert(cursor, _CommittedEnd).end)
    except msgspec.ValidationError:
        raise SourceContractError("the state is not from a read by windows; reset the stream's state") from None
