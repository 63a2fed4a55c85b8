"""Reads the database's catalog: relations with their columns, primary keys and cursor fields.

A relation that cannot be read incrementally is still offered for full reads, with the reason.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import psycopg
from penstock_sdk import ConfigError, CursorCare, Stream
from penstock_sdk.json_types import JsonSchema
from psycopg import sql
from psycopg.rows import TupleRow

from penstock_postgres_sql.quoting import quote_name

CURSOR_NAMES = ("updated_at", "modified_at", "last_modified", "last_update", "updated", "modified")
TIMESTAMPS = ("timestamp with time zone", "timestamp without time zone")
INTEGERS = ("smallint", "integer", "bigint", "oid")
KINDS_WITHOUT_KEY = {
    "v": "it is a view, and a view has no primary key",
    "m": "it is a materialized view, and such a view has no primary key",
    "f": "it is a foreign table, and such a table has no primary key here",
}
MOST_LISTED = 5
MISSING_GRANTS = """
SELECT n.nspname, c.relname, has_schema_privilege(n.oid, 'USAGE') FROM pg_class c
JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND NOT c.relispartition AND n.nspname <> 'information_schema'
  AND n.nspname NOT LIKE 'pg\\_%%' AND (%(schema)s::text IS NULL OR n.nspname = %(schema)s)
ORDER BY 1, 2 LIMIT 5
"""
MULTIRANGES_SINCE, UNVALIDATED_SINCE = 140000, 180000  # as libpq writes versions

# A domain is replaced by its base type. A primary key's INCLUDE columns do not count as its columns. A key that is not
# valid (on a partitioned table whose partitions do not have it) does not count as a key, nor does the key of a table that
# others inherit from, as their rows may repeat it. Where only some columns are granted, only these are listed.
RELATIONS = """
WITH RECURSIVE bases AS (
    SELECT oid AS type, oid AS base, typtype, typbasetype, -1 AS typmod FROM pg_type
    UNION ALL
    SELECT b.type, t.oid, t.typtype, t.typbasetype, d.typtypmod
    FROM bases b JOIN pg_type d ON d.oid = b.base JOIN pg_type t ON t.oid = b.typbasetype
    WHERE b.typtype = 'd'
), keys AS (
    SELECT indrelid, indkey[0:indnkeyatts - 1]::int[] AS columns FROM pg_index WHERE indisprimary AND indisvalid
)
SELECT c.oid::bigint, n.nspname, c.relname, c.relkind::text, c.relkind = 'r' AND c.relhassubclass,
       has_column_privilege(c.oid, (-2)::smallint, 'SELECT'), k.columns IS NOT NULL,
       coalesce((SELECT array_agg(p.attname ORDER BY array_position(k.columns, p.attnum::int))
                 FROM pg_attribute p WHERE p.attrelid = c.oid AND p.attnum = ANY (k.columns)
                   AND NOT has_column_privilege(c.oid, p.attnum, 'SELECT')), '{{}}')::text[],
       a.attname, a.atttypid::bigint, format_type(a.atttypid, a.atttypmod),
       CASE WHEN t.typtype = 'd' THEN format_type(b.base, b.typmod) ELSE format_type(a.atttypid, a.atttypmod) END,
       format_type(b.base, NULL), a.attnotnull AND NOT ({unvalidated}), u.typoutput = 'array_out'::regproc,
       coalesce(array_position(k.columns, a.attnum::int), -1),
       CASE WHEN l.oid IS NOT NULL AND l.collname <> 'default' THEN ARRAY[ln.nspname, l.collname]::text[] END,
       has_column_privilege(c.oid, a.attnum, 'SELECT')
FROM pg_class c
JOIN pg_namespace n ON n.oid = c.relnamespace
JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
JOIN pg_type t ON t.oid = a.atttypid
JOIN bases b ON b.type = a.atttypid AND b.typtype <> 'd'
JOIN pg_type u ON u.oid = b.base
LEFT JOIN pg_collation l ON l.oid = a.attcollation
LEFT JOIN pg_namespace ln ON ln.oid = l.collnamespace
LEFT JOIN keys k ON k.indrelid = c.oid AND NOT (c.relkind = 'r' AND c.relhassubclass)
WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND NOT c.relispartition
  AND n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname NOT LIKE 'pg\\_%'
  AND ({schemas}::text[] IS NULL OR n.nspname = ANY ({schemas}::text[]))
  AND has_schema_privilege(n.oid, 'USAGE')
  AND (has_table_privilege(c.oid, 'SELECT') OR has_any_column_privilege(c.oid, 'SELECT'))
ORDER BY n.nspname, c.relname, a.attnum
"""
# Since Postgres 18 a column may be declared NOT NULL while existing rows still hold null (NOT VALID).
UNVALIDATED_NOT_NULL = "EXISTS (SELECT FROM pg_constraint v WHERE v.conrelid = c.oid AND v.contype = 'n' AND NOT v.convalidated AND v.conkey[1] = a.attnum)"
# Tables whose rows do not carry the id of the transaction that wrote them: foreign tables, other storage than heap, and
# partitioned tables with such a partition.
FOREIGN_STORAGE = """
WITH RECURSIVE tree AS (
    SELECT oid AS root, oid AS relation FROM pg_class WHERE relkind IN ('r', 'p') AND NOT relispartition
    UNION ALL SELECT t.root, i.inhrelid FROM tree t JOIN pg_inherits i ON i.inhparent = t.relation
)
SELECT t.root::bigint, min(n.nspname || '.' || c.relname) FROM tree t
JOIN pg_class c ON c.oid = t.relation JOIN pg_namespace n ON n.oid = c.relnamespace LEFT JOIN pg_am m ON m.oid = c.relam
WHERE c.relkind = 'f' OR c.relkind = 'r' AND m.amname IS DISTINCT FROM 'heap' GROUP BY 1
"""
# A type and all types within it: elements of arrays, base types of domains, bounds of ranges, fields of composites. Returns
# one whose text depends on settings.
DEPENDS_ON_SETTINGS = """
WITH RECURSIVE inside AS (
    SELECT {oid}::oid AS type
    UNION
    SELECT more.type FROM inside i JOIN pg_type t ON t.oid = i.type, LATERAL (
        SELECT t.typelem WHERE t.typoutput = 'array_out'::regproc
        UNION ALL SELECT t.typbasetype WHERE t.typtype = 'd'
        UNION ALL SELECT r.rngsubtype FROM pg_range r WHERE r.rngtypid = t.oid {multirange}
        UNION ALL SELECT a.atttypid FROM pg_attribute a WHERE t.typtype = 'c' AND a.attrelid = t.typrelid
            AND a.attnum > 0 AND NOT a.attisdropped
    ) AS more (type)
)
SELECT format_type(t.oid, NULL) FROM inside i JOIN pg_type t ON t.oid = i.type JOIN pg_proc p ON p.oid = t.typoutput
WHERE t.typtype = 'b' AND t.typcategory NOT IN ('A', 'D', 'T') AND p.provolatile <> 'i' LIMIT 1
"""
# The schema and the name of the operator for "greater than" in a type's default order.
ORDER_OPERATORS = """
SELECT n.nspname, o.oprname FROM pg_opclass k
JOIN pg_am m ON m.oid = k.opcmethod AND m.amname = 'btree'
JOIN pg_amop s ON s.amopfamily = k.opcfamily AND s.amoplefttype = k.opcintype AND s.amoprighttype = k.opcintype AND s.amopstrategy = 5
JOIN pg_operator o ON o.oid = s.amopopr JOIN pg_namespace n ON n.oid = o.oprnamespace
WHERE k.opcdefault AND k.opcintype = {oid}::regtype
"""


@dataclass(frozen=True)
class TableColumn:
    """A column. `type` is its SQL type as the database writes it; `base` is the type without domain and precision.

    A text of the column is cast to the type `literal` to be compared with it. `collation` is a schema and a name; it is set
    if the column does not use the database's default collation.
    """

    name: str
    type: str
    literal: str
    base: str
    not_null: bool
    is_array: bool
    collation: tuple[str, str] | None = None

    def json_schema(self) -> JsonSchema:
        """Return the JSON Schema of the column's values. Values that JSON cannot hold exactly are strings."""
        shown = self.type.removeprefix("public.")
        schema = {"x-sql-type": shown, **_json_type(self.base, is_array=self.is_array)}
        if not self.not_null and "type" in schema:
            schema["type"] = [schema["type"], "null"]
        return schema

    def typed_literal(self, value: str) -> sql.Composed:
        """Return a text as an SQL literal that the column can be compared with."""
        typed = sql.SQL("{}::{}").format(value, sql.SQL(self.literal))
        if self.collation is None:
            return typed
        return sql.SQL("({} COLLATE {})").format(typed, sql.Identifier(*self.collation))


def _json_type(type_: str, *, is_array: bool) -> JsonSchema:
    if is_array:
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
    """A table or view.

    `order` has the columns by which a read is ordered and resumed; it is empty if the relation is read in one query.
    `has_xmin` is True if changes can be found by transaction. `only_full` is the reason why the relation cannot be read
    incrementally, `problem` the reason why it cannot be read, `config_problem` an error in spec.config about it; each is empty
    if there is none. `ungranted` has the columns that the user may not read.
    """

    oid: int
    schema: str
    table: str
    kind: str
    columns: list[TableColumn] = field(default_factory=list)
    primary_key: list[str] = field(default_factory=list)
    cursor_field: str | None = None
    order: list[str] = field(default_factory=list)
    has_xmin: bool = False
    only_full: str = ""
    problem: str = ""
    config_problem: str = ""
    ungranted: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        """The stream's name."""
        return f"{self.schema}.{self.table}"

    def column(self, name: str) -> TableColumn | None:
        """Return the column of this name; None if there is none."""
        return next((column for column in self.columns if column.name == name), None)

    @property
    def follows_time(self) -> bool:
        """Whether the cursor field is a timestamp."""
        column = self.column(self.cursor_field or "")
        return column is not None and column.base in TIMESTAMPS

    def stream(self) -> Stream:
        """Return the stream of this relation."""
        properties = {column.name: column.json_schema() for column in self.columns}
        incremental = not self.only_full
        return Stream(
            name=self.name,
            schema={"type": "object", "properties": properties, "required": list(properties)},
            primary_key=tuple(self.primary_key),
            cursor_field=self.cursor_field if incremental else None,
            modes=("full", "incremental") if incremental else ("full",),
            partitioned=bool(self.order),
            cursor_care=self._cursor_care() if incremental else (),
            windows=incremental and self.follows_time,
            only_full=self.only_full,
            unavailable=ConfigError(self.config_problem) if self.config_problem else None,
        )

    def _cursor_care(self) -> tuple[CursorCare, ...]:
        """Return the risks of a cursor that the connector handles: order of values, equal values, and values that appear late."""
        return ("order", "ties", "settled")


@dataclass(frozen=True)
class CatalogOptions:
    """The options of the connection that decide what the catalog offers."""

    schemas: list[str] | None
    cursor_fields: dict[str, str]
    uses_snapshots: bool = True


def read_catalog(connection: psycopg.Connection[TupleRow], options: CatalogOptions) -> dict[str, Relation]:
    """Return every relation that the user may read, by stream name. Raises ConfigError if spec.config matches none."""
    with connection.transaction():
        connection.execute("SET LOCAL search_path = ''")  # so that format_type writes each type with its schema
        relations = _relations(connection, options.schemas)
        _check_schemas(connection, options.schemas, relations)
        storage: dict[int, str] = dict(connection.execute(FOREIGN_STORAGE).fetchall())
    types = _OrderTypes(connection)
    for relation in relations.values():
        _set_modes(relation, options, types, storage.get(relation.oid))
    _check_cursor_fields(options, relations, types)
    _extend_search_path(connection, types.schemas)
    return relations


class _OrderTypes:
    """Decides which types a read can be ordered and resumed by; the database is asked once for each type.

    Such a type has an order, and the text of a value means the same value at any later time.
    """

    def __init__(self, connection: psycopg.Connection[TupleRow]) -> None:
        self._connection = connection
        self._known: dict[str, str] = {}
        self.schemas = set[str]()

    def why_unusable(self, column: TableColumn) -> str:
        """Return why a read cannot be ordered and resumed by a column; empty if it can."""
        if column.literal not in self._known:
            self._known[column.literal] = self._find_reason(column.literal)
        return self._known[column.literal]

    def _find_reason(self, type_: str) -> str:
        typed = sql.SQL(type_)
        probe = sql.SQL("EXPLAIN SELECT FROM (SELECT NULL::{} AS value) AS row ORDER BY value").format(typed)
        try:
            self._connection.execute(probe)
        except psycopg.errors.UndefinedFunction:
            return f"{type_} has no order"
        except psycopg.ProgrammingError as error:
            return f"{type_} cannot be compared: {error.diag.message_primary}"
        version = self._connection.info.server_version
        settings = sql.SQL(DEPENDS_ON_SETTINGS).format(  # includes the types within domains, arrays and composites
            oid=sql.SQL("{}::regtype").format(type_),
            multirange=sql.SQL("OR r.rngmultitypid = t.oid" if version >= MULTIRANGES_SINCE else ""),
        )
        found = self._connection.execute(settings).fetchone()
        if found:
            return f"the text of {found[0]} depends on settings and on the catalog, so a stored text may mean another value later"
        operators = self._connection.execute(sql.SQL(ORDER_OPERATORS).format(oid=type_)).fetchall()
        if any(name != ">" for _, name in operators):
            return f"the order of {type_} is not the one of the operator >"
        self.schemas |= {schema for schema, _ in operators if schema != "pg_catalog"}
        return ""


class _ColumnEntry(NamedTuple):
    """A row that RELATIONS returns: a column, with the table or view that it belongs to."""

    oid: int
    schema: str
    table: str
    kind: str
    is_parent: bool
    has_xmin: bool
    has_key: bool
    ungranted_key: list[str]
    name: str
    type_oid: int
    type: str
    literal: str
    base: str
    not_null: bool
    is_array: bool
    key_index: int
    collation: list[str] | None
    is_granted: bool

    def column(self) -> TableColumn:
        """Return the column by itself."""
        collation = (self.collation[0], self.collation[1]) if self.collation else None
        return TableColumn(self.name, self.type, self.literal, self.base, self.not_null, self.is_array, collation)


def _relations(connection: psycopg.Connection[TupleRow], schemas: list[str] | None) -> dict[str, Relation]:
    relations: dict[str, Relation] = {}
    keys: dict[str, dict[int, str]] = {}
    unvalidated = sql.SQL(UNVALIDATED_NOT_NULL if connection.info.server_version >= UNVALIDATED_SINCE else "false")
    for row in connection.execute(sql.SQL(RELATIONS).format(unvalidated=unvalidated, schemas=schemas)).fetchall():
        entry = _ColumnEntry(*row)
        new = Relation(entry.oid, entry.schema, entry.table, entry.kind)
        relation = relations.setdefault(new.name, new)
        if relation.oid != entry.oid:
            relation.problem = (
                "two tables have this stream name; name one schema in spec.config.schemas, or rename a table"
            )
            continue
        if not entry.is_granted:
            relation.ungranted.append(entry.name)
            continue
        relation.columns.append(entry.column())
        if entry.key_index >= 0:
            keys.setdefault(relation.name, {})[entry.key_index] = entry.name
        relation.has_xmin = entry.has_xmin
        relation.only_full = _missing_key_reason(entry)
    for name, relation in relations.items():
        found = keys.get(name, {})
        relation.primary_key = [] if relation.only_full else [column for _, column in sorted(found.items())]
    return {name: relation for name, relation in relations.items() if relation.columns and _is_text(relation)}


def _is_text(relation: Relation) -> bool:
    """Return True if all names are valid text. A database with the encoding SQL_ASCII may have others."""
    names = [relation.schema, relation.table, *(column.name for column in relation.columns)]
    return not any("\ud800" <= character <= "\udfff" for name in names for character in name)


def _missing_key_reason(entry: _ColumnEntry) -> str:
    if entry.kind in KINDS_WITHOUT_KEY:
        return KINDS_WITHOUT_KEY[entry.kind]
    if entry.is_parent:
        return "other tables inherit from it, and their rows may repeat its primary key"
    if not entry.has_key:
        return "it has no (valid) primary key"
    ungranted = entry.ungranted_key
    return f"the user may not read {_listed(ungranted)} of its primary key; grant SELECT on it" if ungranted else ""


def _set_modes(relation: Relation, options: CatalogOptions, types: _OrderTypes, other_storage: str | None) -> None:
    """Set the order of a relation, and whether it can be read incrementally."""
    key_columns = [column for column in map(relation.column, relation.primary_key) if column]
    problems = (f"{column.name}: {problem}" for column in key_columns if (problem := types.why_unusable(column)))
    key_problem = next(problems, "")
    if key_problem:
        relation.only_full = f"its primary key cannot order a read: {key_problem}"
        return
    if relation.problem or not relation.primary_key:
        return
    if other_storage:
        relation.has_xmin = False
        reason = f"{other_storage} is not stored as an ordinary table, and its rows do not carry the transaction that wrote them"
    elif not relation.has_xmin:
        reason = "the user may not read the column xmin, which shows what changed; grant SELECT (xmin), or SELECT on the table"
    else:
        reason = ""
    relation.cursor_field = _default_order_column(relation)
    if options.uses_snapshots:
        relation.only_full = reason
    elif not _follows_timestamptz(relation):
        relation.only_full = NEEDS_TIMESTAMPTZ
    _set_order(relation)


NEEDS_TIMESTAMPTZ = (
    "changeTracking: cursor needs a column of type timestamptz that is NOT NULL; name one in spec.config.cursorFields,"
    " or use changeTracking: snapshot"
)


def _follows_timestamptz(relation: Relation) -> bool:
    column = relation.column(relation.cursor_field or "")
    return column is not None and column.base == TIMESTAMPS[0] and column.not_null


def _set_order(relation: Relation) -> None:
    first = [relation.cursor_field] if relation.cursor_field else []
    relation.order = [*first, *(name for name in relation.primary_key if name != relation.cursor_field)]


def _default_order_column(relation: Relation) -> str | None:
    """Return the column that orders a read before the key: a timestamp of the last change, or a key that is an integer."""
    for name in CURSOR_NAMES:
        column = relation.column(name)
        if column and column.not_null and column.base in TIMESTAMPS:
            return name
    key = relation.column(relation.primary_key[0]) if len(relation.primary_key) == 1 else None
    return key.name if key and key.base in INTEGERS else None


def _check_cursor_fields(options: CatalogOptions, relations: dict[str, Relation], types: _OrderTypes) -> None:
    for name, field_name in options.cursor_fields.items():
        relation = relations.get(name)
        if relation is None:
            continue
        reason = _cursor_field_problem(relation, field_name, types)
        if reason:
            relation.config_problem = f"spec.config.cursorFields: {name}.{field_name} cannot be a cursor: {reason}"
            continue
        if relation.order:
            relation.cursor_field = field_name
            _set_order(relation)
        if relation.order and not options.uses_snapshots:
            relation.only_full = "" if _follows_timestamptz(relation) else NEEDS_TIMESTAMPTZ
        if relation.only_full:
            relation.config_problem = f"spec.config.cursorFields: {name} can only be read in full: {relation.only_full}"


def unknown_table_streams(cursor_fields: Mapping[str, str], relations: Mapping[str, Relation]) -> list[Stream]:
    """Return an unavailable stream for each table of `cursorFields` that is not in the catalog; its error says so."""
    return [
        Stream(
            name=name,
            schema={"type": "object"},
            modes=("full", "incremental"),
            unavailable=ConfigError(
                f"spec.config.cursorFields: there is no table {name!r} that these credentials can read{did_you_mean(name, relations)}"
            ),
        )
        for name in cursor_fields
        if name not in relations
    ]


def _cursor_field_problem(relation: Relation, field_name: str, types: _OrderTypes) -> str:
    """Return why a column cannot be the cursor field; empty if it can. Rows with a null cursor field would be skipped."""
    column = relation.column(field_name)
    if column is None:
        if field_name in relation.ungranted:
            return "the user may not read it; grant SELECT on it"
        return f"there is no such column{did_you_mean(field_name, [column.name for column in relation.columns])}"
    reason = types.why_unusable(column)
    if reason:
        return reason
    if not column.not_null:
        return "it may be null; declare it NOT NULL"
    return "" if relation.primary_key else relation.only_full or "the table has no primary key"


def _check_schemas(
    connection: psycopg.Connection[TupleRow], schemas: list[str] | None, relations: dict[str, Relation]
) -> None:
    """Raise ConfigError for a schema that does not exist or has no readable table. A run must not succeed with nothing read."""
    known = {
        name: (usable, count)
        for name, usable, count in connection.execute(
            "SELECT n.nspname, has_schema_privilege(n.oid, 'USAGE'), count(c.oid) FROM pg_namespace n"
            " LEFT JOIN pg_class c ON c.relnamespace = n.oid AND c.relkind IN ('r', 'p', 'v', 'm', 'f')"
            " WHERE n.nspname <> 'information_schema' AND n.nspname NOT LIKE 'pg\\_%' GROUP BY n.oid ORDER BY 1"
        ).fetchall()
    }
    found = {relation.schema for relation in relations.values()}
    for schema in schemas or ():
        if schema not in known:
            others = ", ".join(list(known)[:20]) or "none"
            raise ConfigError(
                f"spec.config.schemas: there is no schema {schema!r}{did_you_mean(schema, known)}; there is: {others}"
            )
        usable, count = known[schema]
        if not usable:
            raise ConfigError(
                f"spec.config.schemas: the user may not use the schema {schema!r}: GRANT USAGE ON SCHEMA {quote_name(schema)}"
                f" TO {quote_name(connection.info.user)}"
            )
        if count and schema not in found:
            raise ConfigError(
                f"spec.config.schemas: the user may read none of the {count} tables and views of {schema!r}:"
                f" {_missing_grants(connection, schema)}"
            )
    if not relations:
        where = f"the schemas {', '.join(schemas)}" if schemas else "the database"
        tables = sum(count for _, count in known.values())
        hint = f": it has {tables}; {_missing_grants(connection)}" if tables and not schemas else ""
        raise ConfigError(f"spec.config: there is no table or view in {where} that the user can read{hint}")


def _missing_grants(connection: psycopg.Connection[TupleRow], schema: str | None = None) -> str:
    """Return the GRANT statements that let the user read the first few tables."""
    user = quote_name(connection.info.user)
    rows = connection.execute(MISSING_GRANTS, {"schema": schema}).fetchall()
    schemas = [f"GRANT USAGE ON SCHEMA {quote_name(name)} TO {user}" for name, _, usable in rows if not usable]
    tables = [f"GRANT SELECT ON {quote_name(name)}.{quote_name(table)} TO {user}" for name, table, _ in rows]
    return "; ".join([*dict.fromkeys(schemas), *tables, *(["and so on"] if len(rows) == MOST_LISTED else [])])


def _extend_search_path(connection: psycopg.Connection[TupleRow], schemas: set[str]) -> None:
    """Add the schemas of extensions' operators to the search path. Without them citext, for example, is compared as text."""
    path = connection.execute("SELECT current_setting('search_path'), current_schemas(true)").fetchone()
    missing = sorted(schemas - set(path[1])) if path else []
    if missing and path:
        added = [sql.Identifier(schema).as_string(connection) for schema in missing]
        connection.execute("SELECT set_config('search_path', %s, false)", [", ".join(filter(None, [path[0], *added]))])


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return "did you mean" with the most similar known name; empty if no name is similar."""
    by_lower = {known_name.lower(): known_name for known_name in known}
    similar = difflib.get_close_matches(name.lower(), list(by_lower), n=1, cutoff=0.6)
    return f"; did you mean {by_lower[similar[0]]!r}?" if similar else ""


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:MOST_LISTED])
    return shown if len(names) <= MOST_LISTED else f"{shown} and {len(names) - MOST_LISTED} more"
