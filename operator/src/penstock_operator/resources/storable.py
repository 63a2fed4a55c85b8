"""What the registry can hold: text that is UTF-8 without NUL, numbers that JSON and Kubernetes have, and bounded nesting.

An API server lets some of it through (NUL in free-form config), a folder of YAML all of it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

DEEPEST = 64
INT64 = range(-(2**63), 2**63)


def storage_problems(value: Any, path: str) -> list[str]:
    """Return what of a document cannot be stored, each with its field and remedy."""
    return list(_problems(value, path, 0))


def _problems(value: Any, path: str, depth: int) -> Iterator[str]:
    if depth > DEEPEST:
        yield f"{path[:200]}: Invalid value: nested deeper than {DEEPEST} levels; flatten it"
    elif isinstance(value, dict):
        for key, item in value.items():
            shown = f"{path}.{shown_text(str(key))}"
            yield from _text(str(key), shown)
            yield from _problems(item, shown, depth + 1)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _problems(item, f"{path}[{index}]", depth + 1)
    elif isinstance(value, str):
        yield from _text(value, path)
    else:
        yield from _number(value, path)


def _text(text: str, path: str) -> Iterator[str]:
    if "\0" in text or shown_text(text) != text:
        yield f"{path}: Invalid value: holds a character that is no text (NUL or half a surrogate pair); remove it"


def _number(value: Any, path: str) -> Iterator[str]:
    if isinstance(value, float) and not math.isfinite(value):
        yield f"{path}: Invalid value: {value} is no number that JSON has"
    elif isinstance(value, int) and value not in INT64:
        yield f"{path}: Invalid value: the number does not fit into 64 bits; write it as text"
    elif not isinstance(value, str | int | float | None):
        yield f"{path}: Invalid value: a {type(value).__name__} is nothing that JSON has; put it in quotes"


def shown_text(text: str) -> str:
    """Return text that can be stored and shown, with a mark where a character cannot."""
    return text.encode(errors="replace").decode().replace("\0", "\ufffd")
