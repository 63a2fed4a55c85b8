"""JSON Lines: pages of the file's own bytes, looked at line by line only where something is wrong."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import msgspec
from penstock_sdk import SourceContractError

from penstock_files_object.config import StreamConfig
from penstock_files_object.content import BOM, ROW_BYTES, Content, Open
from penstock_files_object.progress import File
from penstock_files_object.rejects import BadRows

SPACE = b" \t\r\n"
DEEPEST = 100
"""Objects and arrays within each other; Python's own reader gives up at about a thousand, others far sooner."""
LONGEST_NUMBER = 300
NUMBERS = bytes.maketrans(b"123456789E+", b"000000000e-")
LARGE = (b"0e000", b"0e-000", b"0" * LONGEST_NUMBER)
"""What numbers beyond a 64-bit float look like once their digits are zeros: three digits of an exponent, or very many."""
NOT_BRACKETS = bytes(set(range(256)) - set(b"[]{}\n"))
_decoder = msgspec.json.Decoder(msgspec.Raw)
_object = msgspec.json.Decoder(dict[str, msgspec.Raw])


@dataclass
class JsonlFile:
    """One file being read."""

    stream: StreamConfig
    file: File
    open: Open
    bad: BadRows

    def __post_init__(self) -> None:
        self._content = Content(self.file, self.open, self.stream.compression)

    def close(self) -> None:
        """Let go of the connection."""
        self._content.close()

    def pages(self, at: dict[str, int] | None, size: int) -> Iterator[tuple[bytes, dict[str, int]]]:
        """Yield pages of at most `size` lines with the place after them; lines that hold nothing are left out."""
        offset, line = (at["offset"], at["line"]) if at else (0, 0)
        rest = self._content.skip_to(offset) if at else b""
        ended = False
        while not ended:
            piece = next(self._content, b"")
            ended = not piece
            data = rest + piece
            cut = len(data) if ended else data.rfind(b"\n") + 1
            rest = data[cut:]
            if len(rest) > ROW_BYTES:
                self._too_long(line + data.count(b"\n") + 1)
            lines = data[:cut].split(b"\n")
            if not lines[-1]:
                lines.pop()
            for first in range(0, len(lines), size):
                page = lines[first : first + size]
                offset += sum(map(len, page)) + len(page)
                yield self._checked(page, line), {"offset": min(offset, self._content.offset), "line": line + len(page)}
                line += len(page)

    def _too_long(self, line: int) -> None:
        raise SourceContractError(
            f"stream {self.stream.name!r}: {self.file.name}, line {line}: longer than {ROW_BYTES >> 20} MiB: not JSON Lines"
        )

    def _refuse_array(self, line: bytes) -> None:
        """Raise SourceContractError if the first line begins an array of objects, as the file is one JSON document then."""
        if line.lstrip(SPACE)[:1] == b"[" and line.lstrip(b"[" + SPACE)[:1] in (b"{", b""):
            raise SourceContractError(
                f"stream {self.stream.name!r}: {self.file.name}, line 1: it is one JSON array, not JSON Lines: write each"
                " object on a line of its own, without the array's brackets (such as with jq -c '.[]')"
            )

    def _checked(self, lines: list[bytes], before: int) -> bytes:
        """Return a page of which each line is an object; a page that is good is not looked at twice."""
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
                self.bad.take(at, reason, line)
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
    """Say whether a number may be larger, or a value nested deeper, than every JSON reader takes; seldom wrongly."""
    numbers = lines.translate(NUMBERS)
    if any(each in numbers for each in LARGE):
        return True
    return max(map(len, lines.translate(None, NOT_BRACKETS).split(b"\n"))) > 2 * DEEPEST


def _problem(line: bytes) -> str:
    """Say what is wrong with a line, without a word of what it holds."""
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
        return f"byte {error.start} is not UTF-8"
    except RecursionError:
        return f"it has more than {DEEPEST} levels within each other"
    return _beyond_readers(record) if _may_be_beyond_readers(line) else ""


def _beyond_readers(record: dict[str, msgspec.Raw]) -> str:
    for name, value in record.items():
        if not _is_readable(value):
            return f"the field {name!r} holds a number beyond 1.8e308, or more than {DEEPEST} levels"
    return ""


def _is_readable(value: msgspec.Raw) -> bool:
    """Say whether a value's numbers are those of 64-bit floats, and its levels few enough."""
    try:
        found = msgspec.json.decode(value)
    except (msgspec.MsgspecError, RecursionError):
        return False
    level = [found]
    for _ in range(DEEPEST):
        if any(isinstance(each, int) and abs(each) > sys.float_info.max for each in level):
            return False
        level = [inner for each in level for inner in _within(each)]
        if not level:
            return True
    return False


def _within(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else []
