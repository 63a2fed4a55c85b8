"""Rights of the controller and of the server in the database, where each has a role of its own.

The owner of the tables, who migrates, gives them. A new table is readable and writable for both, unless it is named here.
"""

from __future__ import annotations

from collections.abc import Iterable

import psycopg
from psycopg import sql

from penstock_operator.settings import DatabaseRoles

SECRET_COLUMNS = frozenset({("credentials", "ciphertext")})
"""What the server alone may read."""
NOT_WRITTEN_BY_SERVER = frozenset({"connector_definitions", "installation", "schema_migrations"})
NOT_WRITTEN_BY_CONTROLLER = frozenset({"schema_migrations"})
APPEND_ONLY = frozenset({"audit_events"})
"""Tables to which both add rows, and whose rows neither changes or deletes."""
EXPIRY = "penstock.expire_audit_events(timestamptz, integer)"
"""Deletes old events of the audit with the rights of the owner."""
COLUMNS = """
    SELECT table_name::text, column_name::text FROM information_schema.columns c
    JOIN information_schema.tables t USING (table_schema, table_name)
    WHERE table_schema = 'penstock' AND table_type = 'BASE TABLE' ORDER BY table_name, ordinal_position
"""
Session = psycopg.AsyncConnection[tuple[object, ...]]


class RoleError(Exception):
    """A role that should get rights does not exist."""


async def grant_rights(session: Session, roles: DatabaseRoles) -> None:
    """Give each role its rights on the tables that exist now, and take away all others. Raises RoleError.

    The server reads everything and deletes nothing. The controller reads and writes everything but the credentials that sources
    replaced, of which it sees the names only. Neither may change a table, the list of migrations, or an event of the audit; the
    controller may have old events deleted.
    """
    columns = dict[str, list[str]]()
    for table, column in await (await session.execute(COLUMNS.encode())).fetchall():
        columns.setdefault(str(table), []).append(str(column))
    if roles.server or roles.controller:
        await session.execute(f"REVOKE ALL ON FUNCTION {EXPIRY} FROM PUBLIC".encode())
    if roles.server:
        await _begin(session, roles.server)
        await _grant(session, roles.server, "SELECT", columns)
        await _grant(session, roles.server, "INSERT", columns.keys() - NOT_WRITTEN_BY_SERVER)
        await _grant(session, roles.server, "UPDATE", columns.keys() - NOT_WRITTEN_BY_SERVER - APPEND_ONLY)
    if roles.controller:
        await _begin(session, roles.controller)
        secret = {table for table, _ in SECRET_COLUMNS}
        await _grant(session, roles.controller, "SELECT", columns.keys() - secret)
        written = columns.keys() - NOT_WRITTEN_BY_CONTROLLER
        await _grant(session, roles.controller, "INSERT", written - secret)
        await _grant(session, roles.controller, "UPDATE", written - secret - APPEND_ONLY)
        await _grant(session, roles.controller, "DELETE", written - APPEND_ONLY)
        grant = sql.SQL(f"GRANT EXECUTE ON FUNCTION {EXPIRY} TO {{}}")
        await session.execute(grant.format(sql.Identifier(roles.controller)))
        for table in sorted(secret & columns.keys()):
            names = [sql.Identifier(name) for name in columns[table] if (table, name) not in SECRET_COLUMNS]
            statement = sql.SQL("GRANT SELECT ({}) ON {} TO {}").format(
                sql.SQL(", ").join(names), sql.Identifier("penstock", table), sql.Identifier(roles.controller)
            )
            await session.execute(statement)


async def _begin(session: Session, role: str) -> None:
    """Take every right on the schema from the role, and give it the right to use the schema and its sequences."""
    found = await (await session.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", [role])).fetchone()
    if found is None:
        raise RoleError(f"Postgres has no role {role}; create it: CREATE ROLE {role} LOGIN PASSWORD '…'")
    name = sql.Identifier(role)
    for text in (
        "REVOKE ALL ON ALL TABLES IN SCHEMA penstock FROM {}",
        "REVOKE ALL ON SCHEMA penstock FROM {}",
        "GRANT USAGE ON SCHEMA penstock TO {}",
        "GRANT USAGE ON ALL SEQUENCES IN SCHEMA penstock TO {}",
    ):
        await session.execute(sql.SQL(text).format(name))


async def _grant(session: Session, role: str, rights: str, tables: Iterable[str]) -> None:
    names = [sql.Identifier("penstock", table) for table in sorted(tables)]
    statement = sql.SQL("GRANT {} ON {} TO {}").format(sql.SQL(rights), sql.SQL(", ").join(names), sql.Identifier(role))
    await session.execute(statement)
