"""What the planner expects of a statement, without running it."""

from __future__ import annotations

from typing import Any

import msgspec
import psycopg
from psycopg import sql


class Plan(msgspec.Struct, frozen=True):
    """How many rows a statement is expected to give, and how many bytes each has."""

    rows: int = msgspec.field(name="Plan Rows", default=0)
    width: int = msgspec.field(name="Plan Width", default=0)


class _Explained(msgspec.Struct):
    plan: Plan = msgspec.field(name="Plan")


def planned(session: psycopg.Connection[Any], query: sql.Composed) -> Plan:
    """Return the planner's expectation, which knows the tables' present size."""
    row = session.execute(sql.SQL("EXPLAIN (FORMAT JSON) ") + query).fetchone()
    (explained,) = msgspec.json.decode(row[0], type=list[_Explained]) if row else [_Explained(Plan())]
    return explained.plan
