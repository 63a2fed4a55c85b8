"""CSV: the standard library's parser over lines whose place is known, so that each row's end is a place to go on at."""

from __future__ import annotations

import codecs
import csv
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain, islice
from typing import Any, NoReturn

from penstock_sdk import SourceContractError

from penstock_files_object.config import CsvOptions, StreamConfig
from penstock_files_object.content import ROW_BYTES, Content, Lines, Open, TooLongError
from penstock_files_object.progress import File
from penstock_files_object.rejects import BadRows
from penstock_files_object.values import Kind, converted, kind_of_schema

BYTE_WISE = ("ascii", "utf-8", "cp125", "iso8859", "latin", "koi8", "mac-")
Row = tuple[int, list[str]]
"""A row, and the line at which it begins."""


def per_line(encoding: str) -> str | None:
    """Return the encoding by which each line can be decoded by itself; None where a line break may be half a character."""
    name = codecs.lookup(encoding).name
    if name == "utf-8-sig":
        return "utf-8"
    return name if name.startswith(BYTE_WISE) else None


@dataclass
class CsvFile:
    """One file being read."""

    stream: StreamConfig
    file: File
    open: Open
    bad: BadRows
    names: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        csv.field_size_limit(ROW_BYTES)
        options = self.stream.csv
        encoding = per_line(options.encoding)
        self._content = Content(
            self.file,
            self.open,
            self.stream.compression,
            None if encoding else options.encoding,
            is_utf8=encoding == "utf-8",
            may_hold_markup=not options.header,
            has_header=options.header and not options.skip_rows,
            is_table=not options.skip_rows,
        )
        self._encoding = encoding or "utf-8"
        self._lines = Lines(self._content)

    def rows(self, at: dict[str, int] | None = None) -> Iterator[Row]:
        """Yield the rows, each as wide as the header, from a place that `place` gave on."""
        first = self._header()
        if at:
            self._lines.skip_to(at["offset"], at["line"])
            first = None
        width = len(self.names)
        for line, row in chain([first] if first else [], self._parsed()):
            if len(row) == width:
                yield line, row
            else:
                self.bad.take(line, f"it has {len(row)} fields, the file has {width} columns", row)

    def place(self) -> dict[str, int]:
        """Return where the next row begins."""
        return {"offset": self._lines.offset, "line": self._lines.line}

    def close(self) -> None:
        """Let go of the connection."""
        self._content.close()

    def _header(self) -> Row | None:
        """Take the names; returns the first row where that is none."""
        for _ in range(self.stream.csv.skip_rows):
            self._lines.mark()
            try:
                next(self._lines, None)
            except TooLongError as error:
                self._refuse(self._lines.line, str(error))
        first = next(self._parsed(header=True), None)
        if first is None:
            return None
        options = self.stream.csv
        if not options.header:
            self.names = list(options.columns) or [f"column_{at}" for at in range(1, len(first[1]) + 1)]
            return first
        self.names = [name or f"column_{at}" for at, name in enumerate(first[1], 1)]
        if any("\0" in name for name in self.names):
            self._refuse(
                first[0],
                "a column's name holds a NUL, so that this is no CSV, or in another encoding; correct the path, or set"
                " csv.encoding on the stream",
            )
        doubles = [name for name, count in Counter(self.names).items() if count > 1]
        if doubles and options.duplicate_headers == "refuse":
            raise SourceContractError(
                f"stream {self.stream.name!r}: {self.file.name}, line {first[0]}: the column {doubles[0]!r} is there"
                f" twice; set csv.duplicateHeaders: rename on the stream to read them as {doubles[0]!r} and"
                f" {doubles[0] + '_2'!r}"
            )
        self.names = _distinct(self.names)
        return None

    def _parsed(self, *, header: bool = False) -> Iterator[Row]:
        options = self.stream.csv
        texts = (line.decode(self._encoding) for line in self._lines)
        lines = self._lines
        while True:
            reader = csv.reader(texts, _dialect(options))
            try:
                while True:
                    lines.mark()
                    begin = lines.line + 1
                    row = next(reader)
                    if row:
                        yield begin, row
            except StopIteration:
                return
            except (csv.Error, UnicodeDecodeError, TooLongError) as error:
                reason = (
                    f"not {options.encoding}; set csv.encoding on the stream, such as windows-1252"
                    if isinstance(error, UnicodeDecodeError)
                    else str(error)
                )
                if header:
                    self._refuse(begin, reason)
                self.bad.take(begin, reason, lines.kept[0])
                lines.put_back()
                texts = (line.decode(self._encoding) for line in lines)

    def _refuse(self, line: int, reason: str) -> NoReturn:
        raise SourceContractError(f"stream {self.stream.name!r}: {self.file.name}, line {line}: {reason}") from None


def _dialect(options: CsvOptions) -> type[csv.Dialect]:
    return type(
        "Written",
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


def _distinct(names: list[str]) -> list[str]:
    """Return the names with a number at those that were there before: `x`, `x_2`, `x_3`; none is another's own name."""
    taken, found = set(names), list[str]()
    for name in names:
        number, distinct = 1, name
        while distinct in found or (number > 1 and distinct in taken):
            number += 1
            distinct = f"{name}_{number}"
        found.append(distinct)
    return found


def csv_batches(
    reading: CsvFile, properties: dict[str, Any], at: dict[str, int] | None, size: int
) -> Iterator[tuple[list[dict[str, Any]], dict[str, int]]]:
    """Yield records with the place after them. A file with a column that the stream does not know ends the read."""
    rows = reading.rows(at)
    kinds: list[Kind] | None = None
    while batch := list(islice(rows, size)):
        place = reading.place()
        kinds = kinds or _kinds(reading, properties)
        yield _records(reading, kinds, batch), place


def _kinds(reading: CsvFile, properties: dict[str, Any]) -> list[Kind]:
    stream, path = reading.stream, reading.file.name
    unknown = [name for name in reading.names if name not in properties]
    if unknown and stream.infer:
        raise SourceContractError(
            f"stream {stream.name!r}: {path}, line 1: the column {unknown[0]!r} is not in the stream's schema, which a"
            " sample of the files gave; declare it under the stream's schema.properties"
        )
    absent = [name for name in stream.primary_key if name not in reading.names]
    if absent:
        raise SourceContractError(
            f"stream {stream.name!r}: {path}, line 1: the primary key's column {absent[0]!r} is not there"
        )
    return [kind_of_schema(properties.get(name, {})) for name in reading.names]


def _records(reading: CsvFile, kinds: list[Kind], batch: list[Row]) -> list[dict[str, Any]]:
    nulls = frozenset(reading.stream.csv.null_values)
    left_out: set[int] = set()
    columns = []
    for name, kind, texts in zip(reading.names, kinds, zip(*(row for _, row in batch), strict=True), strict=True):

        def misfit(at: int, name: str = name, kind: Kind = kind) -> None:
            if at not in left_out:
                reading.bad.take(
                    batch[at][0],
                    f"the column {name!r} holds what is no {kind}, as the schema says it is; if that is right, declare"
                    f" schema.properties.{name}: {{type: string}}",
                    batch[at][1],
                )
                left_out.add(at)

        columns.append(converted(texts, kind, nulls, misfit))
    records = [dict(zip(reading.names, values, strict=True)) for values in zip(*columns, strict=True)]
    return [record for at, record in enumerate(records) if at not in left_out] if left_out else records
