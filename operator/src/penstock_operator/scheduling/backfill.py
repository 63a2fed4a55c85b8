"""Backfill: a run for each tick of a window that has made none, one after the other, behind everything that is due.

It fills gaps that a suspension, an outage or collapsed ticks left in a connection's history. What a run reads does not
depend on its tick: an incremental stream goes on from its state, a full one is read as it is now.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from penstock_operator import outbox
from penstock_operator.connections import connection_store
from penstock_operator.errors import Invalid, NotFound
from penstock_operator.ids import ConnectionUid, new_run_id
from penstock_operator.registry.database import DatabaseConnection, Row
from penstock_operator.runs import run_store
from penstock_operator.runs.run_store import NewRun
from penstock_operator.scheduling.ticks import first_ticks

MOST_RUNS, MOST_TICKS = 100, 2000


@dataclass(frozen=True)
class BackfillWindow:
    """Which ticks, from `start` on and before `end`, and which streams: none named means all that the spec selects."""

    start: datetime
    end: datetime
    streams: tuple[str, ...] = ()


@dataclass(frozen=True)
class FilledTick:
    """A run that was made for a tick."""

    id: str
    scheduled_at: datetime


async def backfill(db: DatabaseConnection, uid: str, window: BackfillWindow, now: datetime) -> list[FilledTick]:
    """Make the runs, and return them in order; the same call again makes none. Raises Invalid where it cannot be done."""
    async with db.transaction():
        row = await connection_store.claim_for_request(db, uid)
        if row is None:
            raise NotFound("there is no such connection")
        spec = selected_spec(row["spec"], window.streams)
        made = await run_store.ticks_made(db, uid, window.start, window.end)
        filled = [FilledTick(new_run_id(), tick) for tick in ticks_to_fill(row, window, made, now)]
        for each in filled:
            new = NewRun(each.id, uid, row["definition_uid"], spec, scheduled_at=each.scheduled_at, trigger="backfill")
            await run_store.insert_run(db, new)
        if filled:
            await outbox.post_status(db, ConnectionUid(uid))
        return filled


def ticks_to_fill(row: Row, window: BackfillWindow, made: set[datetime], now: datetime) -> list[datetime]:
    """Return the window's ticks without a run. Raises Invalid for a window that cannot be filled. Pure."""
    where = f"connection {row['namespace']}/{row['name']}"
    if not row["ready"]:
        raise Invalid(f"{where} is not valid; its Stalled condition says why")
    if row["schedule"] is None:
        raise Invalid(f"{where} has no spec.schedule, so there are no ticks to fill; `penstock runs start` runs it now")
    if not window.start < window.end:
        raise Invalid("from: must be before to")
    if window.end > now:
        raise Invalid("to: lies in the future, whose ticks make their runs by themselves; use a moment that has passed")
    ticks = first_ticks(row["schedule"], row["time_zone"], window.start, window.end, MOST_TICKS + 1)
    missing = [tick for tick in ticks if tick not in made]
    if len(ticks) > MOST_TICKS or len(missing) > MOST_RUNS:
        raise Invalid(
            f"the window holds more than {MOST_RUNS} ticks without a run, or more than {MOST_TICKS} in all;"
            " fill a part of it first"
        )
    return missing


def selected_spec(spec: dict[str, Any], streams: tuple[str, ...]) -> dict[str, Any]:
    """Return the spec with only the named streams. Raises Invalid for one that it does not select. Pure."""
    if not streams:
        return spec
    listed = {each["name"]: each for each in spec.get("streams", [])}
    unknown = [name for name in streams if listed and name not in listed]
    if unknown:
        raise Invalid(f"spec.streams does not select {', '.join(unknown)}; it does {', '.join(listed)}")
    return {**spec, "streams": [listed.get(name, {"name": name, "mode": "full"}) for name in dict.fromkeys(streams)]}
