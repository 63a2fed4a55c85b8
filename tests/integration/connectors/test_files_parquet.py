"""Parquet of every type and range: each row is a record that says what the file says, or a bad row by its number."""

from __future__ import annotations

import bz2
import gzip
import io
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from penstock_sdk import SourceContractError
from penstock_sdk.contract import CollectingSink, rows_of

from tests.integration.connectors.files_server import FilesServer, serving
from tests.integration.connectors.test_files_answers import EXAMPLES, opened


@pytest.fixture(scope="module")
def server() -> Iterator[FilesServer]:
    with serving() as running:
        yield running


def written(table: pa.Table, **options: Any) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink, **options)
    return sink.getvalue()


def read(server: FilesServer, body: bytes, policy: str = "fail") -> tuple[list[Any], list[Any]]:
    source = opened(server, server.put("a.parquet", body), format="parquet", onBadRow=policy, infer=False, schema={})
    source.sink = CollectingSink()
    [stream] = source.discover()
    rows = [row for batch in source.read(stream, None, None) for row in rows_of(batch.records)]
    return msgspec.json.decode(msgspec.json.encode(rows)), source.sink.rejected


MOMENTS = [
    "0001-01-01T00:00:00.000000",
    "1500-01-01T00:00:00.000000",
    "1582-10-04T23:59:59.999999",
    "1677-09-21T00:12:43.145224",
    "1970-01-01T00:00:00.000000",
    "2262-04-11T23:47:16.854775",
    "2262-04-11T23:47:16.854776",
    "9999-12-31T23:59:59.999999",
]


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.one_of(st.none(), st.sampled_from(MOMENTS).map(datetime.fromisoformat), st.datetimes()), max_size=9))
def test_int96_moments_are_exact_in_every_year(server: FilesServer, moments: list[datetime | None]) -> None:
    table = pa.table({"t": pa.array(moments, pa.timestamp("us")), "n": list(range(len(moments)))})
    rows, _ = read(server, written(table, use_deprecated_int96_timestamps=True))
    expected = [None if moment is None else f"{moment.isoformat(timespec='microseconds')}000" for moment in moments]
    assert [row["t"] for row in rows] == expected


def test_int96_within_lists_is_refused_by_name_where_it_wraps(server: FilesServer) -> None:
    table = pa.table({"t": pa.array([[datetime.fromisoformat(MOMENTS[1])]], pa.list_(pa.timestamp("us")))})
    with pytest.raises(SourceContractError, match="the column 't' has INT96 timestamps within lists"):
        read(server, written(table, use_deprecated_int96_timestamps=True))


FAR = 2**62
NOT_UTF8 = pa.array([b"good", b"\xff\xfe", None]).cast(pa.binary())


def as_text(values: pa.Array) -> pa.Array:
    return pa.Array.from_buffers(pa.string(), len(values), values.buffers())


@pytest.mark.parametrize(
    ("column", "bad"),
    [
        (as_text(NOT_UTF8), [2]),
        (pa.ListArray.from_arrays([0, 1, 2, 3], as_text(NOT_UTF8)), [2]),
        (pa.StructArray.from_arrays([as_text(NOT_UTF8)], ["x"]), [2]),
        (pa.MapArray.from_arrays([0, 1, 2, 2], as_text(NOT_UTF8).slice(0, 2), pa.array([1, 2])), [2]),
        (pa.array([0, 2**31 - 1, None], pa.date32()), [2]),
        (pa.array([-719163, -719162, 2932897], pa.date32()), [1, 3]),
        (pa.array([FAR, None, -FAR], pa.timestamp("us", "UTC")), [1, 3]),
        (pa.array([[0], [FAR], []], pa.list_(pa.timestamp("ms"))), [2]),
        (pa.array([{"x": 0}, {"x": FAR}, None], pa.struct([("x", pa.timestamp("us"))])), [2]),
        (pa.array([0, 86_400_000_000, -1], pa.time64("us")), [2, 3]),
    ],
)
def test_what_no_record_can_hold_is_a_bad_row_by_its_number(
    server: FilesServer, column: pa.Array, bad: list[int]
) -> None:
    body = written(pa.table({"c": column, "n": [1, 2, 3]}))
    rows, rejected = read(server, body, "skip")
    assert [row["n"] for row in rows] == [n for n in (1, 2, 3) if n not in bad]
    assert [data["row"] for data, _ in rejected] == bad
    msgspec.json.encode([data for data, _ in rejected])
    with pytest.raises(SourceContractError, match=rf"a\.parquet, row {bad[0]}: the column 'c' has .*onBadRow: skip"):
        read(server, body)


types = st.sampled_from(
    [
        *(
            pa.int8(),
            pa.uint8(),
            pa.int64(),
            pa.uint64(),
            pa.float16(),
            pa.float32(),
            pa.float64(),
            pa.bool_(),
            pa.null(),
        ),
        *(pa.string(), pa.large_string(), pa.string_view(), pa.binary(), pa.binary_view(), pa.binary(3)),
        *(pa.date32(), pa.date64(), pa.time32("s"), pa.time32("ms"), pa.time64("us"), pa.time64("ns")),
        *(pa.timestamp(unit, zone) for unit in ("s", "ms", "us", "ns") for zone in (None, "UTC", "+05:30", "Foo/Bar")),
        *(pa.duration(unit) for unit in ("s", "ms", "us", "ns")),
        *(pa.dictionary(pa.int32(), pa.string()), pa.dictionary(pa.int8(), pa.int64())),
        *(pa.uuid(), pa.json_(), pa.bool8()),
    ]
)
nested = st.recursive(
    types,
    lambda inner: st.one_of(
        inner.map(pa.list_),
        inner.map(pa.large_list),
        inner.map(lambda each: pa.list_(each, 2)),
        inner.map(lambda each: pa.struct([("x", each), ("y", pa.int32())])),
        st.tuples(types.filter(lambda each: each != pa.null()), inner).map(lambda each: pa.map_(*each)),
    ),
    max_leaves=3,
)


def arrays(type_: pa.DataType, seed: int) -> pa.Array:
    """Return five values of a type, from random bytes where it is one that any bytes are a value of."""
    rows = 5
    if type_.id in INTEGERS:
        numbers = [(seed * 7919 * (row + 1)) % 2**63 >> (63 - type_.bit_width + 1) for row in range(rows)]
        whole = pa.array(numbers, pa.int32() if type_.bit_width == 32 else pa.int64())
        return whole.view(type_)
    return pa.nulls(rows, type_)


INTEGERS = {pa.date32().id, pa.time32("s").id, pa.time64("us").id, pa.timestamp("us").id, pa.duration("s").id}


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(type_=nested, seed=st.integers(0, 2**40), policy=st.sampled_from(["fail", "skip"]))
def test_no_type_and_no_range_is_a_defect(server: FilesServer, type_: pa.DataType, seed: int, policy: str) -> None:
    try:
        body = written(pa.table({"c": arrays(type_, seed), "n": list(range(5))}))
    except (pa.ArrowException, OSError, NotImplementedError):
        return
    try:
        rows, rejected = read(server, body, policy)
    except SourceContractError as error:
        assert "a.parquet" in error.message  # noqa: PT017 - either of the two is right
        return
    assert len(rows) + len(rejected) == 5
    assert not any("out of range" in str(row) for row in rows)


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(at=st.integers(0, 10_000), byte=st.integers(0, 255), cut=st.integers(0, 200))
def test_no_damage_is_a_defect(server: FilesServer, at: int, byte: int, cut: int) -> None:
    table = pa.table({"s": ["a", "b"] * 5, "t": pa.array(range(10), pa.timestamp("us")), "l": [[1]] * 10})
    body = bytearray(written(table))
    body[at % len(body)] = byte
    try:
        read(server, bytes(body[: len(body) - cut]), "skip")
    except SourceContractError as error:
        assert "a.parquet" in error.message  # noqa: PT017 - either of the two is right


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (gzip.compress(b"PAR1", mtime=0), "it is compressed as a whole"),
        (zstandard.compress(b"PAR1"), "it is compressed as a whole"),
        (b"PK\x03\x04aaaa", "a zip archive"),
        (bz2.compress(b"PAR1"), "bzip2"),
        (b"Unauthorized", "it is a message and has no rows"),
        (b"a,b\n1,2\n", "it cannot be read as Parquet"),
        (b"", "it cannot be read as Parquet"),
    ],
)
def test_what_is_no_parquet_is_named(server: FilesServer, body: bytes, words: str) -> None:
    with pytest.raises(SourceContractError, match=rf"a\.parquet: .*{words}"):
        read(server, body)


def test_a_struct_with_two_fields_of_one_name_is_named(server: FilesServer) -> None:
    column = pa.StructArray.from_arrays([pa.array([1]), pa.array([2])], names=["a", "a"])
    with pytest.raises(SourceContractError, match="the column 'c' holds a struct with two fields of the same name"):
        read(server, written(pa.table({"c": column})))
