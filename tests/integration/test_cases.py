"""Inputs of the kinds that users reported, through the whole platform: read rightly, or refused by name and with a remedy.

Many connections are run beside each other by one `penstock up --once`, so that each case also shows that it disturbs no
other. The connectors' own tests have many more inputs of each kind.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import psycopg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.integration.connectors.files_server import FilesServer, serving
from tests.integration.test_bad_input import source
from tests.integration.test_up import FAKER, FILES, User


@pytest.fixture
def user(folder: Path, tmp_path: Path, backends_environment: dict[str, str]) -> User:
    return User(folder, tmp_path, backends_environment)


def _parquet(**columns: Any) -> bytes:
    written = io.BytesIO()
    pq.write_table(pa.table(columns), written)
    return written.getvalue()


INTEGER = {"type": "object", "properties": {"n": {"type": "integer"}}}
NOT_UTF8 = pa.Array.from_buffers(pa.string(), 2, pa.array([b"a", b"\xff"], pa.binary()).buffers())
SIGN_IN = b"<html>\n<body>sign in</body>\n</html>\n"
REFUSED: dict[str, tuple[str, bytes, dict[str, Any], str]] = {
    "page": ("csv", SIGN_IN, {}, "it is HTML"),
    "page-headless": ("csv", SIGN_IN, {"csv": {"header": False, "columns": ["a"]}, "infer": False}, "it is HTML"),
    "part-of-page": ("csv", b"<div class=login>\nsign in\n</div>\n", {}, "it is HTML"),
    "page-parquet": ("parquet", SIGN_IN, {}, "it is HTML"),
    "binary": ("csv", b"\0\0\0\1Bud1\0", {}, "line 1: a column's name has a NUL"),
    "named-nul-parquet": ("parquet", _parquet(**{"a\0b": [1]}), {}, "has a NUL in its name"),
    "twice": ("csv", b"id,x,x\n1,2,3\n", {}, "set csv.duplicateHeaders: rename"),
    "break": (
        "csv",
        b'n\n1\n"2\n3"\n4\n',
        {"schema": INTEGER},
        "line 3: the column 'n' holds a value that is not of type integer",
    ),
    "large": ("jsonl", b'{"a": 1e400}\n', {}, "line 1: the field 'a' holds a number beyond 1.8e308"),
    "text": ("parquet", _parquet(s=NOT_UTF8), {}, "row 2: the column 's' has text that is not UTF-8"),
}
PUT_ASIDE: dict[str, tuple[str, bytes, dict[str, Any], list[Any]]] = {
    "break-aside": ("csv", b'n\n1\n"2\n3"\n4\n', {"schema": INTEGER}, [{"n": 1}, {"n": 4}]),
    "large-aside": ("jsonl", b'{"a": 1e400}\n{"a": 2}\n{"a": "\\ud800"}\n', {}, [{"a": 2}]),
    "text-aside": ("parquet", _parquet(s=NOT_UTF8), {}, [{"s": "a"}]),
    "named-nul": ("jsonl", b'{"a\\u0000b": 1, "c": 2}\n', {}, [{"a\0b": 1, "c": 2}]),
    "renamed": ("csv", b"x,x\n1,2\n", {"csv": {"duplicateHeaders": "rename"}}, [{"x": 1, "x_2": 2}]),
}


def _connect(user: User, server: FilesServer, name: str, body: bytes, **stream: Any) -> None:
    server.put(name, body)
    config = {"baseUrl": server.url, "streams": [{"name": "rows", "paths": [name], **stream}]}
    user.connection(name, connector=FILES, config=config, retry={"limit": 0}, validation="strict")


def test_files_that_are_not_what_they_should_be(user: User) -> None:
    with serving() as server:
        for name, (format_, body, stream, _) in REFUSED.items():
            _connect(user, server, name, body, format=format_, **stream)
        for name, (format_, body, stream, _) in PUT_ASIDE.items():
            _connect(user, server, name, body, format=format_, onBadRow="skip", **stream)
        user.connection("good", connector=FAKER, config={"records": 10})
        code, results, errors = user.up()
    assert code == 1, errors
    assert results["good"]["phase"] == "succeeded"
    for name, (*_, words) in REFUSED.items():
        error = results[name]["error"]
        assert (error["class"], words in error["message"]) == ("SourceContractError", True), (name, error)
        assert f"/{name}" in error["message"], "the file is named"
    for name, (*_, records) in PUT_ASIDE.items():
        assert results[name]["phase"] == "succeeded", (name, results[name])
        assert [record["data"] for record in user.records(results[name])] == records, name
    _bronze_is_readable(user)


def _bronze_is_readable(user: User) -> None:
    done = user.call("bronze", "sql", "SELECT 'it is ' || 'read' FROM bronze", "--data-dir", str(user.data))
    assert (done.returncode, "it is read" in done.stdout) == (0, True), done.stderr


TABLES = """
CREATE TABLE t (id int PRIMARY KEY, x int); INSERT INTO t SELECT i, i FROM generate_series(1, 20) i;
CREATE VIEW a_broken AS SELECT id, 1 / (x - 10) AS y FROM t;
CREATE VIEW b_cast AS SELECT ('a-value-' || x)::int AS y FROM t;
CREATE TABLE j (id int PRIMARY KEY, a json);
INSERT INTO j VALUES (1, '{"a": "\\ud800"}'), (2, E'{"a":\\n 1}'), (3, '{"a": 1e400}');
CREATE TABLE tie (id int PRIMARY KEY, at timestamp NOT NULL);
INSERT INTO tie SELECT i, '2026-05-01 10:00:00' FROM generate_series(10, 20) i;
"""


def test_tables_that_are_not_what_they_should_be(user: User, source_url: str) -> None:
    with psycopg.connect(source_url, autocommit=True) as admin:
        admin.execute(TABLES.encode())
        spec = {**source(user, source_url, schemas=["public"]), "retry": {"limit": 0}}
        user.connection("all", **spec)
        incremental = [{"name": "public.tie", "mode": "incremental"}]
        user.connection("tie", **spec, streams=incremental)
        by_value = {**spec, "config": {**spec["config"], "cursorFields": {"public.tie": "at"}}}
        user.connection("tie-by-value", **by_value, streams=incremental)
        nobodys = {**spec, "config": {**spec["config"], "schemas": ["Public"]}}
        user.connection("nobodys", **nobodys)
        _, first, errors = user.up()
        admin.execute("INSERT INTO tie VALUES (5, '2026-05-01 10:00:00')")
        _, second, _ = user.up()
    streams = {stream["stream"].removeprefix("public."): stream for stream in first["all"]["streams"]}
    assert {name: stream["outcome"] for name, stream in streams.items()} == {
        **dict.fromkeys(("t", "j", "tie"), "succeeded"),
        **dict.fromkeys(("a_broken", "b_cast"), "failed"),
    }, errors
    message = first["all"]["error"]["message"]
    assert "stream 'public.a_broken': a row of it cannot be computed: division by zero (SQLSTATE 22012)" in message
    assert "stream 'public.b_cast': a row of it cannot be computed: invalid text representation" in message
    assert "a-value" not in message, "no message holds a value"
    assert (streams["t"]["records"], streams["j"]["records"], streams["j"]["rejected"]) == (20, 1, 2)
    assert "there is no schema 'Public'; did you mean 'public'?" in first["nobodys"]["error"]["message"]
    for name in ("tie", "tie-by-value"):
        found = user.records(first[name], second[name])
        assert sorted(record["data"]["id"] for record in found) == [5, *range(10, 21)], name
    _bronze_is_readable(user)
