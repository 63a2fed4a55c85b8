"""postgres-sql's incremental reads against writers of every kind: each row's last version is read, and nothing twice.

The oracle is the table itself once the writers have ended. `PENSTOCK_LONG_TESTS=1` runs more commits, and transactions that
stay open for 30 seconds.
"""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import msgspec
import psycopg
import pytest
from penstock_postgres_sql import PostgresSql
from penstock_sdk import Partition, Stream

from tests.integration.connectors.test_postgres_sql import connector

LONG = bool(os.environ.get("PENSTOCK_LONG_TESTS"))
WRITERS, COMMITS = 4, 10_000 if LONG else 400
OPEN_SECONDS = 30.0 if LONG else 0.0
IDS = 40

# How a row's cursor column gets its value: clocks of several resolutions, ties, values that go back, and values at random.
CURSORS = {
    "timestamptz": "clock_timestamp()",
    "timestamptz(0)": "now()",
    "timestamp": "now()",
    "timestamp(3)": "'2024-01-01'",
    "date": "current_date",
    "integer": "1",
    "bigint": "(random() * 1000)::bigint",
    "numeric(6,2)": "random() * 1000",
    "numeric": "CASE WHEN random() < 0.1 THEN 'NaN' ELSE 1 / random() END",
    "double precision": "CASE WHEN random() < 0.2 THEN '-0' ELSE random() / 3 END",
    "real": "random()",
    "text": "md5(random()::text)",
    "char(5)": "left(md5(random()::text), 2)",
    "uuid": "gen_random_uuid()",
    "boolean": "random() < 0.5",
    "mood": "CASE WHEN random() < 0.5 THEN 'sad' ELSE 'ok' END::mood",
    "int[]": "ARRAY[(random() * 3)::int]",
    "tstzrange": "tstzrange(now(), 'infinity')",
    "interval": "random() * interval '1 month'",
    "jsonb": "to_jsonb(random())",
    "inet": "'10.0.0.0'::inet + (random() * 9)::int",
    "positive": "(random() * 3)::int + 1",
}


def table(type_: str) -> str:
    return "t_" + "".join(letter if letter.isalnum() else "_" for letter in type_)


def make(execute: Callable[[str], None]) -> None:
    execute("CREATE TYPE mood AS ENUM ('sad', 'ok'); CREATE DOMAIN positive AS int CHECK (VALUE > 0)")
    for type_, value in CURSORS.items():
        name = table(type_)
        execute(f"CREATE TABLE {name} (id int PRIMARY KEY, v int NOT NULL, at {type_} NOT NULL)")
        execute(f"INSERT INTO {name} SELECT n, 0, {value} FROM generate_series(1, {IDS}) n; ANALYZE {name}")
    execute(
        "CREATE TABLE parted (id int PRIMARY KEY, v int NOT NULL, at timestamptz(0) NOT NULL) PARTITION BY HASH (id)"
    )
    for number in range(3):
        execute(f"CREATE TABLE parted{number} PARTITION OF parted FOR VALUES WITH (MODULUS 3, REMAINDER {number})")
    execute(f"INSERT INTO parted SELECT n, 0, now() FROM generate_series(1, {IDS}) n; ANALYZE parted")


TABLES = {table(type_): value for type_, value in CURSORS.items()} | {"parted": "now()"}


class Writer:
    """A session that changes rows in one of many ways."""

    def __init__(self, url: str, seed: int) -> None:
        self._random = random.Random(seed)
        self._url = url
        self._session = psycopg.connect(url, autocommit=True)
        durable = "on" if seed else "off"
        self._session.execute(f"SET synchronous_commit = {durable}; SET lock_timeout = '20ms'".encode())
        self._waiting: list[tuple[int, psycopg.Connection[Any]]] = []

    def run(self, commits: int) -> None:
        ways = (self._one, self._one, self._several, self._savepoint, self._rolled_back, self._caught, self._held)
        for step in range(commits):
            self._random.choice(ways)()
            self._commit_held(step)
        self._commit_held(None)
        self._session.close()

    def _change(self) -> str:
        name = self._random.choice(list(TABLES))
        id_ = self._random.randint(1, IDS + 5)
        return (
            f"INSERT INTO {name} VALUES ({id_}, 0, {TABLES[name]})"
            f" ON CONFLICT (id) DO UPDATE SET v = {name}.v + 1, at = excluded.at;"
        )

    def _one(self) -> None:
        self._try(self._session, [self._change()])

    def _several(self) -> None:
        changes = sorted(self._change() for _ in range(3))
        self._try(self._session, ["BEGIN", *changes, "COMMIT"])

    def _savepoint(self) -> None:
        steps = ["SAVEPOINT a", self._change(), "RELEASE a", "SAVEPOINT b", self._change(), "ROLLBACK TO b"]
        self._try(self._session, ["BEGIN", *steps, "COMMIT"])

    def _rolled_back(self) -> None:
        self._try(self._session, ["BEGIN", self._change(), "ROLLBACK"])

    def _caught(self) -> None:
        body = f"BEGIN {self._change()} PERFORM 1 / 0; EXCEPTION WHEN division_by_zero THEN {self._change()} END"
        self._try(
            self._session, [f"DO $$ BEGIN {body}; BEGIN {self._change()} EXCEPTION WHEN others THEN NULL; END; END $$"]
        )

    def _held(self) -> None:
        """Begin a transaction that is open while others commit and runs come and go; half of it below a savepoint."""
        if len(self._waiting) > 2:
            return
        session = psycopg.connect(self._url, autocommit=True)
        session.execute("SET lock_timeout = '20ms'")
        held = ["BEGIN", "SELECT now()", self._change(), "SAVEPOINT a", self._change()]
        if not self._try(session, held):
            session.close()
        else:
            self._waiting.append((self._random.randint(20, 200), session))

    def _commit_held(self, step: int | None) -> None:
        kept = []
        for steps, session in self._waiting:
            if step is None or steps <= 0:
                session.execute("RELEASE a; COMMIT")
                session.close()
            else:
                kept.append((steps - 1, session))
        self._waiting = kept

    def _try(self, session: psycopg.Connection[Any], steps: list[str]) -> bool:
        try:
            for statement in steps:
                session.execute(statement.encode())
        except (psycopg.errors.DeadlockDetected, psycopg.errors.LockNotAvailable):
            if session.info.transaction_status != psycopg.pq.TransactionStatus.IDLE:
                session.execute("ROLLBACK")
            return False
        return True


@dataclass
class Reader:
    """What runs have read of one stream: of each id the version read last, and where the stream, or a partition, stands."""

    url: str
    name: str
    config: dict[str, Any]
    partitions: int = 1
    chance: random.Random = field(default_factory=lambda: random.Random(7))
    read: dict[int, int] = field(default_factory=dict)
    cursors: dict[str, Any] = field(default_factory=dict)
    bounds: list[Partition] = field(default_factory=list)

    def run(self, *, killed: bool = True) -> int:
        """Read what changed, now and then with an attempt that is killed; return how many records came."""
        if self.partitions > 1 and not self.bounds:
            self.bounds = list(self._source.partitions(self._stream, None, None, ()))
            assert len(self.bounds) == self.partitions
        return sum(self._attempts(partition, killed=killed) for partition in (self.bounds or (None,)))

    def _attempts(self, partition: Partition | None, *, killed: bool) -> int:
        key, count = partition.id if partition else "", 0
        for attempts_left in (1, 0):
            stream = msgspec.structs.replace(self._stream, partition=partition)
            for batch in self._source.read(stream, None, self.cursors.get(key)):
                for record in batch.records:
                    assert isinstance(record, dict)
                    self.read[record["id"]] = record["v"]
                    count += 1
                self.cursors[key] = msgspec.json.decode(msgspec.json.encode(batch.cursor))
                if killed and attempts_left and self.chance.random() < 0.1:
                    self.close()  # the next attempt has a session of its own
                    break
            else:
                return count
        return count

    @cached_property
    def _source(self) -> PostgresSql:
        source = connector(self.url, fetch_size=9, partitions=self.partitions, partition_rows=10, **self.config)
        source.authenticate()
        return source

    @cached_property
    def _stream(self) -> Stream:
        return {stream.name: stream for stream in self._source.discover()}[self.name]

    def close(self) -> None:
        if "_source" in self.__dict__:
            self.__dict__.pop("_source").close()
        self.__dict__.pop("_stream", None)


@pytest.fixture
def readers(source_url: str, execute: Callable[[str], None]) -> Iterator[list[Reader]]:
    make(execute)
    fields = {f"public.{name}": "at" for name in TABLES}
    made = [Reader(source_url, f"public.{name}", {"cursor_fields": fields}) for name in TABLES]
    split = [Reader(source_url, f"public.{name}", {"cursor_fields": fields}, 3) for name in ("parted", "t_text")]
    yield [*made, *split]
    for reader in [*made, *split]:
        reader.close()


def test_every_last_version_is_read_whatever_the_writers_do(source_url: str, readers: list[Reader]) -> None:
    """Thousands of commits, savepoints, rollbacks and transactions across runs, for every type of cursor."""
    writers = [
        threading.Thread(target=Writer(source_url, seed).run, args=(COMMITS,), daemon=True) for seed in range(WRITERS)
    ]
    with ExitStack() as held:
        late = held.enter_context(psycopg.connect(source_url))
        for name in TABLES:  # open from before the first run to after the last one that has writers beside it
            late.execute(f"SAVEPOINT s; INSERT INTO {name} VALUES (1000, 1, {TABLES[name]}); RELEASE s".encode())
        for writer in writers:
            writer.start()
        rounds, chance = 0, random.Random(3)
        while any(writer.is_alive() for writer in writers) or rounds < 2:
            for reader in chance.sample(readers, 6):
                reader.run()
            rounds += 1
        late.execute("SELECT pg_sleep(%s)", [OPEN_SECONDS])
        for reader in readers:
            reader.run()
        late.commit()
    for reader in readers:
        reader.run()
    with psycopg.connect(source_url) as oracle:
        for reader in readers:
            wanted = dict(oracle.execute(f"SELECT id, v FROM {reader.name}".encode()).fetchall())
            assert reader.read == wanted, reader.name
            assert wanted[1000] == 1
    for reader in readers:
        assert reader.run(killed=False) == 0, f"{reader.name}: nothing was written, and something was read again"
