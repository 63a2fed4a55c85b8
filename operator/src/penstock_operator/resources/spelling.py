"""The known word that a mistyped one most likely means."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

LIKENESS = 0.6


def nearest_word(word: str, known: Iterable[str], likeness: float = LIKENESS) -> str | None:
    """Return the known word that is most like another, or the only one that it begins; None when there is none.

    Case does not count.
    """
    by_lower = {name.casefold(): name for name in sorted(known)}
    near = get_close_matches(word.casefold(), list(by_lower), 1, likeness)
    begun = [lower for lower in by_lower if word and lower.startswith(word.casefold())]
    found = near or (begun if len(begun) == 1 else [])
    return by_lower[found[0]] if found else None
