"""From a due time, a success upstream, or a request, to a run: in one transaction, once."""

from __future__ import annotations

import hashlib
from datetime import datetime, timedelta
from typing import NamedTuple

import psycopg
import structlog

from penstock_operator import outbox
from penstock_operator.connections import connection_store
from penstock_operator.connections.connection_store import RunnableConnection
from penstock_operator.failpoints import reach
from penstock_operator.ids import ConnectionUid, RunId
from penstock_operator.registry.database import DatabaseConnection, Pool
from penstock_operator.resources.schedules import CronSchedule, ScheduleError, TimeZone
from penstock_operator.runs import run_store, transitions
from penstock_operator.scheduling import upstream_store
from penstock_operator.scheduling.new_run import new_run
from penstock_operator.scheduling.ticks import latest_tick, next_tick, within_deadline

log = structlog.get_logger()
BATCH = 50
ASIDE_SECONDS = 300.0


async def schedule_due(pool: Pool, now: datetime) -> int:
    """Make a run for each connection that is due, and return how many connections were moved on."""
    async with pool.connection() as db, db.transaction():
        due = await connection_store.claim_due(db, now, BATCH)
        moved = sum([await _schedule_alone(db, connection, now) for connection in due])
        if moved:
            reach("schedule.inserted")
    if moved:
        reach("schedule.committed")
    return moved


async def _schedule_alone(db: DatabaseConnection, connection: RunnableConnection, now: datetime) -> bool:
    """Move one connection on; one that cannot be is put aside for a while, and delays nobody else."""
    try:
        async with db.transaction():
            return await _schedule(db, connection, now)
    except (ScheduleError, ArithmeticError, ValueError, psycopg.Error) as error:
        if db.broken:
            raise
        log.warning("scheduling failed", connection=f"{connection.namespace}/{connection.name}", error=str(error))
        await connection_store.pause(db, connection.uid, ASIDE_SECONDS)
        return True


def next_time(schedule: CronSchedule | None, time_zone: TimeZone, jitter: int, now: datetime) -> datetime | None:
    """Return when the next run is to be made: a tick, put off by the jitter."""
    off = timedelta(seconds=jitter)
    tick = next_tick(schedule, time_zone, now - off)
    return tick + off if tick else None


async def _schedule(db: DatabaseConnection, connection: RunnableConnection, now: datetime) -> bool:
    """Move a due connection on, and say whether it was; one whose run cannot be replaced just now stays due."""
    if connection.schedule is None or connection.next_run_at is None:
        return await _follow(db, connection)
    jitter = timedelta(seconds=connection.jitter_seconds)
    next_run_at = next_time(connection.schedule, connection.time_zone, connection.jitter_seconds, now)
    tick = latest_tick(connection.schedule, connection.time_zone, connection.next_run_at - jitter, now - jitter)
    made = within_deadline(tick + jitter, now, connection.spec.starting_deadline_seconds)
    if made and not await _make_way(db, connection):
        return False
    if made:
        await run_store.insert_run(db, new_run(connection, scheduled_at=tick))
    await connection_store.record_schedule(db, connection.uid, tick if made else None, next_run_at)
    await outbox.post_statuses(db, [connection.uid])
    return True


async def _follow(db: DatabaseConnection, connection: RunnableConnection) -> bool:
    """Make a run of the successes upstream that are new; the same successes make one run, whoever sees them."""
    if not await _make_way(db, connection):
        return False
    seen = await upstream_store.successes_to_follow(db, connection.uid)
    digest = hashlib.sha256(repr(sorted(seen.items())).encode()).hexdigest()[:32]
    await run_store.insert_run(db, new_run(connection, token=f"after:{digest}", trigger="upstream"))
    await upstream_store.record_followed(db, connection.uid, seen)
    await outbox.post_statuses(db, [connection.uid])
    return True


async def _make_way(db: DatabaseConnection, connection: RunnableConnection) -> bool:
    """End what runs, where the connection wants it replaced; False when that cannot be done just now."""
    if connection.spec.concurrency_policy != "Replace":
        return True
    found = await run_store.lock_replaceable(db, connection.uid)
    for run in found or []:
        await transitions.replace(db, run)
    return found is not None


async def request_run(db: DatabaseConnection, uid: ConnectionUid, token: str) -> RunId | None:
    """Make a run for a request token, once; None when the token has made one, or there is no room for another run.

    What is under way is treated as `concurrencyPolicy` says. A request ends the pause after failures.
    """
    async with db.transaction():
        held = await _hold_for_request(db, uid)
        return await _requested(db, held.runnable, token) if held else None


async def handle_request(db: DatabaseConnection, uid: ConnectionUid, token: str) -> RunId | None:
    """Make a run for an annotation's token, once, and return it; a token that finds no room is handled when there is."""
    async with db.transaction():
        held = await _hold_for_request(db, uid)
        if held is None or held.handled_request == token:
            return None
        made = await _requested(db, held.runnable, token)
        await connection_store.record_handled_request(db, uid, token)
        return made


class _Held(NamedTuple):
    """A connection that is held, and may have another run now."""

    runnable: RunnableConnection
    handled_request: str | None


async def _hold_for_request(db: DatabaseConnection, uid: ConnectionUid) -> _Held | None:
    """Hold the connection, if it may have another run now."""
    held = await connection_store.claim_for_request(db, uid)
    if held is None or held.runnable is None or not held.room or not await _make_way(db, held.runnable):
        return None
    return _Held(held.runnable, held.handled_request)


async def _requested(db: DatabaseConnection, connection: RunnableConnection, token: str) -> RunId | None:
    new = new_run(connection, token=token)
    if not await run_store.insert_run(db, new):
        return None
    await connection_store.forgive_failures(db, connection.uid)
    return RunId(new.id)
