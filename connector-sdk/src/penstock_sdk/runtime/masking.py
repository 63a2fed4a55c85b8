"""Secrets never leave: what is logged or reported has every credential's value masked."""

from __future__ import annotations

SHORTEST = 4


class Mask:
    """Replaces the values it was given."""

    def __init__(self, values: list[str]) -> None:
        self._values = sorted({value for value in values if len(value) >= SHORTEST}, key=len, reverse=True)

    def __call__(self, text: str) -> str:
        """Return the text without any of the values."""
        for value in self._values:
            text = text.replace(value, "***")
        return text
