"""installation: who this registry is, among several installations; and the connections that it has left to another."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from penstock_operator.ids import ConnectionName, ConnectionUid, Namespace
from penstock_operator.registry.database import DatabaseConnection, execute, fetch_all, fetch_value

CONTROLLER = "penstock-operate"
"""Name of a controller's sessions in Postgres (`application_name`)."""


async def installation_id(db: DatabaseConnection) -> str:
    """Return the installation's id, which is made with the registry."""
    found = await fetch_value(db, str, "SELECT id FROM penstock.installation")
    assert found is not None  # noqa: S101 - the migration that makes the table makes the row
    return found


async def set_installation_id(db: DatabaseConnection, id_: str) -> bool:
    """Make this registry the one of an installation that was there before; False where it is already."""
    return bool(await execute(db, "UPDATE penstock.installation SET id = %(id)s WHERE id <> %(id)s", id=id_))


async def release_connection(db: DatabaseConnection, uid: ConnectionUid) -> bool:
    """Mark a connection as left to others: nothing makes it run; False when it is, or there is none."""
    return bool(
        await execute(
            db,
            "UPDATE penstock.tenant_connections SET released_at = now(), ready = false, schedule = NULL, next_run_at = NULL"
            " WHERE uid = %(uid)s AND released_at IS NULL AND deleted_at IS NULL",
            uid=uid,
        )
    )


@dataclass(frozen=True, slots=True)
class UnlistedConnection:
    """A connection that a list did not have."""

    uid: ConnectionUid
    namespace: Namespace
    name: ConnectionName


async def unlisted_connections(
    db: DatabaseConnection, live: list[ConnectionUid], before: datetime
) -> list[UnlistedConnection]:
    """Return the connections that are neither in the list nor left to others, and were recorded before it began."""
    return await fetch_all(
        db,
        UnlistedConnection,
        "SELECT uid, namespace, name FROM penstock.tenant_connections"
        " WHERE deleted_at IS NULL AND released_at IS NULL AND uid <> ALL(%(live)s) AND updated_at < %(before)s",
        live=live,
        before=before,
    )


async def controller_sessions(db: DatabaseConnection) -> int:
    """Return how many sessions of controllers this database has."""
    sessions = await fetch_value(
        db,
        int,
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name = %(name)s",
        name=CONTROLLER,
    )
    return sessions or 0
