"""Masks the values of secret credentials in everything that is logged, printed or reported.

A credential is a secret unless the manifest declares `secret: false`, as for a user name. `secret_forms` has the forms in which
a value is found. The parent process masks the output again, as bytes, whatever wrote it.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import TextIO

from penstock_sdk._runtime.secret_forms import SecretForms


class Mask:
    """Replaces secret values in text."""

    def __init__(self, values: list[str]) -> None:
        self._forms = SecretForms(values)
        self.on_change: Callable[[list[str]], None] | None = None
        """Called with all values when there is a further one, before anything can be written that holds it."""

    @property
    def values(self) -> list[str]:
        """The values."""
        return self._forms.values

    def add(self, *values: str) -> None:
        """Mask these values too."""
        self._forms.add(*values)
        if self.on_change is not None:
            self.on_change(self.values)

    def __call__(self, text: str) -> str:
        """Return the text without any of the values."""
        data = text.encode(errors="surrogatepass")
        masked = self._forms.mask(data)
        return text if masked is data else masked.decode(errors="surrogatepass")


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
