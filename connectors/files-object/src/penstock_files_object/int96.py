"""Exact INT96 timestamps. Arrow reads them as nanoseconds, which overflow silently outside the years 1677 to 2262.

The same column is read a second time as microseconds, which do not overflow. The difference of the two, modulo 2^64, is
the number of nanoseconds within the microsecond, so every timestamp is exact.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from penstock_files_object.invalid_values import FIRST_SECOND, LAST_SECOND

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

OVERFLOW = 1 << 64
NANOSECONDS_PER_MICROSECOND = 1000


def columns_with_int96(metadata: pq.FileMetaData) -> list[str]:
    """Return the top-level columns of type INT96, or with INT96 inside."""
    schema = metadata.schema
    leaves = (schema.column(at) for at in range(len(schema)))
    return list(dict.fromkeys(leaf.path.split(".")[0] for leaf in leaves if leaf.physical_type == "INT96"))


class NestedTimestampError(ValueError):
    """Timestamps within lists or structs overflowed."""


def exact_int96(batch: pa.RecordBatch, micros: pa.RecordBatch) -> pa.RecordBatch:
    """Return the batch with exact INT96 columns: as text if a timestamp overflowed.

    `micros` has the same rows of these columns, read as microseconds. Raises NestedTimestampError.
    """
    for name in micros.schema.names:
        at = batch.schema.get_field_index(name)
        column, exact = batch.column(at), micros.column(name)
        if _truncated(column, exact.type).equals(exact):
            continue
        made = _exact_texts(column, exact, name)
        if made is not None:
            batch = batch.set_column(at, name, made)
    return batch


def _truncated(column: pa.Array, type_: pa.DataType) -> pa.Array:
    return column.cast(type_, safe=False)


def _exact_texts(column: pa.Array, exact: pa.Array, name: str) -> pa.Array | None:
    import pyarrow as pa

    if not pa.types.is_timestamp(column.type):
        raise NestedTimestampError(
            f"the column {name!r} has INT96 timestamps within lists or structs that are outside the years 1677 to 2262;"
            " write them as timestamps in microseconds"
        )
    nanos, micros = (array.cast(pa.int64()).to_pylist() for array in (column, exact))
    if all(n is None or n // NANOSECONDS_PER_MICROSECOND == m for n, m in zip(nanos, micros, strict=True)):
        return None
    texts = exact.cast(pa.string()).to_pylist()
    return pa.array(list(map(_text, nanos, micros, texts)), pa.string())


def _text(nanos: int | None, micros: int | None, text: str | None) -> str | None:
    if nanos is None or micros is None or text is None:
        return None
    if not FIRST_SECOND <= micros // 10**6 <= LAST_SECOND:
        return text  # `invalid_rows` has reported it
    return f"{text.replace(' ', 'T')}{(nanos - micros * NANOSECONDS_PER_MICROSECOND) % OVERFLOW:03d}"
