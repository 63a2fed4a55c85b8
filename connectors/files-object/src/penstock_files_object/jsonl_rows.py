"""JSON Lines: pages of the file's own bytes, looked at line by line only where something is wrong."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import msgspec
from penstock_sdk import SourceContractError

from penstock_files_object.config import StreamConfig
from penstock_files_object.content import BOM, ROW_BYTES, Content, Open
from penstock_files_object.progress import File
from penstock_files_object.rejects import BadRows

SPACE = b" \t\r\n"
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

    def _checked(self, lines: list[bytes], before: int) -> bytes:
        """Return a page of which each line is an object; a page that is good is not looked at twice."""
        if before == 0 and lines:
            lines[0] = lines[0].removeprefix(BOM)
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
    except (msgspec.DecodeError, UnicodeDecodeError):
        return False
    return len(rows) == count and b"\n".join(rows).count(b"\n") == count - 1


def _problem(line: bytes) -> str:
    """Say what is wrong with a line, without a word of what it holds."""
    if not line.strip(SPACE):
        return ""
    try:
        line.decode()
        _object.decode(line)
    except msgspec.ValidationError:
        return "it is not a JSON object"
    except msgspec.DecodeError as error:
        return f"it is not JSON: {error}"
    except UnicodeDecodeError as error:
        return f"byte {error.start} is not UTF-8"
    return ""
