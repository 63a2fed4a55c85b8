"""From a due time, a success upstream, or a request, to a run: in one transaction, once."""

from __future__ import annotations

import hashlib
from datetime import datetime, timedelta

import psycopg
import structlog
from penstock_sdk.failpoints import reach

from penstock_operator.registry import connections, outbox, runs, upstreams
from penstock_operator.registry.database import Connection, Pool, Row
from penstock_operator.registry.runs import NewRun
from penstock_operator.runs import outcomes
from penstock_operator.runs.ids import new_run_id
from penstock_operator.scheduling.ticks import ScheduleError, latest_tick, next_tick, within_deadline

log = structlog.get_logger()
BATCH = 50
ASIDE_SECONDS = 300.0


async def schedule_due(pool: Pool, now: datetime) -> int:
    """Make a run for each connection that is due, and return how many connections were moved on."""
    async with pool.connection() as connection, connection.transaction():
        rows = await connections.claim_due(connection, now, BATCH)
        moved = sum([await _schedule_alone(connection, row, now) for row in rows])
        if moved:
            reach("schedule.inserted")
    if moved:
        reach("schedule.committed")
    return moved


async def _schedule_alone(connection: Connection, row: Row, now: datetime) -> bool:
    """Move one connection on; one that cannot be is put aside for a while, and delays nobody else."""
    try:
        async with connection.transaction():
            return await _schedule(connection, row, now)
    except (ScheduleError, ArithmeticError, ValueError, psycopg.Error) as error:
        if connection.broken:
            raise
        log.warning("not scheduled", connection=f"{row['namespace']}/{row['name']}", error=str(error))
        await connections.pause(connection, row["uid"], ASIDE_SECONDS)
        return True


def next_time(schedule: str | None, time_zone: str, jitter: int, now: datetime) -> datetime | None:
    """Return when the next run is to be made: a tick, put off by the jitter."""
    off = timedelta(seconds=jitter)
    tick = next_tick(schedule, time_zone, now - off)
    return tick + off if tick else None


async def _schedule(connection: Connection, row: Row, now: datetime) -> bool:
    """Move a due connection on, and say whether it was; one whose run cannot be replaced just now stays due."""
    if row["schedule"] is None:
        return await _follow(connection, row)
    off = timedelta(seconds=row["jitter_seconds"])
    following = next_time(row["schedule"], row["time_zone"], row["jitter_seconds"], now)
    tick = latest_tick(row["schedule"], row["time_zone"], row["next_run_at"] - off, now - off)
    made = within_deadline(tick + off, now, row["spec"].get("startingDeadlineSeconds"))
    if made and not await _make_way(connection, row):
        return False
    if made:
        new = NewRun(new_run_id(), row["uid"], row["definition_uid"], row["spec"], scheduled_at=tick)
        await runs.insert_run(connection, new)
    await connections.mark_scheduled(connection, row["uid"], tick if made else None, following)
    await outbox.post_statuses(connection, [row["uid"]])
    return True


async def _follow(connection: Connection, row: Row) -> bool:
    """Make a run of the successes upstream that are new; the same successes make one run, whoever sees them."""
    if not await _make_way(connection, row):
        return False
    seen = await upstreams.successes_to_follow(connection, row["uid"])
    digest = hashlib.sha256(repr(sorted(seen.items())).encode()).hexdigest()[:32]
    new = NewRun(
        new_run_id(), row["uid"], row["definition_uid"], row["spec"], token=f"after:{digest}", trigger="upstream"
    )
    await runs.insert_run(connection, new)
    await upstreams.mark_followed(connection, row["uid"], seen)
    await outbox.post_statuses(connection, [row["uid"]])
    return True


async def _make_way(connection: Connection, row: Row) -> bool:
    """End what runs, where the connection wants it replaced; False when that cannot be done just now."""
    if row["spec"].get("concurrencyPolicy") != "Replace":
        return True
    found = await runs.lock_replaceable(connection, row["uid"])
    for run in found or []:
        await outcomes.replace(connection, run)
    return found is not None


async def request_run(connection: Connection, row: Row, token: str) -> str | None:
    """Make a run for a request token, once; None when the token has made one, or there is no room for another run.

    What is under way is treated as `concurrencyPolicy` says. A request ends the pause after failures.
    """
    async with connection.transaction():
        held = await _room(connection, row["uid"])
        return await _requested(connection, held, token) if held else None


async def handle_request(connection: Connection, row: Row, token: str) -> str | None:
    """Make a run for an annotation's token, once, and return it; a token that finds no room is handled when there is."""
    if row["handled_request"] == token:
        return None
    async with connection.transaction():
        held = await _room(connection, row["uid"])
        if held is None or held["handled_request"] == token:
            return None
        made = await _requested(connection, held, token)
        await connections.mark_request_handled(connection, row["uid"], token)
        return made


async def _room(connection: Connection, uid: str) -> Row | None:
    """Hold the connection, if it may have another run now."""
    held = await connections.claim_for_request(connection, uid)
    return held if held and held["ready"] and held["room"] and await _make_way(connection, held) else None


async def _requested(connection: Connection, held: Row, token: str) -> str | None:
    new = NewRun(new_run_id(), held["uid"], held["definition_uid"], held["spec"], token=token)
    if not await runs.insert_run(connection, new):
        return None
    await connections.forgive_failures(connection, held["uid"])
    return new.id
