"""Connections to Postgres: one pool a process, UTC, dictionaries as rows."""

from __future__ import annotations

import select
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from psycopg import AsyncConnection
from psycopg.rows import DictRow, dict_row
from psycopg_pool import AsyncConnectionPool

Connection = AsyncConnection[DictRow]
Pool = AsyncConnectionPool[Connection]
Row = dict[str, Any]


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


async def _check(connection: Connection) -> None:
    """Ask Postgres whether a connection is good, where it has sent something unasked: its goodbye, most likely.

    Where it has not, a question to Postgres before every use would make a fifth of all that it is asked.
    """
    waiting = select.poll()
    waiting.register(connection.fileno(), select.POLLIN)
    if waiting.poll(0):
        await AsyncConnectionPool.check_connection(connection)


@asynccontextmanager
async def snapshot(connection: Connection) -> AsyncIterator[None]:
    """Open a transaction whose statements all see the registry as it is at the first of them; they may only read."""
    async with connection.transaction():
        await connection.execute(b"SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        yield


async def one(connection: Connection, sql: str, /, **values: Any) -> Row | None:
    """Run one statement and return its first row."""
    cursor = await connection.execute(sql.encode(), values)
    return await cursor.fetchone()


async def many(connection: Connection, sql: str, /, **values: Any) -> list[Row]:
    """Run one statement and return all rows."""
    cursor = await connection.execute(sql.encode(), values)
    return await cursor.fetchall()


async def run(connection: Connection, sql: str, /, **values: Any) -> int:
    """Run one statement and return how many rows it touched."""
    cursor = await connection.execute(sql.encode(), values)
    return cursor.rowcount
