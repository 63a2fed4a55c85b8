"""From a due time, or a request, to a run: in one transaction, once."""

from __future__ import annotations

from datetime import datetime

from penstock_operator.registry import connections, outbox, runs
from penstock_operator.registry.database import Connection, Pool, Row
from penstock_operator.registry.runs import NewRun
from penstock_operator.runs.ids import new_run_id
from penstock_operator.scheduling.ticks import latest_tick, next_tick, within_deadline

BATCH = 50


async def schedule_due(pool: Pool, now: datetime) -> int:
    """Make a run for each connection that is due, and return how many connections were moved on."""
    async with pool.connection() as connection, connection.transaction():
        rows = await connections.claim_due(connection, now, BATCH)
        for row in rows:
            await _schedule(connection, row, now)
        return len(rows)


async def _schedule(connection: Connection, row: Row, now: datetime) -> None:
    following = next_tick(row["schedule"], row["time_zone"], now)
    tick = latest_tick(row["schedule"], row["time_zone"], row["next_run_at"], now)
    if within_deadline(tick, now, row["spec"].get("startingDeadlineSeconds")):
        new = NewRun(new_run_id(), row["uid"], row["definition_uid"], row["spec"], scheduled_at=tick)
        await runs.insert_run(connection, new)
        await connections.mark_scheduled(connection, row["uid"], tick, following)
    else:
        await connections.mark_scheduled(connection, row["uid"], None, following)
    await outbox.post(connection, "status", {"connection": row["uid"]})


async def request_run(connection: Connection, row: Row, token: str) -> str | None:
    """Make a run for a request token, once; None when the token was handled, another run is under way, or it is deleted.

    A token that finds a run under way stays unhandled, and is handled when that run has ended.
    """
    async with connection.transaction():
        locked = await connection.execute(
            b"SELECT handled_request FROM penstock.tenant_connections WHERE uid = %s AND deleted_at IS NULL FOR UPDATE",
            [row["uid"]],
        )
        held = await locked.fetchone()
        if held is None or held["handled_request"] == token or await runs.active_runs(connection, row["uid"]):
            return None
        run_id = new_run_id()
        made = await runs.insert_run(
            connection, NewRun(run_id, row["uid"], row["definition_uid"], row["spec"], token=token)
        )
        await connections.mark_request_handled(connection, row["uid"], token)
        return run_id if made else None
