"""Secrets never leave: what is logged, printed or reported has the value of every secret credential masked.

A credential is a secret unless the manifest says `secret: false` of it (a user's name). A value is found as it is and
in the forms that error messages give it: quoted for a URL, escaped by JSON or `repr`, and line by line.
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
    """Match a value anywhere; one that is as short as a syllable only where it stands alone."""
    found = re.escape(form)
    return rf"(?<!\w){found}(?!\w)" if len(form) < SHORT else found


class Mask:
    """Replaces the values it was given."""

    def __init__(self, values: list[str]) -> None:
        self._values: list[str] = []
        self._found: re.Pattern[str] | None = None
        self.add(*values)

    def add(self, *values: str) -> None:
        """Mask these too from now on."""
        self._values += values
        forms = sorted({form for value in self._values for form in _forms(value)}, key=len, reverse=True)
        self._found = re.compile("|".join(map(_pattern, forms))) if forms else None

    def __call__(self, text: str) -> str:
        """Return the text without any of the values."""
        return self._found.sub(MASKED, text) if self._found else text


class MaskedStream(io.TextIOBase):
    """A stream that passes whole lines on, masked: a secret may be written in pieces."""

    def __init__(self, stream: TextIO, mask: Mask) -> None:
        self._stream = stream
        self._mask = mask
        self._begun = ""

    def write(self, text: str) -> int:
        """Take text, and pass on the lines that it completes."""
        *lines, self._begun = f"{self._begun}{text}".split("\n")
        self._stream.writelines(f"{self._mask(line)}\n" for line in lines)
        return len(text)

    def writable(self) -> bool:
        """Say that it can be written to."""
        return True

    def flush(self) -> None:
        """Pass on what is complete; a line that has only begun could show half a secret."""
        self._stream.flush()

    def close(self) -> None:
        """Pass on the last line, complete or not."""
        if self._begun:
            self.write("\n")
        super().close()
