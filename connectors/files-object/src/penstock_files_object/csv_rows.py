"""Reads CSV with the standard library's parser, over lines with known offsets, so that a read can resume after any row."""

from __future__ import annotations

import codecs
import csv
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain, islice
from typing import NoReturn

from penstock_sdk import Record, SourceContractError
from penstock_sdk.json_types import JsonSchema

from penstock_files_object.bad_rows import BadRows
from penstock_files_object.config import CsvOptions, StreamConfig
from penstock_files_object.content import MOST_ROW_BYTES, LineReader, OpenContent, RowTooLongError, TextContent
from penstock_files_object.file_cursor import File, FileOffset
from penstock_files_object.values import ColumnType, convert_column, type_of_schema

SINGLE_BYTE_ENCODINGS = ("ascii", "utf-8", "cp125", "iso8859", "latin", "koi8", "mac-")
CsvRow = tuple[int, list[str]]
"""The line at which a row begins, and its fields."""


def line_encoding(encoding: str) -> str | None:
    """Return the encoding to decode single lines with; None if a line break may be within a character, as in UTF-16."""
    name = codecs.lookup(encoding).name
    if name == "utf-8-sig":
        return "utf-8"
    return name if name.startswith(SINGLE_BYTE_ENCODINGS) else None


@dataclass
class CsvFile:
    """A CSV file that is being read. `names` has the column names, once the header has been read."""

    stream: StreamConfig
    file: File
    open_content: OpenContent
    bad_rows: BadRows
    names: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        csv.field_size_limit(MOST_ROW_BYTES)
        options = self.stream.csv
        encoding = line_encoding(options.encoding)
        self._content = TextContent(
            self.file,
            self.open_content,
            self.stream.compression,
            None if encoding else options.encoding,
            is_utf8=encoding == "utf-8",
            may_hold_markup=not options.header,
            has_header=options.header and not options.skip_rows,
            is_table=not options.skip_rows,
        )
        self._encoding = encoding or "utf-8"
        self._lines = LineReader(self._content)

    def rows(self, start: FileOffset | None = None) -> Iterator[CsvRow]:
        """Yield the rows that have as many fields as the header, from an offset on that `offset` returned."""
        first = self._header()
        if start:
            self._lines.skip_to(start.byte, start.line)
            first = None
        width = len(self.names)
        for line, row in chain([first] if first else [], self._parsed()):
            if len(row) == width:
                yield line, row
            else:
                self.bad_rows.add(line, f"it has {len(row)} fields, and the file has {width} columns", row)

    def offset(self) -> FileOffset:
        """Return the offset of the next row."""
        return FileOffset(self._lines.offset, self._lines.line)

    def close(self) -> None:
        """Close the connection."""
        self._content.close()

    def _header(self) -> CsvRow | None:
        """Set the names. Returns the first row if the file has no header."""
        for _ in range(self.stream.csv.skip_rows):
            self._lines.begin_row()
            try:
                next(self._lines, None)
            except RowTooLongError as error:
                self._refuse(self._lines.line, str(error))
        first = next(self._parsed(header=True), None)
        if first is None:
            return None
        options = self.stream.csv
        if not options.header:
            self.names = list(options.columns) or [f"column_{number}" for number in range(1, len(first[1]) + 1)]
            return first
        self.names = [name or f"column_{number}" for number, name in enumerate(first[1], 1)]
        if any("\0" in name for name in self.names):
            self._refuse(
                first[0],
                "a column's name has a NUL character: the file is not CSV, or has another encoding; correct the path, or set"
                " csv.encoding on the stream",
            )
        duplicates = [name for name, count in Counter(self.names).items() if count > 1]
        if duplicates and options.duplicate_headers == "refuse":
            raise SourceContractError(
                f"stream {self.stream.name!r}: {self.file.name}, line {first[0]}: two columns have the name"
                f" {duplicates[0]!r}; set csv.duplicateHeaders: rename on the stream to read them as {duplicates[0]!r} and"
                f" {duplicates[0] + '_2'!r}"
            )
        self.names = _distinct_names(self.names)
        return None

    def _parsed(self, *, header: bool = False) -> Iterator[CsvRow]:
        options = self.stream.csv
        texts = (line.decode(self._encoding) for line in self._lines)
        lines = self._lines
        while True:
            reader = csv.reader(texts, _csv_dialect(options))
            try:
                while True:
                    lines.begin_row()
                    begin = lines.line + 1
                    row = next(reader)
                    if row:
                        yield begin, row
            except StopIteration:
                return
            except (csv.Error, UnicodeDecodeError, RowTooLongError) as error:
                reason = (
                    f"it is not {options.encoding}; set csv.encoding on the stream, such as windows-1252"
                    if isinstance(error, UnicodeDecodeError)
                    else str(error)
                )
                if header:
                    self._refuse(begin, reason)
                self.bad_rows.add(begin, reason, lines.row_lines[0])
                lines.unread_later_lines()
                texts = (line.decode(self._encoding) for line in lines)

    def _refuse(self, line: int, reason: str) -> NoReturn:
        raise SourceContractError(f"stream {self.stream.name!r}: {self.file.name}, line {line}: {reason}") from None


def _csv_dialect(options: CsvOptions) -> type[csv.Dialect]:
    return type(
        "ConfiguredDialect",
        (csv.Dialect,),
        {
            "delimiter": options.delimiter,
            "quotechar": options.quote or None,
            "quoting": csv.QUOTE_MINIMAL if options.quote else csv.QUOTE_NONE,
            "escapechar": options.escape or None,
            "doublequote": True,
            "lineterminator": "\n",
            "strict": True,
        },
    )


def _distinct_names(names: list[str]) -> list[str]:
    """Return distinct names: a repeated `x` becomes `x_2`, `x_3`, and so on, unless a column has that name already."""
    taken, found = set(names), list[str]()
    for name in names:
        number, distinct = 1, name
        while distinct in found or (number > 1 and distinct in taken):
            number += 1
            distinct = f"{name}_{number}"
        found.append(distinct)
    return found


def csv_batches(
    csv_file: CsvFile, properties: Mapping[str, JsonSchema], start: FileOffset | None, size: int
) -> Iterator[tuple[list[Record], FileOffset]]:
    """Yield records with the offset after them. Raises SourceContractError for a column that is not in the schema."""
    rows = csv_file.rows(start)
    column_types: list[ColumnType] | None = None
    while batch := list(islice(rows, size)):
        offset = csv_file.offset()
        column_types = column_types or _column_types(csv_file, properties)
        yield _records(csv_file, column_types, batch), offset


def _column_types(csv_file: CsvFile, properties: Mapping[str, JsonSchema]) -> list[ColumnType]:
    stream, path = csv_file.stream, csv_file.file.name
    unknown = [name for name in csv_file.names if name not in properties]
    if unknown and stream.infer:
        raise SourceContractError(
            f"stream {stream.name!r}: {path}, line 1: the column {unknown[0]!r} is not in the stream's schema, which is"
            " inferred from a sample of the files; declare it under the stream's schema.properties"
        )
    absent = [name for name in stream.primary_key if name not in csv_file.names]
    if absent:
        raise SourceContractError(
            f"stream {stream.name!r}: {path}, line 1: there is no column {absent[0]!r}, which is in primaryKey;"
            " correct primaryKey on the stream"
        )
    return [type_of_schema(properties.get(name, {})) for name in csv_file.names]


def _records(csv_file: CsvFile, column_types: list[ColumnType], batch: list[CsvRow]) -> list[Record]:
    nulls = frozenset(csv_file.stream.csv.null_values)
    rejected: set[int] = set()
    columns = []
    for name, column_type, texts in zip(
        csv_file.names, column_types, zip(*(row for _, row in batch), strict=True), strict=True
    ):

        def on_invalid(index: int, name: str = name, column_type: ColumnType = column_type) -> None:
            if index not in rejected:
                csv_file.bad_rows.add(
                    batch[index][0],
                    f"the column {name!r} holds a value that is not of type {column_type}, as in the schema; if it is right, declare"
                    f" schema.properties.{name}: {{type: string}}",
                    batch[index][1],
                )
                rejected.add(index)

        columns.append(convert_column(texts, column_type, nulls, on_invalid))
    records: list[Record] = [dict(zip(csv_file.names, values, strict=True)) for values in zip(*columns, strict=True)]
    return [record for index, record in enumerate(records) if index not in rejected] if rejected else records
