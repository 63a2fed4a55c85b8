"""What the database holds: relations with columns, keys and cursor candidates, from its own catalog."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import psycopg
from penstock_sdk import ConfigError, CursorCare, Stream

CURSOR_NAMES = ("updated_at", "modified_at", "last_modified", "last_update", "updated", "modified")
TIMES = ("timestamp with time zone", "timestamp without time zone")
INTEGERS = ("smallint", "integer", "bigint", "oid")

REFUSED_CURSORS = ("json", "xml", "point", "line", "lseg", "box", "path", "polygon", "circle")

# A domain is looked through to its base type. A primary key's INCLUDE columns are no part of it, and it says nothing
# of a table that others inherit from: their rows may repeat it.
RELATIONS = """
WITH RECURSIVE bases AS (
    SELECT oid AS type, oid AS base, typtype, typbasetype FROM pg_type
    UNION ALL
    SELECT b.type, t.oid, t.typtype, t.typbasetype FROM bases b JOIN pg_type t ON t.oid = b.typbasetype
    WHERE b.typtype = 'd'
)
SELECT n.nspname, c.relname, a.attname, format_type(a.atttypid, a.atttypmod), format_type(b.base, NULL), a.attnotnull,
       coalesce(array_position(i.indkey[0:i.indnkeyatts - 1]::int[], a.attnum::int), -1), t.typcategory
FROM pg_class c
JOIN pg_namespace n ON n.oid = c.relnamespace
JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
JOIN pg_type t ON t.oid = a.atttypid
JOIN bases b ON b.type = a.atttypid AND b.typtype <> 'd'
LEFT JOIN pg_index i ON i.indrelid = c.oid AND i.indisprimary AND NOT (c.relkind = 'r' AND c.relhassubclass)
WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND NOT c.relispartition
  AND n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname NOT LIKE 'pg\\_%%'
  AND (%(schemas)s::text[] IS NULL OR n.nspname = ANY(%(schemas)s::text[]))
  AND has_schema_privilege(n.oid, 'USAGE') AND has_table_privilege(c.oid, 'SELECT')
ORDER BY n.nspname, c.relname, a.attnum
"""


@dataclass(frozen=True)
class Column:
    """One column, with its SQL type as the database writes it, and the plain type beneath domain and precision."""

    name: str
    type: str
    base: str
    not_null: bool
    category: str

    def json_schema(self) -> dict[str, Any]:
        """Return what its values look like in a record: whatever JSON cannot hold exactly is text."""
        schema = {"x-sql-type": self.type, **_json_type(self.base, self.category)}
        if not self.not_null and "type" in schema:
            schema["type"] = [schema["type"], "null"]
        return schema


def _json_type(type_: str, category: str) -> dict[str, Any]:
    if category == "A":
        return {"type": "array"}
    if type_ in INTEGERS:
        return {"type": "integer"}
    if type_ == "boolean":
        return {"type": "boolean"}
    if type_ in ("real", "double precision"):
        return {}
    if type_ in ("json", "jsonb"):
        return {}
    formats = {"timestamp with time zone": "date-time", "date": "date", "uuid": "uuid"}
    encoding = {"contentEncoding": "base64"} if type_ == "bytea" else {}
    return {"type": "string", **({"format": formats[type_]} if type_ in formats else {}), **encoding}


@dataclass
class Relation:
    """One table or view."""

    schema: str
    table: str
    columns: list[Column] = field(default_factory=list)
    primary_key: list[str] = field(default_factory=list)
    cursor_field: str | None = None

    @property
    def name(self) -> str:
        """The stream's name."""
        return f"{self.schema}.{self.table}"

    def column(self, name: str) -> Column | None:
        """Return a column by name."""
        return next((each for each in self.columns if each.name == name), None)

    @property
    def follows_time(self) -> bool:
        """Whether the cursor column is a moment."""
        column = self.column(self.cursor_field or "")
        return column is not None and column.base in TIMES

    def stream(self, lag_seconds: float = 0) -> Stream:
        """Return the stream that the relation is; a lag leaves moments alone that may still come."""
        properties = {column.name: column.json_schema() for column in self.columns}
        incremental = bool(self.cursor_field and self.primary_key)
        return Stream(
            name=self.name,
            schema={"type": "object", "properties": properties, "required": list(properties)},
            primary_key=tuple(self.primary_key),
            cursor_field=self.cursor_field if incremental else None,
            modes=("full", "incremental") if incremental else ("full",),
            partitioned=bool(self.primary_key),
            cursor_care=self._care(lag_seconds) if incremental else (),
            windows=incremental and self.follows_time,
        )

    def _care(self, lag_seconds: float) -> tuple[CursorCare, ...]:
        """Say what the read takes care of: the database compares the values, and the key orders those that are the same."""
        return ("order", "ties", "settled") if lag_seconds and self.follows_time else ("order", "ties")


def read_catalog(
    connection: psycopg.Connection[Any], schemas: list[str] | None, cursor_fields: dict[str, str]
) -> dict[str, Relation]:
    """Return every relation that may be read, by stream name."""
    relations: dict[str, Relation] = {}
    keys: dict[str, dict[int, str]] = {}
    for schema, table, column, type_, base, not_null, position, category in connection.execute(
        RELATIONS, {"schemas": schemas}
    ):
        relation = relations.setdefault(f"{schema}.{table}", Relation(schema, table))
        if relation.schema != schema:
            message = f"spec.config.schemas: two tables make the stream {relation.name!r}; name one schema"
            raise ConfigError(message)
        relation.columns.append(Column(column, type_, base, not_null, category))
        if position >= 0:
            keys.setdefault(relation.name, {})[position] = column
    for name, relation in relations.items():
        relation.primary_key = [column for _, column in sorted(keys.get(name, {}).items())]
        relation.cursor_field = _cursor_field(relation, cursor_fields.get(name))
    unknown = sorted(cursor_fields.keys() - relations.keys())
    if unknown:
        message = f"spec.config.cursorFields: there is no table {unknown[0]!r} that these credentials can read"
        raise ConfigError(message)
    return relations


def _cursor_field(relation: Relation, wanted: str | None) -> str | None:
    """Return the column that an incremental read follows.

    It may not be null, or rows would be passed over; and the key must tell apart the rows that share a value of it.
    """
    if wanted is not None:
        why = _unfit(relation, relation.column(wanted))
        if why:
            message = f"spec.config.cursorFields: {relation.name}.{wanted} cannot be a cursor: {why}"
            raise ConfigError(message)
        return wanted
    if not relation.primary_key:
        return None
    for name in CURSOR_NAMES:
        column = relation.column(name)
        if column and column.not_null and column.base in TIMES:
            return name
    key = relation.column(relation.primary_key[0]) if len(relation.primary_key) == 1 else None
    return key.name if key and key.base in INTEGERS else None


def _unfit(relation: Relation, column: Column | None) -> str:
    """Say why a column cannot be followed; nothing when it can."""
    if column is None:
        return "there is no such column"
    if not column.not_null:
        return "it may be null"
    if not relation.primary_key:
        return "the table has no primary key"
    return f"{column.base} has no order" if column.base in REFUSED_CURSORS else ""
