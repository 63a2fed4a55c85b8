"""Large responses, record by record: JSON arrays, JSON Lines and CSV, without the whole body in memory."""

from __future__ import annotations

import codecs
import csv
import re
from collections.abc import Iterable, Iterator
from enum import Enum, auto

from penstock_sdk.contract import Record
from penstock_sdk.errors import SourceContractError, TransientError
from penstock_sdk.http.body_decoding import Compression, decoded_chunks

LONGEST_RECORD = 16 * 1024 * 1024
"""Bytes of one record. A body without an end of a record would fill the memory."""
PAGE_RECORDS = 1000
PLACE = "the streamed response"
TOKEN = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"|["{}\[\],:]', re.DOTALL)
"""A string, a bracket, or what separates values. A lone quote begins a string that the next chunk continues."""
HTML = (b"<!doctype html", b"<html")


def decompressed(chunks: Iterable[bytes], compression: Compression = "gzip") -> Iterator[bytes]:
    """Decompress a file that is compressed itself, such as `export.json.gz`, in chunks of at most 64 KiB."""
    return decoded_chunks(chunks, compression, PLACE)


def json_pages(chunks: Iterable[bytes], records: str = "", *, size: int = PAGE_RECORDS) -> Iterator[bytes]:
    """Yield the records of a JSON document in pages: JSON arrays of `size` records, for `Batch(page)`.

    `records` is the path of the array, such as "data.items"; "" if the document is the array. Records are not decoded. Raises
    SourceContractError if there is no such array, and TransientError if the document ends early.
    """
    scanner = _ArrayScanner(records.split(".") if records else [])
    page: list[bytes] = []
    for chunk in _first_checked(chunks):
        for record in scanner.feed(chunk):
            page.append(record)
            if len(page) >= size:
                yield b"[" + b",".join(page) + b"]"
                page = []
    scanner.finish()
    if page:
        yield b"[" + b",".join(page) + b"]"


def line_pages(chunks: Iterable[bytes], *, size: int = PAGE_RECORDS) -> Iterator[bytes]:
    """Yield JSON Lines in pages of `size` lines, for `Batch(page)`. Lines are not decoded, and blank ones are left out."""
    page: list[bytes] = []
    for line in _lines(chunks):
        if line.strip():
            page.append(line)
            if len(page) >= size:
                yield b"\n".join(page)
                page = []
    if page:
        yield b"\n".join(page)


def csv_pages(
    chunks: Iterable[bytes], *, delimiter: str = ",", encoding: str = "utf-8-sig", size: int = PAGE_RECORDS
) -> Iterator[list[Record]]:
    """Yield the rows of a CSV file in pages of `size` records. The first line names the columns.

    Values are text; an empty value is None. Raises SourceContractError for a row with another number of values than the
    header, and for text that is not in the encoding.
    """
    csv.field_size_limit(LONGEST_RECORD)
    rows = csv.reader(_text_lines(chunks, encoding), delimiter=delimiter, strict=True)
    header: list[str] = []
    page: list[Record] = []
    try:
        for number, row in enumerate((row for row in rows if row), 1):
            if not header:
                header = _header(row)
                continue
            if len(row) != len(header):
                raise SourceContractError(
                    f"{PLACE}: row {number} has {len(row)} values, and the header has {len(header)} names"
                )
            page.append({name: value or None for name, value in zip(header, row, strict=True)})
            if len(page) >= size:
                yield page
                page = []
    except csv.Error as error:
        raise SourceContractError(f"{PLACE} is not CSV: {error}") from None
    if page:
        yield page


def _header(row: list[str]) -> list[str]:
    twice = sorted({name for name in row if row.count(name) > 1})
    if twice:
        raise SourceContractError(f"{PLACE}: two columns are named {twice[0][:80]!r}")
    return row


def _lines(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the lines of a body without their ends. A line may span any number of chunks."""
    pending: list[bytes] = []
    held = 0
    for chunk in _first_checked(chunks):
        *complete, rest = chunk.split(b"\n")
        for line in complete:
            yield b"".join([*pending, line])
            pending, held = [], 0
        pending.append(rest)
        held = _held(held + len(rest))
    if held:
        yield b"".join(pending)


def _text_lines(chunks: Iterable[bytes], encoding: str) -> Iterator[str]:
    """Yield the lines of a text with their ends."""
    decoder = codecs.getincrementaldecoder(encoding)()
    pending: list[str] = []
    held = 0
    try:
        for chunk in _first_checked(chunks):
            *complete, rest = decoder.decode(chunk).split("\n")
            for line in complete:
                yield "".join([*pending, line, "\n"])
                pending, held = [], 0
            pending.append(rest)
            held = _held(held + len(rest))
        yield "".join([*pending, decoder.decode(b"", final=True)])
    except UnicodeError:
        raise SourceContractError(f"{PLACE} is not {encoding} text") from None


def _held(size: int) -> int:
    """Return the size of a line that has no end yet. Raises SourceContractError if it is too long."""
    if size > LONGEST_RECORD:
        raise SourceContractError(f"{PLACE} has a line of more than {LONGEST_RECORD:,} bytes")
    return size


def _first_checked(chunks: Iterable[bytes]) -> Iterator[bytes]:
    for number, chunk in enumerate(chunks):
        if number == 0:
            _refuse_html(chunk)
        yield chunk


def _refuse_html(beginning: bytes) -> None:
    if beginning[:64].lstrip().lower().startswith(HTML):
        raise SourceContractError(f"{PLACE} is an HTML page: check the address, and whether it leads to a login page")


class _Phase(Enum):
    SEARCH = auto()
    RECORDS = auto()
    ENDED = auto()


class _ArrayScanner:
    """Finds an array in a JSON document, and cuts it into records, by brackets and commas outside of strings."""

    def __init__(self, path: list[str]) -> None:
        self._path = path
        self._phase = _Phase.SEARCH
        self._buffer = bytearray()
        self._at = 0
        """How far the buffer was scanned."""
        self._start = 0
        """Where the current record begins."""
        self._depth = 0
        self._matched = 0
        """The number of keys of the path whose objects are open."""
        self._key: str | None = None
        self._string = b""

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """Yield the records that end in this chunk."""
        if self._has_ended():
            return
        self._buffer += chunk
        while not self._has_ended() and (found := TOKEN.search(self._buffer, self._at)):
            token = found[0]
            if token == b'"':  # the string goes on in the next chunk
                self._at = found.start()
                break
            self._at = found.end()
            if self._phase is _Phase.SEARCH:
                self._search(token)
            else:
                record = self._record(token, found.start())
                if record:
                    yield record
        self._drop_scanned()

    def _has_ended(self) -> bool:
        return self._phase is _Phase.ENDED

    def finish(self) -> None:
        """Raise an error if the array was not found or has no end."""
        if self._phase is _Phase.RECORDS:
            raise TransientError(f"{PLACE} ended in the middle of its records")
        if self._phase is _Phase.SEARCH and self._depth:
            raise TransientError(f"{PLACE} ended in the middle of its JSON")
        if self._phase is _Phase.SEARCH:
            where = f"in field {'.'.join(self._path)!r}" if self._path else "as its JSON"
            raise SourceContractError(f"{PLACE} has no array of records {where}")

    def _search(self, token: bytes) -> None:
        at_path = self._depth == self._matched
        if token in (b"{", b"["):
            is_next = at_path and (self._matched == 0 or self._key == self._path[self._matched - 1])
            self._open(token, is_next=is_next)
        elif token in (b"}", b"]"):
            self._depth -= 1
            self._matched = min(self._matched, self._depth)
            self._key = None
        elif token == b":":
            self._key = codecs.decode(self._string[1:-1], "utf-8", "replace") if at_path else self._key
        elif token == b",":
            self._key = None if at_path else self._key
        else:
            self._string = bytes(token)

    def _open(self, token: bytes, *, is_next: bool) -> None:
        """Open an object on the way to the array, the array itself, or a value that is left out."""
        self._depth += 1
        if not is_next:
            return
        if token == b"[" and self._matched == len(self._path):
            self._phase, self._start, self._depth = _Phase.RECORDS, self._at, 0
        elif token == b"{" and self._matched < len(self._path):
            self._matched += 1
            self._key = None

    def _record(self, token: bytes, start: int) -> bytes:
        """Return the record that a token ends; empty if it ends none."""
        if token in (b"{", b"["):
            self._depth += 1
        elif token in (b"}", b"]") and self._depth:
            self._depth -= 1
        elif not self._depth and token in (b",", b"]"):
            record = bytes(self._buffer[self._start : start]).strip()
            self._start = self._at
            if token == b"]":
                self._phase = _Phase.ENDED
            return record
        return b""

    def _drop_scanned(self) -> None:
        keep = self._start if self._phase is _Phase.RECORDS else self._at
        del self._buffer[:keep]
        self._start = max(self._start - keep, 0)
        self._at -= keep
        if len(self._buffer) > LONGEST_RECORD:
            raise SourceContractError(f"{PLACE} has a record of more than {LONGEST_RECORD:,} bytes")
