"""postgres-sql where sources hide, withhold, restrict or garble what is asked for: read rightly, or refused by name."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import psycopg
import pytest
from penstock_postgres_sql import PostgresSql
from penstock_sdk import AuthenticationError, ConfigError, ConnectorError, SourceContractError, Stream, TransientError

from tests.integration.connectors.test_postgres_sql import connector

Execute = Callable[[str], None]
ROLE, PASSWORD = "source_reader", "a-password-of-the-trial"


@pytest.fixture
def role(execute: Execute) -> Iterator[str]:
    """A role that owns nothing."""
    execute(f"CREATE ROLE {ROLE} LOGIN PASSWORD '{PASSWORD}'")
    yield ROLE
    execute(f"DROP OWNED BY {ROLE}; DROP ROLE {ROLE}")


@pytest.fixture
def as_role(source_url: str, role: str) -> Iterator[Callable[..., PostgresSql]]:
    """Connectors with a session of that role."""
    made: list[PostgresSql] = []

    def open_one(**config: Any) -> PostgresSql:
        made.append(connector(source_url, user=role, password=PASSWORD, **config))
        made[-1].authenticate()
        return made[-1]

    yield open_one
    for source in made:
        source.close()


def streams(source: PostgresSql) -> dict[str, Stream]:
    return {stream.name.removeprefix("public."): stream for stream in source.discover()}


def rows(source: PostgresSql, name: str, cursor: Any = None) -> list[dict[str, Any]]:
    """What reaches Bronze: through JSON and back."""
    batches = source.read(streams(source)[name], None, cursor)
    return [msgspec.json.decode(msgspec.json.encode(record)) for batch in batches for record in batch.records]


def last_cursor(source: PostgresSql, name: str, cursor: Any = None) -> Any:
    return [batch.cursor for batch in source.read(streams(source)[name], None, cursor)][-1]


HIDING = {
    "table": "GRANT SELECT ON secret TO {role}",
    "partitioned": "CREATE TABLE p (id int PRIMARY KEY) PARTITION BY HASH (id);"
    "CREATE TABLE p0 PARTITION OF p FOR VALUES WITH (MODULUS 1, REMAINDER 0); INSERT INTO p SELECT generate_series(1, 10);"
    "ALTER TABLE p ENABLE ROW LEVEL SECURITY; CREATE POLICY few ON p FOR SELECT TO {role} USING (id <= 3);"
    "DROP VIEW v; ALTER TABLE secret RENAME TO other; ALTER TABLE p RENAME TO secret; GRANT SELECT ON secret TO {role}",
    "view of the invoker": "GRANT SELECT ON secret TO {role}; ALTER VIEW v SET (security_invoker = true);"
    "ALTER TABLE secret RENAME TO other; ALTER VIEW v RENAME TO secret; GRANT SELECT ON secret, other TO {role}",
}


@pytest.mark.parametrize("kind", HIDING)
def test_a_table_that_hides_rows_is_refused_and_the_others_are_read(
    as_role: Callable[..., PostgresSql], execute: Execute, kind: str
) -> None:
    execute("CREATE TABLE secret (id int PRIMARY KEY); INSERT INTO secret SELECT generate_series(1, 10)")
    execute("CREATE VIEW v AS SELECT * FROM secret; ALTER TABLE secret ENABLE ROW LEVEL SECURITY")
    execute(f"CREATE POLICY few ON secret FOR SELECT TO {ROLE} USING (id <= 3)")
    execute(f"CREATE TABLE plain (id int PRIMARY KEY); INSERT INTO plain VALUES (1); GRANT SELECT ON plain TO {ROLE}")
    execute(HIDING[kind].format(role=ROLE))
    source = as_role()
    with pytest.raises(
        SourceContractError, match=rf"public\.secret.*row-level security.*{ROLE}.*BYPASSRLS.*rowSecurity: apply"
    ):
        rows(source, "secret")
    assert rows(source, "plain") == [{"id": 1}], "the session goes on"
    assert len(rows(as_role(row_security="apply"), "secret")) == 3
    execute(f"ALTER ROLE {ROLE} BYPASSRLS")
    assert len(rows(as_role(), "secret")) == 10


def test_granted_columns_are_read(as_role: Callable[..., PostgresSql], execute: Execute) -> None:
    execute("CREATE TABLE c (id int PRIMARY KEY, pub text, private text); INSERT INTO c VALUES (1, 'a', 'b')")
    execute(f"GRANT SELECT (id, pub) ON c TO {ROLE}")
    source = as_role()
    assert rows(source, "c") == [{"id": 1, "pub": "a"}]
    stream = streams(source)["c"]
    assert (stream.primary_key, stream.modes) == (("id",), ("full",))
    assert "grant SELECT (xmin)" in stream.only_full
    execute(f"GRANT SELECT (xmin) ON c TO {ROLE}")
    source = as_role()
    assert streams(source)["c"].modes == ("full", "incremental")
    cursor = last_cursor(source, "c")
    execute("UPDATE c SET pub = 'z'")
    assert rows(source, "c", cursor) == [{"id": 1, "pub": "z"}]


def test_a_key_that_is_not_granted_is_named(as_role: Callable[..., PostgresSql], execute: Execute) -> None:
    execute("CREATE TABLE c (a int, b int, v text, PRIMARY KEY (a, b)); INSERT INTO c VALUES (1, 2, 'x')")
    execute(f"GRANT SELECT (a, v) ON c TO {ROLE}")
    source = as_role()
    assert rows(source, "c") == [{"a": 1, "v": "x"}]
    assert streams(source)["c"].primary_key == ()
    assert "may not read b of its primary key" in streams(source)["c"].only_full


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"schemas": ["G1"]}, r"spec\.config\.schemas: there is no schema 'G1'; did you mean 'g1'\?; there is: .*g1"),
        ({"schemas": ["nobody"]}, r"there is no schema 'nobody'; there is: .*public"),
        ({"schemas": ["g1", "empty"]}, None),
        ({"schemas": ["empty"]}, r"no table or view in the schemas empty"),
        ({"schemas": ["closed"]}, r"may not use the schema 'closed': GRANT USAGE ON SCHEMA \"closed\""),
        ({"schemas": ["bare"]}, r"may read none of the 1 tables and views of 'bare': GRANT SELECT ON \"bare\"\."),
        (
            {"cursor_fields": {"g1.orders": "id"}},
            r"cursorFields: there is no table 'g1\.orders'.*did you mean 'g1\.order'",
        ),
        (
            {"cursor_fields": {"g1.order": "updatedat"}},
            r"g1\.order\.updatedat.*no such column; did you mean 'updated_at'",
        ),
        ({"cursor_fields": {"g1.v": "id"}}, r"g1\.v"),
    ],
)
def test_what_matches_nothing_is_refused_by_the_nearest_name(
    as_role: Callable[..., PostgresSql], execute: Execute, config: dict[str, Any], message: str | None
) -> None:
    execute(
        "CREATE SCHEMA g1; CREATE SCHEMA empty; CREATE SCHEMA closed; CREATE SCHEMA bare; CREATE TABLE bare.t (a int)"
    )
    execute('CREATE TABLE g1."order" (id int PRIMARY KEY, updated_at timestamptz); CREATE VIEW g1.v AS SELECT 1 AS id')
    execute(f"GRANT USAGE ON SCHEMA g1, empty, bare TO {ROLE}; GRANT SELECT ON ALL TABLES IN SCHEMA g1 TO {ROLE}")
    source = as_role(**config)
    if message is None:
        assert [stream.name for stream in source.discover()] == ["g1.order", "g1.v"]
        return
    with pytest.raises(ConfigError, match=message):
        _raise_unavailable(source)


def _raise_unavailable(source: PostgresSql) -> None:
    for stream in source.discover():
        if stream.unavailable:
            raise stream.unavailable


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"schemas": []}, "is empty"),
        ({"host": "a,b"}, "one host"),
        ({"database": "a\0b"}, "database"),
        ({"sslmode": "verify-ca"}, "caCertificate"),
        ({"host": "no-such-host.invalid"}, "host"),
        ({"encoding": "latin-x"}, "encoding"),
    ],
)
def test_a_config_that_cannot_be_right_is_refused(source_url: str, config: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        connector(source_url, **config).authenticate()


def test_a_database_without_anything_to_read_is_refused(as_role: Callable[..., PostgresSql], execute: Execute) -> None:
    execute("CREATE TABLE t (a int)")
    with pytest.raises(ConfigError, match=r"no table or view in the database.*it has 1; .*GRANT SELECT ON"):
        as_role().discover()


RAISING = """
CREATE FUNCTION boom() RETURNS int LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION $$no$$; END';
CREATE VIEW b_raising AS SELECT boom() AS x
"""
FAILING = {
    "a_broken": ("CREATE VIEW a_broken AS SELECT id, 1 / (x - 10) AS y FROM t", "division by zero"),
    "b_raising": (
        RAISING,
        "no",
    ),
    "c_kept": ("CREATE MATERIALIZED VIEW c_kept AS SELECT 1 AS x WITH NO DATA", "has not been populated.*REFRESH"),
    "d_cast": ("CREATE VIEW d_cast AS SELECT ('x' || id)::int AS x FROM t", "invalid text representation"),
    "e_deep": ("CREATE VIEW e_deep AS SELECT repeat('[', 1000000)::json AS x", "stack depth"),
    "f_killed": (
        "CREATE VIEW f_killed AS SELECT pg_terminate_backend(pg_backend_pid())::text AS x",
        "connection to the database was lost",
    ),
}


def test_each_stream_fails_by_itself(source_url: str, execute: Execute) -> None:
    execute("CREATE TABLE t (id int PRIMARY KEY, x int); INSERT INTO t VALUES (1, 10); CREATE TABLE z AS SELECT 1 AS a")
    for made, _ in FAILING.values():
        execute(made)
    source = connector(source_url)
    source.authenticate()
    for name, (_, message) in FAILING.items():
        with pytest.raises(ConnectorError, match=rf"(?s)public\.{name}.*{message}"):
            rows(source, name)
        assert rows(source, "t") == [{"id": 1, "x": 10}]
        assert rows(source, "z") == [{"a": 1}]
    source.close()


def test_a_read_that_was_given_up_does_not_disturb_the_next(source_url: str, execute: Execute) -> None:
    execute("CREATE TABLE t AS SELECT n FROM generate_series(1, 10) n; CREATE TABLE u AS SELECT 1 AS a")
    source = connector(source_url, fetch_size=2)
    source.authenticate()
    left = source.read(streams(source)["t"], None, None)
    next(left)
    assert rows(source, "u") == [{"a": 1}]
    left.close()  # type: ignore[attr-defined]
    assert rows(source, "u") == [{"a": 1}]
    source.close()


ROLE_SETTINGS = {
    "datestyle": ["SQL, DMY", "German", "Postgres, MDY"],
    "intervalstyle": ["postgres", "sql_standard", "postgres_verbose"],
    "timezone": ["Asia/Kolkata", "America/New_York"],
    "extra_float_digits": ["-15", "0"],
    "bytea_output": ["escape"],
    "standard_conforming_strings": ["off"],
    "quote_all_identifiers": ["on"],
    "search_path": ["", "nowhere", '"$user", other'],
    "client_encoding": ["LATIN1", "UTF8"],
    "idle_in_transaction_session_timeout": ["500ms"],
    "idle_session_timeout": ["500ms"],
    "statement_timeout": ["200ms"],
    "lock_timeout": ["1ms"],
    "transaction_timeout": ["500ms"],
    "default_transaction_read_only": ["on"],
    "default_transaction_isolation": ["serializable"],
    "default_transaction_deferrable": ["on"],
    "row_security": ["off", "on"],
    "array_nulls": ["off"],
    "transform_null_equals": ["on"],
    "xmloption": ["document"],
    "enable_seqscan": ["off"],
    "jit": ["on"],
    "client_min_messages": ["debug1"],
    "default_text_search_config": ["simple"],
    "plan_cache_mode": ["force_generic_plan"],
}
VALUES_OF_SETTINGS = r"""
CREATE SCHEMA other; CREATE TYPE other.mood AS ENUM ('sad', 'ok');
CREATE TABLE set (id int PRIMARY KEY, d date, t timestamptz, s timestamp, i interval, f float8, r real, b bytea, x text,
                  a text[], m other.mood, ta timestamptz[], n numeric);
INSERT INTO set SELECT n, date '2024-01-01' + n, timestamptz '2024-01-01 00:00:00.123456+00' + n * interval '1 h',
    timestamp '2024-03-04', n * interval '1 day -1:02:03.5', n / 3.0, n / 7.0, '\x00ff'::bytea, E'back\\slash ''é',
    ARRAY[NULL, 'NULL', 'a'], 'ok', ARRAY[timestamptz '2024-01-01 00:00:00+00'], n / 3.0 FROM generate_series(1, 40) n;
"""


@pytest.mark.parametrize("seed", range(6))
def test_no_setting_of_a_role_changes_what_is_read(
    as_role: Callable[..., PostgresSql], execute: Execute, seed: int
) -> None:
    execute(VALUES_OF_SETTINGS)
    execute(f"GRANT USAGE ON SCHEMA other TO {ROLE}; GRANT SELECT ON set TO {ROLE}")
    plain = as_role(fetch_size=7)
    wanted, wanted_stream = rows(plain, "set"), streams(plain)["set"]
    chance = random.Random(seed)
    for name in chance.sample(list(ROLE_SETTINGS), 12) if seed else ROLE_SETTINGS:
        value = chance.choice(ROLE_SETTINGS[name])
        execute(f"ALTER ROLE {ROLE} SET {name} = {value if name == 'search_path' and value else repr(value)}")
    changed = as_role(fetch_size=7)
    assert streams(changed)["set"] == wanted_stream
    reading, found = changed.read(wanted_stream, None, None), list[dict[str, Any]]()
    for place, batch in enumerate(reading):
        if place == 1:
            execute("SELECT pg_sleep(0.6)")  # longer than the role lets a session stand idle
        found += msgspec.json.decode(msgspec.json.encode(batch.records))
    assert found == wanted
    [*_, cursor] = [batch.cursor for batch in plain.read(wanted_stream, None, None)]
    assert rows(changed, "set", cursor) == []


def backends_of(source_url: str) -> set[int]:
    """Return the process ids of the server's sessions with this database, without this one."""
    with psycopg.connect(source_url) as session:
        found = session.execute(
            "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
            " AND backend_type = 'client backend'"
        )
        return {pid for (pid,) in found}


@pytest.mark.parametrize("limit", [{"lock_timeout_seconds": 0.05}, {"statement_timeout_seconds": 0.3}])
def test_a_locked_table_fails_by_itself_and_the_session_reads_the_others(
    source_url: str, execute: Execute, limit: dict[str, float]
) -> None:
    """Its estimate, its ranges and its read; more of them than make a source count as away."""
    for number in range(4):
        execute(f"CREATE TABLE t{number} (id int PRIMARY KEY); INSERT INTO t{number} SELECT generate_series(1, 9)")
    source = connector(source_url, partition_rows=2, **limit)
    source.authenticate()
    sessions = backends_of(source_url)
    with psycopg.connect(source_url) as locking:
        locking.execute("LOCK TABLE t0, t1, t2 IN ACCESS EXCLUSIVE MODE")
        found = streams(source)
        for name in ("t0", "t1", "t2"):
            for call in (
                lambda: source.estimate(found[name], None, None),  # noqa: B023 - called at once
                lambda: source.partitions(found[name], None, None, ()),  # noqa: B023
                lambda: list(source.read(found[name], None, None)),  # noqa: B023
            ):
                with pytest.raises(
                    TransientError, match=rf"public\.{name}.*(lockTimeout|statementTimeout)Seconds"
                ) as raised:
                    call()
                assert raised.value.scope == "stream"
        assert len(rows(source, "t3")) == 9
    assert backends_of(source_url) == sessions
    assert len(rows(source, "t0")) == 9
    source.close()


def test_a_right_that_one_table_lacks_says_nothing_of_the_others(
    as_role: Callable[..., PostgresSql], execute: Execute
) -> None:
    execute("CREATE TABLE secret (id int); CREATE VIEW v WITH (security_invoker) AS SELECT * FROM secret")
    execute(f"GRANT SELECT ON v TO {ROLE}")
    with pytest.raises(AuthenticationError, match="grant SELECT") as raised:
        rows(as_role(), "v")
    assert raised.value.scope == "stream"


WITHHELD = {
    "public.secret": 'it exists, and the user may not read it: GRANT SELECT ON "public"."secret" TO "source_reader"',
    "public.sec view": 'GRANT SELECT ON "public"."sec view" TO "source_reader"',
    'shut."odd"': 'GRANT USAGE ON SCHEMA "shut" TO "source_reader"; GRANT SELECT ON "shut"."""odd""" TO "source_reader"',
    "shut.granted": 'may not read it: GRANT USAGE ON SCHEMA "shut" TO "source_reader"',
    "public.parted_1": "it is a partition of 'public.parted': select 'public.parted'",
    "public.numbers": "it is a sequence; only tables and views are streams",
    "public.none": "it has no column that could be read",
    "other.there": "its schema 'other' is not one of spec.config.schemas; add it there",
    "PUBLIC.Plain": "there is no such table; there is 'public.plain'",
    "plain": "there is no such table; there is 'public.plain': write the stream in spec.streams as schema.table",
    "pg_catalog.pg_class": "it belongs to the server itself",
}


@pytest.mark.parametrize("name", WITHHELD)
def test_a_table_that_is_there_and_not_offered_says_why(
    as_role: Callable[..., PostgresSql], execute: Execute, name: str
) -> None:
    """The statement in the message is one that the server takes, and it has the table offered."""
    execute('CREATE TABLE secret (id int); CREATE VIEW "sec view" AS SELECT 1 AS id; CREATE TABLE plain (id int)')
    execute('CREATE SCHEMA shut; CREATE TABLE shut."""odd""" (id int); CREATE TABLE shut.granted (id int)')
    execute(
        "CREATE TABLE parted (id int) PARTITION BY LIST (id); CREATE TABLE parted_1 PARTITION OF parted FOR VALUES IN (1)"
    )
    execute("CREATE SEQUENCE numbers; CREATE TABLE none (); CREATE SCHEMA other; CREATE TABLE other.there (id int)")
    execute(
        f"GRANT SELECT ON plain, parted, parted_1, none, other.there, shut.granted TO {ROLE}; GRANT USAGE ON SCHEMA other TO {ROLE}"
    )
    schemas = None if name.startswith("shut") else ["public"]
    source = as_role(schemas=schemas)
    assert name not in {stream.name for stream in source.discover()}
    reason = source.not_offered(name)
    assert reason is not None
    assert WITHHELD[name] in reason.message
    statements = [
        text.strip() for text in reason.message.split(": ")[-1].split(";") if text.strip().startswith("GRANT")
    ]
    for statement in statements:
        execute(statement)
    assert (name in {stream.name for stream in as_role(schemas=schemas).discover()}) == bool(statements)


@pytest.mark.parametrize("name", ["public.nothing", "", "a.b.c", "\0", "\ud800", "%s", "'"])
def test_a_name_that_the_database_does_not_know_is_the_platforms_to_tell(
    as_role: Callable[..., PostgresSql], execute: Execute, name: str
) -> None:
    execute(f"CREATE TABLE plain (id int); GRANT SELECT ON plain TO {ROLE}")
    assert as_role().not_offered(name) is None


def test_operators_of_an_extension_beside_the_search_path_order_the_read(source_url: str, execute: Execute) -> None:
    """Compared as text, a key of another schema's type would be resumed in another order than it is read in."""
    execute("CREATE SCHEMA ext")
    with psycopg.connect(source_url, autocommit=True) as session:
        if not session.execute("SELECT 1 FROM pg_available_extensions WHERE name = 'citext'").fetchone():
            pytest.skip("the server has no citext")
    execute("CREATE EXTENSION citext SCHEMA ext")
    execute("CREATE TABLE t (k ext.citext PRIMARY KEY)")
    execute(
        "INSERT INTO t SELECT chr(64 + n % 26 + CASE WHEN n % 2 = 0 THEN 32 ELSE 0 END) || n FROM generate_series(1, 60) n"
    )
    source = connector(source_url, fetch_size=3)
    source.authenticate()
    whole = rows(source, "t")
    assert len(whole) == 60
    batches = list(source.read(streams(source)["t"], None, None))
    for place, batch in enumerate(batches):
        assert rows(source, "t", batch.cursor) == whole[3 * (place + 1) :]
    source.close()


@pytest.mark.parametrize("type_", ["money", "regclass", "has_json", "money[]"])
def test_a_key_that_cannot_be_followed_is_read_in_one_piece(source_url: str, execute: Execute, type_: str) -> None:
    execute("CREATE TYPE has_json AS (a int, b money)")
    execute(f"CREATE TABLE t (k {type_} PRIMARY KEY)")
    literal = {"money": "1", "regclass": "'pg_class'", "has_json": "ROW(1, 2)", "money[]": "'{1}'"}[type_]
    execute(f"INSERT INTO t VALUES ({literal}::{type_})")
    source = connector(source_url)
    source.authenticate()
    stream = streams(source)["t"]
    assert (stream.modes, stream.partitioned, stream.primary_key) == (("full",), False, ("k",))
    assert len(rows(source, "t")) == 1
    refused = connector(source_url, cursor_fields={"public.t": "k"})
    refused.authenticate()
    with pytest.raises(ConfigError, match=r"cursorFields: public\.t\.k cannot be a cursor: .*depends on settings"):
        _raise_unavailable(refused)
    refused.close()
    source.close()


def test_a_not_null_that_is_not_proven_is_no_cursor(source_url: str, execute: Execute) -> None:
    execute("CREATE TABLE t (id int PRIMARY KEY, at int); INSERT INTO t VALUES (1, NULL)")
    try:
        execute("ALTER TABLE t ADD CONSTRAINT late NOT NULL at NOT VALID")
    except psycopg.errors.SyntaxError:
        pytest.skip("before Postgres 18")
    source = connector(source_url, cursor_fields={"public.t": "at"})
    source.authenticate()
    with pytest.raises(ConfigError, match="may be null"):
        _raise_unavailable(source)
    source.close()


@pytest.mark.parametrize("text", ['\'{"a": 1,\n "b": [2,\r\n3]}\'', "E'[\\n]'", '\'{"a":"\\ud800"}\n\'', "'1e400'"])
def test_json_is_one_line_and_otherwise_as_it_is_written(source_url: str, execute: Execute, text: str) -> None:
    execute(f"CREATE TABLE t AS SELECT {text}::json AS doc")
    source = connector(source_url)
    source.authenticate()
    [batch] = source.read(streams(source)["t"], None, None)
    [record] = batch.records  # type: ignore[misc]
    assert b"\n" not in bytes(record["doc"])  # type: ignore[call-overload,index]
    source.close()


def test_text_of_a_database_without_encoding(postgres_url: str) -> None:
    with psycopg.connect(postgres_url, autocommit=True) as admin:
        admin.execute("CREATE DATABASE raw ENCODING 'SQL_ASCII' LOCALE 'C' TEMPLATE template0")
        try:
            url = postgres_url.rsplit("/", 1)[0] + "/raw"
            with psycopg.connect(url, autocommit=True, client_encoding="LATIN1") as session:
                session.execute(
                    "CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t VALUES (1, 'caf\u00e9'), (2, 'a'); CREATE TABLE \u00e9 AS SELECT 1 AS a"
                )
            plain, named = connector(url), connector(url, encoding="LATIN1")
            for source in (plain, named):
                source.authenticate()
            assert rows(named, "t") == [{"id": 1, "v": "caf\u00e9"}, {"id": 2, "v": "a"}]
            [batch, _] = plain.read(streams(plain)["t"], None, None)
            good = [record for record in batch.records if "\udce9" not in record["v"]]  # type: ignore[call-overload,index]
            assert good == [{"id": 2, "v": "a"}], "the other one holds what no JSON can, and is rejected"
            plain.close()
            named.close()
        finally:
            admin.execute("DROP DATABASE raw WITH (FORCE)")


def test_a_privilege_that_is_missing_is_named(as_role: Callable[..., PostgresSql], execute: Execute) -> None:
    execute(f"CREATE TABLE t (id int PRIMARY KEY); GRANT SELECT ON t TO {ROLE}; INSERT INTO t VALUES (1)")
    source = as_role()
    stream = streams(source)["t"]
    execute(f"REVOKE SELECT ON t FROM {ROLE}")
    with pytest.raises(AuthenticationError, match=rf"public\.t.*grant SELECT to {ROLE}"):
        list(source.read(stream, None, None))


def test_changes_by_a_clock_need_to_see_other_transactions(
    as_role: Callable[..., PostgresSql], execute: Execute
) -> None:
    execute(
        "CREATE TABLE t (id int PRIMARY KEY, updated_at timestamptz NOT NULL); INSERT INTO t VALUES (1, '2024-01-01')"
    )
    execute(f"CREATE TABLE u (id int PRIMARY KEY); GRANT SELECT ON t, u TO {ROLE}")
    source = as_role(change_tracking="cursor")
    assert streams(source)["u"].modes == ("full",)
    with pytest.raises(ConfigError, match=rf"GRANT pg_read_all_stats TO \"{ROLE}\""):
        rows(source, "t")
    execute(f"GRANT pg_read_all_stats TO {ROLE}")
    assert len(rows(as_role(change_tracking="cursor"), "t")) == 1
