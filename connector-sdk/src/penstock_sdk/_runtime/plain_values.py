"""Finds out, from the Python values of a chunk, that their JSON needs no second check.

msgspec writes strict JSON for nearly all values. The exceptions are NaN and infinity, which become null; integers of more
than 64 bits; containers that are nested too deeply; `msgspec.Raw`, which is copied unchanged; and objects that may hold any
of these. A check of each value in Python would take longer than the encoding. So the values are taken column by column,
and each column is passed to one C function that fails for values of another type: a text search, the packing of
integers, or the length of a vector of floats, which is finite only if all of them are. `gc.get_referents` returns the
values of many dicts or lists in one call, at every level.

In a column that begins with a number, an object that can be converted to a number is treated as a number.
"""

from __future__ import annotations

import gc
import math
import struct
from collections.abc import Iterator, Sequence
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from functools import cached_property, lru_cache
from typing import Any
from uuid import UUID

import msgspec

from penstock_sdk._runtime.strict_json import (
    LARGEST_INTEGER,
    MOST_NESTED,
    SMALLEST_INTEGER,
    half_surrogates,
    holds,
    large_numbers,
    lines_of,
    nested,
    one_value_each,
)

DEEPEST = 20
"""Levels of containers that are searched; records that are nested deeper are checked in another way."""
FEW = 32
"""So few values are checked together and not by column, because a call for each column would cost more than it saves."""
NUMBERS = frozenset((int, float, bool, type(None)))
SAFE = NUMBERS | {str, bytes, bytearray, datetime, date, time, timedelta, Decimal, UUID}
CONTAINERS = frozenset((dict, list, tuple, set, frozenset))
RAW = frozenset((msgspec.Raw,))


class _Text:
    """The JSON of the rows, with a search that runs only if it is needed."""

    def __init__(self, text: bytes) -> None:
        self._text = text

    @cached_property
    def has_null(self) -> bool:
        return holds(self._text, b"null")


def are_plain(rows: Sequence[Any], text: bytes) -> bool:
    """Return True if the rows are dicts whose JSON is certainly strict; False if it is not, or not certainly.

    `text` is their JSON, one line for each row.
    """
    return set(map(type, rows)) == {dict} and _are_plain(gc.get_referents(*rows), len(rows), _Text(text), 1)


def _are_plain(values: list[Any], owners: int, text: _Text, depth: int) -> bool:
    """Check the values of `owners` dicts or lists. It is faster if all have the same fields, but this is not required."""
    if depth > DEEPEST:
        return False
    width, rest = divmod(len(values), owners)
    if rest or owners < FEW or not width:
        return not values or _is_plain(values, text, depth)
    return all(_is_plain(values[start::width], text, depth) for start in range(width))


def _is_plain(column: list[Any], text: _Text, depth: int) -> bool:
    kind = type(column[0])
    try:
        if kind is str and not "".startswith(tuple(column)):  # the search ends at the first empty text
            return True
        if kind is int or kind is bool:
            return len(_packer(len(column)).pack(*column)) > 0
        if kind is float and math.hypot(*column) < LARGEST_INTEGER // 2:
            return True
    except (TypeError, ValueError, OverflowError, struct.error):
        pass
    return _is_plain_mixture(column, set(map(type, column)), text, depth)


@lru_cache(maxsize=64)
def _packer(count: int) -> struct.Struct:
    """Return the struct that packs `count` 64-bit integers, and fails for other values."""
    return struct.Struct(f"{count}q")


def _is_plain_mixture(column: list[Any], types: set[type], text: _Text, depth: int) -> bool:
    if float in types and text.has_null and not _are_finite(column, types):
        return False
    if int in types and not _are_short(value for value in column if type(value) is int):
        return False
    others = types - SAFE
    if others and others <= CONTAINERS:
        children = gc.get_referents(*(column if len(others) == len(types) else filter(_is_container, column)))
        return _are_plain(children, len(column), text, depth + 1)
    return not others or (others == RAW and _are_strict([value for value in column if type(value) is msgspec.Raw]))


def _are_finite(column: list[Any], types: set[type]) -> bool:
    numbers = filter(None, column) if types <= NUMBERS else (value for value in column if type(value) is float)
    try:
        return math.isfinite(sum(numbers))
    except OverflowError:
        return False


def _are_short(integers: Iterator[int]) -> bool:
    numbers = list(integers)
    return min(numbers) >= SMALLEST_INTEGER and max(numbers) <= LARGEST_INTEGER


def _is_container(value: Any) -> bool:
    return type(value) in CONTAINERS


def _are_strict(raws: list[msgspec.Raw]) -> bool:
    """Return True if each is exactly one value of strict JSON, on one line, with no number that no type holds."""
    text = one_value_each(raws)
    if text is None or half_surrogates(text) or large_numbers(text):
        return False
    return not nested(lines_of(text), MOST_NESTED - DEEPEST)
