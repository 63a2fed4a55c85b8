"""Reads the content of a text file: decompressed, from any offset, as bytes or as lines with their offsets."""

from __future__ import annotations

import codecs
import re
import zlib
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import zstandard
from penstock_sdk import SourceContractError

from penstock_files_object.config import Compression
from penstock_files_object.file_cursor import File
from penstock_files_object.sniffing import HEAD_BYTES, why_not_csv, why_not_rows, why_not_text, why_server_message

GZIP, ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
MAGIC_BYTES = 4
OUTPUT_BYTES = 1 << 20
INPUT_BYTES = 4096
ZSTD_WINDOW_BYTES = 1 << 27
MOST_ROW_BYTES = 16 << 20
SEEK_BYTES = 1 << 20
BOM = codecs.BOM_UTF8
ASCII_TEXT = re.compile(rb"[\t\r\n\x20-\x7e]{2,}")
NOT_COMPRESSED = {"none": "it is not compressed, or compressed in another way; set compression: auto on the stream"}
OpenContent = Callable[[int], Iterator[bytes]]
"""Yields a file's bytes as they are stored, from a byte on."""


class _GzipDecoder:
    """Decompresses a gzip member in chunks of bounded size, as a small member may have much content."""

    def __init__(self) -> None:
        self._decoder = zlib.decompressobj(wbits=31)

    @property
    def eof(self) -> bool:
        return self._decoder.eof

    @property
    def unused_data(self) -> bytes:
        return self._decoder.unused_data

    def decode(self, data: bytes) -> Iterator[bytes]:
        while data:
            yield self._decoder.decompress(data, OUTPUT_BYTES)
            data = self._decoder.unconsumed_tail


class _ZstdDecoder:
    """Decompresses a zstd frame."""

    def __init__(self) -> None:
        self._decoder = zstandard.ZstdDecompressor(max_window_size=ZSTD_WINDOW_BYTES).decompressobj()
        self._rest = b""

    @property
    def eof(self) -> bool:
        return self._decoder.eof

    @property
    def unused_data(self) -> bytes:
        return self._decoder.unused_data + self._rest

    def decode(self, data: bytes) -> Iterator[bytes]:
        """Yield the content. The input is small each time, as the library returns all of its content at once."""
        held, size = list[bytes](), 0
        for at in range(0, len(data), INPUT_BYTES):
            if self._decoder.eof:
                self._rest = data[at:]
                break
            held.append(self._decoder.decompress(data[at : at + INPUT_BYTES]))
            size += len(held[-1])
            if size > OUTPUT_BYTES:
                yield b"".join(held)
                held, size = [], 0
        yield b"".join(held)


DECODERS: dict[str, type[_GzipDecoder | _ZstdDecoder]] = {"gzip": _GzipDecoder, "zstd": _ZstdDecoder}


@dataclass
class TextContent:
    """The content of a text file, decompressed, in chunks of bytes.

    `encoding` is set if the bytes must be decoded before lines can be cut; they are then returned as UTF-8. `offset` counts
    the bytes returned so far. The other fields decide which contents are refused: `is_utf8` is True if the stored text is
    UTF-8, `has_header` if it is CSV with a header, `may_hold_markup` if a row may begin like an HTML element, `is_table` if
    its lines are rows.
    """

    file: File
    open_content: OpenContent
    compression: Literal["auto", "none", "gzip", "zstd"] = "auto"
    encoding: str | None = None
    offset: int = 0
    is_utf8: bool = True
    may_hold_markup: bool = False
    has_header: bool = False
    is_table: bool = False

    def __post_init__(self) -> None:
        self._compression: Compression | None = None
        self._is_checked = False
        self._chunks = self._from_start()

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        chunk = next(filter(None, self._chunks))  # an empty chunk is not the end
        if self.offset == 0 and not self._is_checked:
            chunk = self._checked_head(chunk)
        self.offset += len(chunk)
        return chunk

    def skip_to(self, offset: int) -> bytes:
        """Skip to a later offset. Returns the bytes after it that are already in memory.

        A file without compression is requested from the offset on; any other is read, and discarded up to the offset.
        """
        rest = next(self, b"") if self._compression is None else b""
        can_seek = self._compression == "none" and self.encoding is None and self.file.size is not None
        if can_seek and offset - self.offset > SEEK_BYTES:
            self.close()
            self._chunks = self.open_content(offset)
            self._is_checked = True
            self.offset = offset
            return b""
        while self.offset < offset:
            rest = next(self, b"")
            if not rest:
                raise SourceContractError(
                    f"{self.file.name}: it ends at byte {self.offset}, and the state resumes at byte {offset}: reset the state"
                )
        return rest[len(rest) - (self.offset - offset) :]

    def _checked_head(self, chunk: bytes) -> bytes:
        """Return the first chunk, extended to HEAD_BYTES. Raises SourceContractError if it is not text."""
        while len(chunk) < HEAD_BYTES and (more := next(filter(None, self._chunks), b"")):
            chunk += more
        self._is_checked = True
        head = chunk[:HEAD_BYTES]
        other = why_not_text(head, is_utf8=self.is_utf8)
        other = other or why_not_rows(head, may_hold_markup=self.may_hold_markup)
        other = other or (why_not_csv(head) if self.has_header else "")
        if self.is_table:
            is_whole = len(chunk) < HEAD_BYTES
            other = other or why_server_message(head, self.file.media_type, is_whole=is_whole)
        if other:
            raise SourceContractError(f"{self.file.name}: {other}")
        return chunk

    def close(self) -> None:
        """Close the connection."""
        close = getattr(self._chunks, "close", None)
        if close:
            close()

    def _from_start(self) -> Iterator[bytes]:
        stored = self.open_content(0)
        head = b""
        for data in stored:
            head += data
            if len(head) >= MAGIC_BYTES:
                break
        self._compression = self._detect_compression(head)
        plain = (
            _chain(head, stored)
            if self._compression == "none"
            else self._decompressed(_chain(head, stored), DECODERS[self._compression])
        )
        yield from plain if self.encoding is None else self._as_utf8(plain, self.encoding)

    def _detect_compression(self, head: bytes) -> Compression:
        found: Compression = "gzip" if head.startswith(GZIP) else "zstd" if head.startswith(ZSTD) else "none"
        if self.compression not in ("auto", found) and head:
            other = why_not_text(head, is_utf8=self.is_utf8) if found == "none" else ""
            raise SourceContractError(
                f"{self.file.name}: its content is not {self.compression}, as the stream's compression says:"
                f" {other or NOT_COMPRESSED.get(found, f'it is {found}')}"
            )
        return found

    def _decompressed(self, stored: Iterator[bytes], decoder: type[_GzipDecoder | _ZstdDecoder]) -> Iterator[bytes]:
        """Yield the content of all gzip members or zstd frames. Zero bytes after the last one are padding."""
        member: _GzipDecoder | _ZstdDecoder | None = None
        try:
            for data in stored:
                rest = data
                while rest:
                    if member is None:
                        rest = rest.lstrip(b"\0")
                        if not rest:
                            break
                        member = decoder()
                    yield from filter(None, member.decode(rest))
                    rest, member = (member.unused_data, None) if member.eof else (b"", member)
        except (zlib.error, zstandard.ZstdError) as error:
            raise SourceContractError(
                f"{self.file.name}: after byte {self.offset} of its content it cannot be decompressed: {error}; write the"
                " file again, or leave it out of spec.config.streams.paths"
            ) from None
        if member is not None:
            raise SourceContractError(
                f"{self.file.name}: it was cut off: the compressed content does not end; write the file again"
            )

    def _as_utf8(self, plain: Iterator[bytes], encoding: str) -> Iterator[bytes]:
        decoder = codecs.getincrementaldecoder(encoding)("strict")
        head = next(filter(None, plain), b"")
        if codecs.lookup(encoding).name.startswith(("utf-16", "utf-32")) and ASCII_TEXT.fullmatch(head[:HEAD_BYTES]):
            raise SourceContractError(f"{self.file.name}: it is not {encoding}; set csv.encoding on the stream")
        try:
            for data in _chain(head, plain):
                yield decoder.decode(data).encode()
            yield decoder.decode(b"", final=True).encode()
        except UnicodeError as error:
            raise SourceContractError(
                f"{self.file.name}: after byte {self.offset} it is not {encoding}; set csv.encoding on the stream:"
                f" {type(error).__name__}"
            ) from None


def _chain(head: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    if head:
        yield head
    yield from rest


class LineReader:
    """Reads a content line by line; lines keep their line breaks.

    `offset` is the byte at which the next line begins; `line` is the number of lines returned. `row_lines` are the lines since
    `begin_row`.
    """

    def __init__(self, content: TextContent) -> None:
        self._content = content
        self._ready: deque[bytes] = deque()
        self._rest = b""
        self.offset = 0
        self.line = 0
        self.row_lines: list[bytes] = []
        self._size = 0

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        while not self._ready:
            self._fill()
        line = self._ready.popleft()
        self._size += len(line)
        self.row_lines.append(line)
        self.offset += len(line)
        self.line += 1
        if self._size > MOST_ROW_BYTES:
            raise RowTooLongError
        return line.removeprefix(BOM) if self.line == 1 else line

    def begin_row(self) -> None:
        """Start a row: the next line is its first."""
        self.row_lines.clear()
        self._size = 0

    def unread_later_lines(self) -> None:
        """Put the row's lines back, except the first, to be returned again."""
        later = self.row_lines[1:]
        self._ready.extendleft(reversed(later))
        self.offset -= sum(map(len, later))
        self.line -= len(later)
        self.begin_row()

    def skip_to(self, offset: int, line: int) -> None:
        """Skip to a later offset, which is the start of a line."""
        known = b"".join((*self._ready, self._rest))
        known = known[offset - self.offset :] if offset - self.offset <= len(known) else self._content.skip_to(offset)
        self._ready.clear()
        self._rest, self.offset, self.line = known, offset, line
        self.begin_row()

    def _fill(self) -> None:
        chunk = next(self._content, b"")
        if not chunk:
            if not self._rest:
                raise StopIteration
            self._ready.extend(self._rest.splitlines(keepends=True))
            self._rest = b""
            return
        lines = (self._rest + chunk).splitlines(keepends=True)
        self._rest = lines.pop() if not lines[-1].endswith(b"\n") else b""
        if len(self._rest) > MOST_ROW_BYTES:
            raise SourceContractError(
                f"{self._content.file.name}, line {self.line + len(lines) + 1}: no line break in {MOST_ROW_BYTES >> 20} MiB:"
                " it is not a text file, or has another compression or encoding; correct compression or csv.encoding on the stream"
            )
        self._ready.extend(lines)


class RowTooLongError(Exception):
    """A row is too long to be a row."""

    def __str__(self) -> str:
        return f"a row of more than {MOST_ROW_BYTES >> 20} MiB: a quote is not closed, or the file has another format"
