"""Why a table that a connection selects is not offered, though the database has it."""

from __future__ import annotations

from typing import Any

import msgspec
import psycopg
from penstock_sdk import AuthenticationError, ConfigError, ConnectorError

from penstock_postgres_sql.quoting import quoted

SYSTEM = ("pg_catalog", "information_schema", "pg_toast")
KINDS = {"S": "a sequence", "i": "an index", "I": "an index", "c": "a composite type", "t": "storage of another table"}
FOUND = """
SELECT n.nspname, c.relname, c.relkind::text, has_schema_privilege(n.oid, 'USAGE') AS usable,
       has_table_privilege(c.oid, 'SELECT') OR has_any_column_privilege(c.oid, 'SELECT') AS readable,
       EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped),
       (SELECT pn.nspname || '.' || pc.relname FROM pg_partition_ancestors(c.oid) AS p (oid)
            JOIN pg_class pc ON pc.oid = p.oid JOIN pg_namespace pn ON pn.oid = pc.relnamespace
            WHERE c.relispartition AND NOT pc.relispartition)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE lower(n.nspname || '.' || c.relname) = lower(%(name)s) OR lower(c.relname) = lower(%(name)s)
ORDER BY n.nspname || '.' || c.relname = %(name)s DESC, n.nspname, c.relname
"""


class _Found(msgspec.Struct, frozen=True, array_like=True):
    schema: str
    table: str
    kind: str
    usable: bool
    readable: bool
    has_columns: bool
    parent: str | None

    @property
    def name(self) -> str:
        return f"{self.schema}.{self.table}"


def withheld(connection: psycopg.Connection[Any], name: str, schemas: list[str] | None) -> ConnectorError | None:
    """Return what is in the way of a stream of this name; None where the database has nothing like it."""
    if "\0" in name or any("\ud800" <= character <= "\udfff" for character in name):
        return None
    rows = connection.execute(FOUND, {"name": name}).fetchall()
    found = [msgspec.convert(row, _Found) for row in rows]
    if not found:
        return None
    table = found[0]
    if table.name != name:
        return ConfigError(
            f"stream {name!r}: there is no such table; there is {_named(found)}: a stream is schema.table,"
            " written as the database writes it"
        )
    return _missing_rights(table, connection.info.user) or _not_a_stream(table, schemas)


def _named(found: list[_Found]) -> str:
    return " and ".join(repr(table.name) for table in found[:3])


def _missing_rights(table: _Found, user: str) -> ConnectorError | None:
    if table.schema in SYSTEM or table.kind in KINDS:
        return None
    missing = []
    if not table.usable:
        missing.append(f"GRANT USAGE ON SCHEMA {quoted(table.schema)} TO {quoted(user)}")
    if not table.readable:
        missing.append(f"GRANT SELECT ON {quoted(table.schema)}.{quoted(table.table)} TO {quoted(user)}")
    if not missing:
        return None
    return AuthenticationError(
        f"stream {table.name!r}: it exists, and the user may not read it: {'; '.join(missing)}", scope="stream"
    )


def _not_a_stream(table: _Found, schemas: list[str] | None) -> ConnectorError | None:
    if table.schema in SYSTEM:
        return ConfigError(f"stream {table.name!r}: it belongs to the server itself, and is not offered as a stream")
    if table.kind in KINDS:
        return ConfigError(f"stream {table.name!r}: it is {KINDS[table.kind]}; only tables and views are streams")
    if table.parent:
        return ConfigError(
            f"stream {table.name!r}: it is a partition of {table.parent!r}: select that, which holds its rows"
        )
    if schemas is not None and table.schema not in schemas:
        return ConfigError(
            f"stream {table.name!r}: its schema {table.schema!r} is not one of spec.config.schemas; add it there"
        )
    return None if table.has_columns else ConfigError(f"stream {table.name!r}: it has no column that could be read")
