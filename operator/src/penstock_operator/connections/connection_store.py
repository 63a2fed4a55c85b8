"""tenant_connections: which are due, how they fare, and who asks."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from penstock_operator.registry.database import DatabaseConnection, Row, many, one, run

QUEUE_LIMIT = 10
ROOM = f"""
    (SELECT count(*) FROM penstock.connector_runs r
     WHERE r.connection_uid = c.uid AND r.phase IN ('pending', 'running') AND NOT (r.trigger = 'backfill' AND r.attempt = 0))
    < CASE c.spec ->> 'concurrencyPolicy' WHEN 'Allow' THEN {QUEUE_LIMIT} WHEN 'Replace' THEN 1000000 ELSE 1 END
"""  # noqa: S608 - a constant


async def claim_due(db: DatabaseConnection, now: datetime, limit: int) -> list[Row]:
    """Lock and return the connections that are due and may have another run now; no other claimant sees them.

    One that may not (concurrencyPolicy, a pause after failures) stays due.
    """
    locked = await many(
        db,
        f"""
        SELECT c.* FROM penstock.tenant_connections c
        WHERE c.next_run_at <= %(now)s AND c.ready AND NOT c.suspended AND c.deleted_at IS NULL
          AND (c.paused_until IS NULL OR c.paused_until <= %(now)s) AND {ROOM}
        ORDER BY c.next_run_at LIMIT %(limit)s FOR UPDATE OF c SKIP LOCKED
        """,  # noqa: S608 - constants
        now=now,
        limit=limit,
    )
    return await _with_room(db, [row["uid"] for row in locked])


async def _with_room(db: DatabaseConnection, locked: list[str]) -> list[Row]:
    """Return those of the connections, held by now, that may have another run.

    Asked in a statement of its own: the one that waited for the locks sees the runs of the moment when it began.
    """
    if not locked:
        return []
    sql = f"SELECT c.* FROM penstock.tenant_connections c WHERE c.uid = ANY(%(uids)s) AND {ROOM} ORDER BY c.next_run_at"  # noqa: S608
    return await many(db, sql, uids=locked)


async def claim_for_request(db: DatabaseConnection, uid: str) -> Row | None:
    """Lock the connection, and return it with whether it may have another run now (`room`), asked once it is held."""
    held = await one(
        db,
        "SELECT uid FROM penstock.tenant_connections WHERE uid = %(uid)s AND deleted_at IS NULL FOR UPDATE",
        uid=uid,
    )
    if held is None:
        return None
    sql = f"SELECT c.*, {ROOM} AS room FROM penstock.tenant_connections c WHERE c.uid = %(uid)s"  # noqa: S608
    return await one(db, sql, uid=uid)


async def claim_for_recheck(
    db: DatabaseConnection, now: datetime, reasons: tuple[str, ...], first_seconds: float, limit: int
) -> list[Row]:
    """Lock and return the connections whose newest run (`failed_run`) failed for one of the reasons, long enough ago.

    Long enough is `first_seconds` after the first failure, three times as long after each further one, an hour at most.
    """
    return await many(
        db,
        """
        SELECT c.*, f.id AS failed_run FROM penstock.tenant_connections c
        CROSS JOIN LATERAL (SELECT r.id, r.phase, r.reason, r.finished_at FROM penstock.connector_runs r
                            WHERE r.connection_uid = c.uid ORDER BY r.id DESC LIMIT 1) f
        WHERE c.failures > 0 AND c.deleted_at IS NULL AND c.ready AND NOT c.suspended
          AND f.phase = 'failed' AND f.reason = ANY(%(reasons)s)
          AND f.finished_at <= %(now)s - interval '1 s'
              * least(%(first)s * 3.0 ^ (least(c.failures, 20) - 1), greatest(%(first)s, 3600))
        ORDER BY f.finished_at LIMIT %(limit)s FOR UPDATE OF c SKIP LOCKED
        """,
        now=now,
        reasons=list(reasons),
        first=first_seconds,
        limit=limit,
    )


async def mark_scheduled(db: DatabaseConnection, uid: str, tick: datetime | None, next_run_at: datetime | None) -> None:
    """Move the connection on to its next tick; `tick` is the one that a run was made for, None where it was missed."""
    await run(
        db,
        "UPDATE penstock.tenant_connections SET next_run_at = %(next)s,"
        " last_scheduled_at = coalesce(%(tick)s, last_scheduled_at) WHERE uid = %(uid)s",
        uid=uid,
        tick=tick,
        next=next_run_at,
    )


async def mark_request_handled(db: DatabaseConnection, uid: str, token: str) -> None:
    """Remember the newest handled run-now token, which the status echoes."""
    await run(
        db,
        "UPDATE penstock.tenant_connections SET handled_request = %(token)s WHERE uid = %(uid)s",
        uid=uid,
        token=token,
    )


async def forgive_failures(db: DatabaseConnection, uid: str) -> None:
    """End the pause after failures: somebody asks for a run."""
    await run(
        db,
        "UPDATE penstock.tenant_connections SET failures = 0, paused_until = NULL WHERE uid = %(uid)s",
        uid=uid,
    )


async def mark_success(db: DatabaseConnection, uid: str, run_id: str) -> None:
    """Remember which run succeeded last, and when; the connection does not fail any more."""
    await run(
        db,
        "UPDATE penstock.tenant_connections SET last_success_at = now(), last_success_run = %(run)s, failures = 0,"
        " paused_until = NULL WHERE uid = %(uid)s",
        uid=uid,
        run=run_id,
    )


async def count_failure(db: DatabaseConnection, uid: str) -> int:
    """Count a failed run, and return how many there are in a row."""
    row = await one(
        db,
        "UPDATE penstock.tenant_connections SET failures = failures + 1 WHERE uid = %(uid)s RETURNING failures",
        uid=uid,
    )
    return int(row["failures"]) if row else 0


async def pause(db: DatabaseConnection, uid: str, seconds: float) -> None:
    """Let no tick make a run for a while."""
    await run(
        db,
        "UPDATE penstock.tenant_connections SET paused_until = now() + %(seconds)s * interval '1 s' WHERE uid = %(uid)s",
        uid=uid,
        seconds=seconds,
    )


async def connection_by_name(db: DatabaseConnection, namespace: str, name: str) -> Row | None:
    """Return the live connection of that name."""
    return await one(
        db,
        "SELECT * FROM penstock.tenant_connections WHERE namespace = %(namespace)s AND name = %(name)s AND deleted_at IS NULL",
        namespace=namespace,
        name=name,
    )


async def connection_by_uid(db: DatabaseConnection, uid: str) -> Row | None:
    """Return the connection, deleted or not."""
    return await one(db, "SELECT * FROM penstock.tenant_connections WHERE uid = %(uid)s", uid=uid)


async def connections_by_uid(db: DatabaseConnection, uids: list[str]) -> list[Row]:
    """Return what a sweep compares of many connections, deleted or not."""
    return await many(
        db,
        "SELECT uid, generation, definition_uid, ready, suspended, released_at, handled_request, handled_reset, handled_rewind, deleted_at,"
        " upstream_reason, last_scheduled_at, last_success_at, next_run_at, paused_until, failures, state_answer"
        " FROM penstock.tenant_connections WHERE uid = ANY(%(uids)s)",
        uids=list(uids),
    )


async def connections_of_definition(db: DatabaseConnection, name: str) -> list[Row]:
    """Return namespace and name of the live connections that want a version of the definition's connector method."""
    return await many(
        db,
        """
        SELECT c.namespace, c.name FROM penstock.tenant_connections c
        JOIN (SELECT DISTINCT connector, method FROM penstock.connector_definitions WHERE name = %(name)s) d
            ON c.spec -> 'connector' ->> 'name' = d.connector AND c.spec -> 'connector' ->> 'method' = d.method
        WHERE c.deleted_at IS NULL
        """,
        name=name,
    )


async def list_connections(db: DatabaseConnection, namespace: str | None) -> list[Row]:
    """Return the live connections with their definition's name, of one namespace or of all."""
    return await many(
        db,
        """
        SELECT c.*, d.name AS definition FROM penstock.tenant_connections c
        LEFT JOIN penstock.connector_definitions d ON d.uid = c.definition_uid
        WHERE c.deleted_at IS NULL AND c.released_at IS NULL AND (%(namespace)s::text IS NULL OR c.namespace = %(namespace)s)
        ORDER BY c.namespace, c.name
        """,
        namespace=namespace,
    )


async def live_names(db: DatabaseConnection, uids: Sequence[str]) -> list[Row]:
    """Return namespace and name of those of the connections that are not deleted."""
    return await many(
        db,
        "SELECT namespace, name FROM penstock.tenant_connections WHERE uid = ANY(%(uids)s) AND deleted_at IS NULL",
        uids=list(uids),
    )
