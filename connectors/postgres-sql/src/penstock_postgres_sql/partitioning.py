"""Partitions of a large table: intervals of the first column of its primary key.

The intervals are half-open, the first has no lower bound, the last has no upper bound, and a key is never null. So each
row is in exactly one partition, for any choice of bounds. The bounds are quantiles of a sample of the table's blocks. A
sample costs the same for a table of any size, and quantiles exist for every type that has an order.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence

import msgspec
import psycopg
from penstock_sdk import Partition, SourceContractError
from psycopg import sql
from psycopg.rows import TupleRow

from penstock_postgres_sql.catalog import Relation
from penstock_postgres_sql.planner import explain

log = logging.getLogger("penstock")

SAMPLE_ROWS = 20_000

# REPEATABLE: as long as the table does not change, the sample is the same, and so are the partitions.
QUANTILES = """
SELECT key::text FROM (
    SELECT {column} AS key, row_number() OVER (ORDER BY {column}) AS number, count(*) OVER () AS total
    FROM {table} TABLESAMPLE SYSTEM ({percent}) REPEATABLE (1)
) AS sample
WHERE EXISTS (SELECT FROM generate_series(1, {count} - 1) AS nth WHERE number = ceil(nth * total / {count}::numeric))
ORDER BY number
"""


class PartitionBounds(msgspec.Struct, frozen=True, rename={"from_": "from"}):
    """The bounds of a partition: rows with `from_` <= column < `to`. None means that there is no bound."""

    column: str
    from_: str | None
    to: str | None


def make_partitions(
    session: psycopg.Connection[TupleRow], relation: Relation, maximum: int, minimum_rows: int
) -> Sequence[Partition]:
    """Return at most `maximum` partitions of a table, each with about `minimum_rows` rows or more.

    Returns none for a small table, and for a table that cannot be sampled, such as one with a foreign partition.
    """
    rows = explain(session, sql.SQL("SELECT FROM {}").format(_table(relation))).rows
    count = min(maximum, rows // minimum_rows)
    if count <= 1:
        return ()
    try:
        quantiles = _quantiles(session, relation, count, rows)
    except (psycopg.ProgrammingError, psycopg.NotSupportedError, psycopg.DataError) as error:
        log.info("%s is read without partitions: it cannot be sampled: %s", relation.name, error.diag.message_primary)
        return ()
    return partitions_between(relation.primary_key[0], quantiles) if quantiles else ()


def _quantiles(session: psycopg.Connection[TupleRow], relation: Relation, count: int, rows: int) -> list[str]:
    statement = sql.SQL(QUANTILES).format(
        count=count,
        column=sql.Identifier(relation.primary_key[0]),
        table=_table(relation),
        percent=min(100.0, max(0.001, 100.0 * SAMPLE_ROWS / rows)),
    )
    return list(dict.fromkeys(row[0] for row in session.execute(statement).fetchall()))


def partitions_between(column: str, bounds: Sequence[str]) -> list[Partition]:
    """Return the partitions that these bounds make. The id of a partition is a digest of its column and bounds."""
    return [
        _partition(PartitionBounds(column, start, end))
        for start, end in zip((None, *bounds), (*bounds, None), strict=True)
    ]


def _partition(bounds: PartitionBounds) -> Partition:
    document = msgspec.to_builtins(bounds)
    digest = hashlib.sha256(msgspec.json.encode(document, order="sorted")).hexdigest()
    return Partition(id=digest[:16], bounds=document)


def parse_bounds(relation: Relation, partition: Partition) -> PartitionBounds:
    """Return the bounds of a committed partition. Raises SourceContractError if the table has another primary key now."""
    try:
        bounds = msgspec.convert(partition.bounds, PartitionBounds)
    except msgspec.ValidationError as error:
        raise SourceContractError(
            f"stream {relation.name!r}: the state has a partition that cannot be read ({error}): reset the state"
        ) from None
    if bounds.column not in relation.primary_key[:1]:
        raise SourceContractError(
            f"stream {relation.name!r}: the partitions in the state are made by the column {bounds.column!r}, and the"
            f" table's primary key is now {relation.primary_key}: reset the state"
        )
    return bounds


def conditions(relation: Relation, partition: Partition | None) -> list[sql.Composed]:
    """Return the conditions that select the rows of a partition; none without a partition."""
    if partition is None:
        return []
    bounds = parse_bounds(relation, partition)
    column = relation.column(bounds.column)
    return [
        sql.SQL("{} {} {}").format(sql.Identifier(bounds.column), sql.SQL(sign), column.typed_literal(value))
        for sign, value in ((">=", bounds.from_), ("<", bounds.to))
        if value is not None and column is not None
    ]


def _table(relation: Relation) -> sql.Identifier:
    return sql.Identifier(relation.schema, relation.table)
