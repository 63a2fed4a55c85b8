"""Why discovery does not offer a table that a connection selects, although the database has it."""

from __future__ import annotations

import msgspec
import psycopg
from penstock_sdk import AuthenticationError, ConfigError, ConnectorError
from psycopg.rows import TupleRow

from penstock_postgres_sql.quoting import quote_name

SYSTEM_SCHEMAS = ("pg_catalog", "information_schema", "pg_toast")
OTHER_KINDS = {
    "S": "a sequence",
    "i": "an index",
    "I": "an index",
    "c": "a composite type",
    "t": "storage of another table",
}
ENTRIES = """
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


class _CatalogEntry(msgspec.Struct, frozen=True, array_like=True):
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


def why_not_offered(
    connection: psycopg.Connection[TupleRow], name: str, schemas: list[str] | None
) -> ConnectorError | None:
    """Return an error that says why the stream `name` is not offered; None if the database has no similar table."""
    if "\0" in name or any("\ud800" <= character <= "\udfff" for character in name):
        return None
    rows = connection.execute(ENTRIES, {"name": name}).fetchall()
    entries = [msgspec.convert(row, _CatalogEntry) for row in rows]
    if not entries:
        return None
    entry = entries[0]
    if entry.name != name:
        similar = " and ".join(repr(entry.name) for entry in entries[:3])
        return ConfigError(
            f"stream {name!r}: there is no such table; there is {similar}: write the stream in spec.streams as"
            " schema.table, with the database's own spelling"
        )
    return _missing_rights(entry, connection.info.user) or _not_a_stream(entry, schemas)


def _missing_rights(entry: _CatalogEntry, user: str) -> ConnectorError | None:
    if entry.schema in SYSTEM_SCHEMAS or entry.kind in OTHER_KINDS:
        return None
    missing = []
    if not entry.usable:
        missing.append(f"GRANT USAGE ON SCHEMA {quote_name(entry.schema)} TO {quote_name(user)}")
    if not entry.readable:
        missing.append(f"GRANT SELECT ON {quote_name(entry.schema)}.{quote_name(entry.table)} TO {quote_name(user)}")
    if not missing:
        return None
    return AuthenticationError(
        f"stream {entry.name!r}: it exists, and the user may not read it: {'; '.join(missing)}", scope="stream"
    )


def _not_a_stream(entry: _CatalogEntry, schemas: list[str] | None) -> ConnectorError | None:
    if entry.schema in SYSTEM_SCHEMAS:
        return ConfigError(
            f"stream {entry.name!r}: it belongs to the server itself, and is not offered as a stream; remove it from"
            " spec.streams"
        )
    if entry.kind in OTHER_KINDS:
        return ConfigError(
            f"stream {entry.name!r}: it is {OTHER_KINDS[entry.kind]}; only tables and views are streams; remove it from"
            " spec.streams"
        )
    if entry.parent:
        return ConfigError(
            f"stream {entry.name!r}: it is a partition of {entry.parent!r}: select {entry.parent!r}, which has its rows"
        )
    if schemas is not None and entry.schema not in schemas:
        return ConfigError(
            f"stream {entry.name!r}: its schema {entry.schema!r} is not one of spec.config.schemas; add it there"
        )
    if entry.has_columns:
        return None
    return ConfigError(f"stream {entry.name!r}: it has no column that could be read; remove it from spec.streams")
