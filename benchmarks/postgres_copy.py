"""postgres-sql's read of a table, against COPY … TO STDOUT of the same table by psycopg, in turn."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from statistics import median

import psycopg
from penstock_operator.embedded.postgres import EmbeddedPostgres
from penstock_postgres_sql.connector import Config, Credentials, PostgresSql
from psycopg.conninfo import conninfo_to_dict

ROWS, ROUNDS = 200_000, 3
TABLE = """CREATE TABLE orders AS SELECT n, md5(n::text) AS name, n / 3.0 AS price, now() AS updated_at, n % 2 = 0 AS paid
           FROM generate_series(1, %s) n""".replace("%s", str(ROWS))


def copy_seconds(url: str) -> float:
    """Return how long COPY takes."""
    began = time.perf_counter()
    with psycopg.connect(url) as connection, connection.cursor().copy("COPY orders TO STDOUT") as copy:
        for _ in copy:
            pass
    return time.perf_counter() - began


def read_seconds(url: str) -> float:
    """Return how long the connector's read takes."""
    found = conninfo_to_dict(url)
    config = Config(host=str(found["host"]), port=int(str(found["port"])), database="penstock")
    connector = PostgresSql(config, Credentials(password=str(found["password"]), username="penstock"))
    connector.authenticate()
    (stream,) = connector.discover()
    began = time.perf_counter()
    assert sum(len(batch.records) for batch in connector.read(stream, None, None)) == ROWS  # type: ignore[arg-type]
    connector.close()
    return time.perf_counter() - began


with tempfile.TemporaryDirectory() as directory, EmbeddedPostgres(Path(directory) / "server") as server:
    with psycopg.connect(server.url, autocommit=True) as connection:
        connection.execute(TABLE)
        connection.execute("ALTER TABLE orders ADD PRIMARY KEY (n)")
        connection.execute("VACUUM ANALYZE orders")
    pairs = [(read_seconds(server.url), copy_seconds(server.url)) for _ in range(ROUNDS)]
print(f"postgres-sql: {ROWS:,} rows, {median(a / b for a, b in pairs):.1f} times COPY TO STDOUT (median of {ROUNDS})")
