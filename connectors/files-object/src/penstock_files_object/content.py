"""A file's content as a stream of bytes: decompressed, from any place on, and as lines that know where they stand."""

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
from penstock_files_object.progress import File
from penstock_files_object.sniffing import HEAD_BYTES, error_in_words, other_than_csv, other_than_data, other_than_text

GZIP, ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
MAGIC = 4
PIECE = 1 << 20
SIP = 4096
WINDOW = 1 << 27
ROW_BYTES = 16 << 20
WORTH_A_REQUEST = 1 << 20
BOM = codecs.BOM_UTF8
ASCII_TEXT = re.compile(rb"[\t\r\n\x20-\x7e]{2,}")
NOT_COMPRESSED = {"none": "it is not compressed, or in another way; set compression: auto on the stream"}
Open = Callable[[int], Iterator[bytes]]
"""Yields a file's bytes as they are stored, from a place on."""


class _Gzip:
    """A gzip member, given out in pieces, as a small one can hold much."""

    def __init__(self) -> None:
        self._inner = zlib.decompressobj(wbits=31)

    @property
    def eof(self) -> bool:
        return self._inner.eof

    @property
    def unused_data(self) -> bytes:
        return self._inner.unused_data

    def pieces(self, data: bytes) -> Iterator[bytes]:
        while data:
            yield self._inner.decompress(data, PIECE)
            data = self._inner.unconsumed_tail


class _Zstd:
    """A zstd frame."""

    def __init__(self) -> None:
        self._inner = zstandard.ZstdDecompressor(max_window_size=WINDOW).decompressobj()
        self._beyond = b""

    @property
    def eof(self) -> bool:
        return self._inner.eof

    @property
    def unused_data(self) -> bytes:
        return self._inner.unused_data + self._beyond

    def pieces(self, data: bytes) -> Iterator[bytes]:
        """Yield the content; the bytes go in by few, as the library gives out all that they hold, however much."""
        held, size = list[bytes](), 0
        for at in range(0, len(data), SIP):
            if self._inner.eof:
                self._beyond = data[at:]
                break
            held.append(self._inner.decompress(data[at : at + SIP]))
            size += len(held[-1])
            if size > PIECE:
                yield b"".join(held)
                held, size = [], 0
        yield b"".join(held)


KINDS: dict[str, type[_Gzip | _Zstd]] = {"gzip": _Gzip, "zstd": _Zstd}


@dataclass
class Content:
    """What a text file holds. `encoding` is what its bytes are turned into UTF-8 from, where lines cannot be cut before.

    `offset` counts the bytes given out, after decompression. `is_utf8` says that its text is UTF-8 as it lies there,
    `has_header` that it is CSV whose first row are names: what it cannot be then is refused by name. `may_hold_markup`
    says that rows may themselves begin like a part of a page, `is_table` that its lines are rows.
    """

    file: File
    open: Open
    compression: Literal["auto", "none", "gzip", "zstd"] = "auto"
    encoding: str | None = None
    offset: int = 0
    is_utf8: bool = True
    may_hold_markup: bool = False
    has_header: bool = False
    is_table: bool = False

    def __post_init__(self) -> None:
        self._found: Compression | None = None
        self._is_known_as_text = False
        self._pieces = self._from_start()

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        piece = next(filter(None, self._pieces))  # an empty one is not the end
        if self.offset == 0 and not self._is_known_as_text:
            piece = self._known_as_text(piece)
        self.offset += len(piece)
        return piece

    def skip_to(self, offset: int) -> bytes:
        """Go on at a later place; returns what is already known of the bytes from there on.

        A plain file is asked for from there; any other is read again and thrown away up to there.
        """
        rest = next(self, b"") if self._found is None else b""
        cuttable = self._found == "none" and self.encoding is None and self.file.size is not None
        if cuttable and offset - self.offset > WORTH_A_REQUEST:
            self.close()
            self._pieces = self.open(offset)
            self._is_known_as_text = True
            self.offset = offset
            return b""
        while self.offset < offset:
            rest = next(self, b"")
            if not rest:
                raise SourceContractError(
                    f"{self.file.name}: it ends at byte {self.offset}, before {offset}, where the state stands"
                )
        return rest[len(rest) - (self.offset - offset) :]

    def _known_as_text(self, piece: bytes) -> bytes:
        """Return the first piece, long enough to tell what it is; raises SourceContractError if that is no text."""
        while len(piece) < HEAD_BYTES and (more := next(filter(None, self._pieces), b"")):
            piece += more
        self._is_known_as_text = True
        head = piece[:HEAD_BYTES]
        other = other_than_text(head, is_utf8=self.is_utf8)
        other = other or other_than_data(head, may_hold_markup=self.may_hold_markup)
        other = other or (other_than_csv(head) if self.has_header else "")
        if self.is_table:
            is_whole = len(piece) < HEAD_BYTES
            other = other or error_in_words(head, self.file.media_type, is_whole=is_whole)
        if other:
            raise SourceContractError(f"{self.file.name}: {other}")
        return piece

    def close(self) -> None:
        """Let go of the connection."""
        close = getattr(self._pieces, "close", None)
        if close:
            close()

    def _from_start(self) -> Iterator[bytes]:
        stored = self.open(0)
        head = b""
        for data in stored:
            head += data
            if len(head) >= MAGIC:
                break
        self._found = self._kind(head)
        plain = (
            _chain(head, stored)
            if self._found == "none"
            else self._decompressed(_chain(head, stored), KINDS[self._found])
        )
        yield from plain if self.encoding is None else self._as_utf8(plain, self.encoding)

    def _kind(self, head: bytes) -> Compression:
        found: Compression = "gzip" if head.startswith(GZIP) else "zstd" if head.startswith(ZSTD) else "none"
        if self.compression not in ("auto", found) and head:
            other = other_than_text(head, is_utf8=self.is_utf8) if found == "none" else ""
            raise SourceContractError(
                f"{self.file.name}: it is not {self.compression}, as the stream's compression says:"
                f" {other or NOT_COMPRESSED.get(found, f'it is {found}')}"
            )
        return found

    def _decompressed(self, stored: Iterator[bytes], kind: type[_Gzip | _Zstd]) -> Iterator[bytes]:
        """Yield the content of all members or frames; bytes of zero after the last are padding."""
        member: _Gzip | _Zstd | None = None
        try:
            for data in stored:
                rest = data
                while rest:
                    if member is None:
                        rest = rest.lstrip(b"\0")
                        if not rest:
                            break
                        member = kind()
                    yield from filter(None, member.pieces(rest))
                    rest, member = (member.unused_data, None) if member.eof else (b"", member)
        except (zlib.error, zstandard.ZstdError) as error:
            raise SourceContractError(
                f"{self.file.name}: after byte {self.offset} of its content it cannot be decompressed: {error}"
            ) from None
        if member is not None:
            raise SourceContractError(f"{self.file.name}: it was cut off: the compressed content does not end")

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


class Lines:
    """The lines of a content, with their breaks. `offset` is where the next one begins, `line` how many were given.

    `kept` are the lines since the last `mark`; all but the first of them can be put back.
    """

    def __init__(self, content: Content) -> None:
        self._content = content
        self._ready: deque[bytes] = deque()
        self._rest = b""
        self.offset = 0
        self.line = 0
        self.kept: list[bytes] = []
        self._size = 0

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        while not self._ready:
            self._fill()
        line = self._ready.popleft()
        self._size += len(line)
        self.kept.append(line)
        self.offset += len(line)
        self.line += 1
        if self._size > ROW_BYTES:
            raise TooLongError
        return line.removeprefix(BOM) if self.line == 1 else line

    def mark(self) -> None:
        """Begin a row."""
        self.kept.clear()
        self._size = 0

    def put_back(self) -> None:
        """Put the row's lines back, but for the first."""
        later = self.kept[1:]
        self._ready.extendleft(reversed(later))
        self.offset -= sum(map(len, later))
        self.line -= len(later)
        self.mark()

    def skip_to(self, offset: int, line: int) -> None:
        """Go on at a later place, which is the start of a line."""
        known = b"".join((*self._ready, self._rest))
        known = known[offset - self.offset :] if offset - self.offset <= len(known) else self._content.skip_to(offset)
        self._ready.clear()
        self._rest, self.offset, self.line = known, offset, line
        self.mark()

    def _fill(self) -> None:
        piece = next(self._content, b"")
        if not piece:
            if not self._rest:
                raise StopIteration
            self._ready.extend(self._rest.splitlines(keepends=True))
            self._rest = b""
            return
        lines = (self._rest + piece).splitlines(keepends=True)
        self._rest = lines.pop() if not lines[-1].endswith(b"\n") else b""
        if len(self._rest) > ROW_BYTES:
            raise SourceContractError(
                f"{self._content.file.name}, line {self.line + len(lines) + 1}: no line break in {ROW_BYTES >> 20} MiB:"
                " not a text file, or of another compression or encoding than the stream's"
            )
        self._ready.extend(lines)


class TooLongError(Exception):
    """A row that is longer than any row is: what stands there is something else."""

    def __str__(self) -> str:
        return f"a row of more than {ROW_BYTES >> 20} MiB: a quote that is not closed, or not a file of this format"
