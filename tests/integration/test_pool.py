"""The pool hands out connections that work, after Postgres has ended those that it had."""

from __future__ import annotations

import asyncio

import psycopg
from penstock_operator.registry.database import Pool, one

from tests.patience import PATIENCE


async def test_a_connection_that_postgres_ended_is_replaced_before_it_is_handed_out(
    pool: Pool, database_url: str
) -> None:
    async with pool.connection() as first, pool.connection() as second:
        ended = [first.info.backend_pid, second.info.backend_pid]
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as other:
        for pid in ended:
            await other.execute("SELECT pg_terminate_backend(%s)", [pid])
        async with asyncio.timeout(PATIENCE):
            while (await _alive(other, ended)) > 0:
                await asyncio.sleep(0.01)
    async with pool.connection() as first, pool.connection() as second:
        assert await one(first, "SELECT 1 AS n") == {"n": 1}
        assert await one(second, "SELECT 1 AS n") == {"n": 1}
        assert not {first.info.backend_pid, second.info.backend_pid} & set(ended)


async def _alive(other: psycopg.AsyncConnection[tuple[int]], pids: list[int]) -> int:
    found = await (await other.execute("SELECT count(*) FROM pg_stat_activity WHERE pid = ANY(%s)", [pids])).fetchone()
    return found[0] if found else 0
