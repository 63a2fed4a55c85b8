"""What a server says of its answer is checked: each header that could have two halves of different bytes joined."""

from __future__ import annotations

import gzip
import os
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from penstock_files_object import FilesObject
from penstock_files_object.config import FilesConfig, FilesCredentials
from penstock_sdk import ConnectorError, SourceContractError, TransientError
from penstock_sdk.contract import rows_of

from tests.integration.connectors.files_server import FilesServer, serving

EXAMPLES = int(os.environ.get("PENSTOCK_FUZZ_EXAMPLES", "60"))
BODY = b"n\n" + b"".join(b"%06d\n" % n for n in range(40_000))
COUNT = 40_000
DECLARED = {"properties": {"n": {"type": "string"}}}


@pytest.fixture(scope="module")
def running() -> Iterator[FilesServer]:
    with serving() as server:
        yield server


@pytest.fixture
def server(running: FilesServer) -> FilesServer:
    fresh = FilesServer(port=running.port)
    running.__dict__.update(fresh.__dict__)
    return running


def opened(server: FilesServer, path: str, **options: Any) -> FilesObject:
    stream = {"name": "s", "paths": [path], "format": "csv", "schema": DECLARED, **options}
    config = {"baseUrl": server.url, "streams": [stream]}
    source = FilesObject(msgspec.convert(config, FilesConfig), FilesCredentials())
    source.authenticate()
    return source


def rows(source: FilesObject) -> list[Any]:
    [stream] = source.discover()
    if stream.unavailable:
        raise stream.unavailable
    return [row["n"] for batch in source.read(stream, None, None) for row in rows_of(batch.records)]


def read_broken(server: FilesServer, break_after: int = 100_000) -> list[Any]:
    source = opened(server, server.put("a.csv", BODY), infer=False)
    server.break_after = [break_after]
    return rows(source)


WHOLE = [f"{n:06d}" for n in range(COUNT)]


@pytest.mark.parametrize("block", [1, 7, 4096, 65_536])
@pytest.mark.parametrize("longest", [None, 50_000])
def test_a_part_that_begins_or_ends_elsewhere_than_asked_is_joined_where_it_says(
    server: FilesServer, block: int, longest: int | None
) -> None:
    server.block, server.longest = block, longest
    assert read_broken(server) == WHOLE


@pytest.mark.parametrize(
    "more",
    [
        {"Content-Range": "bytes 200000-250000/280002"},
        {"Content-Range": "bytes */280002"},
        {"Content-Range": "lines 1-2/3"},
        {"Content-Type": "multipart/byteranges; boundary=x", "Content-Range": ""},
    ],
)
def test_a_part_that_does_not_say_where_it_begins_is_not_used(server: FilesServer, more: dict[str, str]) -> None:
    """The file is asked for anew, and what was read before is left out."""
    server.more = more
    assert read_broken(server) == WHOLE


def test_a_body_that_ends_before_the_length_that_was_told_is_not_the_whole_file(server: FilesServer) -> None:
    """Without a Content-Length of its own, only the length of the HEAD tells that something is missing."""
    server.sizes, server.head_sizes, server.ranges = False, True, False
    source = opened(server, server.put("a.csv", BODY), infer=False)
    server.break_after = [100_000] * 9
    with pytest.raises(TransientError, match="ended at byte 100000 of 280002"):
        rows(source)


@pytest.mark.parametrize("encoding", ["br", "deflate", "compress", "gzip, br"])
def test_an_encoding_that_was_not_asked_for_is_refused_by_name(server: FilesServer, encoding: str) -> None:
    server.more = {"Content-Encoding": encoding}
    with pytest.raises(SourceContractError, match=r"a\.csv: the server sends the file with Content-Encoding: "):
        rows(opened(server, server.put("a.csv", BODY), infer=False))


def test_an_encoding_that_the_reader_undoes_or_that_is_none_is_read(server: FilesServer) -> None:
    server.more = {"Content-Encoding": "gzip"}
    assert rows(opened(server, server.put("a.csv", gzip.compress(BODY)), infer=False)) == WHOLE
    server.more = {"Content-Encoding": "aws-chunked"}
    assert rows(opened(server, server.put("a.csv", BODY), infer=False)) == WHOLE


@pytest.mark.parametrize(("status", "words"), [(204, "no content"), (304, "answered 304"), (202, "answered 202")])
def test_an_answer_without_the_file_is_no_empty_file(server: FilesServer, status: int, words: str) -> None:
    source = opened(server, server.put("a.csv", BODY), infer=False)
    [stream] = source.discover()
    server.statuses = [(200, {}), (status, {})]
    server.files.clear()
    with pytest.raises(ConnectorError, match=words):
        list(source.read(stream, None, None))


def test_a_page_where_a_file_was_is_refused_as_what_it_is(server: FilesServer) -> None:
    page = b"<!DOCTYPE html>\n<html><head><title>Sign in</title></head></html>\n"
    for format_ in ("csv", "jsonl", "parquet"):
        with pytest.raises(SourceContractError, match="it is HTML"):
            rows(opened(server, server.put("a", page), format=format_))


headers = st.dictionaries(
    st.sampled_from(
        [
            "Content-Range",
            "Content-Encoding",
            "Content-Type",
            "ETag",
            "Last-Modified",
            "Accept-Ranges",
            "Retry-After",
            "Location",
            "Vary",
            "Transfer-Encoding",
        ]
    ),
    st.one_of(
        st.sampled_from(
            [
                "",
                "bytes 0-1/2",
                "bytes 5-1/2",
                "bytes 0-9/*",
                "gzip",
                "br",
                "chunked",
                "W/",
                '"x"',
                'W/"x"',
                "none",
                "Fri, 31 Dec 99999 23:59:59 GMT",
                "Thu, 01 Jan 1970 00:00:00 -9999",
                "0",
                "9" * 400,
                "multipart/byteranges",
            ]
        ),
        st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=20),
    ),
    max_size=4,
)


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    more=headers,
    statuses=st.lists(
        st.tuples(st.sampled_from([200, 206, 301, 304, 400, 403, 404, 416, 429, 500]), headers), max_size=3
    ),
    breaks=st.lists(st.integers(0, 3000), max_size=3),
    knows=st.tuples(st.booleans(), st.booleans(), st.booleans(), st.booleans(), st.booleans()),
    block=st.sampled_from([1, 7, 100]),
    format_=st.sampled_from(["csv", "jsonl", "parquet"]),
)
def test_whatever_a_server_says_the_rows_are_the_files_or_an_error_says_why(
    server: FilesServer,
    more: dict[str, str],
    statuses: list[tuple[int, dict[str, str]]],
    breaks: list[int],
    knows: tuple[bool, ...],
    block: int,
    format_: str,
) -> None:
    """No answer is a defect, and none has fewer, more or other rows pass as the file's."""
    body = b'{"n":"x"}\n' * 500 if format_ != "csv" else b"n\n" + b"x\n" * 1500
    server.ranges, server.etags, server.moments, server.head, server.sizes = knows
    server.block, server.more = block, {name: value for name, value in more.items() if name != "Transfer-Encoding"}
    path = server.put("a", body)
    server.statuses, server.break_after = list(statuses), list(breaks) if server.sizes else []
    whole = ["x"] * (500 if format_ == "jsonl" else 1500)
    found = whole
    with suppress(ConnectorError):
        found = rows(opened(server, path, format=format_, infer=False))
    was_told_to_be_empty = any(status in (200, 206) for status, _ in statuses)
    assert found == whole or was_told_to_be_empty
