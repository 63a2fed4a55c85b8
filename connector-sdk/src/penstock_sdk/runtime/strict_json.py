"""What Bronze accepts as the JSON of one record: what any strict reader accepts, and no more.

RFC 8259 leaves to readers what they make of half a surrogate pair, of deep nesting and of numbers that no type holds.
Here such a record is refused, so that nothing that is committed stops a reader. Looking costs little: searches over the
bytes of many records find the few lines that `problem` parses.
"""

from __future__ import annotations

import ctypes
import io
import json
import math
import re
from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from operator import itemgetter
from typing import Any

import msgspec

MOST_NESTED = 500
"""Levels of objects and arrays in a record. Python, Jackson and DuckDB's readers give up at about 1,000."""
MOST_DIGITS = 4000
"""Digits of one number; Python refuses more than 4,300."""
SMALLEST_INTEGER, LARGEST_INTEGER = -(2**63), 2**64 - 1
NUMBERS = bytes.maketrans(b"123456789+E", b"000000000" + b"0e")
LONG_INTEGER, LONG_EXPONENT = b"0" * 19, b"0e000"
LONGEST_LOOK = 400
FIRST_ROWS = 20
BEFORE_NUMBER = b":,[ \t\r\n"
PAIR = re.compile(rb"(?<!\\)\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}")
STRINGS = re.compile(r'"(?:[^"\\]|\\.)*"', re.DOTALL)


class NotStrictJsonError(ValueError):
    """A record cannot be one line of strict JSON; the message says why, never with a value."""


def _search() -> Any:
    """Return the C library's memmem, which is three times as fast as Python's own search; None where there is none."""
    try:
        found = ctypes.CDLL(None).memmem
    except (AttributeError, OSError, TypeError):
        return None
    found.restype = ctypes.c_void_p
    found.argtypes = [ctypes.c_char_p, ctypes.c_size_t, ctypes.c_char_p, ctypes.c_size_t]
    return found


MEMMEM = _search()


def holds(text: bytes, part: bytes) -> bool:
    """Return True if the text holds the other one."""
    return part in text if MEMMEM is None else MEMMEM(text, len(text), part, len(part)) is not None


def line_count(text: bytes) -> int:
    """Return how many lines the text has, faster than by counting their ends."""
    return len(io.BytesIO(text).readlines())


def half_surrogates(text: bytes) -> bool:
    """Return True if some line of the text may hold half a surrogate pair."""
    if b"\\" not in text or not (holds(text, b"\\ud") or holds(text, b"\\uD")):
        return False
    rest = PAIR.sub(b"-", text)
    return b"\\ud" in rest or b"\\uD" in rest


def large_numbers(text: bytes) -> bool:
    """Return True if some line of the text may hold a number that no type holds."""
    digits = text.translate(NUMBERS)
    exponents = _places(digits, LONG_EXPONENT)
    integers = _places(digits, LONG_INTEGER)
    return any(_begins_number(digits, at, b"0.") for at in exponents) or any(
        (digits[at + 19 : at + 20] == b"0" or digits[at - 1 : at] == b"-") and _begins_number(digits, at, b"0")
        for at in integers
    )


def _places(text: bytes, part: bytes) -> Iterator[int]:
    """Yield where the text holds the other one."""
    at = text.find(part) if holds(text, part) else -1
    while at >= 0:
        yield at
        at = text.find(part, at + len(part))


def _begins_number(digits: bytes, at: int, number: bytes) -> bool:
    """Return True if the digits there may be a number's; those within a text mostly follow something else."""
    before = digits[max(0, at - LONGEST_LOOK) : at + 1].rstrip(number).removesuffix(b"-")[-1:]
    return before in BEFORE_NUMBER


def nested(lines: Sequence[Any]) -> bool:
    """Return True if a line may be nested too deeply; each level takes two bytes."""
    if max(map(len, lines)) < 2 * MOST_NESTED:
        return False
    return any(line.count(b"{") + line.count(b"[") > MOST_NESTED for line in map(bytes, lines))


def problem(line: bytes, integers: AbstractSet[str] = frozenset()) -> str:
    """Say why a line of UTF-8 is not strict JSON; nothing when it is. `integers` are fields of that type."""
    text = line.decode(errors="replace")
    if depth_of(text) > MOST_NESTED:
        return f"it is nested deeper than {MOST_NESTED} levels"
    try:
        value = json.loads(text, parse_constant=_refuse, parse_float=_finite, parse_int=_whole)
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return "a text holds half a surrogate pair"
    except ValueError as error:
        return str(error) if isinstance(error, NotStrictJsonError) else "it is not JSON"
    too_long = _long_integer(value, integers) if isinstance(value, dict) else None
    return f"field {too_long} is an integer of more than 64 bits" if too_long else ""


def _long_integer(record: dict[str, Any], integers: AbstractSet[str]) -> str | None:
    numbers = ((field, record.get(field)) for field in integers)
    return next((f for f, n in numbers if isinstance(n, int) and not SMALLEST_INTEGER <= n <= LARGEST_INTEGER), None)


def depth_of(text: str) -> int:
    """Return the levels of objects and arrays."""
    depth = deepest = 0
    for character in STRINGS.sub("", text):
        if character in "[{":
            depth += 1
            deepest = max(deepest, depth)
        elif character in "]}":
            depth -= 1
    return deepest


def lost_number(row: Any, path: str = "") -> str:
    """Return the path of the first NaN or infinity, which the encoder would write as null; nothing when there is none."""
    if isinstance(row, float):
        return "" if math.isfinite(row) else path or "(the record)"
    if isinstance(row, str | bytes | int | msgspec.Raw) or row is None:
        return ""
    if isinstance(row, dict):
        children = [(f"{path}.{key}".lstrip("."), value) for key, value in row.items()]
    elif isinstance(row, list | tuple | set | frozenset):
        children = [(f"{path}[{place}]", value) for place, value in enumerate(row)]
    else:
        return _lost_in_object(row, path)
    return next(filter(None, (lost_number(value, child) for child, value in children)), "")


def _lost_in_object(row: Any, path: str) -> str:
    """Look into what the encoder takes as an object: a Struct, a dataclass, an attrs class."""
    names = getattr(row, "__struct_fields__", None) or list(getattr(row, "__dataclass_fields__", ()))
    names = names or [field.name for field in getattr(row, "__attrs_attrs__", ())]
    return next(filter(None, (lost_number(getattr(row, n, None), f"{path}.{n}".lstrip(".")) for n in names)), "")


def only_none(text: bytes, rows: Sequence[dict[Any, Any]]) -> bool:
    """Return True if every null of the text is a None of the records' own fields; False also when that is not certain."""
    fields = {field for row in rows[:FIRST_ROWS] for field, value in row.items() if value is None}
    try:
        return text.count(b"null") == sum(list(map(itemgetter(field), rows)).count(None) for field in fields)
    except KeyError:
        return False


def has_lost_number(line: bytes, row: Any) -> bool:
    """Return True if a null of the line was a NaN or an infinity in its record."""
    nulls = line.count(b"null")
    if not nulls or (isinstance(row, dict) and nulls == tuple(row.values()).count(None)):
        return False
    return bool(lost_number(row))


def _refuse(_: str) -> None:
    message = "NaN and infinity are not JSON"
    raise NotStrictJsonError(message)


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        message = "a number is larger than a 64-bit float holds"
        raise NotStrictJsonError(message)
    return number


def _whole(text: str) -> int:
    if len(text) > MOST_DIGITS:
        message = f"a number has more than {MOST_DIGITS} digits"
        raise NotStrictJsonError(message)
    return int(text)
