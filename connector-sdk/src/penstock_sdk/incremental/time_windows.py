"""Half-open windows over time: each moment is in one of them, whatever the source thinks of ends and local clocks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import date, datetime, time, timedelta
from zoneinfo import ZoneInfo

from penstock_sdk.contract import Batch, Cursor, Record, Window
from penstock_sdk.errors import SourceContractError
from penstock_sdk.incremental.record_checks import RecordCheck, Reject, RepeatGuard
from penstock_sdk.incremental.timestamps import to_utc
from penstock_sdk.incremental.watermark import CursorField

MOST_EQUAL = 100
"""Pages of a window that may be equal: records without a key or a moment, such as counts, may well be."""


def windows(start: datetime, until: datetime, step: timedelta) -> Iterator[Window]:
    """Cut [start, until) into windows of `step`, counted in UTC; the last may be shorter."""
    if step <= timedelta():
        raise ValueError("step: must be longer than nothing")
    begin, last = to_utc(start), to_utc(until)
    while begin < last:
        end = min(begin + step, last)
        yield Window(begin, end)
        begin = end


def local_days(start: datetime, until: datetime, zone: ZoneInfo) -> Iterator[Window]:
    """Yield the whole days of a zone from the one that holds `start` on, as far as they are over at `until`.

    A day has 23 or 25 hours where the clock is changed; one that is not over is left for a later read.
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
    """Read window by window; a window's end is the promise, so its records may come in any order.

    `spans(start)` gives the windows from `start` on, such as `lambda start: windows(start, settled(lag), step)`; they
    must be over. `fetch(window)` yields its pages. For a source that takes a window's end as included, give the trail
    as `inclusive`: what lies on the end is left for the window that begins there. Where records may come later than
    the windows wait, begin earlier in `spans`; what was read then comes again. With `inclusive`, a record without its
    key or value goes to `reject` (give `self.reject`), and raises SourceContractError without it.
    """
    start = _start(cursor, since)
    check = None if inclusive is None else RecordCheck(inclusive.comparable_value, reject, "moments", inclusive.name)
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


def _start(cursor: Cursor | None, since: datetime) -> datetime:
    if cursor is None:
        return to_utc(since)
    try:
        return to_utc(cursor["from"])
    except (TypeError, KeyError):
        raise SourceContractError("the state is not one of windows: reset the stream's state") from None
