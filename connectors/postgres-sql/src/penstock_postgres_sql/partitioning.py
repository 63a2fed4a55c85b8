"""A large table in ranges of its primary key's first column.

Ranges are half-open, the first has no start and the last no end, and a key is never null: so each row is in exactly one of
them, whatever the borders are. Borders are quantiles of a sample of the table's blocks, which costs the same for a table
of any size, and makes ranges of about the same length for any type that has an order.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from typing import Any

import msgspec
import psycopg
from penstock_sdk import Partition, SourceContractError
from psycopg import sql

from penstock_postgres_sql.catalog import Relation
from penstock_postgres_sql.planner import planned

log = logging.getLogger("penstock")

SAMPLE_ROWS = 20_000

# REPEATABLE: the same sample, and so the same ranges, for as long as the table stays as it is.
BORDERS = """
SELECT key::text FROM (
    SELECT {column} AS key, row_number() OVER (ORDER BY {column}) AS number, count(*) OVER () AS total
    FROM {table} TABLESAMPLE SYSTEM ({percent}) REPEATABLE (1)
) AS sample
WHERE EXISTS (SELECT FROM generate_series(1, {count} - 1) AS nth WHERE number = ceil(nth * total / {count}::numeric))
ORDER BY number
"""


class Bounds(msgspec.Struct, frozen=True, rename={"from_": "from"}):
    """The rows whose column is at or after `from_` and before `to`, each None where there is no such end."""

    column: str
    from_: str | None
    to: str | None


def split(session: psycopg.Connection[Any], relation: Relation, most: int, least_rows: int) -> Sequence[Partition]:
    """Return the ranges of a table, at most so many, and each of about so many rows or more.

    None for a small table, and for one that cannot be sampled, such as one with a foreign partition: it is read in one.
    """
    rows = planned(session, sql.SQL("SELECT FROM {}").format(_table(relation))).rows
    count = min(most, rows // least_rows)
    if count <= 1:
        return ()
    try:
        borders = _borders(session, relation, count, rows)
    except (psycopg.ProgrammingError, psycopg.NotSupportedError, psycopg.DataError) as error:
        log.info("%s is read in one: it cannot be sampled: %s", relation.name, error.diag.message_primary)
        return ()
    return partitions_between(relation.primary_key[0], borders) if borders else ()


def _borders(session: psycopg.Connection[Any], relation: Relation, count: int, rows: int) -> list[str]:
    statement = sql.SQL(BORDERS).format(
        count=count,
        column=sql.Identifier(relation.primary_key[0]),
        table=_table(relation),
        percent=min(100.0, max(0.001, 100.0 * SAMPLE_ROWS / rows)),
    )
    return list(dict.fromkeys(row[0] for row in session.execute(statement).fetchall()))


def partitions_between(column: str, borders: Sequence[str]) -> list[Partition]:
    """Return the ranges that borders make; each is known by its column and ends."""
    return [
        _partition(Bounds(column, start, end)) for start, end in zip((None, *borders), (*borders, None), strict=True)
    ]


def _partition(bounds: Bounds) -> Partition:
    document = msgspec.to_builtins(bounds)
    digest = hashlib.sha256(msgspec.json.encode(document, order="sorted")).hexdigest()
    return Partition(id=digest[:16], bounds=document)


def check(relation: Relation, partition: Partition) -> Bounds:
    """Return a range's bounds; raises SourceContractError when the table's key is not what it was."""
    try:
        bounds = msgspec.convert(partition.bounds, Bounds)
    except msgspec.ValidationError as error:
        raise SourceContractError(
            f"stream {relation.name!r}: the state has a range that cannot be read ({error}): reset the state"
        ) from None
    if bounds.column not in relation.primary_key[:1]:
        raise SourceContractError(
            f"stream {relation.name!r}: the state is of ranges of {bounds.column!r},"
            f" the table's key is now {relation.primary_key}: reset the state"
        )
    return bounds


def conditions(relation: Relation, partition: Partition | None) -> list[sql.Composed]:
    """Return what a statement must say to read a range only."""
    if partition is None:
        return []
    bounds = check(relation, partition)
    column = relation.column(bounds.column)
    ends = ((">=", bounds.from_), ("<", bounds.to))
    return [
        sql.SQL("{} {} {}").format(sql.Identifier(bounds.column), sql.SQL(sign), column.literal_of(value))
        for sign, value in ends
        if value is not None and column is not None
    ]


def _table(relation: Relation) -> sql.Identifier:
    return sql.Identifier(relation.schema, relation.table)
