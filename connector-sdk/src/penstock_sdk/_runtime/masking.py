"""Masks the values of secret credentials in everything that is logged, printed or reported.

A credential is a secret unless the manifest declares `secret: false`, as for a user name. A value is found as it is, and in
the forms in which error messages show it: quoted for a URL, escaped by JSON or `repr`, and line by line.
"""

from __future__ import annotations

import io
import json
import re
from typing import TextIO
from urllib.parse import quote, quote_plus

SHORT = 4
SHORTEST_LINE = 8
MASKED = "***"


def _forms(value: str) -> set[str]:
    stripped = value.strip()
    lines = {line for line in stripped.splitlines() if len(line) >= SHORTEST_LINE}
    escaped = {json.dumps(stripped)[1:-1], json.dumps(stripped, ensure_ascii=False)[1:-1], repr(stripped)[1:-1]}
    return {stripped, quote(stripped), quote(stripped, safe=""), quote_plus(stripped), *escaped, *lines} - {""}


def _pattern(form: str) -> str:
    """Return a pattern that matches a value anywhere; a very short value only where it stands alone."""
    found = re.escape(form)
    return rf"(?<!\w){found}(?!\w)" if len(form) < SHORT else found


class Mask:
    """Replaces secret values in text."""

    def __init__(self, values: list[str]) -> None:
        self._values: list[str] = []
        self._found: re.Pattern[str] | None = None
        self.add(*values)

    def add(self, *values: str) -> None:
        """Mask these values too."""
        self._values += values
        forms = sorted({form for value in self._values for form in _forms(value)}, key=len, reverse=True)
        self._found = re.compile("|".join(map(_pattern, forms))) if forms else None

    def __call__(self, text: str) -> str:
        """Return the text without any of the values."""
        return self._found.sub(MASKED, text) if self._found else text


class MaskedStream(io.TextIOBase):
    """A stream that masks whole lines and passes them on, because a secret may be written in several pieces."""

    def __init__(self, stream: TextIO, mask: Mask) -> None:
        self._stream = stream
        self._mask = mask
        self._begun = ""

    def write(self, text: str) -> int:
        """Buffer text, and pass on the complete lines."""
        *lines, self._begun = f"{self._begun}{text}".split("\n")
        self._stream.writelines(f"{self._mask(line)}\n" for line in lines)
        return len(text)

    def writable(self) -> bool:
        """Return True."""
        return True

    def flush(self) -> None:
        """Flush the stream. An incomplete line stays buffered, because it could show half of a secret."""
        self._stream.flush()

    def close(self) -> None:
        """Pass on the last line, complete or not."""
        if self._begun:
            self.write("\n")
        super().close()
