"""What the database holds: relations with columns, keys and cursor candidates, from its own catalog."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import psycopg
from penstock_sdk import ConfigError, Stream

CURSOR_NAMES = ("updated_at", "modified_at", "last_modified", "last_update", "updated", "modified")
TIMES = ("timestamp with time zone", "timestamp without time zone")
INTEGERS = ("smallint", "integer", "bigint")

RELATIONS = """
SELECT n.nspname AS schema, c.relname AS table, a.attname AS column, format_type(a.atttypid, a.atttypmod) AS type,
       a.attnotnull AS not_null, coalesce(array_position(i.indkey::int[], a.attnum::int), -1) AS key_position,
       t.typcategory AS category, col_description(c.oid, a.attnum) AS description
FROM pg_class c
JOIN pg_namespace n ON n.oid = c.relnamespace
JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
JOIN pg_type t ON t.oid = a.atttypid
LEFT JOIN pg_index i ON i.indrelid = c.oid AND i.indisprimary
WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND NOT c.relispartition
  AND n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname NOT LIKE 'pg\\_%%'
  AND (%(schemas)s::text[] IS NULL OR n.nspname = ANY(%(schemas)s::text[]))
  AND has_table_privilege(c.oid, 'SELECT')
ORDER BY n.nspname, c.relname, a.attnum
"""


@dataclass(frozen=True)
class Column:
    """One column, with its SQL type as the database writes it."""

    name: str
    type: str
    not_null: bool
    category: str

    def json_schema(self) -> dict[str, Any]:
        """Return what its values look like in a record: whatever JSON cannot hold exactly is text."""
        schema = {"x-sql-type": self.type, **_json_type(self.type, self.category)}
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

    def stream(self) -> Stream:
        """Return the stream that the relation is."""
        properties = {column.name: column.json_schema() for column in self.columns}
        incremental = bool(self.cursor_field and self.primary_key)
        return Stream(
            name=self.name,
            schema={"type": "object", "properties": properties, "required": list(properties)},
            primary_key=tuple(self.primary_key),
            cursor_field=self.cursor_field if incremental else None,
            modes=("full", "incremental") if incremental else ("full",),
        )


def read_catalog(
    connection: psycopg.Connection[Any], schemas: list[str] | None, cursor_fields: dict[str, str]
) -> dict[str, Relation]:
    """Return every relation that may be read, by stream name."""
    relations: dict[str, Relation] = {}
    keys: dict[str, dict[int, str]] = {}
    for schema, table, column, type_, not_null, position, category, _ in connection.execute(
        RELATIONS, {"schemas": schemas}
    ):
        relation = relations.setdefault(f"{schema}.{table}", Relation(schema, table))
        relation.columns.append(Column(column, type_, not_null, category))
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
    """Return the column that an incremental read follows; it may not be null, or rows would be passed over."""
    if wanted is not None:
        column = relation.column(wanted)
        if column is None or not column.not_null or not relation.primary_key:
            why = (
                "there is no such column"
                if column is None
                else "it may be null"
                if not column.not_null
                else "the table has no primary key"
            )
            message = f"spec.config.cursorFields: {relation.name}.{wanted} cannot be a cursor: {why}"
            raise ConfigError(message)
        return wanted
    for name in CURSOR_NAMES:
        column = relation.column(name)
        if column and column.not_null and column.type in TIMES:
            return name
    key = relation.column(relation.primary_key[0]) if len(relation.primary_key) == 1 else None
    return key.name if key and key.type in INTEGERS else None
