"""The statement that reads a stream, or one partition of it, from a place on.

Composed without parameters, as with them a `%` in a name would be read as one.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from penstock_sdk import Stream
from psycopg import sql

from penstock_postgres_sql import partitioning
from penstock_postgres_sql.catalog import Relation


@dataclass(frozen=True)
class Asked:
    """What is read: `after` are the order columns' texts in the last row read, `changed` and `settled` further conditions."""

    stream: Stream
    since: datetime | None = None
    after: list[str] | None = None
    changed: sql.Composed | None = None
    settled: str | None = None


def statement(relation: Relation, asked: Asked) -> sql.Composed:
    """Compose the statement: the columns, then the order's columns as text."""
    names = [sql.Identifier(column.name) for column in relation.columns]
    order = [sql.Identifier(name) for name in relation.order]
    labels = [sql.Identifier(name) for name in _labels(relation)]
    texts = [sql.SQL("{}::text AS {}").format(name, label) for name, label in zip(order, labels, strict=True)]
    query = sql.SQL("SELECT {} FROM {}").format(
        sql.SQL(", ").join([*names, *texts]), sql.Identifier(relation.schema, relation.table)
    )
    conditions = _conditions(relation, asked)
    if conditions:
        query += sql.SQL(" WHERE ") + sql.SQL(" AND ").join(conditions)
    if not order:
        return query
    if asked.changed is None:
        return query + sql.SQL(" ORDER BY ") + sql.SQL(", ").join(order)
    # The planner cannot know how few rows have changed. The fence keeps it from visiting them all in the order's index.
    fenced = sql.SQL("SELECT {} FROM ({} OFFSET 0) AS changed ORDER BY {}")
    return fenced.format(sql.SQL(", ").join([*names, *labels]), query, sql.SQL(", ").join(order))


def _labels(relation: Relation) -> list[str]:
    """Return names for the order's texts that no column has."""
    prefix = "penstock:"
    while any(column.name.startswith(prefix) for column in relation.columns):
        prefix += ":"
    return [f"{prefix}{number}" for number in range(len(relation.order))]


def _conditions(relation: Relation, asked: Asked) -> list[sql.Composed]:
    found = partitioning.conditions(relation, asked.stream.partition)
    field = sql.Identifier(relation.cursor_field) if relation.cursor_field else None
    if asked.after is not None:
        columns = [(relation.column(name), value) for name, value in zip(relation.order, asked.after, strict=True)]
        values = [column.literal_of(value) for column, value in columns if column]
        left = sql.SQL(", ").join(map(sql.Identifier, relation.order))
        found.append(sql.SQL("({}) > ({})").format(left, sql.SQL(", ").join(values)))
    if asked.changed is not None:
        found.append(asked.changed)
    if field and relation.follows_time:
        if asked.since is not None and asked.after is None and asked.changed is None:
            found.append(sql.SQL("{} >= {}").format(field, asked.since))
        if asked.settled is not None:
            found.append(sql.SQL("{} < {}::timestamptz").format(field, asked.settled))
    if field and asked.stream.window:
        found.append(sql.SQL("{} < {}").format(field, asked.stream.window.end))
    return found
