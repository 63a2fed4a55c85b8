"""Runs that look whether what made the one before fail was mended outside of the connection's resource.

Penstock reads no Secret and is told of no change of one, so that only a run can tell that the credentials are right now.
"""

from __future__ import annotations

from datetime import datetime

from penstock_operator import outbox
from penstock_operator.connections import connection_store
from penstock_operator.registry.database import Pool
from penstock_operator.resources.conditions import Reason
from penstock_operator.runs import run_store
from penstock_operator.scheduling.new_run import new_run

MENDED_ELSEWHERE: tuple[Reason, ...] = ("SecretNotFound", "AuthenticationError", "ImagePullFailed", "LaunchRefused")
PERIOD_SECONDS = 10.0
BATCH = 50


async def recheck_failed(pool: Pool, now: datetime, first_seconds: float) -> int:
    """Make a run for each connection whose newest one failed so and long enough ago; one for each failure."""
    if not first_seconds:
        return 0
    async with pool.connection() as db, db.transaction():
        failed = await connection_store.claim_for_recheck(db, now, MENDED_ELSEWHERE, first_seconds, BATCH)
        for connection in failed:
            token = f"recheck:{connection.failed_run}"
            await run_store.insert_run(db, new_run(connection, token=token, trigger="recheck"))
        await outbox.post_statuses(db, [connection.uid for connection in failed])
    return len(failed)
