"""From a due time, a success upstream, or a request, to a run: in one transaction, once."""

from __future__ import annotations

import hashlib
from datetime import datetime, timedelta

import psycopg
import structlog

from penstock_operator import outbox
from penstock_operator.connections import connection_store
from penstock_operator.failpoints import reach
from penstock_operator.ids import new_run_id
from penstock_operator.registry.database import DatabaseConnection, Pool, Row
from penstock_operator.runs import run_store, transitions
from penstock_operator.runs.run_store import NewRun
from penstock_operator.scheduling import upstream_store
from penstock_operator.scheduling.ticks import ScheduleError, latest_tick, next_tick, within_deadline

log = structlog.get_logger()
BATCH = 50
ASIDE_SECONDS = 300.0


async def schedule_due(pool: Pool, now: datetime) -> int:
    """Make a run for each connection that is due, and return how many connections were moved on."""
    async with pool.connection() as db, db.transaction():
        rows = await connection_store.claim_due(db, now, BATCH)
        moved = sum([await _schedule_alone(db, row, now) for row in rows])
        if moved:
            reach("schedule.inserted")
    if moved:
        reach("schedule.committed")
    return moved


async def _schedule_alone(db: DatabaseConnection, row: Row, now: datetime) -> bool:
    """Move one connection on; one that cannot be is put aside for a while, and delays nobody else."""
    try:
        async with db.transaction():
            return await _schedule(db, row, now)
    except (ScheduleError, ArithmeticError, ValueError, psycopg.Error) as error:
        if db.broken:
            raise
        log.warning("not scheduled", connection=f"{row['namespace']}/{row['name']}", error=str(error))
        await connection_store.pause(db, row["uid"], ASIDE_SECONDS)
        return True


def next_time(schedule: str | None, time_zone: str, jitter: int, now: datetime) -> datetime | None:
    """Return when the next run is to be made: a tick, put off by the jitter."""
    off = timedelta(seconds=jitter)
    tick = next_tick(schedule, time_zone, now - off)
    return tick + off if tick else None


async def _schedule(db: DatabaseConnection, row: Row, now: datetime) -> bool:
    """Move a due connection on, and say whether it was; one whose run cannot be replaced just now stays due."""
    if row["schedule"] is None:
        return await _follow(db, row)
    off = timedelta(seconds=row["jitter_seconds"])
    following = next_time(row["schedule"], row["time_zone"], row["jitter_seconds"], now)
    tick = latest_tick(row["schedule"], row["time_zone"], row["next_run_at"] - off, now - off)
    made = within_deadline(tick + off, now, row["spec"].get("startingDeadlineSeconds"))
    if made and not await _make_way(db, row):
        return False
    if made:
        new = NewRun(new_run_id(), row["uid"], row["definition_uid"], row["spec"], scheduled_at=tick)
        await run_store.insert_run(db, new)
    await connection_store.mark_scheduled(db, row["uid"], tick if made else None, following)
    await outbox.post_statuses(db, [row["uid"]])
    return True


async def _follow(db: DatabaseConnection, row: Row) -> bool:
    """Make a run of the successes upstream that are new; the same successes make one run, whoever sees them."""
    if not await _make_way(db, row):
        return False
    seen = await upstream_store.successes_to_follow(db, row["uid"])
    digest = hashlib.sha256(repr(sorted(seen.items())).encode()).hexdigest()[:32]
    new = NewRun(
        new_run_id(), row["uid"], row["definition_uid"], row["spec"], token=f"after:{digest}", trigger="upstream"
    )
    await run_store.insert_run(db, new)
    await upstream_store.mark_followed(db, row["uid"], seen)
    await outbox.post_statuses(db, [row["uid"]])
    return True


async def _make_way(db: DatabaseConnection, row: Row) -> bool:
    """End what runs, where the connection wants it replaced; False when that cannot be done just now."""
    if row["spec"].get("concurrencyPolicy") != "Replace":
        return True
    found = await run_store.lock_replaceable(db, row["uid"])
    for run in found or []:
        await transitions.replace(db, run)
    return found is not None


async def request_run(db: DatabaseConnection, row: Row, token: str) -> str | None:
    """Make a run for a request token, once; None when the token has made one, or there is no room for another run.

    What is under way is treated as `concurrencyPolicy` says. A request ends the pause after failures.
    """
    async with db.transaction():
        held = await _room(db, row["uid"])
        return await _requested(db, held, token) if held else None


async def handle_request(db: DatabaseConnection, row: Row, token: str) -> str | None:
    """Make a run for an annotation's token, once, and return it; a token that finds no room is handled when there is."""
    if row["handled_request"] == token:
        return None
    async with db.transaction():
        held = await _room(db, row["uid"])
        if held is None or held["handled_request"] == token:
            return None
        made = await _requested(db, held, token)
        await connection_store.mark_request_handled(db, row["uid"], token)
        return made


async def _room(db: DatabaseConnection, uid: str) -> Row | None:
    """Hold the connection, if it may have another run now."""
    held = await connection_store.claim_for_request(db, uid)
    return held if held and held["ready"] and held["room"] and await _make_way(db, held) else None


async def _requested(db: DatabaseConnection, held: Row, token: str) -> str | None:
    new = NewRun(new_run_id(), held["uid"], held["definition_uid"], held["spec"], token=token)
    if not await run_store.insert_run(db, new):
        return None
    await connection_store.forgive_failures(db, held["uid"])
    return new.id
