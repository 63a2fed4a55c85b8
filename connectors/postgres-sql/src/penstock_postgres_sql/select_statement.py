"""The SELECT statement that reads a stream, or one partition of it.

Statements are composed without parameters: psycopg would take a `%` in a name for a placeholder.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from penstock_sdk import Stream
from psycopg import sql

from penstock_postgres_sql import partitioning
from penstock_postgres_sql.catalog import Relation


@dataclass(frozen=True, slots=True)
class RowSelection:
    """Which rows of a stream a statement reads.

    `after_values` are the texts of the order columns in the last row read; `changed_condition` selects the rows that
    changed since an earlier snapshot; `watermark` is the timestamp before which the cursor column's values are complete.
    """

    stream: Stream
    since: datetime | None = None
    after_values: list[str] | None = None
    changed_condition: sql.Composed | None = None
    watermark: str | None = None


def select_statement(relation: Relation, selection: RowSelection) -> sql.Composed:
    """Compose the statement. It returns the relation's columns, then the order columns once more, as text."""
    names = [sql.Identifier(column.name) for column in relation.columns]
    order = [sql.Identifier(name) for name in relation.order]
    labels = [sql.Identifier(name) for name in _text_labels(relation)]
    texts = [sql.SQL("{}::text AS {}").format(name, label) for name, label in zip(order, labels, strict=True)]
    query = sql.SQL("SELECT {} FROM {}").format(
        sql.SQL(", ").join([*names, *texts]), sql.Identifier(relation.schema, relation.table)
    )
    conditions = _conditions(relation, selection)
    if conditions:
        query += sql.SQL(" WHERE ") + sql.SQL(" AND ").join(conditions)
    if not order:
        return query
    if selection.changed_condition is None:
        return query + sql.SQL(" ORDER BY ") + sql.SQL(", ").join(order)
    # The planner does not know that few rows changed, and would read the whole index of the order columns. OFFSET 0 is
    # an optimization fence: the rows are filtered first, and sorted afterwards.
    fenced = sql.SQL("SELECT {} FROM ({} OFFSET 0) AS changed ORDER BY {}")
    return fenced.format(sql.SQL(", ").join([*names, *labels]), query, sql.SQL(", ").join(order))


def _text_labels(relation: Relation) -> list[str]:
    """Return labels for the texts of the order columns; no column of the relation has such a name."""
    prefix = "penstock:"
    while any(column.name.startswith(prefix) for column in relation.columns):
        prefix += ":"
    return [f"{prefix}{number}" for number in range(len(relation.order))]


def _conditions(relation: Relation, selection: RowSelection) -> list[sql.Composed]:
    conditions = partitioning.conditions(relation, selection.stream.partition)
    cursor_field = sql.Identifier(relation.cursor_field) if relation.cursor_field else None
    if selection.after_values is not None:
        pairs = zip(relation.order, selection.after_values, strict=True)
        columns = [(relation.column(name), value) for name, value in pairs]
        values = [column.typed_literal(value) for column, value in columns if column]
        left = sql.SQL(", ").join(map(sql.Identifier, relation.order))
        conditions.append(sql.SQL("({}) > ({})").format(left, sql.SQL(", ").join(values)))
    if selection.changed_condition is not None:
        conditions.append(selection.changed_condition)
    if cursor_field and relation.follows_time:
        is_first_read = selection.after_values is None and selection.changed_condition is None
        if selection.since is not None and is_first_read:
            conditions.append(sql.SQL("{} >= {}").format(cursor_field, selection.since))
        if selection.watermark is not None:
            conditions.append(sql.SQL("{} < {}::timestamptz").format(cursor_field, selection.watermark))
    if cursor_field and selection.stream.window:
        conditions.append(sql.SQL("{} < {}").format(cursor_field, selection.stream.window.end))
    return conditions
