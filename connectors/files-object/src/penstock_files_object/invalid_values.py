"""Finds Parquet values that a record cannot hold: text that is not UTF-8, and dates and times out of range."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import msgspec
from penstock_sdk import Record

if TYPE_CHECKING:
    import pyarrow as pa

FIRST_SECOND, LAST_SECOND = -62_135_596_800, 253_402_300_799
"""The years 1 to 9999, as in RFC 3339 and nearly all programs that read timestamps."""
DAY_SECONDS = 86_400
PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
OUT_OF_RANGE = "has a date or a timestamp outside the years 1 to 9999, or a time outside the day"
NOT_TEXT = "has text that is not UTF-8, or is damaged"


def invalid_rows(batch: pa.RecordBatch) -> dict[int, str]:
    """Return the rows that cannot be records, each with its reason. Raises ArrowInvalid if the batch is damaged."""
    found: dict[int, str] = {}
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        if _is_damaged(column):
            bad = _rows(column, lambda row: any(map(_is_damaged, _leaves(row))))
            if not bad:
                column.validate(full=True)
            found = {**dict.fromkeys(bad, f"the column {name!r} {NOT_TEXT}"), **found}
        if _is_beyond_limits(column):
            bad = _rows(column, _is_beyond_limits)
            found = {**dict.fromkeys(bad, f"the column {name!r} {OUT_OF_RANGE}"), **found}
    return found


def _rows(column: pa.Array, is_bad: Callable[[pa.Array], bool]) -> list[int]:
    return [row for row in range(len(column)) if is_bad(column.slice(row, 1))]


def reported_row(batch: pa.RecordBatch, row: int) -> Record:
    """Return a row as JSON values, to be kept with the reason why it was rejected."""
    columns = zip(batch.schema.names, batch.columns, strict=True)
    return {name: _reported_value(column.slice(row, 1)) for name, column in columns}


def _reported_value(value: pa.Array) -> Any:
    import pyarrow as pa

    try:
        [found] = value.to_pylist()
        msgspec.json.encode(found)
    except (ValueError, TypeError, OverflowError, pa.ArrowException):
        return _raw_value(value)
    return found


def _raw_value(value: pa.Array) -> str:
    import pyarrow as pa

    for type_ in (pa.binary(), pa.int64()):
        try:
            [found] = value.cast(type_, safe=False).to_pylist()
        except (ValueError, TypeError, pa.ArrowException):
            continue
        return found.decode(errors="backslashreplace") if isinstance(found, bytes) else str(found)
    return "(cannot be shown)"


def _is_damaged(column: pa.Array) -> bool:
    import pyarrow as pa

    try:
        column.validate(full=True)
    except pa.ArrowInvalid:
        return True
    return False


def _is_beyond_limits(column: pa.Array) -> bool:
    return any(_has_value_beyond_limits(leaf) for leaf in _leaves(column))


def _leaves(array: pa.Array) -> Iterator[pa.Array]:
    """Yield the arrays of plain values within a nested array, limited to its rows."""
    import pyarrow as pa
    from pyarrow import types

    if isinstance(array, pa.ExtensionArray):
        yield from _leaves(array.storage)
    elif types.is_dictionary(array.type):
        yield from _leaves(array.dictionary_decode())
    elif types.is_struct(array.type):
        for child in array.flatten():
            yield from _leaves(child)
    elif types.is_map(array.type):
        entries = pa.ListArray.from_arrays(
            array.offsets, pa.StructArray.from_arrays([array.keys, array.items], ["k", "v"])
        )
        yield from _leaves(entries.flatten())
    elif types.is_nested(array.type) and hasattr(array, "flatten"):
        yield from _leaves(array.flatten())
    else:
        yield array


def _has_value_beyond_limits(leaf: pa.Array) -> bool:
    import pyarrow as pa
    import pyarrow.compute as pc

    limits = _limits(leaf.type)
    if limits is None or leaf.null_count == len(leaf):
        return False
    width = pa.int32() if leaf.type.bit_width == pa.int32().bit_width else pa.int64()
    ends = pc.min_max(leaf.view(width)).as_py()
    return bool(ends["min"] < limits[0] or ends["max"] > limits[1])


def _limits(type_: pa.DataType) -> tuple[int, int] | None:
    from pyarrow import types

    if types.is_timestamp(type_):
        per_second = PER_SECOND[type_.unit]
        return FIRST_SECOND * per_second, (LAST_SECOND + 1) * per_second - 1
    if types.is_date32(type_):
        return FIRST_SECOND // DAY_SECONDS, LAST_SECOND // DAY_SECONDS
    if types.is_date64(type_):
        return FIRST_SECOND * 1000, LAST_SECOND * 1000
    if types.is_time(type_):
        return 0, DAY_SECONDS * PER_SECOND[type_.unit] - 1
    return None
