"""What the query planner expects of a statement, without running it."""

from __future__ import annotations

import msgspec
import psycopg
from psycopg import sql
from psycopg.rows import TupleRow


class QueryPlan(msgspec.Struct, frozen=True):
    """The number of rows that the planner expects, and the average size of a row in bytes."""

    rows: int = msgspec.field(name="Plan Rows", default=0)
    width: int = msgspec.field(name="Plan Width", default=0)


class _Explanation(msgspec.Struct):
    plan: QueryPlan = msgspec.field(name="Plan")


def explain(session: psycopg.Connection[TupleRow], query: sql.Composed) -> QueryPlan:
    """Return the planner's expectation. It uses the present size of the table's files."""
    row = session.execute(sql.SQL("EXPLAIN (FORMAT JSON) ") + query).fetchone()
    (explanation,) = msgspec.json.decode(row[0], type=list[_Explanation]) if row else [_Explanation(QueryPlan())]
    return explanation.plan
