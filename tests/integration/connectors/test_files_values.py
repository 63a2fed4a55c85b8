"""Parquet's values against the integers, texts and bytes that they were made of: none is rounded, moved or left out.

The oracle writes each value by its own arithmetic and knows nothing of Arrow's conversions.
"""

from __future__ import annotations

import base64
import io
import math
import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Context, Decimal
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from penstock_sdk.contract import CollectingSink, rows_of

from tests.integration.connectors.files_server import FilesServer, serving
from tests.integration.connectors.test_files_answers import EXAMPLES, opened

PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
DIGITS = {"s": 0, "ms": 3, "us": 6, "ns": 9}
BEGINNING = datetime(1970, 1, 1, tzinfo=UTC)
FIRST, LAST = -62_135_596_800, 253_402_300_799
LONGEST = 2**63 - 1
Exact = Context(prec=80)


@pytest.fixture(scope="module")
def server() -> Iterator[FilesServer]:
    with serving() as running:
        yield running


def moment(count: int, unit: str) -> str:
    seconds, rest = divmod(count, PER_SECOND[unit])
    text = (BEGINNING + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%S").rjust(19, "0")
    return text + (f".{rest:0{DIGITS[unit]}d}" if DIGITS[unit] else "")


def clock(count: int, unit: str) -> str:
    seconds, rest = divmod(count, PER_SECOND[unit])
    text = f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"
    return text + (f".{rest:0{DIGITS[unit]}d}" if DIGITS[unit] else "")


def moments(unit: str) -> st.SearchStrategy[int]:
    least, most = FIRST * PER_SECOND[unit], (LAST + 1) * PER_SECOND[unit] - 1
    return st.integers(max(least, -LONGEST), min(most, LONGEST))


def floats(width: Any) -> st.SearchStrategy[float]:
    return st.floats(width=width)


def named(value: float) -> Any:
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def case(type_: pa.DataType, values: st.SearchStrategy[Any], said: Any, storage: pa.DataType | None = None) -> Any:
    """A type, what its values are made of, how a record says them, and the type that they are counted in."""
    return st.tuples(st.just((type_, storage)), st.lists(st.none() | values, min_size=1, max_size=8), st.just(said))


cases = st.one_of(
    *(
        case(type_, st.integers(-(2 ** (type_.bit_width - 1)), 2 ** (type_.bit_width - 1) - 1), int)
        for type_ in (pa.int8(), pa.int16(), pa.int32(), pa.int64())
    ),
    *(
        case(type_, st.integers(0, 2**type_.bit_width - 1), int)
        for type_ in (pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64())
    ),
    case(pa.float64(), floats(64), named),
    case(pa.float32(), floats(32), named),
    case(pa.bool_(), st.booleans(), bool),
    *(
        case(type_, st.text(st.characters(codec="utf-8"), max_size=9), str)
        for type_ in (pa.string(), pa.large_string())
    ),
    *(
        case(type_, st.binary(max_size=9), lambda value: base64.b64encode(value).decode())
        for type_ in (pa.binary(), pa.large_binary())
    ),
    case(
        pa.decimal128(38, 10),
        st.integers(-(10**38) + 1, 10**38 - 1).map(lambda number: Decimal(number).scaleb(-10, Exact)),
        lambda value: f"{value:f}",
    ),
    case(
        pa.decimal256(76, 0),
        st.integers(-(10**76) + 1, 10**76 - 1).map(Decimal),
        lambda value: f"{value:f}",
    ),
    case(
        pa.date32(),
        st.integers(FIRST // 86_400, LAST // 86_400),
        lambda days: moment(days * 86_400, "s")[:10],
        pa.int32(),
    ),
    *(
        case(
            pa.time64(unit),
            st.integers(0, 86_400 * PER_SECOND[unit] - 1),
            lambda count, unit=unit: clock(count, unit),
            pa.int64(),
        )
        for unit in ("us", "ns")
    ),
    case(pa.time32("ms"), st.integers(0, 86_399_999), lambda count: clock(count, "ms"), pa.int32()),
    *(
        case(
            pa.timestamp(unit, zone),
            moments(unit),
            lambda count, unit=unit, zone=zone: moment(count, unit) + ("Z" if zone else ""),
            pa.int64(),
        )
        for unit in ("ms", "us", "ns")
        for zone in (None, "UTC", "Asia/Kolkata", "-03:00")
    ),
    *(case(pa.duration(unit), st.integers(-LONGEST, LONGEST), int, pa.int64()) for unit in ("ms", "us", "ns")),
    case(pa.dictionary(pa.int32(), pa.string()), st.sampled_from(["a", "", "é"]), str),
    case(pa.list_(pa.int64()), st.lists(st.none() | st.integers(-(2**63), 2**63 - 1), max_size=3), list),
    case(
        pa.list_(pa.list_(pa.string())),
        st.lists(st.lists(st.text(st.characters(codec="utf-8"), max_size=3), max_size=2), max_size=2),
        list,
    ),
    case(
        pa.struct([("x", pa.int64()), ("y", pa.list_(pa.float64()))]),
        st.fixed_dictionaries(
            {"x": st.none() | st.integers(0, 2**53 + 1), "y": st.none() | st.lists(floats(64), max_size=2)}
        ),
        lambda value: {"x": value["x"], "y": None if value["y"] is None else [named(item) for item in value["y"]]},
    ),
    case(
        pa.map_(pa.string(), pa.int64()),
        st.dictionaries(st.sampled_from("abc"), st.integers(0, 9), max_size=3).map(lambda pairs: list(pairs.items())),
        lambda pairs: [list(pair) for pair in pairs],
    ),
)


@settings(max_examples=EXAMPLES * 2, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(found=cases, seed=st.integers(0, 99), version=st.sampled_from(["1.0", "2.4", "2.6"]))
def test_a_value_of_parquet_is_the_one_that_was_written(
    server: FilesServer, found: tuple[Any, list[Any], Any], seed: int, version: str
) -> None:
    (type_, storage), values, said = found
    chance = random.Random(seed)
    made = pa.array(values, storage or type_)
    column = made.view(type_) if storage else made
    sink = io.BytesIO()
    pq.write_table(
        pa.table({"c": column, "n": list(range(len(values)))}),
        sink,
        version=version if not pa.types.is_unsigned_integer(type_) and "[ns" not in str(type_) else "2.6",
        row_group_size=chance.choice([1, 2, 100]),
        compression=chance.choice(["NONE", "SNAPPY", "GZIP", "ZSTD", "BROTLI", "LZ4"]),
        use_dictionary=chance.random() < 0.5,
        data_page_version=chance.choice(["1.0", "2.0"]),
        data_page_size=chance.choice([10, 1 << 20]),
    )
    source = opened(server, server.put("v.parquet", sink.getvalue()), format="parquet", infer=False, schema={})
    source.config.batch_rows = chance.choice([1, 3, 2000])
    source.sink = CollectingSink()
    [stream] = source.discover()
    batches = list(source.read(stream, None, None))
    records = [row for batch in batches for row in rows_of(batch.records)]
    told = msgspec.json.decode(msgspec.json.encode(records))
    source.close()
    assert [row["n"] for row in told] == list(range(len(values)))
    assert [row["c"] for row in told] == [None if value is None else said(value) for value in values]
    assert source.sink.rejected == []
