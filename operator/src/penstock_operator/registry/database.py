"""Sessions with Postgres: one pool for each process, UTC, and rows as objects of the class that the caller names.

A statement is written beside the function that runs it. `fetch_one` and `fetch_all` take the class of the rows, whose
fields are the statement's columns, and so no caller sees a row without a type.
"""

from __future__ import annotations

import select
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, ClassVar, Generic, NamedTuple, Self, TypeVar

from psycopg import AsyncConnection
from psycopg.rows import DictRow, dict_row, kwargs_row, scalar_row
from psycopg_pool import AsyncConnectionPool

DatabaseConnection = AsyncConnection[DictRow]
Pool = AsyncConnectionPool[DatabaseConnection]
Row = dict[str, Any]
T = TypeVar("T")


class ParsedRow:
    """Base of rows of which some columns hold documents or text that a value is parsed from."""

    __slots__ = ()
    PARSERS: ClassVar[Mapping[str, Callable[[Any], object]]]
    """By column: the function that parses its value. It is not called for NULL."""

    @classmethod
    def parse(cls, **columns: Any) -> Self:
        """Return the row that has these columns."""
        make: Callable[..., Self] = cls
        parsed = {
            name: cls.PARSERS[name](value)
            for name, value in columns.items()
            if name in cls.PARSERS and value is not None
        }
        return make(**{**columns, **parsed})


def create_pool(url: str, *, size: int = 10, name: str = "penstock") -> Pool:
    """Return a closed pool; a connection that Postgres dropped is replaced before it is handed out.

    `name` is what Postgres' list of sessions says of its connections.
    """
    arguments = {
        "row_factory": dict_row,
        "autocommit": True,
        "options": "-c timezone=UTC -c statement_timeout=30000 -c lock_timeout=10000",
        "application_name": name,
    }
    return AsyncConnectionPool(url, min_size=1, max_size=size, kwargs=arguments, open=False, check=_check)


async def _check(db: DatabaseConnection) -> None:
    """Ask Postgres whether a connection is good, where it has sent something unasked: its goodbye, most likely.

    Where it has not, a question to Postgres before every use would make a fifth of all that it is asked.
    """
    waiting = select.poll()
    waiting.register(db.fileno(), select.POLLIN)
    if waiting.poll(0):
        await AsyncConnectionPool.check_connection(db)


@asynccontextmanager
async def snapshot(db: DatabaseConnection) -> AsyncIterator[None]:
    """Open a transaction whose statements all see the registry as it is at the first of them; they may only read."""
    async with db.transaction():
        await db.execute(b"SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        yield


async def fetch_one(db: DatabaseConnection, row: Callable[..., T], sql: str, /, **values: Any) -> T | None:
    """Run one statement and return its first row, None without one. `row` takes the columns by name."""
    async with db.cursor(row_factory=kwargs_row(row)) as cursor:
        await cursor.execute(sql.encode(), values)
        return await cursor.fetchone()


async def fetch_all(db: DatabaseConnection, row: Callable[..., T], sql: str, /, **values: Any) -> list[T]:
    """Run one statement and return all rows. `row` takes the columns by name."""
    async with db.cursor(row_factory=kwargs_row(row)) as cursor:
        await cursor.execute(sql.encode(), values)
        return await cursor.fetchall()


SIZE_COLUMNS = frozenset({"listed_rows", "listed_row", "listed_bytes"})


class RowsWithin(NamedTuple, Generic[T]):
    """The first rows of a statement that have a number of bytes together; `more` says that it has others."""

    rows: list[T]
    more: bool


async def fetch_within(
    db: DatabaseConnection, row: Callable[..., T], size: int, sql: str, /, **values: object
) -> RowsWithin[T]:
    """Run one statement and return its first rows, in its order, that have `size` bytes of text together, or the first one alone.

    The other rows stay in Postgres.
    """
    sized = f"""
        SELECT * FROM (
            SELECT listed.*, count(*) OVER () AS listed_rows, row_number() OVER () AS listed_row,
                sum(octet_length(listed::text)) OVER (ROWS UNBOUNDED PRECEDING) AS listed_bytes
            FROM ({sql}) listed) sized
        WHERE listed_bytes <= {size:d} OR listed_row = 1 ORDER BY listed_row
    """  # noqa: S608 - a statement and a number
    async with db.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(sized.encode(), values)
        found = await cursor.fetchall()
    count = int(next((columns.get("listed_rows", 0) for columns in found), 0))
    rows = [row(**{name: value for name, value in columns.items() if name not in SIZE_COLUMNS}) for columns in found]
    return RowsWithin(rows, len(rows) < count)


async def fetch_value(db: DatabaseConnection, kind: Callable[[Any], T], sql: str, /, **values: Any) -> T | None:
    """Run one statement of one column and return its first value as `kind` makes it; None without a row, and for NULL."""
    async with db.cursor(row_factory=scalar_row) as cursor:
        await cursor.execute(sql.encode(), values)
        value = await cursor.fetchone()
    return None if value is None else kind(value)


async def fetch_values(db: DatabaseConnection, kind: Callable[[Any], T], sql: str, /, **values: Any) -> list[T]:
    """Run one statement of one column and return all values, none of which may be NULL, as `kind` makes them."""
    async with db.cursor(row_factory=scalar_row) as cursor:
        await cursor.execute(sql.encode(), values)
        return [kind(value) for value in await cursor.fetchall()]


async def execute(db: DatabaseConnection, sql: str, /, **values: Any) -> int:
    """Run one statement and return how many rows it touched."""
    cursor = await db.execute(sql.encode(), values)
    return cursor.rowcount


async def one(connection: DatabaseConnection, sql: str, /, **values: Any) -> Row | None:
    """Run one statement and return its first row."""
    cursor = await connection.execute(sql.encode(), values)
    return await cursor.fetchone()


async def many(connection: DatabaseConnection, sql: str, /, **values: Any) -> list[Row]:
    """Run one statement and return all rows."""
    cursor = await connection.execute(sql.encode(), values)
    return await cursor.fetchall()
