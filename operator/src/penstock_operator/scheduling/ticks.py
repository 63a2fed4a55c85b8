"""Cron ticks. Pure. Moments are aware; cron speaks in the connection's time zone, daylight saving included."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError

NICKNAMES = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}


class ScheduleError(Exception):
    """The schedule or time zone cannot be used; the message names the field and the remedy."""


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        message = f"spec.timeZone: {name!r} is not a time zone; use an IANA name such as 'Europe/Paris' or 'Etc/UTC'"
        raise ScheduleError(message) from None


def _cron(schedule: str, start: datetime, *, backwards: bool = False) -> CronSim:
    try:
        return CronSim(NICKNAMES.get(schedule, schedule), start, reverse=backwards)
    except CronSimError as error:
        message = (
            f"spec.schedule: {schedule!r} is not a cron expression ({error}); use five fields such as '*/15 * * * *'"
        )
        raise ScheduleError(message) from None


def check_schedule(schedule: str | None, time_zone: str) -> None:
    """Raise ScheduleError when the schedule cannot be used."""
    zone = _zone(time_zone)
    if schedule is not None:
        _cron(schedule, datetime.now(zone))


def next_tick(schedule: str | None, time_zone: str, after: datetime) -> datetime | None:
    """Return the first tick after the moment, in UTC; None without a schedule or when there is none any more."""
    if schedule is None:
        return None
    tick = next(_cron(schedule, after.astimezone(_zone(time_zone))), None)
    return tick.astimezone(UTC) if tick else None


def latest_tick(schedule: str, time_zone: str, due: datetime, now: datetime) -> datetime:
    """Return the newest tick that is not after now: all that were missed since `due` collapse to it."""
    start = now.astimezone(_zone(time_zone)) + timedelta(seconds=1)
    tick = next(_cron(schedule, start, backwards=True), None)
    return max(due, tick.astimezone(UTC)) if tick else due


def within_deadline(tick: datetime, now: datetime, deadline_seconds: int | None) -> bool:
    """Say whether a tick may still start a run."""
    return deadline_seconds is None or now - tick <= timedelta(seconds=deadline_seconds)
