"""Large responses are cut into records wherever their chunks end."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from penstock_sdk import SourceContractError, TransientError
from penstock_sdk.contract import rows_of
from penstock_sdk.http import csv_pages, decompressed, json_pages, line_pages

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**12), 10**12) | st.text(max_size=8) | st.sampled_from(['"', "\\", "]},{[", '\\"']),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(max_size=4), children, max_size=3),
    max_leaves=8,
)  # fmt: skip
RECORDS = st.lists(st.dictionaries(st.text(max_size=4), VALUES, max_size=4), max_size=8)


def chunks_of(content: bytes, size: int) -> Iterator[bytes]:
    return (content[start : start + size] for start in range(0, len(content), size))


def rows(pages: Iterable[bytes]) -> list[Any]:
    return [row for page in pages for row in rows_of(page)]


@given(
    records=RECORDS,
    size=st.integers(1, 40),
    page=st.integers(1, 5),
    indent=st.none() | st.integers(0, 2),
    ascii_only=st.booleans(),
)
def test_a_json_array_is_cut_into_its_records(
    records: list[Any], size: int, page: int, indent: int | None, *, ascii_only: bool
) -> None:
    content = json.dumps(records, indent=indent, ensure_ascii=ascii_only).encode()
    assert rows(json_pages(chunks_of(content, size), size=page)) == records


@given(records=RECORDS, beside=VALUES, size=st.integers(1, 40), before=st.booleans())
def test_an_array_inside_a_document_is_found_by_its_path(
    records: list[Any], beside: Any, size: int, *, before: bool
) -> None:
    inner = {"other": beside, "items": records} if before else {"items": records, "other": beside}
    decoys = {"items": {"items": [0]}, "x": [{"data": {"items": [1]}}], "text": 'data": {"items": [2]'}
    content = json.dumps({**decoys, "data": inner, "after": beside}).encode()
    assert rows(json_pages(chunks_of(content, size), "data.items")) == records


@given(
    records=st.lists(st.dictionaries(st.text(max_size=4), VALUES, min_size=1), min_size=1, max_size=5), data=st.data()
)
def test_a_document_that_ends_early_is_an_error(records: list[Any], data: st.DataObject) -> None:
    content = json.dumps({"items": records}).encode()
    end = data.draw(st.integers(1, len(content) - 2))
    with pytest.raises(TransientError, match="ended in the middle"):
        list(json_pages(chunks_of(content[:end], 16), "items"))


@pytest.mark.parametrize(
    ("content", "path", "text"),
    [
        (b"{}", "items", "no array of records in field 'items'"),
        (b'{"items": null}', "items", "no array of records"),
        (b'{"items": {"items": []}}', "items", "no array of records"),
        (b"", "", "no array of records as its JSON"),
        (b"<!DOCTYPE html><html>", "", "an HTML page"),
    ],
)
def test_a_document_without_the_array_is_named(content: bytes, path: str, text: str) -> None:
    with pytest.raises(SourceContractError, match=text):
        list(json_pages([content], path))


def test_a_record_without_an_end_does_not_fill_the_memory() -> None:
    def endless() -> Iterator[bytes]:
        yield b"["
        while True:
            yield b'{"a": 1, ' * 100_000

    with pytest.raises(SourceContractError, match="a record of more than"):
        list(json_pages(endless()))
    with pytest.raises(SourceContractError, match="a line of more than"):
        list(line_pages(endless()))
    with pytest.raises(SourceContractError, match="a line of more than"):
        list(csv_pages(endless()))


@given(records=st.lists(st.dictionaries(st.text(max_size=4), VALUES), max_size=8), size=st.integers(1, 40))
def test_json_lines_are_cut_at_line_ends(records: list[Any], size: int) -> None:
    content = b"\n\n".join(msgspec.json.encode(record) for record in records) + b"\r\n"
    assert rows(line_pages(chunks_of(content, size), size=3)) == records


CELLS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8)


@given(
    table=st.lists(st.tuples(CELLS, CELLS), max_size=8),
    size=st.integers(1, 40),
    encoding=st.sampled_from(["utf-8-sig", "utf-16"]),
)
def test_a_csv_file_is_cut_into_its_rows(table: list[tuple[str, str]], size: int, encoding: str) -> None:
    written = io.StringIO()
    writer = csv.writer(written, quoting=csv.QUOTE_ALL)
    writer.writerows([("a", "b"), *table])
    pages = csv_pages(chunks_of(written.getvalue().encode(encoding), size), encoding=encoding, size=3)
    assert [tuple(row.values()) for page in pages for row in page] == [(a or None, b or None) for a, b in table]


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"a,b\n1\n", "row 2 has 1 values, and the header has 2 names"),
        (b"a,b\n1,2,3\n", "row 2 has 3 values"),
        (b"a,a\n1,2\n", "two columns are named 'a'"),
        (b'a,b\n1,"2', "not CSV"),
        (b"a,b\n1,\xff\n", "not utf-8-sig text"),
        (b"<html><body>", "an HTML page"),
    ],
)
def test_a_csv_file_that_cannot_be_read_is_named(content: bytes, text: str) -> None:
    with pytest.raises(SourceContractError, match=text):
        list(csv_pages([content]))


def test_a_compressed_file_is_decompressed_on_the_way() -> None:
    content = gzip.compress(b'[{"a":1}]', mtime=0)
    assert rows(json_pages(decompressed(chunks_of(content, 3)))) == [{"a": 1}]
