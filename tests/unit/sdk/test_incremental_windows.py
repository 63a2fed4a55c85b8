"""Windows over time: half-open, in UTC, and local days of 23, 24 and 25 hours."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from penstock_sdk import SourceContractError
from penstock_sdk.incremental import Window, in_windows, local_days, to_utc, windows

PARIS = ZoneInfo("Europe/Paris")
ZONES = st.sampled_from(["Europe/Paris", "America/Sao_Paulo", "Australia/Lord_Howe", "Asia/Kolkata", "UTC"]).map(
    ZoneInfo
)
MOMENTS = st.datetimes(datetime(2015, 1, 1), datetime(2030, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001


@settings(deadline=None)
@given(MOMENTS, st.timedeltas(timedelta(0), timedelta(days=40)), st.timedeltas(timedelta(hours=1), timedelta(days=9)))
def test_each_moment_is_in_one_window(start: datetime, length: timedelta, step: timedelta) -> None:
    cut = list(windows(start, start + length, step))
    edges = [start, *(window.end for window in cut)]
    assert [window.start for window in cut] == edges[:-1]
    assert edges[-1] == start + length
    assert all(window.start < window.end <= window.start + step for window in cut)


@settings(deadline=None)
@given(MOMENTS, st.integers(0, 400), ZONES)
def test_each_local_day_is_one_window_whatever_the_clocks_do(start: datetime, days: int, zone: ZoneInfo) -> None:
    until = start + timedelta(days=days)
    cut = list(local_days(start, until, zone))
    assert all(one.end == other.start for one, other in pairwise(cut))
    first = start.astimezone(zone).date()
    assert [window.dates(zone) for window in cut] == [
        (day, day) for day in (first + timedelta(days=n) for n in range(len(cut)))
    ]
    assert not cut or (cut[0].start <= start and cut[-1].end <= until < cut[-1].end + timedelta(hours=26))


def test_a_day_has_23_or_25_hours_where_24_would_lose_one_or_double_one() -> None:
    def hours(year: int, month: int, day: int) -> float:
        start = to_utc(datetime(year, month, day), PARIS)  # noqa: DTZ001 - in Paris
        (window,) = local_days(start, start + timedelta(hours=25), PARIS)
        return (window.end - window.start) / timedelta(hours=1)

    assert [hours(2026, 3, 29), hours(2026, 3, 30), hours(2026, 10, 25)] == [23, 24, 25]


def test_local_days_are_asked_for_by_their_dates_and_only_once_they_are_over() -> None:
    start, noon = datetime(2026, 3, 28, 12, tzinfo=UTC), datetime(2026, 3, 30, 12, tzinfo=UTC)
    found = [window.dates(PARIS) for window in local_days(start, noon, PARIS)]
    assert found == [(date(2026, 3, day), date(2026, 3, day)) for day in (28, 29)]


def test_a_window_that_was_read_is_not_read_again() -> None:
    start = datetime(2026, 1, 1, tzinfo=UTC)
    asked: list[Window] = []

    def fetch(window: Window) -> list[list[dict[str, int]]]:
        asked.append(window)
        return [[{"id": 1}]]

    def spans(begin: datetime) -> list[Window]:
        return list(windows(begin, start + timedelta(hours=3), timedelta(hours=1)))

    first = list(in_windows(fetch, spans, None, since=start))
    promises = [batch.cursor for batch in first if batch.cursor]
    assert [len(batch.records) for batch in first] == [1, 0, 1, 0, 1, 0]  # type: ignore[arg-type]
    asked.clear()
    list(in_windows(fetch, spans, promises[1], since=start))
    assert [window.start.hour for window in asked] == [2]


def test_what_is_no_span_is_refused() -> None:
    start = datetime(2026, 1, 1, tzinfo=timezone(timedelta(hours=2)))
    assert to_utc(start) == datetime(2025, 12, 31, 22, tzinfo=UTC)
    with pytest.raises(ValueError, match="greater than zero"):
        list(windows(start, start, timedelta()))
    with pytest.raises(SourceContractError, match="not a timestamp"):
        list(in_windows(lambda _window: [], lambda _start: [], {"from": 3}, since=start))
    with pytest.raises(SourceContractError, match="reset the stream's state"):
        list(in_windows(lambda _window: [], lambda _start: [], {"at": 3}, since=start))
