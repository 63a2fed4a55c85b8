"""postgres-sql on a real server: nothing lost, nothing doubled, nothing rounded, and every error says what to do."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import psycopg
import pytest
from penstock_operator.embedded.postgres import EmbeddedPostgres
from penstock_postgres_sql import PostgresSql
from penstock_postgres_sql.connector import PostgresConfig, PostgresCredentials
from penstock_sdk import AuthenticationError, ConfigError, SourceContractError, Stream, TransientError, Window
from penstock_sdk.manifest import Followed, unsafe_cursor
from psycopg.conninfo import conninfo_to_dict

Row = dict[str, Any]
Open = Callable[..., PostgresSql]


def connector(url: str, *, password: str | None = None, user: str | None = None, **config: Any) -> PostgresSql:
    parts = {key: str(value) for key, value in conninfo_to_dict(url).items()}
    known = {"host": parts["host"], "port": int(parts["port"]), "database": parts["dbname"], "sslmode": "disable"}
    credentials = PostgresCredentials(username=user or parts["user"], password=password or parts["password"])
    return PostgresSql(PostgresConfig(**{**known, **config}), credentials)


@pytest.fixture
def opened(source_url: str) -> Iterator[Open]:
    """Connectors with a session, closed at the end."""
    made: list[PostgresSql] = []

    def open_one(**config: Any) -> PostgresSql:
        made.append(connector(source_url, **config))
        made[-1].authenticate()
        return made[-1]

    yield open_one
    for opened_connector in made:
        opened_connector.close()


def stream_of(source: PostgresSql, name: str) -> Stream:
    return {stream.name: stream for stream in source.discover()}[name]


def rows(source: PostgresSql, name: str, cursor: Any = None) -> list[Row]:
    """What reaches Bronze: through JSON and back, with numbers kept as text."""
    return [
        msgspec.json.decode(msgspec.json.encode(record))
        for batch in source.read(stream_of(source, name), None, cursor)
        for record in batch.records
    ]


LITERALS = [
    ("numeric", "'12345678901234567890.12345678901234567890'", "12345678901234567890.12345678901234567890"),
    ("numeric", "'NaN'", "NaN"),
    ("numeric", "'Infinity'", "Infinity"),
    ("numeric(10,2)", "1", "1.00"),
    ("bigint", "9223372036854775807", 9223372036854775807),
    ("boolean", "true", True),
    ("real", "0.1", 0.1),
    ("double precision", "'NaN'", "NaN"),
    ("double precision", "'-Infinity'", "-Infinity"),
    ("double precision", "0.1", 0.1),
    ("timestamptz", "'2024-05-06 07:08:09.123456+02'", "2024-05-06T05:08:09.123456Z"),
    ("timestamptz", "'infinity'", "infinity"),
    ("timestamptz", "'0044-03-15 12:00:00+00 BC'", "0044-03-15 12:00:00+00 BC"),
    ("timestamptz(3)", "'2024-05-06 07:08:09.123456Z'", "2024-05-06T07:08:09.123Z"),
    ("timestamp", "'2024-05-06 07:08:09.123456'", "2024-05-06 07:08:09.123456"),
    ("date", "'-infinity'", "-infinity"),
    ("date", "'12024-01-01'", "12024-01-01"),
    ("time", "'24:00:00'", "24:00:00"),
    ("timetz", "'12:00:00+05:30'", "12:00:00+05:30"),
    ("interval", "'1 year 2 mons 3 days 04:05:06.789'", "P1Y2M3DT4H5M6.789S"),
    ("bytea", "'\\x00ff10'", "AP8Q"),
    ("uuid", "'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"),
    ("inet", "'10.0.0.1/8'", "10.0.0.1/8"),
    ("money", "'12.34'", "$12.34"),
    ("int4range", "'[1,5)'", "[1,5)"),
    ("bit(3)", "B'101'", "101"),
    ("point", "'(1,2)'", "(1,2)"),
    ("tsvector", "'a b'", "'a' 'b'"),
    ("char(3)", "'a'", "a  "),
    ("text", "E'line\\n\"quote\" \\u00e9'", 'line\n"quote" \u00e9'),
    ("jsonb", """'{"a": [1, null, "x"]}'""", {"a": [1, None, "x"]}),
    ("json", "E'{\\n \"a\": 1}'", {"a": 1}),
    ("int[]", "'{{1,2},{3,NULL}}'", [[1, 2], [3, None]]),
    ("numeric[]", "'{1.10,NaN}'", ["1.10", "NaN"]),
    ("timestamptz[]", "'{2024-01-01 00:00:00Z}'", ["2024-01-01T00:00:00Z"]),
    ("jsonb[]", """ARRAY['{"a":1}'::jsonb]""", [{"a": 1}]),
    ("float8[]", "'{Infinity,1}'", ["Infinity", 1.0]),
    ("mood", "'sad'", "sad"),
    ("mood[]", "'{sad,ok}'", ["sad", "ok"]),
    ("pair", "ROW(1,'x')", "(1,x)"),
    ("pair[]", "ARRAY[ROW(1,'x')::pair]", ["(1,x)"]),
    ("amount", "1.5", "1.5"),
    ("amount[]", "'{1.5}'", ["1.5"]),
    ("whole", "7", 7),
    ("text", "NULL", None),
]


def test_values_are_kept_as_they_are(opened: Open, execute: Callable[[str], None]) -> None:
    execute("CREATE TYPE mood AS ENUM ('sad', 'ok'); CREATE TYPE pair AS (a int, b text)")
    execute("CREATE DOMAIN amount AS numeric CHECK (VALUE > 0); CREATE DOMAIN whole AS int")
    columns = ", ".join(f"c{index} {type_}" for index, (type_, _, _) in enumerate(LITERALS))
    execute(f"CREATE TABLE kinds ({columns})")
    execute(f"INSERT INTO kinds VALUES ({', '.join(literal for _, literal, _ in LITERALS)})")
    [row] = rows(opened(), "public.kinds")
    assert row == {f"c{index}": value for index, (_, _, value) in enumerate(LITERALS)}


def test_numbers_in_json_are_not_rounded(opened: Open, execute: Callable[[str], None]) -> None:
    execute("""CREATE TABLE docs AS SELECT '{"n": 123456789012345678901234567890.10}'::jsonb AS doc""")
    source = opened()
    [batch] = source.read(stream_of(source, "public.docs"), None, None)
    assert b"123456789012345678901234567890.10" in msgspec.json.encode(batch.records)


def test_schemas_say_what_values_are(opened: Open, execute: Callable[[str], None]) -> None:
    execute("CREATE DOMAIN whole AS int")
    execute("CREATE TABLE t (id bigint PRIMARY KEY, w whole NOT NULL, at timestamptz(3) NOT NULL, b bytea)")
    properties = stream_of(opened(), "public.t").schema["properties"]
    assert properties["w"] == {"x-sql-type": "whole", "type": "integer"}
    assert properties["at"] == {"x-sql-type": "timestamp(3) with time zone", "type": "string", "format": "date-time"}
    assert properties["b"]["type"] == ["string", "null"]


def test_what_is_discovered(opened: Open, execute: Callable[[str], None]) -> None:
    execute("CREATE TABLE followed (id int PRIMARY KEY, updated_at timestamp(3) NOT NULL)")
    execute("CREATE TABLE numbered (id bigserial PRIMARY KEY, updated_at timestamptz)")
    execute("CREATE TABLE keyless (updated_at timestamptz NOT NULL)")
    execute("CREATE TABLE wide (id int, extra text, PRIMARY KEY (id) INCLUDE (extra))")
    execute("CREATE TABLE parted (id int PRIMARY KEY) PARTITION BY RANGE (id)")
    execute("CREATE TABLE part1 PARTITION OF parted DEFAULT")
    execute("CREATE TABLE parent (id int PRIMARY KEY); CREATE TABLE child () INHERITS (parent)")
    execute("CREATE VIEW seen AS SELECT 1 AS one; CREATE MATERIALIZED VIEW kept AS SELECT 1 AS one")
    found = {
        stream.name.removeprefix("public."): (stream.primary_key, stream.cursor_field) for stream in opened().discover()
    }
    assert found == {
        "followed": (("id",), "updated_at"),
        "numbered": (("id",), "id"),
        "keyless": ((), None),
        "wide": (("id",), "id"),
        "parted": (("id",), "id"),
        "parent": ((), None),
        "child": ((), None),
        "seen": ((), None),
        "kept": ((), None),
    }


def test_schemas_are_chosen(opened: Open, execute: Callable[[str], None]) -> None:
    execute("CREATE SCHEMA one; CREATE TABLE one.t (a int); CREATE SCHEMA two; CREATE TABLE two.t (a int)")
    assert [stream.name for stream in opened(schemas=["two"]).discover()] == ["two.t"]


TIED = """
CREATE TABLE tied (id int PRIMARY KEY, updated_at timestamptz NOT NULL);
INSERT INTO tied SELECT n, '2024-01-01'::timestamptz + (n * 7919 % 5) * interval '1 microsecond' FROM generate_series(1, 97) n
"""
COMPOSED = """
CREATE TABLE tied (device text, seq numeric NOT NULL, PRIMARY KEY (device, seq));
INSERT INTO tied SELECT 'd' || n % 7, n / 10 FROM generate_series(1, 97) n ON CONFLICT DO NOTHING
"""


@pytest.mark.parametrize(
    ("made", "config"), [(TIED, {}), (COMPOSED, {}), (COMPOSED, {"cursor_fields": {"public.tied": "seq"}})]
)
def test_a_read_resumes_from_every_cursor(
    opened: Open, execute: Callable[[str], None], made: str, config: dict[str, Any]
) -> None:
    """Resumed from any batch's cursor, a read gives everything after it and nothing before."""
    execute(made)
    source = opened(fetch_size=4, **config)
    whole = rows(source, "public.tied")
    assert len({tuple(row.values()) for row in whole}) == len(whole) > 40
    batches = list(source.read(stream_of(source, "public.tied"), None, None))
    for after, batch in zip(itertools.accumulate(len(item.records) for item in batches), batches, strict=True):
        kept = msgspec.json.decode(msgspec.json.encode(batch.cursor))
        assert rows(source, "public.tied", kept) == whole[after:]


def test_incremental_follows_the_cursor_field_before_the_key(opened: Open, execute: Callable[[str], None]) -> None:
    """A row with an earlier key and a later cursor value comes with the next run."""
    execute("CREATE TABLE t (device text, seq int, PRIMARY KEY (device, seq)); INSERT INTO t VALUES ('b', 1)")
    source = opened(cursor_fields={"public.t": "seq"})
    batch, _ = source.read(stream_of(source, "public.t"), None, None)
    execute("INSERT INTO t VALUES ('a', 2)")
    assert rows(source, "public.t", batch.cursor) == [{"device": "a", "seq": 2}]


def test_without_a_key_nothing_is_covered(opened: Open, execute: Callable[[str], None]) -> None:
    execute("CREATE TABLE t AS SELECT n, now() AS updated_at FROM generate_series(1, 10) n")
    execute("ALTER TABLE t ALTER updated_at SET NOT NULL")
    source = opened(fetch_size=3)
    batches = list(source.read(stream_of(source, "public.t"), None, None))
    assert [len(batch.records) for batch in batches] == [3, 3, 3, 1]
    assert {batch.cursor for batch in batches} == {None}


@pytest.mark.parametrize(
    ("column", "why"), [("gone", "no such column"), ("maybe", "may be null"), ("doc", "has no order")]
)
def test_a_cursor_field_that_would_lose_rows_is_refused(
    opened: Open, execute: Callable[[str], None], column: str, why: str
) -> None:
    execute("CREATE TABLE t (id int PRIMARY KEY, maybe timestamptz, doc json NOT NULL)")
    execute("CREATE TABLE other (id int PRIMARY KEY)")
    source = opened(cursor_fields={"public.t": column})
    with pytest.raises(ConfigError, match=why):
        list(source.read(stream_of(source, "public.t"), None, None))
    assert list(source.read(stream_of(source, "public.other"), None, None)), "the other table is read"


def test_the_newest_rows_are_left_for_the_next_run(opened: Open, execute: Callable[[str], None]) -> None:
    execute("CREATE TABLE t (id int PRIMARY KEY, updated_at timestamptz NOT NULL)")
    execute("INSERT INTO t VALUES (1, now() - interval '1 hour'), (2, now())")
    source = opened(change_tracking="cursor", cursor_lag_seconds=60)
    assert [row["id"] for row in rows(source, "public.t")] == [1]


@pytest.mark.parametrize("type_", ["timestamptz", "timestamp"])
def test_a_window_is_half_open_and_goes_on_within_itself(
    opened: Open, execute: Callable[[str], None], type_: str
) -> None:
    execute(f"CREATE TABLE t (id int PRIMARY KEY, updated_at {type_} NOT NULL)")
    execute(
        "INSERT INTO t SELECT n, '2026-01-01 00:00:00+00'::timestamptz + n / 3 * interval '1 hour' FROM generate_series(0, 29) n"
    )
    source = opened(fetch_size=4)
    stream = stream_of(source, "public.t")
    assert stream.windows
    start = datetime(2026, 1, 1, 2, tzinfo=UTC)
    asked = msgspec.structs.replace(stream, window=Window(start, start + timedelta(hours=5)))
    batches = list(source.read(asked, start, None))
    ids = [[row["id"] for row in batch.records] for batch in batches]
    assert [id_ for batch in ids for id_ in batch] == list(range(6, 21))
    for place, batch in enumerate(batches):
        rest = source.read(asked, start, batch.cursor)
        assert [row["id"] for later in rest for row in later.records] == [n for b in ids[place + 1 :] for n in b]
    assert source.estimate(asked, start, None).records is not None


def test_only_a_table_that_is_followed_by_time_has_windows(opened: Open, execute: Callable[[str], None]) -> None:
    execute("CREATE TABLE t (id int PRIMARY KEY)")
    assert not stream_of(opened(), "public.t").windows


@pytest.mark.parametrize("column", ["timestamptz", "timestamptz(0)", "numeric", "date", "text", "int[]"])
def test_no_cursor_is_left_unsafe(opened: Open, execute: Callable[[str], None], column: str) -> None:
    execute(f"CREATE TABLE t (id int PRIMARY KEY, at {column} NOT NULL)")
    stream = stream_of(opened(cursor_fields={"public.t": "at"}), "public.t")
    judged = Followed(stream.schema, stream.primary_key, stream.cursor_field, stream.modes, stream.cursor_care)
    assert [rule.name for rule in unsafe_cursor(judged)] == []


def test_any_name_will_do(opened: Open, execute: Callable[[str], None]) -> None:
    execute("""CREATE TABLE "Odd %s {x} ""t""" + '"' + """ ("100%" int PRIMARY KEY, "se""lect" text, "{}" int)""")
    execute("""INSERT INTO "Odd %s {x} ""t""" + '"' + " VALUES (1, 'a', 2), (2, 'b', 3)")
    source = opened(fetch_size=1)
    name = 'public.Odd %s {x} "t'
    first = next(iter(source.read(stream_of(source, name), None, None)))
    assert rows(source, name, first.cursor) == [{"100%": 2, 'se"lect': "b", "{}": 3}]


def test_a_read_sees_one_moment(opened: Open, execute: Callable[[str], None]) -> None:
    execute("CREATE TABLE t AS SELECT n FROM generate_series(1, 10) n")
    source = opened(fetch_size=5)
    reading = source.read(stream_of(source, "public.t"), None, None)
    next(reading)
    execute("INSERT INTO t SELECT n FROM generate_series(11, 20) n")
    assert sum(len(batch.records) for batch in reading) == 5


def test_a_refused_password_is_named_without_being_told(source_url: str) -> None:
    with pytest.raises(AuthenticationError, match=r"penstock@127\.0\.0\.1:\d+/.*Secret") as refused:
        connector(source_url, password="wrong-one").authenticate()
    assert "wrong-one" not in str(refused.value)


def test_an_unknown_role_is_refused(source_url: str) -> None:
    with pytest.raises(AuthenticationError, match="nobody_here@"):
        connector(source_url, user="nobody_here").authenticate()


def test_an_unknown_database_is_the_config(source_url: str) -> None:
    with pytest.raises(ConfigError, match="no such database"):
        connector(source_url, database='a role "r" none').authenticate()


def test_nobody_listening_is_for_later(source_url: str) -> None:
    with pytest.raises(TransientError, match="cannot be reached"):
        connector(source_url, port=1).authenticate()


@pytest.mark.parametrize("change", ["DROP TABLE t", "ALTER TABLE t DROP COLUMN b", "ALTER TABLE t RENAME TO u"])
def test_a_source_that_changed_is_named(opened: Open, execute: Callable[[str], None], change: str) -> None:
    execute("CREATE TABLE t (id int PRIMARY KEY, b text)")
    source = opened()
    stream = stream_of(source, "public.t")
    execute(change)
    with pytest.raises(SourceContractError, match=r"public\.t"):
        list(source.read(stream, None, None))


def test_a_view_that_fails_is_the_source(opened: Open, execute: Callable[[str], None]) -> None:
    execute("CREATE TABLE n (i int); INSERT INTO n VALUES (0); CREATE VIEW v AS SELECT 1 / i AS x FROM n")
    source = opened()
    with pytest.raises(SourceContractError, match="division by zero"):
        rows(source, "public.v")


def test_a_statement_that_takes_too_long_is_for_later(opened: Open, execute: Callable[[str], None]) -> None:
    execute("CREATE VIEW slow AS SELECT pg_sleep(5)::text AS x")
    with pytest.raises(TransientError, match="statement timeout"):
        rows(opened(statement_timeout_seconds=0.1), "public.slow")


def test_a_session_that_is_cut_is_for_later(opened: Open, execute: Callable[[str], None]) -> None:
    execute("CREATE TABLE t AS SELECT n FROM generate_series(1, 10) n")
    source = opened(fetch_size=2)
    reading = source.read(stream_of(source, "public.t"), None, None)
    next(reading)
    execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'penstock' AND datname = current_database()"
    )
    with pytest.raises(TransientError, match="connection to the database was lost"):
        list(reading)


def test_a_server_that_stops_mid_read_is_for_later(tmp_path_factory: pytest.TempPathFactory) -> None:
    with EmbeddedPostgres(tmp_path_factory.mktemp("stopped") / "server") as server:
        with psycopg.connect(server.url, autocommit=True) as connection:
            connection.execute("CREATE TABLE t AS SELECT n FROM generate_series(1, 10) n")
        source = connector(server.url, fetch_size=2)
        source.authenticate()
        reading = source.read(stream_of(source, "public.t"), None, None)
        next(reading)
        server.stop()
        with pytest.raises(TransientError):
            list(reading)
        source.close()
