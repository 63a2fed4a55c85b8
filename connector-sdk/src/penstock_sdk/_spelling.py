"""The known word that is most similar to a misspelled one."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

SIMILARITY = 0.6


def nearest_word(word: str, known: Iterable[str]) -> str | None:
    """Return the known word that is most similar to a misspelled one, or None."""
    by_lower = {word.lower(): word for word in known}
    near = get_close_matches(word.lower(), list(by_lower), 1, SIMILARITY)
    return by_lower[near[0]] if near else None
