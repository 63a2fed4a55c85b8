"""Finds secret values in output, in the forms in which programs write them.

A value is found as it is, quoted for a URL, in base64 (also inside of a longer text, such as a Basic header), in hexadecimal,
escaped by JSON once or twice, and as `repr` writes it. Line breaks inside of a form do not hide it, whether they are written as
such or escaped. Long values are also found line by line, because a key is often printed that way.

This module is imported by the parent process of a connector, so it imports little.
"""

from __future__ import annotations

import base64
import json
import re
from bisect import bisect_right
from collections.abc import Iterable
from urllib.parse import quote, quote_plus

SHORT = 4
SHORTEST_LINE = 8
MASKED = b"***"
SHORTEST_PARTIAL = 4
"""An incomplete form of at least this length at the end of the output is masked."""
LONGEST_LINE = 64 * 1024
"""So many bytes without a line break are held, and then handled as a line."""
SPACE = re.compile(rb"[ \t\r\n]+|\\+[nr]")
"""Space and line breaks, written as such or escaped: they are left out on both sides of the comparison."""


class SecretForms:
    """The forms of secret values, which it finds in bytes."""

    def __init__(self, values: Iterable[str] = ()) -> None:
        self.values: list[str] = []
        self._forms: list[bytes] = []
        self._short: re.Pattern[bytes] | None = None
        self.add(*values)

    def add(self, *values: str) -> None:
        """Find these values too."""
        self.values += [value for value in values if value.strip()]
        forms: set[bytes] = set()
        short: set[bytes] = set()
        for value in self.values:
            stripped = value.strip()
            if len(stripped) < SHORT or len(_joined(stripped.encode(errors="surrogatepass"))[0]) < SHORT:
                short |= {form.encode(errors="surrogatepass") for form in _text_forms(stripped)}
            else:
                for text in {stripped, *(line for line in stripped.splitlines() if len(line) >= SHORTEST_LINE)}:
                    forms |= _forms(text)
        joined = {_joined(form)[0] for form in forms}
        self._forms = sorted((form for form in joined if len(form) >= SHORT), key=len, reverse=True)
        alone = b"|".join(re.escape(form) for form in sorted(short, key=len, reverse=True))
        self._short = re.compile(rb"(?<!\w)(?:" + alone + rb")(?!\w)") if alone else None

    def replace(self, values: Iterable[str]) -> None:
        """Find these values instead."""
        self.values = []
        self.add(*values)

    def mask(self, data: bytes) -> bytes:
        """Return the bytes without any of the values."""
        spans = self.spans(data)
        if not spans:
            return data
        masked, position = bytearray(), 0
        for start, end in spans:
            masked += data[position:start] + MASKED
            position = end
        return bytes(masked + data[position:])

    def spans(self, data: bytes) -> list[tuple[int, int]]:
        """Return where the values are, in order and without overlaps."""
        found = [match.span() for match in self._short.finditer(data)] if self._short else []
        joined, places = _joined(data)
        for form in self._forms:
            start = joined.find(form)
            while start >= 0:
                found.append((places(start), places(start + len(form) - 1) + 1))
                start = joined.find(form, start + 1)
        merged: list[tuple[int, int]] = []
        for start, end in sorted(found):
            if merged and start <= merged[-1][1]:
                merged[-1] = merged[-1][0], max(end, merged[-1][1])
            else:
                merged.append((start, end))
        return merged

    def partial_start(self, data: bytes) -> int:
        """Return where an incomplete form begins that reaches the end of the bytes; their length without one."""
        joined, places = _joined(data)
        longest = max((_overlap(joined, form) for form in self._forms), default=0)
        return places(len(joined) - longest) if longest else len(data)


class _Places:
    """Positions in bytes from which space was removed, as positions in the original."""

    def __init__(self, spaces: list[tuple[int, int]]) -> None:
        self._starts: list[int] = []
        self._removed: list[int] = []
        removed = 0
        for start, end in spaces:
            self._starts.append(start - removed)
            removed += end - start
            self._removed.append(removed)

    def __call__(self, position: int) -> int:
        index = bisect_right(self._starts, position)
        return position + (self._removed[index - 1] if index else 0)


def _joined(data: bytes) -> tuple[bytes, _Places]:
    """Return the bytes as they are compared, and where each of them was. The codes of characters may have capitals."""
    spaces = [match.span() for match in SPACE.finditer(data)]
    joined = SPACE.sub(b"", data) if spaces else data
    return joined.lower(), _Places(spaces)


def _overlap(data: bytes, form: bytes) -> int:
    """Return the length of the longest beginning of a form with which the bytes end."""
    last = data[-(len(form) - 1) :] if len(form) > 1 else b""
    start = last.find(form[:1])
    while start >= 0:
        if form.startswith(last[start:]):
            return len(last) - start
        start = last.find(form[:1], start + 1)
    return 0


def _text_forms(value: str) -> set[str]:
    """Return a value as programs write text."""
    escaped = {value, json.dumps(value)[1:-1], json.dumps(value, ensure_ascii=False)[1:-1], repr(value)[1:-1]}
    twice = {json.dumps(form)[1:-1] for form in escaped}
    raw = value.encode(errors="surrogatepass")
    quoted = {quote(raw), quote(raw, safe=""), quote_plus(raw), quote_plus(raw, safe="/")}
    return escaped | twice | quoted


def _forms(value: str) -> set[bytes]:
    raw = value.encode(errors="surrogatepass")
    forms = {form.encode(errors="surrogatepass") for form in _text_forms(value)}
    forms.add(raw.hex().encode())
    for offset in range(3):
        forms |= set(_base64_inside(raw, offset))
    return forms


def _base64_inside(raw: bytes, offset: int) -> Iterable[bytes]:
    """Yield the characters of base64 that only the value decides, if `offset` bytes of a group of three come before it."""
    first = (0, 2, 3)[offset]
    last = (0, 3, 2)[(offset + len(raw)) % 3]  # with the padding
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        encoded = encode(b"\0" * offset + raw)
        yield encoded[first : len(encoded) - last]
        yield encoded[first:]  # where nothing follows the value
        yield encoded[first:].rstrip(b"=")


class OutputMask:
    """Masks a stream of bytes that arrives in pieces."""

    def __init__(self, forms: SecretForms) -> None:
        self._forms = forms
        self._held = b""

    def feed(self, data: bytes) -> bytes:
        """Add bytes, and return what can be shown: whole lines, without an incomplete form at their end."""
        self._held += data
        end = self._held.rfind(b"\n") + 1
        if len(self._held) - end > LONGEST_LINE:
            end = len(self._held)
        start = self._forms.partial_start(self._held[:end])
        if start < end and not self._held[start:end].strip():  # only a line break, which belongs to every form
            start = end
        start = self._before_span(start, end)
        shown, self._held = self._held[:start], self._held[start:]
        return self._forms.mask(shown)

    def _before_span(self, place: int, end: int) -> int:
        """Return a place that is not inside of a value, `end` if that would hold too much."""
        inside = (start for start, stop in self._forms.spans(self._held) if start < place < stop)
        place = next(inside, place)
        return place if len(self._held) - place <= 2 * LONGEST_LINE else end

    def flush_lines(self) -> bytes:
        """Return the whole lines that are held, because nothing has followed them for a while."""
        end = self._held.rfind(b"\n") + 1
        shown, self._held = self._held[:end], self._held[end:]
        return self._without_partial(shown)

    def close(self) -> bytes:
        """Return everything that is held."""
        shown, self._held = self._held, b""
        return self._without_partial(shown)

    def _without_partial(self, data: bytes) -> bytes:
        start = self._forms.partial_start(data)
        if len(data[start:].strip()) < SHORTEST_PARTIAL:
            return self._forms.mask(data)
        line_break = b"\n" if data.endswith(b"\n") else b""
        return self._forms.mask(data[:start]) + MASKED + line_break
