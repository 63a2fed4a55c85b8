"""installation: who this registry is, among several installations; and the connections that it has left to another."""

from __future__ import annotations

from datetime import datetime

from penstock_operator.registry.database import DatabaseConnection, Row, many, one, run

CONTROLLER = "penstock-operate"
"""Name of a controller's sessions in Postgres (`application_name`)."""


async def installation_id(db: DatabaseConnection) -> str:
    """Return the installation's id, which is made with the registry."""
    row = await one(db, "SELECT id FROM penstock.installation")
    assert row is not None  # noqa: S101 - the migration that makes the table makes the row
    return str(row["id"])


async def set_installation_id(db: DatabaseConnection, id_: str) -> bool:
    """Make this registry the one of an installation that was there before; False where it is already."""
    return bool(await run(db, "UPDATE penstock.installation SET id = %(id)s WHERE id <> %(id)s", id=id_))


async def release_connection(db: DatabaseConnection, uid: str) -> bool:
    """Mark a connection as left to others: nothing makes it run; False when it is, or there is none."""
    return bool(
        await run(
            db,
            "UPDATE penstock.tenant_connections SET released_at = now(), ready = false, schedule = NULL, next_run_at = NULL"
            " WHERE uid = %(uid)s AND released_at IS NULL AND deleted_at IS NULL",
            uid=uid,
        )
    )


async def unlisted_connections(db: DatabaseConnection, live: list[str], before: datetime) -> list[Row]:
    """Return the connections that are neither in the list nor left to others, and were recorded before it began."""
    return await many(
        db,
        "SELECT uid, namespace, name FROM penstock.tenant_connections"
        " WHERE deleted_at IS NULL AND released_at IS NULL AND uid <> ALL(%(live)s) AND updated_at < %(before)s",
        live=live,
        before=before,
    )


async def controller_sessions(db: DatabaseConnection) -> int:
    """Return how many sessions of controllers this database has."""
    row = await one(
        db,
        "SELECT count(*) AS n FROM pg_stat_activity WHERE datname = current_database() AND application_name = %(name)s",
        name=CONTROLLER,
    )
    return int(row["n"]) if row else 0
