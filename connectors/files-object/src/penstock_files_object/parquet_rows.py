"""Reads Parquet one row group after the other by ranged requests, so that memory depends on the batch, not on the file.

pyarrow is imported inside functions: importing it takes longer than all other imports of this connector together.
"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from penstock_sdk import Records, SourceContractError
from penstock_sdk.json_types import JsonSchema, types_of

from penstock_files_object.arrow_values import exact_values, schema_of_arrow_type
from penstock_files_object.bad_rows import BadRows
from penstock_files_object.config import JSON_TYPES, StreamConfig
from penstock_files_object.content import GZIP, ZSTD
from penstock_files_object.file_cursor import File, FileOffset
from penstock_files_object.int96 import columns_with_int96, exact_int96
from penstock_files_object.invalid_values import invalid_rows, reported_row
from penstock_files_object.sniffing import HEAD_BYTES, why_not_rows, why_not_text, why_server_message
from penstock_files_object.transport import Transport

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

UNREADABLE = (OSError, ValueError, TypeError, LookupError, OverflowError, MemoryError, NotImplementedError)
"""Errors that pyarrow raises, besides its own, for a file that is damaged or has features that it does not support."""
COMPRESSED_AS_A_WHOLE = "it is compressed as a whole, and Parquet files are compressed inside; decompress the file"
WHOLE_BYTES = 64 << 20
BUFFERS_BYTES = 16 << 20
BUFFER_BYTES = (64 << 10, 4 << 20)


class RemoteFile(io.RawIOBase):
    """A file in a store. Each read is a ranged request."""

    def __init__(self, transport: Transport, file: File, size: int) -> None:
        self._transport = transport
        self._file = file
        self._size = size
        self._at = 0

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def tell(self) -> int:
        """Return the byte at which the next read begins."""
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Set the byte at which the next read begins."""
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        return self._at

    def read(self, size: int = -1) -> bytes:
        """Return the next bytes."""
        length = self._size - self._at if size < 0 else min(size, self._size - self._at)
        if length <= 0:
            return b""
        data = self._transport.read_bytes(self._file, self._at, length)
        if data is None or len(data) != length:
            raise SourceContractError(
                f"{self._file.name}: the server does not send the bytes that were requested; check that it supports Range"
            )
        self._at += length
        return data


@dataclass
class ParquetFile:
    """A Parquet file that is being read. Without `bad_rows`, values are not checked."""

    stream: StreamConfig
    file: File
    transport: Transport
    bad_rows: BadRows | None = None

    def schema(self) -> dict[str, JsonSchema]:
        """Return the properties of the records' JSON Schema."""
        with self._mapped_errors():
            fields = self._opened().schema_arrow
            self._check_names(fields)
            return {field.name: schema_of_arrow_type(field.type) for field in fields}

    def batches(
        self, properties: Mapping[str, JsonSchema], start: FileOffset | None, size: int
    ) -> Iterator[tuple[Records, FileOffset]]:
        """Yield batches with the offset after them."""
        done = start.row if start else 0
        with self._mapped_errors():
            reader = self._opened()
            self._check(reader, properties)
            microsecond_reader = self._microsecond_reader(reader)
            first = 0
            for group in range(reader.num_row_groups):
                rows = reader.metadata.row_group(group).num_rows
                row = first
                if first + rows > done:
                    for batch, micros in _pairs(reader, microsecond_reader, group, size):
                        skipped = min(max(0, done - row), batch.num_rows)
                        begin, row = row + skipped, row + batch.num_rows
                        if skipped < batch.num_rows:
                            good = self._good(batch.slice(skipped), micros and micros.slice(skipped), begin)
                            yield exact_values(good), FileOffset(row=row)
                first += rows

    def _microsecond_reader(self, reader: pq.ParquetFile) -> pq.ParquetFile | None:
        """Return a second reader that reads INT96 columns as microseconds; None if there are no INT96 columns."""
        import pyarrow.parquet as pq

        if not columns_with_int96(reader.metadata):
            return None
        return pq.ParquetFile(
            self._source(), metadata=reader.metadata, pre_buffer=False, coerce_int96_timestamp_unit="us"
        )

    def _good(self, batch: pa.RecordBatch, micros: pa.RecordBatch | None, begin: int) -> pa.RecordBatch:
        """Return the rows without invalid values. The others are reported as bad rows; the first row is number 1."""
        import pyarrow as pa

        problems = invalid_rows(batch)
        if micros is not None:
            problems = {**invalid_rows(micros), **problems}
            batch = exact_int96(batch, micros)
        if not problems or self.bad_rows is None:
            return batch
        for row in sorted(problems):
            self.bad_rows.add(begin + row + 1, problems[row], reported_row(batch, row))
        return batch.filter(pa.array([row not in problems for row in range(batch.num_rows)]))

    def _opened(self) -> pq.ParquetFile:
        import pyarrow.parquet as pq

        source = self._source()
        self._refuse_other_formats(source)
        metadata = pq.read_metadata(source)
        columns = max(1, metadata.num_columns)
        buffer = min(max(BUFFERS_BYTES // columns, BUFFER_BYTES[0]), BUFFER_BYTES[1])
        return pq.ParquetFile(source, metadata=metadata, buffer_size=buffer, pre_buffer=False)

    def _refuse_other_formats(self, source: Any) -> None:
        """Raise SourceContractError with the file's format, if it is known and not Parquet."""
        head = source.read(HEAD_BYTES)
        source.seek(0)
        if head.startswith((b"PAR1", b"PARE")):
            return
        other = COMPRESSED_AS_A_WHOLE if head.startswith((GZIP, ZSTD)) else why_not_text(head, is_utf8=False)
        other = other or why_not_rows(head)
        other = other or why_server_message(head, self.file.media_type, is_whole=len(head) < HEAD_BYTES)
        if other:
            raise SourceContractError(f"stream {self.stream.name!r}: {self.file.name}: {other}")

    def _source(self) -> Any:
        """Return the file by ranged requests; from memory if the server does not support Range and the file is small."""
        size = self.file.size
        if size and self.transport.read_bytes(self.file, 0, 1) is not None:
            return RemoteFile(self.transport, self.file, size)
        held = bytearray()
        for data in self.transport.content(self.file, 0):
            held += data
            if len(held) > WHOLE_BYTES:
                raise SourceContractError(
                    f"{self.file.name}: Parquet is read from its end, and the server does not support Range; without it, at"
                    f" most {WHOLE_BYTES >> 20} MiB are read; use a server that supports Range, or write smaller files"
                )
        return io.BytesIO(held)

    def _check_names(self, fields: pa.Schema) -> None:
        unfit = next((field.name for field in fields if "\0" in f"{field.name}{field.type}"), None)
        if unfit is not None:
            raise SourceContractError(
                f"stream {self.stream.name!r}: {self.file.name}: the column {unfit!r}, or a field within it, has a NUL in"
                " its name; write the file with another name"
            )

    def _check(self, reader: pq.ParquetFile, properties: Mapping[str, JsonSchema]) -> None:
        names = [field.name for field in reader.schema_arrow]
        where = f"stream {self.stream.name!r}: {self.file.name}"
        duplicates = [name for name, count in Counter(names).items() if count > 1]
        if duplicates:
            raise SourceContractError(
                f"{where}: two columns have the name {duplicates[0]!r}; write the file with distinct names"
            )
        absent = [name for name in self.stream.primary_key if name not in names]
        if absent:
            raise SourceContractError(
                f"{where}: there is no column {absent[0]!r}, which is in primaryKey; correct primaryKey on the stream"
            )
        twice = next((field.name for field in reader.schema_arrow if _has_duplicate_fields(field.type)), None)
        if twice is not None:
            raise SourceContractError(
                f"{where}: the column {twice!r} holds a struct with two fields of the same name; write the file with"
                " distinct names"
            )
        for field in reader.schema_arrow:
            if field.name not in properties:
                if self.stream.infer:
                    raise SourceContractError(
                        f"{where}: the column {field.name!r} is not in the stream's schema, which is inferred from a"
                        " sample of the files; declare it under the stream's schema.properties"
                    )
            elif more := _types(schema_of_arrow_type(field.type)) - _types(properties[field.name]):
                raise SourceContractError(
                    f"{where}: the column {field.name!r} is {field.type}, and may be {', '.join(sorted(more))}, which is not in"
                    " the stream's schema; declare it under the stream's schema.properties, or read these files as a"
                    " stream of their own"
                )

    @contextmanager
    def _mapped_errors(self) -> Iterator[None]:
        import pyarrow as pa

        try:
            yield
        except (pa.ArrowException, *UNREADABLE) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise SourceContractError(
                f"stream {self.stream.name!r}: {self.file.name}: it cannot be read as Parquet: {reason}; correct"
                " the file, or leave it out of spec.config.streams.paths"
            ) from None


def _pairs(
    reader: pq.ParquetFile, microsecond_reader: pq.ParquetFile | None, group: int, size: int
) -> Iterator[tuple[pa.RecordBatch, pa.RecordBatch | None]]:
    """Yield the batches of a row group, each with its INT96 columns read as microseconds."""
    batches = reader.iter_batches(size, row_groups=[group], use_threads=False)
    if microsecond_reader is None:
        yield from ((batch, None) for batch in batches)
        return
    names = columns_with_int96(reader.metadata)
    again = microsecond_reader.iter_batches(size, row_groups=[group], columns=names, use_threads=False)
    yield from zip(batches, again, strict=True)


def _has_duplicate_fields(type_: pa.DataType) -> bool:
    """Return True if a struct within a type has two fields of the same name, which a JSON object cannot have."""
    import pyarrow as pa

    if not pa.types.is_nested(type_):
        return False
    fields = [type_.field(at) for at in range(type_.num_fields)]
    names = {field.name for field in fields}
    return (pa.types.is_struct(type_) and len(names) < len(fields)) or any(
        _has_duplicate_fields(field.type) for field in fields
    )


def _types(schema: JsonSchema) -> set[str]:
    """Return the types that a property may have: all of them if the schema names none."""
    types = set(types_of(schema)) or set(JSON_TYPES)
    return types | {"integer"} if "number" in types else types
