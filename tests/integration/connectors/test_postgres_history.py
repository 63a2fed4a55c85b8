"""postgres-sql's snapshots when the server's or a table's history is not what it was: read again rather than passed over."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st
from penstock_operator.embedded.postgres import EmbeddedPostgres
from penstock_postgres_sql import PostgresSql
from penstock_postgres_sql.snapshots import XID_EPOCH, Snapshot, changed_condition, id_spans, limited_spans

from tests.integration.connectors.test_postgres_sql import connector, stream_of

Execute = Callable[[str], None]
Opened = Callable[..., PostgresSql]


@pytest.fixture
def opened(source_url: str) -> Iterator[Opened]:
    made: list[PostgresSql] = []

    def open_one(url: str = source_url, **config: Any) -> PostgresSql:
        made.append(connector(url, **config))
        made[-1].authenticate()
        return made[-1]

    yield open_one
    for source in made:
        source.close()


def read(source: PostgresSql, cursor: Any, name: str = "public.t") -> tuple[list[int], Any]:
    """Return the ids that are read from a cursor on, and the cursor at the end."""
    batches = list(source.read(stream_of(source, name), None, cursor))
    ids = [record["id"] for batch in batches for record in batch.records]  # type: ignore[call-overload,index]
    return sorted(ids), msgspec.json.decode(msgspec.json.encode(batches[-1].cursor))


MADE = "CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t SELECT n, 'a' FROM generate_series(1, 5) n"
CHANGES = {
    "nothing": ("SELECT 1", []),
    "vacuumed": ("VACUUM (FULL, FREEZE) t", []),
    "clustered": ("CLUSTER t USING t_pkey", []),
    "truncated and filled": ("TRUNCATE t; INSERT INTO t VALUES (9, 'b')", [9]),
    "rewritten": ("ALTER TABLE t ALTER v TYPE varchar(9) USING v || 'x'", [1, 2, 3, 4, 5]),
    "set back": ("UPDATE t SET v = 'a' WHERE id = 2", [2]),
    "copied": (
        "CREATE TABLE u (LIKE t); BEGIN; TRUNCATE u; INSERT INTO u VALUES (7, 'c'); COMMIT; INSERT INTO t TABLE u",
        [7],
    ),
    "deleted": ("DELETE FROM t WHERE id = 1", []),
    "locked": ("BEGIN; SELECT * FROM t FOR UPDATE; COMMIT", []),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_was_done_to_a_table(opened: Opened, execute: Execute, change: str) -> None:
    execute(MADE)
    source = opened()
    _, cursor = read(source, None)
    statements, wanted = CHANGES[change]
    for statement in statements.split("; "):
        execute(statement)
    assert read(source, cursor)[0] == wanted
    _, cursor = read(source, cursor)
    assert read(source, cursor)[0] == []


def test_a_table_that_takes_the_place_of_another_is_read(opened: Opened, execute: Execute) -> None:
    """Its rows were written before the last read of the one that had the name."""
    execute(f"{MADE}; CREATE TABLE fresh (LIKE t INCLUDING ALL); INSERT INTO fresh VALUES (1, 'new'), (8, 'new')")
    source = opened()
    _, cursor = read(source, None)
    execute("BEGIN; ALTER TABLE t RENAME TO old; ALTER TABLE fresh RENAME TO t; COMMIT")
    assert read(opened(), cursor)[0] == [1, 8]


def test_a_partition_that_is_attached_is_read(opened: Opened, execute: Execute) -> None:
    execute("CREATE TABLE t (id int PRIMARY KEY) PARTITION BY RANGE (id)")
    execute("CREATE TABLE t1 PARTITION OF t FOR VALUES FROM (0) TO (10); INSERT INTO t VALUES (1)")
    execute("CREATE TABLE t2 (id int PRIMARY KEY); INSERT INTO t2 VALUES (11), (12)")
    source = opened()
    found, cursor = read(source, None)
    assert found == [1]
    execute("ALTER TABLE t ATTACH PARTITION t2 FOR VALUES FROM (10) TO (20)")
    found, cursor = read(source, cursor)
    assert found == [11, 12]
    execute("UPDATE t SET id = 13 WHERE id = 1")
    assert read(source, cursor)[0] == [13]


@pytest.mark.parametrize("other", ["9/00000001/5", "server"])
def test_another_history_is_read_from_its_start(
    opened: Opened, execute: Execute, caplog: pytest.LogCaptureFixture, other: str
) -> None:
    execute(MADE)
    source = opened()
    _, cursor = read(source, None)
    known = cursor["changedSince"]
    elsewhere = {**known, "server": other} if "/" in other else {**known, "next": known["next"] + 1000}
    with caplog.at_level("WARNING", "penstock"):
        found, after = read(source, {**cursor, "changedSince": elsewhere})
    assert found == [1, 2, 3, 4, 5]
    assert "public.t is read from its start again" in caplog.text
    assert read(source, after)[0] == []


def test_a_cursor_of_the_version_before_goes_on_after_its_values(opened: Opened, execute: Execute) -> None:
    execute(MADE)
    source = opened()
    found, cursor = read(source, {"columns": ["id"], "values": ["3"]})
    assert found == [4, 5]
    execute("UPDATE t SET v = 'b' WHERE id = 1")
    assert read(source, cursor)[0] == [1]


def test_rows_that_change_behind_a_killed_read_are_read_by_the_next_run(opened: Opened, execute: Execute) -> None:
    execute(MADE)
    source = opened(fetch_size=2)
    first = next(iter(source.read(stream_of(source, "public.t"), None, None)))
    execute("UPDATE t SET v = 'late' WHERE id IN (1, 5)")
    found, cursor = read(opened(), first.cursor)
    assert found == [3, 4, 5]
    assert read(opened(), cursor)[0] == [1, 5], "5 once more: it changed after the read began"


def test_a_prepared_transaction_is_waited_for(tmp_path: Path) -> None:
    with EmbeddedPostgres(tmp_path / "server") as server:
        with psycopg.connect(server.url, autocommit=True) as session:
            session.execute("ALTER SYSTEM SET max_prepared_transactions = 5")
            session.execute(MADE.encode())
        server.stop()
        server.start()
        source = connector(server.url)
        source.authenticate()
        with psycopg.connect(server.url, autocommit=True) as session:
            session.execute("BEGIN; UPDATE t SET v = 'p' WHERE id = 4; PREPARE TRANSACTION 'two'")
            found, cursor = read(source, None)
            assert found == [1, 2, 3, 4, 5]
            session.execute("COMMIT PREPARED 'two'")
            assert read(source, cursor)[0] == [4]
        source.close()


spans = st.lists(
    st.tuples(st.integers(0, 300), st.integers(1, 9)).map(lambda pair: (pair[0], pair[0] + pair[1])), max_size=30
)


@given(spans, st.integers(1, 8))
def test_ranges_that_are_coarsened_hold_what_they_held(found: list[tuple[int, int]], most: int) -> None:
    held = {id_ for first, past in found for id_ in range(first, past)}
    wider = limited_spans(found, most)
    assert len(wider) <= most
    assert held <= {id_ for first, past in wider for id_ in range(first, past)}
    assert id_spans(held) == limited_spans(found, 1000)


def test_the_condition_holds_for_each_unseen_id_across_the_wrap_of_32_bits(source_url: str) -> None:
    """Against plain 64-bit arithmetic, for snapshots anywhere and near the wrap."""
    chance = random.Random(5)
    with psycopg.connect(source_url, autocommit=True) as session:
        for _ in range(150):
            start = chance.choice([0, XID_EPOCH - 40, 3 * XID_EPOCH - 30, chance.randrange(5 * XID_EPOCH)]) + 10
            pending = id_spans(start + chance.randrange(30) for _ in range(chance.randrange(12)))
            base = Snapshot("s", start + 30, tuple(pending), (1,))
            now = Snapshot("s", start + 30 + chance.randrange(20), (), (1,))
            ids = range(max(3, start - 20), now.next_xid)
            unseen = [id_ for id_ in ids if id_ >= base.next_xid or any(first <= id_ < past for first, past in pending)]
            condition = changed_condition(base, now)
            assert condition is not None
            shown = condition.as_string(session).replace("xmin::text::bigint", "(id % 4294967296)")
            query = (
                f"SELECT id FROM generate_series({ids.start}, {ids.stop - 1}) AS given (id) WHERE {shown} ORDER BY id"
            )
            found = [row[0] for row in session.execute(query.encode()).fetchall()]
            assert found == unseen


def test_an_id_far_behind_has_everything_read() -> None:
    assert changed_condition(Snapshot("s", 100, (), (1,)), Snapshot("s", 100 + XID_EPOCH, (), (1,))) is None
    assert changed_condition(Snapshot("s", 100, (), (1,)), Snapshot("s", 120, (), (2,))) is None


def test_a_standby_is_followed_and_a_promoted_one_is_read_again(tmp_path: Path) -> None:
    """Reads move between a primary and its standby, transactions open on the primary, and nothing is missed."""
    with EmbeddedPostgres(tmp_path / "primary") as primary:
        with psycopg.connect(primary.url, autocommit=True) as session:
            session.execute(MADE.encode())
            data = primary.data_directory
            with (data / "pg_hba.conf").open("a") as rules:
                rules.write("host replication all 127.0.0.1/32 scram-sha-256\n")
            session.execute("SELECT pg_reload_conf()")
        standby = EmbeddedPostgres(tmp_path / "standby")
        (tmp_path / "standby").mkdir(exist_ok=True)
        (tmp_path / "standby" / "password").write_text((tmp_path / "primary" / "password").read_text())
        target = standby.data_directory
        standby.make_directory(target)
        options = ("-R", "-X", "stream", "-c", "fast", "-d", primary.url)
        made = primary.run_program("pg_basebackup", ["-D", primary.server_path(target), *options], target)
        assert made.returncode == 0, made.stderr
        with standby:
            on_primary, on_standby = connector(primary.url), connector(standby.url)
            for source in (on_primary, on_standby):
                source.authenticate()
            with psycopg.connect(primary.url) as held, psycopg.connect(primary.url, autocommit=True) as writer:
                held.execute("SAVEPOINT a; UPDATE t SET v = 'held' WHERE id = 1; RELEASE a")
                writer.execute("UPDATE t SET v = 'x' WHERE id = 2")
                _caught_up(writer, standby.url)
                found, cursor = read(on_standby, None)
                assert found == [1, 2, 3, 4, 5]
                held.commit()
                writer.execute("UPDATE t SET v = 'y' WHERE id = 3")
                _caught_up(writer, standby.url)
                found, after = read(on_standby, cursor)
                assert found == [1, 3]
                assert read(on_primary, after)[0] == []
                assert read(on_primary, cursor)[0] == [1, 3], "a standby's snapshot counts on its primary"
            with psycopg.connect(standby.url, autocommit=True) as session:
                session.execute("SELECT pg_promote()")
                session.execute("UPDATE t SET v = 'z' WHERE id = 4")
            assert read(on_standby, after)[0] == [1, 2, 3, 4, 5]
            for source in (on_primary, on_standby):
                source.close()
        shutil.rmtree(target)


def _caught_up(writer: psycopg.Connection[Any], standby: str) -> None:
    (position,) = writer.execute("SELECT pg_current_wal_insert_lsn()::text").fetchone() or ("",)
    with psycopg.connect(standby, autocommit=True) as session:
        for _ in range(600):
            (there,) = session.execute("SELECT pg_last_wal_replay_lsn() >= %s::pg_lsn", [position]).fetchone() or (
                False,
            )
            if there:
                return
            session.execute("SELECT pg_sleep(0.1)")
    pytest.fail("the standby did not follow within a minute")
