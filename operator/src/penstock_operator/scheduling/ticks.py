"""Cron ticks. Pure. Moments are aware; cron speaks in the connection's time zone, daylight saving included.

A pattern is matched against wall-clock times, and what a wall-clock time means on the day of a change is decided here:

- A fixed time (neither minute nor hour begins with `*`), such as `30 2 * * *`, fires once a day: where the clock skips
  it, at the moment of the skip; where the clock shows it twice, the first time.
- A repeating time, such as `*/15 * * * *` or `@hourly`, follows the time that passes: what is skipped does not exist,
  and what is shown twice fires twice.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice
from zoneinfo import ZoneInfo

from penstock_operator.resources.schedules import CronSchedule, TimeZone

SECOND, DAY = timedelta(seconds=1), timedelta(days=1)


def _moments(wall: datetime, zone: ZoneInfo, *, fixed: bool) -> list[datetime]:
    """Return when the wall clock shows that time, in UTC: once as a rule, never or twice on the day of a change."""
    first, second = (wall.replace(tzinfo=zone, fold=fold).astimezone(UTC) for fold in (0, 1))
    if first == second:
        return [first]
    if first < second:
        return [first] if fixed else [first, second]
    return [_skip_between(second, first, zone)] if fixed else []


def _skip_between(before: datetime, after: datetime, zone: ZoneInfo) -> datetime:
    """Return the moment between the two at which the zone's clock is put forward."""
    offset = before.astimezone(zone).utcoffset()
    while after - before > SECOND:
        middle = before + (after - before) // 2
        if middle.astimezone(zone).utcoffset() == offset:
            before = middle
        else:
            after = middle
    return after.replace(microsecond=0)


def _leeway(at: datetime, zone: ZoneInfo) -> timedelta:
    """Return by how much the clock is changed around a moment: walls that far away may be as near to it."""
    offsets = [(at + step).astimezone(zone).utcoffset() or timedelta() for step in (-DAY, timedelta(), DAY)]
    return max(offsets) - min(offsets)


def _local(at: datetime, zone: ZoneInfo) -> datetime:
    return at.astimezone(zone).replace(tzinfo=None, microsecond=0)


def next_tick(schedule: CronSchedule | None, time_zone: TimeZone, after: datetime) -> datetime | None:
    """Return the first tick after the moment, in UTC; None without a schedule or when there is none any more."""
    if schedule is None:
        return None
    zone, fixed, found = time_zone.zone, schedule.is_fixed, None
    for wall in schedule.walls(_local(after, zone) - _leeway(after, zone) - SECOND):
        if found and wall.replace(tzinfo=zone).astimezone(UTC) >= found:
            break
        later = [moment for moment in _moments(wall, zone, fixed=fixed) if moment > after]
        found = min([*later, *([found] if found else [])], default=None)
    return found


def latest_tick(schedule: CronSchedule, time_zone: TimeZone, due: datetime, now: datetime) -> datetime:
    """Return the newest tick that is not after now: all that were missed since `due` collapse to it."""
    zone, fixed, found = time_zone.zone, schedule.is_fixed, due
    for wall in schedule.walls(_local(now, zone) + _leeway(now, zone) + SECOND, backwards=True):
        if max(wall.replace(tzinfo=zone, fold=fold).astimezone(UTC) for fold in (0, 1)) <= found:
            break
        found = max([found, *(moment for moment in _moments(wall, zone, fixed=fixed) if moment <= now)])
    return found


def ticks_between(schedule: CronSchedule, time_zone: TimeZone, start: datetime, end: datetime) -> Iterator[datetime]:
    """Yield the ticks from `start` on and before `end`, in order."""
    tick = next_tick(schedule, time_zone, start - SECOND)
    while tick is not None and tick < end:
        if tick >= start:
            yield tick
        tick = next_tick(schedule, time_zone, tick)


def first_ticks(
    schedule: CronSchedule, time_zone: TimeZone, start: datetime, end: datetime, limit: int
) -> list[datetime]:
    """Return at most `limit` of them."""
    return list(islice(ticks_between(schedule, time_zone, start, end), limit))


def within_deadline(tick: datetime, now: datetime, deadline_seconds: int | None) -> bool:
    """Say whether a tick may still start a run."""
    return deadline_seconds is None or (now - tick).total_seconds() <= deadline_seconds


def jitter_of(namespace: str, name: str, seconds: float) -> int:
    """Return by how many whole seconds a connection's ticks are put off: below `seconds`, the same for the same name."""
    digest = hashlib.sha256(f"{namespace}/{name}".encode()).digest()
    return int(int.from_bytes(digest[:8]) / 2**64 * seconds)
