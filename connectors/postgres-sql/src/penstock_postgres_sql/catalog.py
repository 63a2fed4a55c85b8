"""What the database holds: relations with columns, keys and cursor candidates, from its own catalog.

A relation that is odd in one way is still offered as far as it can be read, with the reason for what it does not offer.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import psycopg
from penstock_sdk import ConfigError, CursorCare, Stream
from psycopg import sql

from penstock_postgres_sql.quoting import quoted

CURSOR_NAMES = ("updated_at", "modified_at", "last_modified", "last_update", "updated", "modified")
TIMES = ("timestamp with time zone", "timestamp without time zone")
INTEGERS = ("smallint", "integer", "bigint", "oid")
WITHOUT_KEY = {
    "v": "it is a view, and a view has no primary key",
    "m": "it is a materialized view, and such a view has no primary key",
    "f": "it is a foreign table, and such a table has no primary key here",
}
FEW = 5
MISSING_GRANTS = """
SELECT n.nspname, c.relname, has_schema_privilege(n.oid, 'USAGE') FROM pg_class c
JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND NOT c.relispartition AND n.nspname <> 'information_schema'
  AND n.nspname NOT LIKE 'pg\\_%%' AND (%(schema)s::text IS NULL OR n.nspname = %(schema)s)
ORDER BY 1, 2 LIMIT 5
"""
MULTIRANGES_SINCE, UNPROVEN_SINCE = 140000, 180000  # as libpq writes versions

# A domain is looked through to its base type. A primary key's INCLUDE columns are no part of it, one that is not valid
# (a partitioned table whose partitions lack it) is none, and it says nothing of a table that others inherit from: their
# rows may repeat it. Of a table with granted columns only these are listed.
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
       format_type(b.base, NULL), a.attnotnull AND NOT ({unproven}), u.typoutput = 'array_out'::regproc,
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
# Since Postgres 18 a column may be declared NOT NULL while rows of before still hold null.
UNPROVEN = "EXISTS (SELECT FROM pg_constraint v WHERE v.conrelid = c.oid AND v.contype = 'n' AND NOT v.convalidated AND v.conkey[1] = a.attnum)"
# Tables, and partitioned tables by their partitions, whose rows do not say which transaction wrote them.
FOREIGN_STORAGE = """
WITH RECURSIVE tree AS (
    SELECT oid AS root, oid AS relation FROM pg_class WHERE relkind IN ('r', 'p') AND NOT relispartition
    UNION ALL SELECT t.root, i.inhrelid FROM tree t JOIN pg_inherits i ON i.inhparent = t.relation
)
SELECT t.root::bigint, min(n.nspname || '.' || c.relname) FROM tree t
JOIN pg_class c ON c.oid = t.relation JOIN pg_namespace n ON n.oid = c.relnamespace LEFT JOIN pg_am m ON m.oid = c.relam
WHERE c.relkind = 'f' OR c.relkind = 'r' AND m.amname IS DISTINCT FROM 'heap' GROUP BY 1
"""
# What a type is made of, down to types that are not made of others: elements, base types, bounds, fields.
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
# Where the operators of a type's default order are, and how greater-than is written there.
ORDER_OPERATORS = """
SELECT n.nspname, o.oprname FROM pg_opclass k
JOIN pg_am m ON m.oid = k.opcmethod AND m.amname = 'btree'
JOIN pg_amop s ON s.amopfamily = k.opcfamily AND s.amoplefttype = k.opcintype AND s.amoprighttype = k.opcintype AND s.amopstrategy = 5
JOIN pg_operator o ON o.oid = s.amopopr JOIN pg_namespace n ON n.oid = o.oprnamespace
WHERE k.opcdefault AND k.opcintype = {oid}::regtype
"""


@dataclass(frozen=True)
class Column:
    """One column, with its SQL type as the database writes it, and the plain type beneath domain and precision.

    `literal` is the type that a text of it is turned back into; `collation` is set where it is not the database's own.
    """

    name: str
    type: str
    literal: str
    base: str
    not_null: bool
    is_array: bool
    collation: tuple[str, str] | None = None

    def json_schema(self) -> dict[str, Any]:
        """Return what its values look like in a record: whatever JSON cannot hold exactly is text."""
        shown = self.type.removeprefix("public.")
        schema = {"x-sql-type": shown, **_json_type(self.base, is_array=self.is_array)}
        if not self.not_null and "type" in schema:
            schema["type"] = [schema["type"], "null"]
        return schema

    def literal_of(self, value: str) -> sql.Composed:
        """Return a text of the column's as a value to compare it with."""
        typed = sql.SQL("{}::{}").format(value, sql.SQL(self.literal))
        if self.collation is None:
            return typed
        return sql.SQL("({} COLLATE {})").format(typed, sql.Identifier(*self.collation))


def _json_type(type_: str, *, is_array: bool) -> dict[str, Any]:
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
    """One table or view.

    `order` are the columns that a read is ordered and resumed by, none where it is read in one go; `only_full` is why
    changes cannot be read; `problem` is why it cannot be read at all; `misconfigured` is what the config says wrongly of it.
    """

    oid: int
    schema: str
    table: str
    kind: str
    columns: list[Column] = field(default_factory=list)
    primary_key: list[str] = field(default_factory=list)
    cursor_field: str | None = None
    order: list[str] = field(default_factory=list)
    tracked: bool = False
    only_full: str = ""
    problem: str = ""
    misconfigured: str = ""
    hidden: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        """The stream's name."""
        return f"{self.schema}.{self.table}"

    def column(self, name: str) -> Column | None:
        """Return a column by name."""
        return next((column for column in self.columns if column.name == name), None)

    @property
    def follows_time(self) -> bool:
        """Whether the cursor column is a moment."""
        column = self.column(self.cursor_field or "")
        return column is not None and column.base in TIMES

    def stream(self) -> Stream:
        """Return the stream that the relation is."""
        properties = {column.name: column.json_schema() for column in self.columns}
        incremental = not self.only_full
        return Stream(
            name=self.name,
            schema={"type": "object", "properties": properties, "required": list(properties)},
            primary_key=tuple(self.primary_key),
            cursor_field=self.cursor_field if incremental else None,
            modes=("full", "incremental") if incremental else ("full",),
            partitioned=bool(self.order),
            cursor_care=self._care() if incremental else (),
            windows=incremental and self.follows_time,
            only_full=self.only_full,
            unavailable=ConfigError(self.misconfigured) if self.misconfigured else None,
        )

    def _care(self) -> tuple[CursorCare, ...]:
        """Say what the read takes care of: the database compares the values, the key tells ties apart, none comes too late."""
        return ("order", "ties", "settled")


@dataclass(frozen=True)
class Wanted:
    """What the connection asks of the catalog."""

    schemas: list[str] | None
    cursor_fields: dict[str, str]
    tracked: bool = True


def read_catalog(connection: psycopg.Connection[Any], wanted: Wanted) -> dict[str, Relation]:
    """Return every relation that may be read, by stream name. Raises ConfigError where the config matches nothing."""
    with connection.transaction():
        connection.execute(
            "SET LOCAL search_path = ''"
        )  # types are written with their schema, whatever the role's path is
        relations = _relations(connection, wanted.schemas)
        _check_schemas(connection, wanted.schemas, relations)
        storage = dict(connection.execute(FOREIGN_STORAGE).fetchall())
    types = _Types(connection)
    for relation in relations.values():
        _decide(relation, wanted, types, storage.get(relation.oid))
    _check_cursor_fields(wanted, relations, types)
    _extend_search_path(connection, types.schemas)
    return relations


class _Types:
    """Whether values of a type have an order, and can be written and read back; each type is asked about once."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self._connection = connection
        self._known: dict[str, str] = {}
        self.schemas = set[str]()

    def unfit(self, column: Column) -> str:
        """Say why a read cannot be ordered and resumed by a column; nothing when it can."""
        if column.literal not in self._known:
            self._known[column.literal] = self._asked(column.literal)
        return self._known[column.literal]

    def _asked(self, type_: str) -> str:
        typed = sql.SQL(type_)
        probe = sql.SQL("EXPLAIN SELECT FROM (SELECT NULL::{} AS value) AS row ORDER BY value").format(typed)
        try:
            self._connection.execute(probe)
        except psycopg.errors.UndefinedFunction:
            return f"{type_} has no order"
        except psycopg.ProgrammingError as error:
            return f"{type_} cannot be compared: {error.diag.message_primary}"
        version = self._connection.info.server_version
        settings = sql.SQL(DEPENDS_ON_SETTINGS).format(  # a domain's, an array's and a field's own count as well
            oid=sql.SQL("{}::regtype").format(type_),
            multirange=sql.SQL("OR r.rngmultitypid = t.oid" if version >= MULTIRANGES_SINCE else ""),
        )
        found = self._connection.execute(settings).fetchone()
        if found:
            return f"the text of {found[0]} depends on settings and on the catalog, so a value that was kept may mean another"
        operators = self._connection.execute(sql.SQL(ORDER_OPERATORS).format(oid=type_)).fetchall()
        if any(name != ">" for _, name in operators):
            return f"the order of {type_} is not the one of the operator >"
        self.schemas |= {schema for schema, _ in operators if schema != "pg_catalog"}
        return ""


def _relations(connection: psycopg.Connection[Any], schemas: list[str] | None) -> dict[str, Relation]:
    relations: dict[str, Relation] = {}
    keys: dict[str, dict[int, str]] = {}
    unproven = sql.SQL(UNPROVEN if connection.info.server_version >= UNPROVEN_SINCE else "false")
    for row in connection.execute(sql.SQL(RELATIONS).format(unproven=unproven, schemas=schemas)).fetchall():
        oid, schema, table, kind, is_parent, has_xmin, has_key, hidden_key, *rest = row
        name, _, type_, literal, base, not_null, is_array, position, collation, granted = rest
        relation = relations.setdefault(f"{schema}.{table}", Relation(oid, schema, table, kind))
        if relation.oid != oid:
            relation.problem = "two tables make this stream; name one schema in spec.config.schemas, or rename a table"
            continue
        if not granted:
            relation.hidden.append(name)
            continue
        pair = (collation[0], collation[1]) if collation else None
        relation.columns.append(Column(name, type_, literal, base, not_null, is_array, pair))
        if position >= 0:
            keys.setdefault(relation.name, {})[position] = name
        relation.tracked = has_xmin
        relation.only_full = _without_key(kind, has_key=has_key, is_parent=is_parent, hidden=hidden_key)
    for name, relation in relations.items():
        found = keys.get(name, {})
        relation.primary_key = [] if relation.only_full else [column for _, column in sorted(found.items())]
    return {name: relation for name, relation in relations.items() if relation.columns and _is_text(relation)}


def _is_text(relation: Relation) -> bool:
    """Say whether all names are text; those of a database that checks no encoding may be none."""
    names = [relation.schema, relation.table, *(column.name for column in relation.columns)]
    return not any("\ud800" <= character <= "\udfff" for name in names for character in name)


def _without_key(kind: str, *, has_key: bool, is_parent: bool, hidden: Sequence[str]) -> str:
    if kind in WITHOUT_KEY:
        return WITHOUT_KEY[kind]
    if is_parent:
        return "other tables inherit from it, and their rows may repeat its primary key"
    if not has_key:
        return "it has no (valid) primary key"
    return f"the user may not read {_listed(hidden)} of its primary key; grant SELECT on it" if hidden else ""


def _decide(relation: Relation, wanted: Wanted, types: _Types, other_storage: str | None) -> None:
    """Find how a relation is ordered, and whether its changes can be read; say why not."""
    key_columns = [column for column in map(relation.column, relation.primary_key) if column]
    unfit = next((f"{column.name}: {why}" for column in key_columns if (why := types.unfit(column))), "")
    if unfit:
        relation.only_full = f"its primary key cannot be followed: {unfit}"
        return
    if relation.problem or not relation.primary_key:
        return
    if other_storage:
        relation.tracked = False
        why = (
            f"{other_storage} is not stored as an ordinary table, and its rows do not say which transaction wrote them"
        )
    elif not relation.tracked:
        why = "the user may not read the column xmin, by which changes are found; grant SELECT (xmin), or SELECT on the table"
    else:
        why = ""
    relation.cursor_field = _guessed(relation)
    if wanted.tracked:
        relation.only_full = why
    elif not _follows_clock(relation):
        relation.only_full = NEEDS_CLOCK
    _order(relation)


NEEDS_CLOCK = (
    "changeTracking: cursor follows a column of type timestamptz that may not be null; name one in spec.config.cursorFields,"
    " or use changeTracking: snapshot"
)


def _follows_clock(relation: Relation) -> bool:
    column = relation.column(relation.cursor_field or "")
    return column is not None and column.base == TIMES[0] and column.not_null


def _order(relation: Relation) -> None:
    first = [relation.cursor_field] if relation.cursor_field else []
    relation.order = [*first, *(name for name in relation.primary_key if name != relation.cursor_field)]


def _guessed(relation: Relation) -> str | None:
    """Return the column that a read is ordered by before the key: a moment of the last change, or a key that is a number."""
    for name in CURSOR_NAMES:
        column = relation.column(name)
        if column and column.not_null and column.base in TIMES:
            return name
    key = relation.column(relation.primary_key[0]) if len(relation.primary_key) == 1 else None
    return key.name if key and key.base in INTEGERS else None


def _check_cursor_fields(wanted: Wanted, relations: dict[str, Relation], types: _Types) -> None:
    for name, field_name in wanted.cursor_fields.items():
        relation = relations.get(name)
        if relation is None:
            continue
        why = _unfit(relation, field_name, types)
        if why:
            relation.misconfigured = f"spec.config.cursorFields: {name}.{field_name} cannot be a cursor: {why}"
            continue
        if relation.order:
            relation.cursor_field = field_name
            _order(relation)
        if relation.order and not wanted.tracked:
            relation.only_full = "" if _follows_clock(relation) else NEEDS_CLOCK
        if relation.only_full:
            relation.misconfigured = f"spec.config.cursorFields: {name} can only be read in full: {relation.only_full}"


def unknown_tables(cursor_fields: Mapping[str, str], relations: Mapping[str, Relation]) -> list[Stream]:
    """Return a stream that is unavailable for each table of `cursorFields` that is not there, so that it is told."""
    return [
        Stream(
            name=name,
            schema={"type": "object"},
            modes=("full", "incremental"),
            unavailable=ConfigError(
                f"spec.config.cursorFields: there is no table {name!r} that these credentials can read{nearest(name, relations)}"
            ),
        )
        for name in cursor_fields
        if name not in relations
    ]


def _unfit(relation: Relation, field_name: str, types: _Types) -> str:
    """Say why a column cannot be followed; nothing when it can. A column that may be null would have rows passed over."""
    column = relation.column(field_name)
    if column is None:
        if field_name in relation.hidden:
            return "the user may not read it; grant SELECT on it"
        return f"there is no such column{nearest(field_name, [column.name for column in relation.columns])}"
    why = types.unfit(column)
    if why:
        return why
    if not column.not_null:
        return "it may be null; declare it NOT NULL"
    return "" if relation.primary_key else relation.only_full or "the table has no primary key"


def _check_schemas(
    connection: psycopg.Connection[Any], schemas: list[str] | None, relations: dict[str, Relation]
) -> None:
    """Raise ConfigError for a schema that is not there or that gives nothing: a run that matches nothing is no success."""
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
                f"spec.config.schemas: there is no schema {schema!r}{nearest(schema, known)}; there is: {others}"
            )
        usable, count = known[schema]
        if not usable:
            raise ConfigError(
                f"spec.config.schemas: the user may not use the schema {schema!r}: GRANT USAGE ON SCHEMA {quoted(schema)}"
                f" TO {quoted(connection.info.user)}"
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


def _missing_grants(connection: psycopg.Connection[Any], schema: str | None = None) -> str:
    """Return the statements that would let the user read the first few tables."""
    user = quoted(connection.info.user)
    rows = connection.execute(MISSING_GRANTS, {"schema": schema}).fetchall()
    schemas = [f"GRANT USAGE ON SCHEMA {quoted(name)} TO {user}" for name, _, usable in rows if not usable]
    tables = [f"GRANT SELECT ON {quoted(name)}.{quoted(table)} TO {user}" for name, table, _ in rows]
    return "; ".join([*dict.fromkeys(schemas), *tables, *(["and so on"] if len(rows) == FEW else [])])


def _extend_search_path(connection: psycopg.Connection[Any], schemas: set[str]) -> None:
    """Let statements find the operators of extensions' types: without them citext, for one, is compared as text."""
    path = connection.execute("SELECT current_setting('search_path'), current_schemas(true)").fetchone()
    missing = sorted(schemas - set(path[1])) if path else []
    if missing and path:
        quoted = [sql.Identifier(schema).as_string(connection) for schema in missing]
        connection.execute("SELECT set_config('search_path', %s, false)", [", ".join(filter(None, [path[0], *quoted]))])


def nearest(name: str, known: Iterable[str]) -> str:
    """Return a question that names the nearest known name, where one is near."""
    folded = {each.lower(): each for each in known}
    found = difflib.get_close_matches(name.lower(), list(folded), n=1, cutoff=0.6)
    return f"; did you mean {folded[found[0]]!r}?" if found else ""


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:FEW])
    return shown if len(names) <= FEW else f"{shown} and {len(names) - FEW} more"
