"""outbox: what must happen outside Postgres because of something inside it, at least once."""

from __future__ import annotations

from typing import Any, Literal

from psycopg.types.json import Jsonb

from penstock_operator.registry.database import Connection, Row, many, run

OutboxKind = Literal["commit", "status", "retire"]


SOON_SECONDS = 1.0
"""How long news of a run that goes on may wait for more of it: a run that is due is launched within that time."""


async def post(connection: Connection, kind: OutboxKind, payload: dict[str, Any]) -> None:
    """Add a message in the caller's transaction."""
    await run(
        connection,
        "INSERT INTO penstock.outbox (kind, payload) VALUES (%(kind)s, %(payload)s)",
        kind=kind,
        payload=Jsonb(payload),
    )


async def post_statuses(connection: Connection, connections: list[str]) -> None:
    """Have the statuses of connections written soon; what happens until then is told by the same write."""
    await run(
        connection,
        "INSERT INTO penstock.outbox (kind, payload, available_at)"
        " SELECT 'status', jsonb_build_object('connection', uid), now() + %(soon)s * interval '1 s'"
        " FROM unnest(%(connections)s::text[]) AS uid",
        connections=connections,
        soon=SOON_SECONDS,
    )


async def status_messages(connection: Connection, connections: list[str]) -> list[int]:
    """Return the messages that ask for these connections' statuses, those included whose time has not come."""
    rows = await many(
        connection,
        "SELECT id FROM penstock.outbox WHERE kind = 'status' AND payload ->> 'connection' = ANY(%(connections)s)",
        connections=connections,
    )
    return [row["id"] for row in rows]


async def take(connection: Connection, limit: int) -> list[Row]:
    """Take messages for 30 seconds, growing with each try; whoever takes one deletes it once it is done."""
    return await many(
        connection,
        """
        UPDATE penstock.outbox SET tries = tries + 1, available_at = now() + least(30 * (tries + 1), 600) * interval '1 s'
        WHERE id IN (SELECT id FROM penstock.outbox WHERE available_at <= now() ORDER BY id LIMIT %(limit)s
                     FOR UPDATE SKIP LOCKED)
        RETURNING id, kind, payload, tries
        """,
        limit=limit,
    )


async def done(connection: Connection, ids: list[int]) -> None:
    """Delete messages that have been acted on."""
    await run(connection, "DELETE FROM penstock.outbox WHERE id = ANY(%(ids)s)", ids=ids)


async def give_back(connection: Connection, ids: list[int]) -> None:
    """Let others take messages at once which were taken and not acted on."""
    await run(connection, "UPDATE penstock.outbox SET available_at = now() WHERE id = ANY(%(ids)s)", ids=ids)
