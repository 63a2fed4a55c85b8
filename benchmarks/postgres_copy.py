"""postgres-sql's read of a table, against COPY … TO STDOUT of the same table by psycopg, in turn: in one, and in ranges.

Ranges are read as the runtime does it: a thread and a session each. What is read is let go at once, so that the figure is
the connector's own.
"""

from __future__ import annotations

import os
import sys
import tempfile
import threading
import time
from pathlib import Path
from statistics import median

import psycopg
from msgspec.structs import replace
from penstock_operator.embedded.postgres import EmbeddedPostgres
from penstock_postgres_sql.connector import PostgresConfig, PostgresCredentials, PostgresSql
from penstock_sdk import Partition
from psycopg.conninfo import conninfo_to_dict

ROWS, ROUNDS, RANGES = int(os.environ.get("ROWS", "1000000")), 3, 4
SLOW_SECONDS = 0.005
TABLE = """CREATE TABLE orders AS SELECT n, md5(n::text) AS name, n / 3.0 AS price, now() AS updated_at, n % 2 = 0 AS paid
           FROM generate_series(1, %s) n""".replace("%s", str(ROWS))


def copy_seconds(url: str) -> float:
    """Return how long COPY takes."""
    began = time.perf_counter()
    with psycopg.connect(url) as connection, connection.cursor().copy("COPY orders TO STDOUT") as copy:
        for _ in copy:
            pass
    return time.perf_counter() - began


def opened(url: str) -> PostgresSql:
    """Return a connector with a session."""
    found = conninfo_to_dict(url)
    config = PostgresConfig(
        host=str(found["host"]), port=int(str(found["port"])), database="penstock", partitions=RANGES, partition_rows=1
    )
    connector = PostgresSql(config, PostgresCredentials(password=str(found["password"]), username="penstock"))
    connector.authenticate()
    return connector


def count(url: str, partition: Partition | None, counts: list[int], pause: float) -> None:
    """Read what is asked for, and add how many rows came; `pause` is how far away the source is, per batch."""
    connector = opened(url)
    (stream,) = connector.discover()
    read = 0
    for batch in connector.read(replace(stream, partition=partition), None, None):
        read += len(batch.records)  # type: ignore[arg-type]
        if pause:
            time.sleep(pause)
    counts.append(read)
    connector.close()


def read_seconds(url: str, *, ranges: bool, pause: float = 0.0) -> float:
    """Return how long a read takes, in one or in ranges side by side, planning included."""
    counts: list[int] = []
    began = time.perf_counter()
    planner = opened(url)
    (stream,) = planner.discover()
    parts = list(planner.partitions(stream, None, None, ())) if ranges else [None]
    planner.close()
    workers = [threading.Thread(target=count, args=(url, part, counts, pause)) for part in parts]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert sum(counts) == ROWS
    return time.perf_counter() - began


def main() -> None:
    """Print the ratios."""
    sys.setswitchinterval(0.0005)  # as the runtime has it
    with tempfile.TemporaryDirectory() as directory, EmbeddedPostgres(Path(directory) / "server") as server:
        with psycopg.connect(server.url, autocommit=True) as connection:
            connection.execute(TABLE)
            connection.execute("ALTER TABLE orders ADD PRIMARY KEY (n)")
            connection.execute("VACUUM ANALYZE orders")
        url = server.url
        rounds = [
            (
                copy_seconds(url),
                read_seconds(url, ranges=False),
                read_seconds(url, ranges=True),
                read_seconds(url, ranges=False, pause=SLOW_SECONDS),
                read_seconds(url, ranges=True, pause=SLOW_SECONDS),
            )
            for _ in range(ROUNDS)
        ]
    one, four = (median(each[index] / each[0] for each in rounds) for index in (1, 2))
    near, far = median(each[1] / each[2] for each in rounds), median(each[3] / each[4] for each in rounds)
    print(
        f"postgres-sql: {ROWS:,} rows, {one:.1f} times COPY TO STDOUT (median of {ROUNDS}), in {RANGES} ranges {four:.1f}"
    )
    print(
        f"{RANGES} ranges are {near:.2f} times as fast as one; {far:.2f} times with {SLOW_SECONDS * 1000:.0f} ms a batch"
    )
    print(f"load {os.getloadavg()[0]:.0f}; limit: rows become Python values under one interpreter's lock")


if __name__ == "__main__":
    main()
