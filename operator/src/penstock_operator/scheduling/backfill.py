"""Backfill: a run for each tick of a window that has made none, one after the other, behind everything that is due.

It fills gaps that a suspension, an outage or collapsed ticks left in a connection's history. What a run reads does not
depend on its tick: an incremental stream goes on from its state, a full one is read as it is now.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime

from penstock_operator import outbox
from penstock_operator.connections import connection_store
from penstock_operator.connections.connection_store import RunnableConnection
from penstock_operator.errors import Invalid, NotFound
from penstock_operator.ids import ConnectionUid
from penstock_operator.registry.database import DatabaseConnection
from penstock_operator.resources.models import ConnectionSpec, StreamSelection
from penstock_operator.runs import run_store
from penstock_operator.scheduling.new_run import new_run
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


async def backfill(
    db: DatabaseConnection, uid: ConnectionUid, window: BackfillWindow, now: datetime
) -> list[FilledTick]:
    """Make the runs, and return them in order; the same call again makes none. Raises Invalid where it cannot be done."""
    async with db.transaction():
        connection = await hold_connection(db, uid)
        connection = replace(connection, spec=selected_spec(connection.spec, window.streams))
        made = await run_store.ticks_made(db, uid, window.start, window.end)
        runs = [
            new_run(connection, scheduled_at=tick, trigger="backfill")
            for tick in ticks_to_fill(connection, window, made, now)
        ]
        for run in runs:
            await run_store.insert_run(db, run)
        if runs:
            await outbox.post_status(db, uid)
        return [FilledTick(run.id, run.scheduled_at) for run in runs if run.scheduled_at]


async def hold_connection(db: DatabaseConnection, uid: ConnectionUid) -> RunnableConnection:
    """Lock a connection for the transaction. Raises NotFound without it, and Invalid for one that is not ready."""
    held = await connection_store.claim_for_request(db, uid)
    if held is None:
        raise NotFound("there is no such connection")
    if held.runnable is None:
        raise Invalid(f"connection {held.namespace}/{held.name} is not valid; its Stalled condition says why")
    return held.runnable


def ticks_to_fill(
    connection: RunnableConnection, window: BackfillWindow, made: set[datetime], now: datetime
) -> list[datetime]:
    """Return the window's ticks without a run. Raises Invalid for a window that cannot be filled. Pure."""
    if connection.schedule is None:
        where = f"connection {connection.namespace}/{connection.name}"
        raise Invalid(f"{where} has no spec.schedule, so there are no ticks to fill; `penstock runs start` runs it now")
    if not window.start < window.end:
        raise Invalid("from: must be before to")
    if window.end > now:
        raise Invalid("to: lies in the future, whose ticks make their runs by themselves; use a moment that has passed")
    ticks = first_ticks(connection.schedule, connection.time_zone, window.start, window.end, MOST_TICKS + 1)
    missing = [tick for tick in ticks if tick not in made]
    if len(ticks) > MOST_TICKS or len(missing) > MOST_RUNS:
        raise Invalid(
            f"the window holds more than {MOST_RUNS} ticks without a run, or more than {MOST_TICKS} in all;"
            " fill a part of it first"
        )
    return missing


def selected_spec(spec: ConnectionSpec, streams: tuple[str, ...]) -> ConnectionSpec:
    """Return the spec with only the named streams. Raises Invalid for one that it does not select. Pure."""
    if not streams:
        return spec
    listed = {stream.name: stream for stream in spec.streams}
    unknown = [name for name in streams if listed and name not in listed]
    if unknown:
        raise Invalid(f"spec.streams does not select {', '.join(unknown)}; it does {', '.join(listed)}")
    selected = [listed.get(name) or StreamSelection(name=name, mode="full") for name in dict.fromkeys(streams)]
    return spec.model_copy(update={"streams": selected})
