"""`penstock up`, as a user calls it: real processes, a real registry, real objects."""

from __future__ import annotations

import gzip
import io
import json
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
import yaml
import zstandard
from penstock_operator.bronze.store import BronzeStore, s3_client
from penstock_operator.settings import S3Settings, s3_settings
from psycopg.conninfo import conninfo_to_dict

from tests.patience import PATIENCE

PENSTOCK = [sys.executable, "-m", "penstock_operator.cli"]


class User:
    """Somebody at a shell."""

    def __init__(self, folder: Path, tmp_path: Path, environment: dict[str, str]) -> None:
        self.folder = folder
        self.data = tmp_path / "data"
        self.environment = {**os.environ, **environment}
        for artifact in ("faker-generate", "files-object", "postgres-sql"):
            self.write(f"{artifact}.yaml", self.call("definition", artifact).stdout)

    def write(self, name: str, content: str | list[dict[str, Any]]) -> None:
        text = content if isinstance(content, str) else yaml.safe_dump_all(content)
        (self.folder / name).write_text(text)

    def connection(self, name: str, **spec: Any) -> None:
        metadata = {"name": name, "namespace": "team"}
        document = {
            "apiVersion": "penstock.io/v1alpha1",
            "kind": "TenantConnection",
            "metadata": metadata,
            "spec": spec,
        }
        self.write(f"{name}.yaml", [document])

    def call(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [*PENSTOCK, *arguments]
        return subprocess.run(
            command, check=False, capture_output=True, text=True, env=self.environment, timeout=PATIENCE
        )

    def up(self) -> tuple[int, dict[str, dict[str, Any]], str]:
        done = self.call("up", str(self.folder), "--data-dir", str(self.data), "--once", "--output", "json")
        results = json.loads(done.stdout)["connections"] if done.stdout else []
        return done.returncode, {result["name"]: result for result in results}, done.stderr

    def records(self, *results: dict[str, Any]) -> list[dict[str, Any]]:
        store = BronzeStore(s3_settings(self.environment))
        lines: list[dict[str, Any]] = []
        for key in (key for result in results for key in result["objects"]):
            text = io.TextIOWrapper(zstandard.ZstdDecompressor().stream_reader(store.read(key)), encoding="utf-8")
            lines += [json.loads(line) for line in text]
        return lines


FAKER = {"name": "faker", "method": "generate", "version": "^0.1"}
POSTGRES = {"name": "postgres", "method": "sql"}
FILES = {"name": "files", "method": "object"}


@pytest.fixture
def user(folder: Path, tmp_path: Path, backends_environment: dict[str, str]) -> User:
    return User(folder, tmp_path, backends_environment)


def numbers(records: list[dict[str, Any]]) -> list[int]:
    return sorted(record["data"]["n"] for record in records)


def test_records_land_once_each_in_their_envelope(user: User) -> None:
    user.connection(
        "fake", connector=FAKER, config={"records": 1200}, streams=[{"name": "people", "mode": "incremental"}]
    )
    code, results, _ = user.up()
    assert code == 0
    records = user.records(results["fake"])
    assert numbers(records) == list(range(1200))
    assert len({record["id"] for record in records}) == 1200
    assert records[0].keys() == {
        *("id", "tenant", "connection", "connector", "stream", "run"),
        *("seq", "op", "extracted_at", "schema_version", "data"),
    }
    assert results["fake"]["records"] == 1200


def test_an_incremental_stream_goes_on_where_the_last_run_stood(user: User) -> None:
    stream = [{"name": "people", "mode": "incremental"}]
    user.connection("fake", connector=FAKER, config={"records": 700}, streams=stream)
    _, first, _ = user.up()
    user.connection("fake", connector=FAKER, config={"records": 1000}, streams=stream)
    _, second, _ = user.up()
    assert numbers(user.records(first["fake"], second["fake"])) == list(range(1000))
    assert second["fake"]["records"] == 300


def test_a_failed_attempt_is_followed_by_another_that_loses_and_doubles_nothing(user: User) -> None:
    retry = {"limit": 2, "backoff": {"initial": "100ms"}}
    config = {"records": 3000, "failAfter": 1500}
    user.connection("fake", connector=FAKER, config=config, streams=[{"name": "people"}], retry=retry)
    code, results, errors = user.up()
    assert code == 0, errors
    assert results["fake"]["attempt"] == 2
    assert "failing after 1500 records, as spec.config.failAfter says" in errors
    assert numbers(user.records(results["fake"])) == list(range(3000))


def test_one_bad_connection_delays_nobody_else(user: User) -> None:
    user.connection("good", connector=FAKER, config={"records": 10})
    user.connection("unknown", connector={"name": "orcale", "method": "sql"})
    user.connection("range", connector={**FAKER, "version": "^9"})
    user.connection("config", connector=FAKER, config={"recrods": 10})
    user.connection("secret", connector=POSTGRES, config={"host": "h", "database": "d"}, secretRef={"name": "nope"})
    user.connection("nosecret", connector=POSTGRES, config={"host": "h", "database": "d"})
    user.connection("cron", connector=FAKER, schedule="every day")
    user.connection("zone", connector=FAKER, schedule="@daily", timeZone="Mars/Base")
    user.connection("stream", connector=FAKER, streams=[{"name": "poeple"}])
    user.connection("field", connector=FAKER, shedule="@daily")
    code, results, _ = user.up()
    assert code == 1
    assert results.pop("good")["phase"] == "succeeded"
    said = {name: result["error"]["message"] for name, result in results.items()}
    for name, words in {
        "unknown": "spec.connector: there is no connector orcale/sql; there are: faker/generate, files/object, postgres/sql",
        "range": "spec.connector.version: no version matches '^9'; there are: 0.1.0",
        "config": "spec.config: Additional properties are not allowed ('recrods' was unexpected); the connector knows:",
        "secret": 'spec.secretRef: secret "nope" not found in namespace team',
        "nosecret": "spec.secretRef: name a Secret with the keys password",
        "cron": "spec.schedule: 'every day' is not a cron expression",
        "zone": "spec.timeZone: 'Mars/Base' is not a time zone",
        "stream": "spec.streams[0].name: the source offers no stream 'poeple'; it offers: events, people",
        "field": 'unknown field "spec.shedule"',
    }.items():
        assert words in said[name], name


def test_tables_are_synced_in_full_and_by_cursor_without_loss(user: User, postgres_url: str) -> None:
    with psycopg.connect(postgres_url, autocommit=True) as source:
        source.execute("DROP TABLE IF EXISTS orders")
        source.execute(
            "CREATE TABLE orders (n int PRIMARY KEY, price numeric, at timestamptz, note jsonb, updated_at timestamptz NOT NULL)"
        )
        insert = "INSERT INTO orders SELECT n, n / 3.0, 'infinity', '{\"a\": 1.10}', '2026-01-01' FROM generate_series(%s::int, %s::int) n"
        source.execute(insert, [0, 4999])
        found = conninfo_to_dict(postgres_url)
        secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "db", "namespace": "team"}}
        user.write("secret.yaml", [{**secret, "stringData": {"username": "penstock", "password": found["password"]}}])
        config = {"host": found["host"], "port": int(str(found["port"])), "database": "penstock", "fetchSize": 300}
        stream = [{"name": "public.orders", "mode": "incremental"}]
        user.connection("orders", connector=POSTGRES, config=config, secretRef={"name": "db"}, streams=stream)
        _, first, errors = user.up()
        source.execute(insert, [5000, 5099])
        _, second, _ = user.up()
    assert numbers(user.records(first["orders"], second["orders"])) == list(range(5100)), errors
    assert second["orders"]["records"] == 100, "rows that share the cursor's value are neither lost nor doubled"
    record = user.records(second["orders"])[0]["data"]
    assert record["price"] == "1666.6666666666666667"
    assert record["at"] == "infinity"
    assert str(found["password"]) not in errors


def test_a_table_is_read_in_partitions_and_followed_in_them(user: User, postgres_url: str) -> None:
    with psycopg.connect(postgres_url, autocommit=True) as source:
        source.execute("DROP TABLE IF EXISTS parted")
        source.execute("CREATE TABLE parted (n int PRIMARY KEY, updated_at timestamptz NOT NULL DEFAULT now())")
        source.execute("INSERT INTO parted SELECT generate_series(0, 19999)")
        source.execute("ANALYZE parted")
        found = conninfo_to_dict(postgres_url)
        secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "db", "namespace": "team"}}
        user.write("secret.yaml", [{**secret, "stringData": {"username": "penstock", "password": found["password"]}}])
        place = {"host": found["host"], "port": int(str(found["port"])), "database": "penstock"}
        config = {**place, "partitions": 5, "partitionRows": 1000}
        stream = [{"name": "public.parted", "mode": "incremental"}]
        common = {"connector": POSTGRES, "config": config, "secretRef": {"name": "db"}, "streams": stream}
        user.connection("parted", **common, parallelism=3)
        _, first, errors = user.up()
        source.execute("UPDATE parted SET updated_at = now() WHERE n % 5000 = 7")
        source.execute("INSERT INTO parted SELECT generate_series(20000, 20099)")
        user.connection("parted", **common, parallelism=1)
        _, second, _ = user.up()
        source.execute("DROP TABLE parted")
    assert numbers(user.records(first["parted"])) == list(range(20_000)), errors
    assert numbers(user.records(second["parted"])) == [7, 5007, 10_007, 15_007, *range(20_000, 20_100)]
    with psycopg.connect(user.environment["PENSTOCK_DATABASE_URL"]) as registry:
        rows = registry.execute("SELECT cursor FROM penstock.stream_checkpoints ORDER BY committed_at").fetchall()
    plans = {tuple((partition["id"], partition["bounds"]["from"]) for partition in row[0]["ranges"]) for row in rows}
    (plan,) = plans
    assert len(plan) == 5


def test_files_are_followed_and_a_bad_line_is_named(user: User, s3_server: S3Settings) -> None:
    """New files only are read by the next run; a run that meets a bad line keeps what it had, and says where it is."""
    client, bucket = s3_client(s3_server, s3_server.endpoint), f"files-{uuid.uuid4().hex}"
    client.create_bucket(Bucket=bucket)

    def put(key: str, *numbers: object) -> None:
        body = "".join(f'{{"n": {number}}}\n' for number in numbers).encode()
        client.put_object(Bucket=bucket, Key=key, Body=gzip.compress(body))

    keys = {"accessKeyId": s3_server.access_key, "secretAccessKey": s3_server.secret_key}
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "keys", "namespace": "team"}}
    user.write("secret.yaml", [{**secret, "stringData": keys}])
    stream = {"name": "orders", "paths": [f"s3://{bucket}/**/*.jsonl.gz"], "format": "jsonl", "primaryKey": ["n"]}
    config = {"endpoint": s3_server.endpoint, "streams": [stream]}
    selected = [{"name": "orders", "mode": "incremental"}]
    user.connection("files", connector=FILES, config=config, secretRef={"name": "keys"}, streams=selected)
    put("2026/01/a.jsonl.gz", *range(3000))
    _, first, errors = user.up()
    put("2026/01/b.jsonl.gz", *range(3000, 3100))
    _, second, _ = user.up()
    assert numbers(user.records(first["files"], second["files"])) == list(range(3100)), errors
    assert second["files"]["records"] == 100
    put("2026/02/c.jsonl.gz", 3100, "oops", 3101)
    code, third, errors = user.up()
    assert code == 1
    assert third["files"]["error"]["class"] == "SourceContractError"
    assert f"s3://{bucket}/2026/02/c.jsonl.gz, line 2: it is not JSON" in third["files"]["error"]["message"]
    assert str(s3_server.secret_key) not in errors


def test_a_wrong_password_says_whose_and_what_to_do(user: User, postgres_url: str) -> None:
    found = conninfo_to_dict(postgres_url)
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "db", "namespace": "team"}}
    user.write("secret.yaml", [{**secret, "stringData": {"username": "penstock", "password": "guessed-wrong"}}])
    config = {"host": found["host"], "port": int(str(found["port"])), "database": "penstock"}
    user.connection("orders", connector=POSTGRES, config=config, secretRef={"name": "db"})
    _, results, errors = user.up()
    assert results["orders"]["error"]["class"] == "AuthenticationError"
    assert "correct the Secret that spec.secretRef names" in results["orders"]["error"]["message"]
    assert results["orders"]["attempt"] == 1, "it is not tried again with the same password"
    assert "guessed-wrong" not in errors


@contextmanager
def live(user: User) -> Iterator[subprocess.Popen[str]]:
    """A platform that is up; it is started as a shell starts a background command, with SIGINT ignored."""
    user.connection("slow", connector=FAKER, config={"records": 100_000, "delaySeconds": 0.2})
    command = [*PENSTOCK, "up", str(user.folder), "--data-dir", str(user.data)]
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        first = subprocess.Popen(command, env=user.environment, stderr=subprocess.PIPE, text=True)
    finally:
        signal.signal(signal.SIGINT, before)
    try:
        assert first.stderr is not None
        assert "penstock is up" in first.stderr.readline()
        yield first
    finally:
        first.kill()
        first.communicate()


def test_a_second_platform_on_a_live_directory_is_refused_with_the_pid(user: User) -> None:
    with live(user) as first:
        second = user.call("up", str(user.folder), "--data-dir", str(user.data), "--once")
    assert second.returncode == 2
    assert f"(pid {first.pid})" in second.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_told_to_stop_it_stops_what_it_started_and_lets_the_directory_go(user: User, number: signal.Signals) -> None:
    with live(user) as first:
        first.send_signal(number)
        assert first.wait(timeout=PATIENCE) == 128 + number
        assert not (user.data / "penstock.pid").exists()


def test_9_a_killed_platform_loses_nothing_and_doubles_nothing(user: User) -> None:
    streams = [{"name": "people", "mode": "incremental"}]
    config = {"records": 60_000, "pauseAfter": 55_000}  # more than the 50,000 after which a cursor is committed
    user.connection("fake", connector=FAKER, config=config, streams=streams)
    command = [*PENSTOCK, "up", str(user.folder), "--data-dir", str(user.data), "--once"]
    with subprocess.Popen(command, env=user.environment, stderr=subprocess.PIPE, text=True) as first:
        assert first.stderr is not None
        for line in first.stderr:
            if "running" in line and " 0 records" not in line:
                break
        first.kill()
    user.connection("fake", connector=FAKER, config={"records": 60_000}, streams=streams)
    code, results, errors = user.up()
    assert code == 0, errors
    listed = user.call("runs", "list", "--data-dir", str(user.data))
    assert listed.returncode == 0
    assert numbers(user.records(results["fake"])) == list(range(60_000))
