"""Parquet: row group by row group over ranged requests, so that memory is that of a batch and not of a file.

pyarrow is imported where it is needed: it takes longer than everything else of this connector together.
"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from penstock_sdk import SourceContractError

from penstock_files_object.arrow_values import exact, property_of
from penstock_files_object.config import StreamConfig
from penstock_files_object.content import GZIP, ZSTD
from penstock_files_object.int96 import columns_with_int96, unwrapped
from penstock_files_object.progress import File
from penstock_files_object.rejects import BadRows
from penstock_files_object.sniffing import HEAD_BYTES, error_in_words, other_than_data, other_than_text
from penstock_files_object.transport import Transport
from penstock_files_object.unreadable import kept_row, unreadable_rows

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

UNREADABLE = (OSError, ValueError, TypeError, LookupError, OverflowError, MemoryError, NotImplementedError)
"""What pyarrow raises, beside errors of its own, for a file that is damaged or holds what it does not know."""
PACKED = "it is compressed as a whole, and Parquet compresses within the file; store it unpacked"
WHOLE_BYTES = 64 << 20
BUFFERS_BYTES = 16 << 20
BUFFER_BYTES = (64 << 10, 4 << 20)
Position = dict[str, int]


class RangeFile(io.RawIOBase):
    """A file in a store, read at any place by ranged requests."""

    def __init__(self, transport: Transport, file: File, size: int) -> None:
        self._transport = transport
        self._file = file
        self._size = size
        self._at = 0

    def readable(self) -> bool:
        """It can be read."""
        return True

    def seekable(self) -> bool:
        """It can be read anywhere."""
        return True

    def tell(self) -> int:
        """Return where the next read begins."""
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Have the next read begin elsewhere."""
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        return self._at

    def read(self, size: int = -1) -> bytes:
        """Return the next bytes."""
        wanted = self._size - self._at if size < 0 else min(size, self._size - self._at)
        if wanted <= 0:
            return b""
        data = self._transport.part(self._file, self._at, wanted)
        if data is None or len(data) != wanted:
            raise SourceContractError(
                f"{self._file.name}: the server does not give the part of the file that was asked for"
            )
        self._at += wanted
        return data


@dataclass
class ParquetFile:
    """One file being read."""

    stream: StreamConfig
    file: File
    transport: Transport
    bad: BadRows | None = None

    def schema(self) -> dict[str, Any]:
        """Return the properties of a record."""
        with self._named():
            fields = self._opened().schema_arrow
            self._check_names(fields)
            return {field.name: property_of(field.type) for field in fields}

    def batches(self, properties: dict[str, Any], at: Position | None, size: int) -> Iterator[tuple[Any, Position]]:
        """Yield batches with the place after them, a count of rows."""
        done = at["row"] if at else 0
        with self._named():
            reader = self._opened()
            self._check(reader, properties)
            moments = self._micros(reader)
            first = 0
            for group in range(reader.num_row_groups):
                rows = reader.metadata.row_group(group).num_rows
                position = first
                if first + rows > done:
                    for batch, micros in _pairs(reader, moments, group, size):
                        skipped = min(max(0, done - position), batch.num_rows)
                        begin, position = position + skipped, position + batch.num_rows
                        if skipped < batch.num_rows:
                            good = self._good(batch.slice(skipped), micros and micros.slice(skipped), begin)
                            yield exact(good), {"row": position}
                first += rows

    def _micros(self, reader: pq.ParquetFile) -> pq.ParquetFile | None:
        """Return the file once more, with INT96 as microseconds, if it has such columns."""
        import pyarrow.parquet as pq

        if not columns_with_int96(reader.metadata):
            return None
        return pq.ParquetFile(
            self._source(), metadata=reader.metadata, pre_buffer=False, coerce_int96_timestamp_unit="us"
        )

    def _good(self, batch: pa.RecordBatch, micros: pa.RecordBatch | None, begin: int) -> pa.RecordBatch:
        """Return the rows that can be records; the others are bad rows, counted from 1."""
        import pyarrow as pa

        problems = unreadable_rows(batch)
        if micros is not None:
            problems = {**unreadable_rows(micros), **problems}
            batch = unwrapped(batch, micros)
        if not problems or self.bad is None:
            return batch
        for row in sorted(problems):
            self.bad.take(begin + row + 1, problems[row], kept_row(batch, row))
        return batch.filter(pa.array([row not in problems for row in range(batch.num_rows)]))

    def _opened(self) -> pq.ParquetFile:
        import pyarrow.parquet as pq

        source = self._source()
        self._refuse_pages(source)
        metadata = pq.read_metadata(source)
        columns = max(1, metadata.num_columns)
        buffer = min(max(BUFFERS_BYTES // columns, BUFFER_BYTES[0]), BUFFER_BYTES[1])
        return pq.ParquetFile(source, metadata=metadata, buffer_size=buffer, pre_buffer=False)

    def _refuse_pages(self, source: Any) -> None:
        """Raise SourceContractError that says what a file is which does not begin as Parquet does."""
        head = source.read(HEAD_BYTES)
        source.seek(0)
        if head.startswith((b"PAR1", b"PARE")):
            return
        other = PACKED if head.startswith((GZIP, ZSTD)) else other_than_text(head, is_utf8=False)
        other = other or other_than_data(head)
        other = other or error_in_words(head, self.file.media_type, is_whole=len(head) < HEAD_BYTES)
        if other:
            raise SourceContractError(f"stream {self.stream.name!r}: {self.file.name}: {other}")

    def _source(self) -> Any:
        """Return the file by ranges, or from memory where the server knows none and the file is small."""
        size = self.file.size
        if size and self.transport.part(self.file, 0, 1) is not None:
            return RangeFile(self.transport, self.file, size)
        held = bytearray()
        for data in self.transport.content(self.file, 0):
            held += data
            if len(held) > WHOLE_BYTES:
                raise SourceContractError(
                    f"{self.file.name}: Parquet is read from its end, and the server gives no parts of a file (Range);"
                    f" it is larger than the {WHOLE_BYTES >> 20} MiB that are read as a whole"
                )
        return io.BytesIO(held)

    def _check_names(self, fields: pa.Schema) -> None:
        unfit = next((field.name for field in fields if "\0" in f"{field.name}{field.type}"), None)
        if unfit is not None:
            raise SourceContractError(
                f"stream {self.stream.name!r}: {self.file.name}: the column {unfit!r}, or a field within it, has a NUL in"
                " its name; write the file with another name"
            )

    def _check(self, reader: pq.ParquetFile, properties: dict[str, Any]) -> None:
        names = [field.name for field in reader.schema_arrow]
        where = f"stream {self.stream.name!r}: {self.file.name}"
        doubles = [name for name, count in Counter(names).items() if count > 1]
        if doubles:
            raise SourceContractError(
                f"{where}: the column {doubles[0]!r} is there twice; write the file with a name for each column"
            )
        absent = [name for name in self.stream.primary_key if name not in names]
        if absent:
            raise SourceContractError(f"{where}: the primary key's column {absent[0]!r} is not there")
        twice = next((field.name for field in reader.schema_arrow if _has_doubles(field.type)), None)
        if twice is not None:
            raise SourceContractError(f"{where}: the column {twice!r} holds a struct that has two fields of one name")
        for field in reader.schema_arrow:
            if field.name not in properties:
                if self.stream.infer:
                    raise SourceContractError(
                        f"{where}: the column {field.name!r} is not in the stream's schema, which a sample of the files"
                        " gave; declare it under the stream's schema.properties"
                    )
            elif more := _types(property_of(field.type)) - _types(properties[field.name]):
                raise SourceContractError(
                    f"{where}: the column {field.name!r} is {field.type}, and may be {', '.join(sorted(more))}, which is not what"
                    " the stream's schema says; declare it under the stream's schema.properties, or read these files as a"
                    " stream of their own"
                )

    @contextmanager
    def _named(self) -> Iterator[None]:
        import pyarrow as pa

        try:
            yield
        except (pa.ArrowException, *UNREADABLE) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise SourceContractError(
                f"stream {self.stream.name!r}: {self.file.name}: it cannot be read as Parquet: {reason}"
            ) from None


def _pairs(
    reader: pq.ParquetFile, moments: pq.ParquetFile | None, group: int, size: int
) -> Iterator[tuple[pa.RecordBatch, pa.RecordBatch | None]]:
    """Yield a row group's batches, each with its INT96 columns read as microseconds."""
    batches = reader.iter_batches(size, row_groups=[group], use_threads=False)
    if moments is None:
        yield from ((batch, None) for batch in batches)
        return
    names = columns_with_int96(reader.metadata)
    again = moments.iter_batches(size, row_groups=[group], columns=names, use_threads=False)
    yield from zip(batches, again, strict=True)


def _has_doubles(type_: pa.DataType) -> bool:
    """Say whether a struct within a type has two fields of one name, which no JSON object can hold."""
    import pyarrow as pa

    if not pa.types.is_nested(type_):
        return False
    fields = [type_.field(at) for at in range(type_.num_fields)]
    names = {field.name for field in fields}
    return (pa.types.is_struct(type_) and len(names) < len(fields)) or any(_has_doubles(each.type) for each in fields)


def _types(schema: dict[str, Any]) -> set[str]:
    """Return the types that a property may have; none said is any."""
    declared = schema.get("type", ["array", "boolean", "integer", "null", "number", "object", "string"])
    types = {declared} if isinstance(declared, str) else set(declared)
    return types | {"integer"} if "number" in types else types
