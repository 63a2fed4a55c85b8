"""Cron schedules and time zones of connections: values that keep the notation in which a document has them.

The CRD has no rule for either. `CronSchedule.check` and `TimeZone.zone` raise ScheduleError for text that is none, so that a
reconcile reports it with its reason; `scheduling/ticks.py` computes with them.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import ClassVar
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError

from penstock_operator.resources.notations import Notation

NICKNAMES = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
FIELDS = 5
OF_THE_MACHINE = ("localtime", "posixrules")
"""Files among the time zones that mean another one on each machine."""


class ScheduleError(Exception):
    """The schedule or time zone cannot be used; the message names the field and the remedy."""


class TimeZone(Notation):
    """The name of an IANA time zone, such as `Europe/Paris`."""

    __slots__ = ()
    shortest: ClassVar[int] = 1
    longest: ClassVar[int] = 60

    @property
    def zone(self) -> ZoneInfo:
        """The time zone. Raises ScheduleError if there is none of that name."""
        try:
            return ZoneInfo("" if self in OF_THE_MACHINE else str(self))
        except (ZoneInfoNotFoundError, ValueError, OSError):
            message = (
                f"spec.timeZone: {str(self)!r} is not a time zone; use an IANA name such as 'Europe/Paris' or 'Etc/UTC'"
            )
            raise ScheduleError(message) from None


class CronSchedule(Notation):
    """A cron expression of five fields, or a macro such as `@hourly`."""

    __slots__ = ()
    shortest: ClassVar[int] = 1
    longest: ClassVar[int] = 100

    @property
    def pattern(self) -> str:
        """The five fields."""
        return NICKNAMES.get(self, str(self))

    @property
    def is_fixed(self) -> bool:
        """Whether it names times of the day: neither minute nor hour begins with `*`."""
        return not any(field.startswith("*") for field in self.pattern.split()[:2])

    def check(self) -> None:
        """Raise ScheduleError if it is no cron expression, or never comes."""
        if next(self.walls(datetime.now()), None) is None:  # noqa: DTZ005 - a wall clock
            raise ScheduleError(f"spec.schedule: {str(self)!r} never comes: no month has such a day")

    def walls(self, start: datetime, *, backwards: bool = False) -> Iterator[datetime]:
        """Return the wall-clock times that match, after or before `start`, without a zone. Raises ScheduleError."""
        try:
            if len(self.pattern.split()) == FIELDS:
                return CronSim(self.pattern, start, reverse=backwards)
            why = "Wrong number of fields"
        except CronSimError as error:
            why = str(error)
        message = (
            f"spec.schedule: {str(self)!r} is not a cron expression ({why}); use five fields such as '*/15 * * * *'"
        )
        raise ScheduleError(message)


UTC_ZONE = TimeZone("Etc/UTC")
