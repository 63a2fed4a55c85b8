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
from penstock_sdk.contract import Records
from penstock_sdk.runtime.encode import Envelope, ObjectEncoder

ENVELOPE = Envelope("team", "orders", "faker-generate-0.1.0", "people", "run1", 2, 3)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
    lambda children: st.lists(children) | st.dictionaries(st.text(), children),
    max_leaves=10,
)


def lines_of(*batches: Records) -> list[dict[str, Any]]:
    encoder = ObjectEncoder(ENVELOPE, 7, "2026-01-01T00:00:00Z")
    for batch in batches:
        encoder.add(batch, "upsert")
    finished = encoder.finish()
    assert finished.sha256 == hashlib.sha256(finished.body).hexdigest()
    text = io.TextIOWrapper(zstandard.ZstdDecompressor().stream_reader(finished.body), encoding="utf-8")
    lines = [json.loads(line) for line in text.read().split("\n")[:-1]]
    assert finished.records == len(lines)
    return lines


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
    encoder = ObjectEncoder(ENVELOPE, 1, "now")
    encoder.add(page, "upsert")
    text = zstandard.ZstdDecompressor().decompressobj().decompress(encoder.finish().body)
    assert b'"data":{"n": 1.10}}' in text
    assert b"12345678901234567890" in text


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
