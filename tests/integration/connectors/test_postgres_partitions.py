"""postgres-sql's ranges: each row is in one of them, whatever the key's type, also a row that comes later."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest
from penstock_postgres_sql import PostgresSql
from penstock_sdk import Partition, SourceContractError, Stream

from tests.integration.connectors.test_postgres_sql import connector

Open = Callable[..., PostgresSql]


@pytest.fixture
def opened(source_url: str) -> Iterator[Open]:
    """Connectors with a session, that split small tables too."""
    made: list[PostgresSql] = []

    def open_one(**config: Any) -> PostgresSql:
        made.append(connector(source_url, **{"partitions": 4, "partition_rows": 50, "fetch_size": 70, **config}))
        made[-1].authenticate()
        return made[-1]

    yield open_one
    for made_connector in made:
        made_connector.close()


def stream_of(source: PostgresSql, name: str = "public.t") -> Stream:
    return {stream.name: stream for stream in source.discover()}[name]


def parts_of(source: PostgresSql) -> list[Partition]:
    """The ranges, as they come back from the state."""
    found = source.partitions(stream_of(source), None, None, ())
    return [msgspec.json.decode(msgspec.json.encode(partition), type=Partition) for partition in found]


def keys(source: PostgresSql, part: Partition | None, cursor: Any = None) -> list[str]:
    stream = msgspec.structs.replace(stream_of(source), partition=part)
    batches = source.read(stream, None, cursor)
    return [msgspec.json.encode(row[stream.primary_key[0]]).decode() for batch in batches for row in batch.records]


KEYS = {
    "bigint": "n * 1000003 % 7919 - 4000",
    "integer": "n * n",
    "text": "chr(n % 90 + 33) || n",
    'text COLLATE "C"': "chr(n % 90 + 33) || n",
    "varchar(8)": "'k' || n",
    "char(8)": "'k' || n",
    "uuid": "md5(n::text)::uuid",
    "timestamptz": "'2024-01-01'::timestamptz + n * interval '7 hours 0.000001 seconds'",
    "timestamp(3)": "'2024-01-01'::timestamp + n * interval '7 hours 0.001 seconds'",
    "date": "'2024-01-01'::date + n",
    "numeric(12,4)": "n / 3.0",
    "numeric": "CASE n WHEN 1 THEN 'NaN' WHEN 2 THEN '-Infinity' ELSE n / 7.0 END",
    "double precision": "CASE n WHEN 1 THEN 'NaN' WHEN 2 THEN 'Infinity' ELSE n / 7.0 END",
    "bytea": "decode(md5(n::text), 'hex')",
    "inet": "'10.0.0.0'::inet + n",
    "interval": "n * interval '1 hour 1 second'",
    "name": "('n' || n)::name",
    "positive": "n + 1",
}


@pytest.mark.parametrize("type_", KEYS)
def test_each_row_is_in_one_partition(opened: Open, execute: Callable[[str], None], type_: str) -> None:
    execute("CREATE DOMAIN positive AS int CHECK (VALUE > 0)")
    execute(f"CREATE TABLE t (k {type_} PRIMARY KEY)")
    execute(f"INSERT INTO t SELECT {KEYS[type_]} FROM generate_series(1, 400) n ON CONFLICT DO NOTHING; ANALYZE t")
    source = opened()
    parts = parts_of(source)
    assert len(parts) == 4
    found = [keys(source, part) for part in parts]
    assert Counter(itertools.chain(*found)) == Counter(keys(source, None))
    assert min(map(len, found)) > 60, "ranges are of about the same length"


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_rows_that_share_the_first_column_stay_together(
    opened: Open, execute: Callable[[str], None], count: int
) -> None:
    """A key of several columns, whose first has few values: ranges may be empty, and no row is lost."""
    execute("CREATE TABLE t (region text, n int, PRIMARY KEY (region, n))")
    execute(f"INSERT INTO t SELECT 'r' || n % {count}, n FROM generate_series(1, 400) n; ANALYZE t")
    source = opened()
    parts = parts_of(source)
    assert sum(len(keys(source, part)) for part in parts) == 400
    assert len(parts) <= 4


def test_rows_that_come_later_are_in_a_partition_too(opened: Open, execute: Callable[[str], None]) -> None:
    execute("CREATE TABLE t (k int PRIMARY KEY); INSERT INTO t SELECT generate_series(1, 400); ANALYZE t")
    source = opened()
    parts = parts_of(source)
    execute("INSERT INTO t VALUES (-2147483648), (0), (401), (2147483647)")
    assert sorted(int(key) for part in parts for key in keys(source, part)) == [-(2**31), *range(402), 2**31 - 1]


def test_a_partition_resumes_from_every_cursor(opened: Open, execute: Callable[[str], None]) -> None:
    execute("CREATE TABLE t (k int PRIMARY KEY, updated_at timestamptz NOT NULL)")
    execute(
        "INSERT INTO t SELECT n, '2024-01-01'::timestamptz + n % 5 * interval '1 s' FROM generate_series(1, 400) n; ANALYZE t"
    )
    source = opened(fetch_size=9)
    for part in parts_of(source):
        whole = keys(source, part)
        stream = msgspec.structs.replace(stream_of(source), partition=part)
        batches = list(source.read(stream, None, None))
        for after, batch in zip(itertools.accumulate(len(item.records) for item in batches), batches, strict=True):
            assert keys(source, part, msgspec.json.decode(msgspec.json.encode(batch.cursor))) == whole[after:]


def test_the_next_run_keeps_the_partitions_and_reads_what_is_new_in_each(
    opened: Open, execute: Callable[[str], None]
) -> None:
    execute("CREATE TABLE t (k int PRIMARY KEY, updated_at timestamptz NOT NULL DEFAULT now())")
    execute("INSERT INTO t SELECT generate_series(1, 400); ANALYZE t")
    source = opened()
    parts = parts_of(source)
    cursors = {}
    for part in parts:
        stream = msgspec.structs.replace(stream_of(source), partition=part)
        cursors[part.id] = [batch.cursor for batch in source.read(stream, None, None)][-1]
    execute("INSERT INTO t SELECT generate_series(401, 5000); UPDATE t SET updated_at = now() WHERE k = 7; ANALYZE t")
    kept = opened().partitions(stream_of(source), None, None, parts)
    assert kept == parts
    again = sorted(int(key) for part in parts for key in keys(source, part, cursors[part.id]))
    assert again == [7, *range(401, 5001)]


def test_partitions_are_the_same_for_as_long_as_the_table_is(opened: Open, execute: Callable[[str], None]) -> None:
    execute("CREATE TABLE t (k uuid PRIMARY KEY, filler text)")
    execute(
        "INSERT INTO t SELECT md5(n::text)::uuid, repeat('x', 200) FROM generate_series(1, 40000) n; ANALYZE t"
    )  # more than the sample
    assert parts_of(opened()) == parts_of(opened())
    assert len({partition.id for partition in parts_of(opened())}) == 4


@pytest.mark.parametrize(
    ("made", "config"),
    [
        ("CREATE TABLE t AS SELECT generate_series(1, 400) AS k", {}),
        ("CREATE TABLE t (k int PRIMARY KEY); INSERT INTO t SELECT generate_series(1, 400)", {"partition_rows": 401}),
        ("CREATE TABLE t (k int PRIMARY KEY); INSERT INTO t SELECT generate_series(1, 400)", {"partitions": 1}),
        ("CREATE TABLE t (k int PRIMARY KEY)", {}),
    ],
    ids=["without a key", "too small", "not asked for", "empty"],
)
def test_a_table_is_read_in_one(
    opened: Open, execute: Callable[[str], None], made: str, config: dict[str, Any]
) -> None:
    execute(f"{made}; ANALYZE t")
    assert parts_of(opened(**config)) == []


def test_a_read_in_one_goes_on_in_one(opened: Open, execute: Callable[[str], None]) -> None:
    execute("CREATE TABLE t (k int PRIMARY KEY); INSERT INTO t SELECT generate_series(1, 400); ANALYZE t")
    source = opened()
    batch = next(iter(source.read(stream_of(source), None, None)))
    assert source.partitions(stream_of(source), None, batch.cursor, ()) == ()


def test_a_table_of_many_partitions_is_divided_as_one(opened: Open, execute: Callable[[str], None]) -> None:
    execute("CREATE TABLE t (k int PRIMARY KEY) PARTITION BY HASH (k)")
    for number in range(3):
        execute(f"CREATE TABLE t{number} PARTITION OF t FOR VALUES WITH (MODULUS 3, REMAINDER {number})")
    execute("INSERT INTO t SELECT generate_series(1, 400); ANALYZE t")
    source = opened()
    parts = parts_of(source)
    assert len(parts) == 4
    assert sorted(int(key) for part in parts for key in keys(source, part)) == list(range(1, 401))


def test_a_key_that_changed_says_what_to_do(opened: Open, execute: Callable[[str], None]) -> None:
    execute(
        "CREATE TABLE t (k int PRIMARY KEY, other int UNIQUE); INSERT INTO t SELECT n, n FROM generate_series(1, 400) n"
    )
    execute("ANALYZE t")
    parts = parts_of(opened())
    execute("ALTER TABLE t DROP CONSTRAINT t_pkey; ALTER TABLE t ADD PRIMARY KEY (other)")
    source = opened()
    with pytest.raises(SourceContractError, match=r"public\.t.*partitions .* by the column 'k'.*reset the state"):
        source.partitions(stream_of(source), None, None, parts)
    with pytest.raises(SourceContractError, match="reset the state"):
        keys(source, parts[1])


def test_an_estimate_is_of_the_partition(opened: Open, execute: Callable[[str], None]) -> None:
    execute("CREATE TABLE t (k int PRIMARY KEY); INSERT INTO t SELECT generate_series(1, 4000); ANALYZE t")
    source = opened()
    stream = stream_of(source)
    found = [
        source.estimate(msgspec.structs.replace(stream, partition=part), None, None).records
        for part in parts_of(source)
    ]
    assert all(count is not None and 800 < count < 1200 for count in found)


def test_a_partition_that_cannot_be_read_says_what_to_do(opened: Open, execute: Callable[[str], None]) -> None:
    execute("CREATE TABLE t (k int PRIMARY KEY)")
    with pytest.raises(SourceContractError, match="reset the state"):
        keys(opened(), Partition(id="x", bounds=[1, 2]))
