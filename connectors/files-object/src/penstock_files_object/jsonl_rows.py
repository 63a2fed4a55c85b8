"""Reads JSON Lines as pages of the file's own bytes; lines are looked at one by one only if a page has a bad line."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import msgspec
from penstock_sdk import SourceContractError

from penstock_files_object.bad_rows import BadRows
from penstock_files_object.config import StreamConfig
from penstock_files_object.content import BOM, MOST_ROW_BYTES, OpenContent, TextContent
from penstock_files_object.file_cursor import File, FileOffset

SPACE = b" \t\r\n"
MOST_LEVELS = 100
"""Objects and arrays within each other. Python's reader gives up at about a thousand levels, others much earlier."""
LONGEST_NUMBER = 300
NUMBERS = bytes.maketrans(b"123456789E+", b"000000000e-")
LARGE = (b"0e000", b"0e-000", b"0" * LONGEST_NUMBER)
"""Numbers beyond a 64-bit float, with all digits as zeros: an exponent of three digits, or very many digits."""
NOT_BRACKETS = bytes(set(range(256)) - set(b"[]{}\n"))
_decoder = msgspec.json.Decoder(msgspec.Raw)
_object = msgspec.json.Decoder(dict[str, msgspec.Raw])


@dataclass
class JsonlFile:
    """A JSON Lines file that is being read."""

    stream: StreamConfig
    file: File
    open_content: OpenContent
    bad_rows: BadRows

    def __post_init__(self) -> None:
        self._content = TextContent(self.file, self.open_content, self.stream.compression)

    def close(self) -> None:
        """Close the connection."""
        self._content.close()

    def pages(self, start: FileOffset | None, size: int) -> Iterator[tuple[bytes, FileOffset]]:
        """Yield pages of at most `size` lines with the offset after them, without blank lines."""
        offset, line = (start.byte, start.line) if start else (0, 0)
        rest = self._content.skip_to(offset) if start else b""
        ended = False
        while not ended:
            chunk = next(self._content, b"")
            ended = not chunk
            data = rest + chunk
            cut = len(data) if ended else data.rfind(b"\n") + 1
            rest = data[cut:]
            if len(rest) > MOST_ROW_BYTES:
                self._too_long(line + data.count(b"\n") + 1)
            lines = data[:cut].split(b"\n")
            if not lines[-1]:
                lines.pop()
            for first in range(0, len(lines), size):
                page = lines[first : first + size]
                offset += sum(map(len, page)) + len(page)
                yield self._checked(page, line), FileOffset(min(offset, self._content.offset), line + len(page))
                line += len(page)

    def _too_long(self, line: int) -> None:
        raise SourceContractError(
            f"stream {self.stream.name!r}: {self.file.name}, line {line}: longer than {MOST_ROW_BYTES >> 20} MiB: it"
            " is not JSON Lines; correct format or paths on the stream"
        )

    def _refuse_array(self, line: bytes) -> None:
        """Raise SourceContractError if the first line begins an array of objects: the file is then one JSON document."""
        if line.lstrip(SPACE)[:1] == b"[" and line.lstrip(b"[" + SPACE)[:1] in (b"{", b""):
            raise SourceContractError(
                f"stream {self.stream.name!r}: {self.file.name}, line 1: it is one JSON array, not JSON Lines: write each"
                " object on a line of its own, without the array's brackets (such as with jq -c '.[]')"
            )

    def _checked(self, lines: list[bytes], before: int) -> bytes:
        """Return the page without its bad lines. If each line is an object, the page is returned as it is."""
        if before == 0 and lines:
            lines[0] = lines[0].removeprefix(BOM)
            self._refuse_array(lines[0])
        page = b"\n".join(lines)
        if all(line.startswith(b"{") for line in lines) and _is_good(page, len(lines)):
            return page
        good = []
        for at, line in enumerate(lines, before + 1):
            reason = _problem(line)
            if reason:
                self.bad_rows.add(at, reason, line)
            elif line.strip(SPACE):
                good.append(line)
        return b"\n".join(good)


def _is_good(page: bytes, count: int) -> bool:
    try:
        if not page.isascii():
            page.decode()
        rows = _decoder.decode_lines(page)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    if _may_be_beyond_readers(page):
        return False
    return len(rows) == count and b"\n".join(rows).count(b"\n") == count - 1


def _may_be_beyond_readers(lines: bytes) -> bool:
    """Return True if a number may be too large, or a value nested too deeply, for some JSON readers. Rarely True wrongly."""
    numbers = lines.translate(NUMBERS)
    if any(pattern in numbers for pattern in LARGE):
        return True
    return max(map(len, lines.translate(None, NOT_BRACKETS).split(b"\n"))) > 2 * MOST_LEVELS


def _problem(line: bytes) -> str:
    """Return what is wrong with a line, without quoting it; empty if nothing is."""
    if not line.strip(SPACE):
        return ""
    try:
        line.decode()
        record = _object.decode(line)
    except msgspec.ValidationError:
        return "it is not a JSON object"
    except msgspec.DecodeError as error:
        return f"it is not JSON: {error}"
    except UnicodeDecodeError as error:
        return f"byte {error.start} is not UTF-8; write the file in UTF-8"
    except RecursionError:
        return f"it has more than {MOST_LEVELS} levels of nesting"
    return _beyond_readers(record) if _may_be_beyond_readers(line) else ""


def _beyond_readers(record: dict[str, msgspec.Raw]) -> str:
    for name, value in record.items():
        if not _is_readable(value):
            return f"the field {name!r} holds a number beyond 1.8e308, or more than {MOST_LEVELS} levels of nesting"
    return ""


def _is_readable(raw: msgspec.Raw) -> bool:
    """Return True if the numbers fit 64-bit floats, and there are at most MOST_LEVELS levels of nesting."""
    try:
        value = msgspec.json.decode(raw)
    except (msgspec.MsgspecError, RecursionError):
        return False
    level = [value]
    for _ in range(MOST_LEVELS):
        if any(isinstance(value, int) and abs(value) > sys.float_info.max for value in level):
            return False
        level = [inner for outer in level for inner in _inner_values(outer)]
        if not level:
            return True
    return False


def _inner_values(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else []
