"""The record path: what goes in comes out, in its envelope."""

from __future__ import annotations

import hashlib
import io
import json
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import msgspec
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st
from penstock_sdk import SourceContractError
from penstock_sdk._runtime.encode import CHUNK_BYTES, CHUNK_LINES, Chunker, Envelope, LineEncoder, ObjectCompressor
from penstock_sdk.contract import Records

ENVELOPE = Envelope("team", "orders", "faker-generate-0.1.0", "people", "run1", 2, 3)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
    lambda children: st.lists(children) | st.dictionaries(st.text(), children),
    max_leaves=10,
)


def text_of(*batches: Records) -> str:
    encoder, compressor = LineEncoder(ENVELOPE, 7, "2026-01-01T00:00:00Z"), ObjectCompressor()
    chunker = Chunker("people")
    for batch in batches:
        for chunk in chunker.chunks(batch):
            lines = encoder.encode(chunk, "upsert")
            chunker.learn(len(chunk.rows), len(lines))
            compressor.write(lines)
    finished = compressor.finish(7, {"upsert": encoder.records})
    assert finished.sha256 == hashlib.sha256(finished.body).hexdigest()
    text = io.TextIOWrapper(zstandard.ZstdDecompressor().stream_reader(finished.body), encoding="utf-8").read()
    assert sum(finished.by_op.values()) == text.count("\n")
    return text


def lines_of(*batches: Records) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text_of(*batches).split("\n")[:-1]]


@given(st.lists(st.dictionaries(st.text(), JSON), max_size=20))
def test_records_come_back_as_they_were(records: list[dict[str, Any]]) -> None:
    assert [line["data"] for line in lines_of(records[:7], records[7:])] == records


def test_the_envelope_says_where_a_record_is_from() -> None:
    (_, second) = lines_of([{"n": 0}, {"n": 1}])
    assert second == {
        "id": "run1-02-000007-1",
        "tenant": "team",
        "connection": "orders",
        "connector": "faker-generate-0.1.0",
        "stream": "people",
        "run": "run1",
        "seq": 1,
        "op": "upsert",
        "extracted_at": "2026-01-01T00:00:00Z",
        "schema_version": 3,
        "data": {"n": 1},
    }


@pytest.mark.parametrize(
    "page", [b'[{"n": 1.10}, {"n": 12345678901234567890}]', b'{"n": 1.10}\n{"n": 12345678901234567890}\n']
)
def test_a_page_of_json_is_split_without_being_decoded(page: bytes) -> None:
    text = text_of(page)
    assert '"data":{"n": 1.10}' in text
    assert "12345678901234567890" in text


def test_python_values_of_databases_are_text() -> None:
    (line,) = lines_of(
        [{"d": Decimal("1.10"), "t": datetime(2026, 1, 1, tzinfo=UTC), "b": b"\x00\xff", "r": msgspec.Raw(b"1.0")}]
    )
    assert line["data"] == {"d": "1.10", "t": "2026-01-01T00:00:00Z", "b": "AP8=", "r": 1.0}


def test_what_cannot_be_json_is_named_by_path_and_type_and_not_by_value() -> None:
    with pytest.raises(SourceContractError, match=r"record 1 of its batch: field a\.b\[1\] of type complex") as caught:
        lines_of([{"a": 1}, {"a": {"b": [1, 2 + 98765j]}}])
    assert "98765" not in str(caught.value)


def test_a_page_that_is_not_json_is_the_sources_fault() -> None:
    with pytest.raises(SourceContractError, match="not JSON"):
        lines_of(b"<html>")


@pytest.mark.parametrize("raw", [b'{\n "a": 1.10\n}', b'{"a":\r\n1.10}'])
def test_a_raw_value_with_line_breaks_stays_on_one_line(raw: bytes) -> None:
    assert [line["data"] for line in lines_of([{"r": msgspec.Raw(raw)}, {"r": 2}])] == [{"r": {"a": 1.1}}, {"r": 2}]


def test_a_page_that_is_not_utf8_is_the_sources_fault() -> None:
    with pytest.raises(SourceContractError, match="byte 7 is not UTF-8"):
        lines_of(b'[{"a":"\xff"}]')


def test_numbers_go_on_over_chunks_and_batches() -> None:
    lines = lines_of([{"n": n} for n in range(1201)], b'[{"n":1201}]', [{"n": 1202}])
    assert [line["seq"] for line in lines] == [line["data"]["n"] for line in lines] == list(range(1203))
    assert lines[1202]["id"] == "run1-02-000007-1202"


def test_the_op_is_the_batchs_own() -> None:
    encoder = LineEncoder(ENVELOPE, 1, "now")
    lines = b"".join(
        encoder.encode(chunk, op) for op in ("upsert", "delete") for chunk in Chunker("p").chunks([{"n": 1}])
    )  # type: ignore[arg-type]
    assert [json.loads(line)["op"] for line in lines.splitlines()] == ["upsert", "delete"]


@given(sizes=st.lists(st.integers(0, 1500), max_size=4))
def test_whatever_the_batches_their_chunks_are_all_of_them_in_order(sizes: list[int]) -> None:
    chunker = Chunker("people")
    for size in sizes:
        seen = []
        for chunk in chunker.chunks(range(size)):  # type: ignore[arg-type]
            assert chunk.start == len(seen)
            assert len(chunk.rows) <= CHUNK_LINES
            seen += chunk.rows
            chunker.learn(len(chunk.rows), 300 * len(chunk.rows))
        assert seen == list(range(size))


def test_large_records_are_encoded_few_at_a_time() -> None:
    encoder, chunker = LineEncoder(ENVELOPE, 1, "now"), Chunker("people")
    sizes = []
    for chunk in chunker.chunks([{"text": "x" * 100_000}] * 200):
        sizes.append(len(encoder.encode(chunk, "upsert")))
        chunker.learn(len(chunk.rows), sizes[-1])
    assert encoder.records == 200
    assert max(sizes[1:]) <= CHUNK_BYTES


class Slices:
    """As much of a record batch as is needed to see which rows are asked for."""

    num_rows = 1000

    def __init__(self, start: int = 0, length: int = num_rows) -> None:
        self.window = range(start, start + length)

    def slice(self, start: int, length: int) -> Slices:
        return Slices(start, length)

    def to_pylist(self) -> list[dict[str, Any]]:
        assert len(self.window) <= CHUNK_LINES, "the whole batch was made into dictionaries at once"
        return [{"n": n} for n in self.window]


def test_an_arrow_batch_becomes_dictionaries_a_chunk_at_a_time() -> None:
    assert [line["data"]["n"] for line in lines_of(Slices())] == list(range(1000))
