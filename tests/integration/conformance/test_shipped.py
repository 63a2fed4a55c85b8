"""The connectors of this tree pass the suite that their authors' colleagues have to pass: nothing is left unrun."""

from __future__ import annotations

import gzip
import io
import json
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from penstock_operator.bronze.store import s3_client
from penstock_operator.settings import S3Settings
from penstock_sdk.testing import CHECKS, Harness, Target, Variant, build_report, is_conformant, run_checks
from psycopg.conninfo import conninfo_to_dict

from tests.integration.connectors.files_server import serving

READER, PASSWORD = "conformance_reader", "a-password-of-the-trial"

SOURCE = """
CREATE ROLE conformance_reader LOGIN PASSWORD 'a-password-of-the-trial';
CREATE SCHEMA trial; CREATE SCHEMA nothing; CREATE SCHEMA much;
CREATE TABLE trial.orders (id bigint PRIMARY KEY, total numeric NOT NULL, note text, updated_at timestamptz NOT NULL);
INSERT INTO trial.orders SELECT i, i / 4.0, 'note ' || i, timestamptz '2026-01-01' + (i / 7) * interval '1 second'
    FROM generate_series(1, 100) i;
CREATE TABLE trial.countries (code text PRIMARY KEY, name text);
INSERT INTO trial.countries SELECT 'C' || i, 'country ' || i FROM generate_series(1, 30) i;
CREATE TABLE trial.log (line text);
INSERT INTO trial.log SELECT 'line ' || i FROM generate_series(1, 30) i;
CREATE TABLE nothing.orders (LIKE trial.orders INCLUDING ALL);
CREATE TABLE nothing.log (line text);
CREATE TABLE much.orders (LIKE trial.orders INCLUDING ALL);
INSERT INTO much.orders SELECT i, i, repeat(md5(i::text), 32), timestamptz '2026-01-01' + (i / 7) * interval '1 second'
    FROM generate_series(1, 45000) i;
GRANT USAGE ON SCHEMA trial, nothing, much TO conformance_reader;
GRANT SELECT ON ALL TABLES IN SCHEMA trial, nothing, much TO conformance_reader;
"""
GROW = "INSERT INTO trial.orders SELECT max(id) + 1, 0, 'late', max(updated_at) FROM trial.orders"


def assert_conformant(target: Target, report_to: Path, without: frozenset[str] = frozenset()) -> dict[str, str]:
    """Run the suite, and return the outcomes by check."""
    checks = [check for check in CHECKS if check.name not in without]
    with Harness(target) as laboratory:
        verdicts = run_checks(laboratory, checks)
        report_to.write_text(json.dumps(build_report(laboratory, verdicts, len(checks)), indent=2))
    said = "\n".join(f"{verdict.outcome:14} {verdict.check.name}: {verdict.detail}" for verdict in verdicts)
    assert is_conformant(verdicts, len(checks)), said
    return {verdict.check.name: verdict.outcome for verdict in verdicts}


def test_faker_generate_is_conformant(tmp_path: Path) -> None:
    target = Target(
        artifact="faker-generate",
        config={"records": 120, "batchSize": 20, "partitions": 3},
        empty=Variant(config={"records": 0}),
        large=Variant(config={"records": 60_000, "batchSize": 500}),
    )
    outcomes = assert_conformant(target, tmp_path / "report.json")
    left_out = {name for name, outcome in outcomes.items() if outcome == "not applicable"}
    of_a_source = {"wrong-credentials", "revoked-credentials", "throttling", "slow-source", "secrets"}
    assert left_out == {*of_a_source, "tie"}  # it has no source, no credentials, and its cursor is its key


@pytest.fixture
def source(source_url: str) -> Iterator[psycopg.Connection[Any]]:
    """A database with a role that can be shut out."""
    with psycopg.connect(source_url, autocommit=True) as connection:
        connection.execute(SOURCE.encode())
        yield connection
        connection.execute("DROP OWNED BY conformance_reader; DROP ROLE conformance_reader")


def test_postgres_sql_is_conformant(source: psycopg.Connection[Any], source_url: str, tmp_path: Path) -> None:
    @contextmanager
    def altered(there: str, back: str) -> Iterator[None]:
        source.execute(f"ALTER ROLE {READER} {there}".encode())
        try:
            yield
        finally:
            source.execute(f"ALTER ROLE {READER} {back}".encode())

    def grow() -> None:
        source.execute(GROW.encode())

    parts = conninfo_to_dict(source_url)
    place = {"host": parts["host"], "port": int(str(parts["port"])), "database": parts["dbname"], "sslmode": "disable"}
    target = Target(
        artifact="postgres-sql",
        config={**place, "schemas": ["trial"], "fetchSize": 20, "partitions": 3, "partitionRows": 20},
        credentials={"username": READER, "password": PASSWORD},
        host_field="host",
        port_field="port",
        empty=Variant(config={"schemas": ["nothing"]}),
        large=Variant(config={"schemas": ["much"], "fetchSize": 500}),
        revoked=lambda: altered("PASSWORD 'another'", f"PASSWORD '{PASSWORD}'"),
        throttled=lambda: altered("CONNECTION LIMIT 0", "CONNECTION LIMIT -1"),
        grow=grow,
    )
    outcomes = assert_conformant(target, tmp_path / "report.json")
    assert set(outcomes.values()) == {"passed"}


def csv_of(count: int, width: int = 10) -> bytes:
    return b"id,zip,note\n" + b"".join(b"%d,%05d,%s\n" % (n, n % 90_000, b"x" * width) for n in range(count))


FILES = {
    "orders.csv": csv_of(60),
    "events.jsonl.gz": gzip.compress(b"".join(b'{"id":%d,"at":{"n":%d}}\n' % (n, n) for n in range(60))),
}
FILE_STREAMS: list[dict[str, Any]] = [
    {"name": "orders", "format": "csv", "primaryKey": ["id"]},
    {"name": "events", "format": "jsonl", "primaryKey": ["id"]},
    {"name": "days", "format": "parquet"},
]


def parquet_of(count: int) -> bytes:
    sink = io.BytesIO()
    days = pa.array([1_714_965_000_123_456_789 + n for n in range(count)], pa.timestamp("ns", "UTC"))
    pq.write_table(pa.table({"at": days, "n": list(range(count))}), sink, row_group_size=25)
    return sink.getvalue()


def paths_of(orders: str, events: str, days: str) -> dict[str, Any]:
    return {
        "streams": [{**item, "paths": [path]} for item, path in zip(FILE_STREAMS, (orders, events, days), strict=True)]
    }


def test_files_object_is_conformant_over_http(tmp_path: Path) -> None:
    with serving() as server:
        server.authorization = "Bearer a-token-of-the-trial"
        for name, body in {**FILES, "days.parquet": parquet_of(60), "much.csv": csv_of(45_000, 1000)}.items():
            server.put(name, body)
        for name, body in {"no.csv": b"id,zip,note\n", "no.jsonl": b"", "no.parquet": parquet_of(0)}.items():
            server.put(name, body)

        def grow() -> None:
            server.put("orders.csv", FILES["orders.csv"] + b"60,00060,late\n")

        target = Target(
            artifact="files-object",
            config={
                "baseUrl": server.url,
                "batchRows": 20,
                "timeoutSeconds": 5,
                **paths_of("orders.csv", "events.jsonl.gz", "days.parquet"),
            },
            credentials={"token": "a-token-of-the-trial"},
            url_field="baseUrl",
            empty=Variant(config=paths_of("no.csv", "no.jsonl", "no.parquet")),
            large=Variant(config={"batchRows": 1000, **paths_of("much.csv", "events.jsonl.gz", "days.parquet")}),
            grow=grow,
            max_kills=5,
        )
        outcomes = assert_conformant(target, tmp_path / "report.json")
    assert outcomes.pop("partitions") == "not applicable"  # a file is read from its start to its end
    assert set(outcomes.values()) == {"passed"}


def test_files_object_is_conformant_on_s3(s3_server: S3Settings, tmp_path: Path) -> None:
    client, bucket = s3_client(s3_server, s3_server.endpoint), f"conformance-{uuid.uuid4().hex}"
    client.create_bucket(Bucket=bucket)

    def put(key: str, body: bytes) -> None:
        client.put_object(Bucket=bucket, Key=key, Body=body)

    for key, body in {**FILES, "days.parquet": parquet_of(60)}.items():
        put(f"in/{key}", body)
    for number in range(9):
        put(f"much/{number}.csv", csv_of(5000, 1000))
    put("no/orders.csv", b"id,zip,note\n")
    put("no/events.jsonl.gz", gzip.compress(b""))
    put("no/days.parquet", parquet_of(0))

    def within(folder: str, orders: str = "orders*.csv") -> dict[str, Any]:
        names = (orders, "*.jsonl.gz", "**/*.parquet")
        return paths_of(
            *(
                f"s3://{bucket}/{folder if at == 0 else folder.replace('much', 'in')}/{name}"
                for at, name in enumerate(names)
            )
        )

    target = Target(
        artifact="files-object",
        config={"endpoint": s3_server.endpoint, "batchRows": 20, "timeoutSeconds": 5, **within("in")},
        credentials={"accessKeyId": s3_server.access_key or "", "secretAccessKey": s3_server.secret_key or ""},
        empty=Variant(config=within("no")),
        large=Variant(config={"batchRows": 1000, **within("much", "*.csv")}),
        grow=lambda: put("in/orders-late.csv", b"id,zip,note\n60,00060,late\n"),
        max_kills=5,
    )
    # A request is signed for the address that it is sent to, so nothing can stand between. It is HTTP's own client.
    in_between = frozenset({"revoked-credentials", "throttling", "slow-source"})
    outcomes = assert_conformant(target, tmp_path / "report.json", without=in_between)
    assert outcomes.pop("partitions") == "not applicable"  # a file is read from its start to its end
    assert set(outcomes.values()) == {"passed"}
