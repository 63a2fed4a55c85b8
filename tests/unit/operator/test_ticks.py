"""Ticks behave as a person expects, daylight saving included."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from penstock_operator.resources.schedules import UTC_ZONE, CronSchedule, ScheduleError, TimeZone
from penstock_operator.scheduling.ticks import latest_tick, next_tick, within_deadline

PARIS = TimeZone("Europe/Paris")


def utc(year: int, month: int, day: int, hour: int = 0, minute: int = 0, second: int = 0) -> datetime:
    return datetime(year, month, day, hour, minute, second, tzinfo=UTC)


def test_a_tick_is_in_the_connections_own_zone() -> None:
    assert next_tick(CronSchedule("0 6 * * *"), PARIS, utc(2026, 1, 1)) == utc(2026, 1, 1, 5)
    assert next_tick(CronSchedule("0 6 * * *"), PARIS, utc(2026, 7, 1)) == utc(2026, 7, 1, 4)


def test_the_hour_that_comes_twice_fires_once() -> None:
    first = next_tick(CronSchedule("30 2 * * *"), PARIS, utc(2026, 10, 24, 12))
    assert first is not None
    second = next_tick(CronSchedule("30 2 * * *"), PARIS, first)
    assert second is not None
    assert second - first > timedelta(hours=23)


def test_missed_ticks_collapse_to_the_newest() -> None:
    now = utc(2026, 1, 1, 10, 7)
    assert latest_tick(CronSchedule("*/15 * * * *"), UTC_ZONE, utc(2026, 1, 1, 1), now) == utc(2026, 1, 1, 10)


def test_nicknames_are_known() -> None:
    assert next_tick(CronSchedule("@hourly"), UTC_ZONE, utc(2026, 1, 1, 1, 1)) == utc(2026, 1, 1, 2)


def test_without_a_schedule_there_is_no_tick() -> None:
    assert next_tick(None, UTC_ZONE, utc(2026, 1, 1)) is None


def test_a_tick_after_its_deadline_is_missed() -> None:
    now = utc(2026, 1, 1)
    assert within_deadline(now - timedelta(seconds=60), now, 60)
    assert not within_deadline(now - timedelta(seconds=61), now, 60)
    assert within_deadline(now - timedelta(days=9), now, None)


@pytest.mark.parametrize(
    ("schedule", "zone", "field"),
    [
        ("61 * * * *", "Etc/UTC", "spec.schedule"),
        ("@daily", "Mars/Base", "spec.timeZone"),
        ("@daily", "localtime", "spec.timeZone"),
    ],
)
def test_what_cannot_be_used_names_its_field(schedule: str, zone: str, field: str) -> None:
    with pytest.raises(ScheduleError, match=field):
        next_tick(CronSchedule(schedule), TimeZone(zone), utc(2026, 1, 1))


def test_a_day_that_no_month_has_is_refused_before_a_tick_is_asked_for() -> None:
    with pytest.raises(ScheduleError, match=r"spec\.schedule"):
        CronSchedule("0 0 31 2 *").check()
