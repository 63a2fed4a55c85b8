"""INT96 moments: Arrow reads them as nanoseconds, which wrap silently outside the years 1677 to 2262.

The same column is read a second time as microseconds. These do not wrap there, and what the two differ by, modulo 2^64,
is what microseconds leave out: so every moment is exact.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from penstock_files_object.unreadable import FIRST_SECOND, LAST_SECOND

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

WRAP = 1 << 64
NANOSECONDS = 1000


def columns_with_int96(metadata: pq.FileMetaData) -> list[str]:
    """Return the top-level columns that hold INT96, themselves or within their values."""
    schema = metadata.schema
    leaves = (schema.column(at) for at in range(len(schema)))
    return list(dict.fromkeys(leaf.path.split(".")[0] for leaf in leaves if leaf.physical_type == "INT96"))


class NestedMomentError(ValueError):
    """Moments within lists or structs that wrapped."""


def unwrapped(batch: pa.RecordBatch, micros: pa.RecordBatch) -> pa.RecordBatch:
    """Return a batch whose INT96 columns are exact, as text where nanoseconds cannot hold them.

    `micros` are the same rows of these columns, read as microseconds. Raises NestedMomentError.
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
        raise NestedMomentError(
            f"the column {name!r} holds INT96 moments within lists or structs that are outside the years 1677 to 2262;"
            " write them as timestamps of microseconds"
        )
    nanos, micros = (array.cast(pa.int64()).to_pylist() for array in (column, exact))
    if all(n is None or n // NANOSECONDS == m for n, m in zip(nanos, micros, strict=True)):
        return None
    texts = exact.cast(pa.string()).to_pylist()
    return pa.array([_text(*each) for each in zip(nanos, micros, texts, strict=True)], pa.string())


def _text(nanos: int | None, micros: int | None, text: str | None) -> str | None:
    if nanos is None or micros is None or text is None:
        return None
    if not FIRST_SECOND <= micros // 10**6 <= LAST_SECOND:
        return text  # `unreadable_rows` has put it aside
    return f"{text.replace(' ', 'T')}{(nanos - micros * NANOSECONDS) % WRAP:03d}"
