"""Claims a second with a long line, fairly and within quotas, against claims by due time alone in the same run.

Run with `python benchmarks/claims.py [PENDING]`. What limits it is printed beside each figure.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

from penstock_operator.embedded.postgres import EmbeddedPostgres
from penstock_operator.registry.database import DatabaseConnection, create_pool
from penstock_operator.registry.migrate import migrate
from penstock_operator.scheduling import fairness
from penstock_operator.settings import NO_QUOTAS, Quotas

ROUNDS, BATCH = 25, 20
NOW = datetime(2026, 6, 1, tzinfo=UTC)
FIFO = """
    WITH due AS (
        SELECT id FROM penstock.connector_runs WHERE phase = 'pending' AND next_attempt_at <= %(now)s
        ORDER BY next_attempt_at LIMIT %(limit)s FOR UPDATE SKIP LOCKED),
    taken AS (
        UPDATE penstock.connector_runs r SET phase = 'running', attempt = r.attempt + 1, started_at = now()
        FROM due WHERE r.id = due.id RETURNING r.id, r.attempt)
    INSERT INTO penstock.run_attempts (run_id, attempt, job_name)
    SELECT id, attempt, 'penstock-' || id || '-' || attempt FROM taken RETURNING run_id, attempt
"""
LINE = """
    INSERT INTO penstock.connector_definitions (uid, name, connector, method, version, image, stage, manifest, generation)
    VALUES ('d', 'n', 'c', 'm', '0.1.0', 'i', 'certified', '{{}}', 1);
    INSERT INTO penstock.tenant_connections (uid, namespace, name, generation, spec, definition_uid, ready, suspended, time_zone)
    SELECT 'c' || n, 'team-' || n % {tenants}, 'c' || n, 1, '{{}}', 'd', true, false, '' FROM generate_series(1, {pending}) n;
    INSERT INTO penstock.connector_runs
        (id, connection_uid, definition_uid, spec, trigger, token, next_attempt_at, tenant, source_host, phase)
    SELECT 'old' || n || '-' || m, 'c' || n, 'd', '{{"connector": {{"name": "faker", "method": "generate"}}}}', 'request', 'old' || m, timestamptz '2026-01-01', 'team-' || n % {tenants},
        NULL, 'succeeded' FROM generate_series(1, {pending}) n, generate_series(1, 3) m;
    INSERT INTO penstock.connector_runs
        (id, connection_uid, definition_uid, spec, trigger, token, next_attempt_at, tenant, source_host)
    SELECT 'r' || n, 'c' || n, 'd', '{{"connector": {{"name": "faker", "method": "generate"}}}}', 'request', 't', timestamptz '2026-05-01' + n * interval '1 s',
        'team-' || n % {tenants}, 'host-' || n % 700 FROM generate_series(1, {pending}) n;
    ANALYZE;
"""


async def fill(db: DatabaseConnection, pending: int, tenants: int) -> None:
    """Put that many runs in line."""
    await db.execute(
        b"TRUNCATE penstock.connector_runs, penstock.tenant_connections, penstock.connector_definitions,"
        b" penstock.tenant_turns CASCADE"
    )
    await db.execute(LINE.format(pending=pending, tenants=tenants).encode())


async def rate(db: DatabaseConnection, quotas: Quotas | None) -> float:
    """Return claims a second; None: by due time alone."""
    taken, began = 0, time.perf_counter()
    for _ in range(ROUNDS):
        if quotas is None:
            cursor = await db.execute(FIFO.encode(), {"now": NOW, "limit": BATCH})
            taken += len(await cursor.fetchall())
        else:
            taken += len(await fairness.claim_runs(db, NOW, BATCH, quotas))
    assert taken == ROUNDS * BATCH, taken
    return taken / (time.perf_counter() - began)


async def measure(url: str, pending: int) -> None:
    """Print the figures."""
    await migrate(url)
    pool = create_pool(url, size=1)
    await pool.open(wait=True)
    limits = Quotas(runs_per_tenant=100_000, runs_per_host=100)
    print(f"claims a second with {pending:,} runs in line, {BATCH} at a time")
    for tenants in (1, 50, 1000):
        figures = []
        for quotas in (None, NO_QUOTAS, limits):
            async with pool.connection() as db:
                await fill(db, pending, tenants)
                figures.append(await rate(db, quotas))
        fifo, fair, within = figures
        print(
            f"{tenants:5} tenants: by due time {fifo:7,.0f}; fair {fair:6,.0f} ({fair / fifo:.2f});"
            f" within quotas {within:6,.0f} ({within / fifo:.2f}); {BATCH / fair * 1000:.0f} ms a claim"
        )
    print(
        "limited by: the tenants in line, each looked at once a claim; a cluster's Job controller makes 4 to 20 Jobs a second"
    )
    await pool.close()


def main() -> None:
    """Run it on a Postgres of its own."""
    pending = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    with tempfile.TemporaryDirectory() as directory, EmbeddedPostgres(Path(directory) / "postgres") as server:
        asyncio.run(measure(server.url, pending))


if __name__ == "__main__":
    main()
