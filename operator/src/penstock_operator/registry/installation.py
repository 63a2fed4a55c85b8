"""installation: who this registry is, among several installations; and the connections that it has left to another."""

from __future__ import annotations

from datetime import datetime

from penstock_operator.registry.database import Connection, Row, many, one, run


async def installation_id(connection: Connection) -> str:
    """Return the installation's id, which is made with the registry."""
    row = await one(connection, "SELECT id FROM penstock.installation")
    assert row is not None  # noqa: S101 - the migration that makes the table makes the row
    return str(row["id"])


async def set_installation_id(connection: Connection, id_: str) -> bool:
    """Make this registry the one of an installation that was there before; False where it is already."""
    return bool(await run(connection, "UPDATE penstock.installation SET id = %(id)s WHERE id <> %(id)s", id=id_))


async def release_connection(connection: Connection, uid: str) -> bool:
    """Mark a connection as left to others: nothing makes it run; False when it is, or there is none."""
    return bool(
        await run(
            connection,
            "UPDATE penstock.tenant_connections SET released_at = now(), ready = false, schedule = NULL, next_run_at = NULL"
            " WHERE uid = %(uid)s AND released_at IS NULL AND deleted_at IS NULL",
            uid=uid,
        )
    )


async def unlisted_connections(connection: Connection, live: list[str], before: datetime) -> list[Row]:
    """Return the connections that are neither in the list nor left to others, and were recorded before it began."""
    return await many(
        connection,
        "SELECT uid, namespace, name FROM penstock.tenant_connections"
        " WHERE deleted_at IS NULL AND released_at IS NULL AND uid <> ALL(%(live)s) AND updated_at < %(before)s",
        live=live,
        before=before,
    )
