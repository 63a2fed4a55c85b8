"""Masks the values of secret credentials in everything that is logged, printed or reported.

A credential is a secret unless the manifest declares `secret: false`, as for a user name. `secret_forms` has the forms in which
a value is found. The parent process masks the output again, as bytes, whatever wrote it.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable
from typing import TextIO

from penstock_sdk._runtime.secret_forms import SecretForms
from penstock_sdk.json_types import JsonValue

SHORTEST_SEARCHED = 8
"""Characters of a credential that data is searched for. A shorter one, such as `orders`, may be there by chance."""


class Mask:
    """Replaces secret values in text."""

    def __init__(self, values: list[str]) -> None:
        self._forms = SecretForms(values)
        self._searched = SecretForms(_searched(values))
        self.on_change: Callable[[list[str]], None] | None = None
        """Called with all values when there is a further one, before anything can be written that holds it."""

    @property
    def values(self) -> list[str]:
        """The values."""
        return self._forms.values

    def add(self, *values: str) -> None:
        """Mask these values too."""
        self._forms.add(*values)
        self._searched.add(*_searched(values))
        if self.on_change is not None:
            self.on_change(self.values)

    def __call__(self, text: str) -> str:
        """Return the text without any of the values."""
        data = text.encode(errors="surrogatepass")
        masked = self._forms.mask(data)
        return text if masked is data else masked.decode(errors="surrogatepass")

    def is_in(self, data: bytes) -> bool:
        """Return True if data, such as a cursor or a schema, holds a value of `SHORTEST_SEARCHED` characters or more."""
        return self._searched.mask(data) is not data

    def masked_json(self, value: JsonValue) -> JsonValue:
        """Return a JSON value without any of the values, in keys, texts and numbers."""
        if isinstance(value, dict):
            return {self(key): self.masked_json(item) for key, item in value.items()}
        if isinstance(value, list):
            return [self.masked_json(item) for item in value]
        if isinstance(value, str):
            return self(value)
        if isinstance(value, int | float) and not isinstance(value, bool) and self.is_in(str(value).encode()):
            return self(str(value))
        return value


def _searched(values: Iterable[str]) -> list[str]:
    return [value for value in values if len(value) >= SHORTEST_SEARCHED]


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
