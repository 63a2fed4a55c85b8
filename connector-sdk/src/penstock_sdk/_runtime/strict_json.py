"""The JSON that Bronze accepts for one record: what every strict reader accepts.

RFC 8259 leaves it to readers how they treat half a surrogate pair, deep nesting, and numbers that no type holds. Such
records are refused here, so that no committed record stops a reader. The check is cheap: searches over the bytes of many
records find the few lines that `problem` parses.
"""

from __future__ import annotations

import ctypes
import io
import json
import math
import re
from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from enum import Enum
from typing import Any

import msgspec

MOST_NESTED = 500
"""Levels of objects and arrays in a record. The readers of Python, Jackson and DuckDB fail at about 1,000."""
MOST_DIGITS = 4000
"""Digits of one number; Python refuses more than 4,300."""
SMALLEST_INTEGER, LARGEST_INTEGER = -(2**63), 2**64 - 1
NUMBERS = bytes.maketrans(b"123456789+E", b"000000000" + b"0e")
SEPARATORS = bytes.maketrans(b":[]} \t\r\n", b"," * 8)
LONG_INTEGER, LONG_EXPONENT = b"0" * 19, b"0e000"
LONGEST_LOOK = 400
MOST_LOOKS = 8
"""So many matches are checked one by one; with more it is faster to search the whole text."""
BEFORE_NUMBER = b":,[ \t\r\n"
LONG_INTEGER_STARTS = (*(bytes((before,)) + LONG_INTEGER + b"0" for before in BEFORE_NUMBER), b"-" + LONG_INTEGER)
PAIR = re.compile(rb"(?<!\\)\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}")
STRINGS = re.compile(r'"(?:[^"\\]|\\.)*"', re.DOTALL)


_values = msgspec.json.Decoder(msgspec.Raw)


class NotStrictJsonError(ValueError):
    """A record cannot be one line of strict JSON. The message says why, and never holds a value."""


def _search() -> Any:
    """Return strstr of the C library, which is many times faster than Python's search; None if it is not available.

    It keeps the interpreter's lock, because releasing the lock takes longer than most searches.
    """
    try:
        found = ctypes.PyDLL(None).strstr
    except (AttributeError, OSError, TypeError):
        return None
    found.restype = ctypes.c_void_p
    found.argtypes = [ctypes.c_char_p, ctypes.c_char_p]
    return found


STRSTR = _search()


def holds(text: bytes, part: bytes) -> bool:
    """Return True if the text contains the other one. Neither may contain NUL, which JSON never does."""
    return part in text if STRSTR is None else STRSTR(text, part) is not None


def half_surrogates(text: bytes) -> bool:
    """Return True if a line of the text may contain half a surrogate pair."""
    if b"\\" not in text or not (holds(text, b"\\ud") or holds(text, b"\\uD")):
        return False
    rest = PAIR.sub(b"-", text)
    return b"\\ud" in rest or b"\\uD" in rest


def large_numbers(text: bytes) -> bool:
    """Return True if a line of the text may contain a number that no type can hold."""
    digits = text.translate(NUMBERS)
    if holds(digits, LONG_EXPONENT) and _has_exponent(digits):
        return True
    if not holds(digits, LONG_INTEGER):
        return False
    return digits.startswith(LONG_INTEGER) or any(holds(digits, start) for start in LONG_INTEGER_STARTS)


def _has_exponent(digits: bytes) -> bool:
    """Return True if a number has a long exponent. Texts such as UUIDs often contain the same characters."""
    at = digits.find(LONG_EXPONENT)
    for _ in range(MOST_LOOKS):
        if at < 0 or _begins_number(digits, at):
            return at >= 0
        at = digits.find(LONG_EXPONENT, at + len(LONG_EXPONENT))
    # Without digits, a number with an exponent leaves an e between two separators.
    return at >= 0 and holds(b",%b," % digits.translate(SEPARATORS, b"0.-"), b",e,")


def _begins_number(digits: bytes, at: int) -> bool:
    """Return True if the digits may belong to a number: in a text, another character usually precedes them."""
    before = digits[max(0, at - LONGEST_LOOK) : at + 1].rstrip(b"0.").removesuffix(b"-")[-1:]
    return before in BEFORE_NUMBER


def lines_of(text: bytes) -> list[bytes]:
    """Return the lines of the text with their ends. This is faster than a split."""
    return io.BytesIO(text).readlines()


def one_value_each(raws: Sequence[msgspec.Raw]) -> bytes | None:
    """Return the JSON as lines if each is exactly one value without line breaks or spaces around it; None otherwise."""
    text = b"\n".join(raws)
    try:
        text.decode()
        values = _values.decode_lines(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    # The texts are compared, because two values on one line could make up for one value on two lines.
    one_each = len(values) == len(raws) and b"\n".join(values) == text and b"\r" not in text
    return text if one_each and len(lines_of(text)) == len(raws) else None


def nested(lines: Sequence[bytes], most: int = MOST_NESTED) -> bool:
    """Return True if a line may have more levels than `most`. Each level takes two bytes."""
    if max(map(len, lines)) < 2 * most:
        return False
    return any(_opens(line, most) for line in lines if len(line) >= 2 * most)


def _opens(line: bytes, most: int) -> bool:
    """Return True if more than `most` objects and arrays begin in the line."""
    return _has_many(line) and line.count(b"{") + line.count(b"[") > most


def _has_many(line: bytes) -> bool:
    """Return True if more than a few objects or arrays begin in the line. A search is faster than a count."""
    for sign in (b"{", b"["):
        at = -1
        for _ in range(MOST_LOOKS):
            at = line.find(sign, at + 1)
            if at < 0:
                break
        else:
            return True
    return False


def problem(line: bytes, integers: AbstractSet[str] = frozenset()) -> str:
    """Return why a line of UTF-8 is not strict JSON, or nothing. `integers` are the fields of that type."""
    text = line.decode(errors="replace")
    if depth_of(text) > MOST_NESTED:
        return f"it is nested deeper than {MOST_NESTED} levels"
    try:
        value = json.loads(text, parse_constant=_refuse, parse_float=_finite, parse_int=_whole)
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return "a text contains half a surrogate pair"
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


def lost_number(row: object) -> str:
    """Return the path of the first NaN or infinity, which the encoder would write as null; nothing if there is none."""
    lost = (path for path, value in leaves(row) if isinstance(value, float) and not math.isfinite(value))
    return next((path or "(the record)" for path in lost), "")


def leaves(record: object) -> Iterator[tuple[str, Any]]:
    """Yield the values of a record that contain no other values, each with its path, in order."""
    found = [("", record)]
    while found:
        path, value = found.pop()
        children = _children(path, value)
        if children is None:
            yield path, value
        else:
            found += reversed(children)


def shown_key(key: object) -> str:
    """Return the key of a dict as paths show it."""
    return key if isinstance(key, str) else f"(a key of type {type(key).__name__})"


def _children(path: str, value: Any) -> list[tuple[str, Any]] | None:
    """Return the values that a value contains, with their paths; None if it contains none."""
    if isinstance(value, str | int | float) or value is None:
        return None
    if isinstance(value, dict):
        return [(f"{path}.{shown_key(key)}".lstrip("."), item) for key, item in value.items()]
    if isinstance(value, list | tuple | set | frozenset):
        return [(f"{path}[{place}]", item) for place, item in enumerate(value)]
    if isinstance(value, Enum):
        return [(path, value.value)]
    # Objects for the encoder: a Struct, a dataclass, an attrs class.
    names = getattr(value, "__struct_fields__", None) or list(getattr(value, "__dataclass_fields__", ()))
    names = names or [field.name for field in getattr(value, "__attrs_attrs__", ())]
    return [(f"{path}.{name}".lstrip("."), getattr(value, name, None)) for name in names] or None


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
