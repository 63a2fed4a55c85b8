"""`penstock migrate`: forward-only migrations, once each, whoever else is starting."""

from __future__ import annotations

import hashlib
from importlib import resources

import psycopg
from psycopg.rows import tuple_row

from penstock_operator.registry.roles import grant_rights
from penstock_operator.settings import OWNER_ONLY, DatabaseRoles

LOCK = 0x70656E73746F636B  # "penstock"
LEDGER = """
CREATE SCHEMA IF NOT EXISTS penstock;
CREATE TABLE IF NOT EXISTS penstock.schema_migrations (
    name text PRIMARY KEY, sha256 text NOT NULL, applied_at timestamptz NOT NULL DEFAULT now())
"""


class MigrationError(Exception):
    """A migration that was applied differs from the one in this version."""


def migrations() -> dict[str, str]:
    """Return the SQL of every migration by file name, in order."""
    folder = resources.files("penstock_operator.registry.migrations")
    names = sorted(item.name for item in folder.iterdir() if item.name.endswith(".sql"))
    return {name: (folder / name).read_text() for name in names}


async def migrate(url: str, roles: DatabaseRoles = OWNER_ONLY) -> list[str]:
    """Apply what is missing and return its names; a second caller waits for the first and finds nothing to do.

    Then give the roles their rights. All of this is one transaction.
    """
    async with await psycopg.AsyncConnection.connect(url, row_factory=tuple_row) as connection:
        await connection.execute("SELECT pg_advisory_xact_lock(%s)", [LOCK])
        await connection.execute(LEDGER.encode())
        cursor = await connection.execute("SELECT name, sha256 FROM penstock.schema_migrations")
        applied: dict[str, str] = {str(name): str(digest) for name, digest in await cursor.fetchall()}
        new = [name for name, sql in migrations().items() if await _apply(connection, name, sql, applied.get(name))]
        await grant_rights(connection, roles)
        return new


async def _apply(
    connection: psycopg.AsyncConnection[tuple[object, ...]], name: str, sql: str, known: str | None
) -> bool:
    digest = hashlib.sha256(sql.encode()).hexdigest()
    if known is not None:
        if known != digest:
            message = f"migration {name} was changed after it was applied; restore the version that was released"
            raise MigrationError(message)
        return False
    await connection.execute(sql.encode())
    await connection.execute("INSERT INTO penstock.schema_migrations (name, sha256) VALUES (%s, %s)", [name, digest])
    return True
