"""Inputs of the kinds that users reported, through the whole platform: read rightly, or refused by name and with a remedy.

Many connections are run beside each other by one `penstock up --once`, so that each case also shows that it disturbs no
other. The connectors' own tests have many more inputs of each kind.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.integration.connectors.files_server import FilesServer, serving
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
    "binary": ("csv", b"\0\0\0\1Bud1\0", {}, "line 1: a column's name holds a NUL"),
    "named-nul-parquet": ("parquet", _parquet(**{"a\0b": [1]}), {}, "has a NUL in its name"),
    "twice": ("csv", b"id,x,x\n1,2,3\n", {}, "set csv.duplicateHeaders: rename"),
    "break": ("csv", b'n\n1\n"2\n3"\n4\n', {"schema": INTEGER}, "line 3: the column 'n' holds what is no integer"),
    "large": ("jsonl", b'{"a": 1e400}\n', {}, "line 1: the field 'a' holds a number beyond 1.8e308"),
    "text": ("parquet", _parquet(s=NOT_UTF8), {}, "row 2: the column 's' holds text that is not UTF-8"),
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
