"""Ticks around every change of the clock, against a reference that walks through each minute of the days around it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import cache
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from penstock_operator.resources.schedules import CronSchedule, TimeZone
from penstock_operator.scheduling.ticks import latest_tick, next_tick, ticks_between

MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
CHANGES = {
    "Paris forward": ("Europe/Paris", datetime(2026, 3, 29, 1, tzinfo=UTC)),
    "Paris back": ("Europe/Paris", datetime(2026, 10, 25, 1, tzinfo=UTC)),
    "New York forward": ("America/New_York", datetime(2026, 3, 8, 7, tzinfo=UTC)),
    "New York back": ("America/New_York", datetime(2026, 11, 1, 6, tzinfo=UTC)),
    "Lord Howe forward, half an hour": ("Australia/Lord_Howe", datetime(2026, 10, 3, 15, 30, tzinfo=UTC)),
    "Lord Howe back, half an hour": ("Australia/Lord_Howe", datetime(2026, 4, 4, 15, tzinfo=UTC)),
    "Cairo forward at midnight": ("Africa/Cairo", datetime(2026, 4, 23, 22, tzinfo=UTC)),
    "Havana back over midnight": ("America/Havana", datetime(2026, 11, 1, 5, tzinfo=UTC)),
    "Apia skips a day": ("Pacific/Apia", datetime(2011, 12, 30, 10, tzinfo=UTC)),
    "none": ("Etc/UTC", datetime(2026, 6, 1, tzinfo=UTC)),
}
MINUTES: dict[str, set[int]] = {
    "0": {0},
    "30": {30},
    "5": {5},
    "0,45": {0, 45},
    "*": set(range(60)),
    "*/20": {0, 20, 40},
}
HOURS: dict[str, set[int]] = {
    "2": {2},
    "1": {1},
    "0": {0},
    "1-3": {1, 2, 3},
    "23": {23},
    "*": set(range(24)),
    "*/2": set(range(0, 24, 2)),
}


@cache
def walls(zone: str, middle: datetime) -> list[tuple[datetime, datetime, list[datetime]]]:
    """Return each minute of three days with what the clock on the wall shows then, and what it skips just before."""
    found, wall = [], (middle - 36 * HOUR - MINUTE).astimezone(ZoneInfo(zone))
    for step in range(72 * 60):
        at = middle - 36 * HOUR + step * MINUTE
        before, wall = wall.replace(tzinfo=None), at.astimezone(ZoneInfo(zone))
        skipped = int((wall.replace(tzinfo=None) - before) / MINUTE) - 1
        found.append((at, wall, [wall - (n + 1) * MINUTE for n in range(skipped)]))
    return found


@cache
def reference(minute: str, hour: str, change: str) -> list[datetime]:
    """Say what fires, by looking at the clock on the wall each minute."""

    def matches(wall: datetime) -> bool:
        return wall.minute in MINUTES[minute] and wall.hour in HOURS[hour]

    seen = walls(*CHANGES[change])
    if "*" in minute + hour:
        return [at for at, wall, _ in seen if matches(wall)]
    return [at for at, wall, skipped in seen if wall.fold == 0 and any(map(matches, [wall, *skipped]))]


@pytest.mark.parametrize("change", sorted(set(CHANGES) - {"Apia skips a day"}))
@pytest.mark.parametrize("hour", HOURS)
def test_ticks_are_those_of_the_clock_on_the_wall(change: str, hour: str) -> None:
    zone, middle = CHANGES[change]
    for minute in MINUTES:
        found = list(
            ticks_between(CronSchedule(f"{minute} {hour} * * *"), TimeZone(zone), middle - 3 * HOUR, middle + 5 * HOUR)
        )
        expected = [at for at in reference(minute, hour, change) if middle - 3 * HOUR <= at < middle + 5 * HOUR]
        assert found == expected, f"{minute} {hour} * * *"


@settings(deadline=None)
@given(
    change=st.sampled_from(sorted(CHANGES)),
    minute=st.sampled_from(sorted(MINUTES)),
    hour=st.sampled_from(sorted(HOURS)),
    seconds=st.floats(-30 * 3600, 30 * 3600),
)
def test_from_any_moment_the_next_tick_is_ahead_and_the_latest_behind(
    change: str, minute: str, hour: str, seconds: float
) -> None:
    zone, middle = CHANGES[change]
    now, schedule = middle + timedelta(seconds=seconds), CronSchedule(f"{minute} {hour} * * *")
    ticks = reference(minute, hour, change)
    ahead, behind = [tick for tick in ticks if tick > now], [tick for tick in ticks if tick <= now]
    if ahead:
        assert next_tick(schedule, TimeZone(zone), now) == ahead[0]
    if behind:
        assert latest_tick(schedule, TimeZone(zone), ticks[0], now) == behind[-1]


@pytest.mark.parametrize("change", ["Paris forward", "Paris back", "Lord Howe forward, half an hour"])
def test_a_daily_time_fires_once_a_day_whatever_the_clock_does(change: str) -> None:
    zone, middle = CHANGES[change]
    found = list(ticks_between(CronSchedule("30 2 * * *"), TimeZone(zone), middle - 10 * DAY, middle + 10 * DAY))
    days = [item.astimezone(ZoneInfo(zone)).date() for item in found]
    assert {after - before for before, after in pairwise(days)} == {DAY}


@pytest.mark.parametrize(
    "change", sorted(set(CHANGES) - {"Lord Howe forward, half an hour", "Lord Howe back, half an hour"})
)
def test_hourly_is_every_hour_that_passes(change: str) -> None:
    zone, middle = CHANGES[change]
    found = list(ticks_between(CronSchedule("@hourly"), TimeZone(zone), middle - DAY, middle + DAY))
    assert {after - before for before, after in pairwise(found)} == {HOUR}
