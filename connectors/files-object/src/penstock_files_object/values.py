"""The texts of a CSV column as values: digit by digit as they are written, or not at all.

A number in a record is the very text of the file, as JSON knows no largest number and no rounding. A sample makes a
column a number only where any reader's 64 bits would hold it too: no leading zero, at most 18 digits without a
fraction or 15 with one, no exponent (12E4 is more often an article's number). Everything else stays text.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal

import msgspec

Kind = Literal["text", "integer", "number", "boolean"]
Value = msgspec.Raw | str | bool | None

INTEGER = re.compile(r"-?(?:0|[1-9][0-9]*)")
NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?")
INTEGERS = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\n-?(?:0|[1-9][0-9]*))*")
SAFE_INTEGER = re.compile(r"0|-?[1-9][0-9]{0,17}")
SAFE_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)\.[0-9]+")
SAFE_DIGITS = 15
BOOLEANS: dict[str, bool] = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
LONGEST_INTEGER = 308
"""Digits of the largest integer that every JSON reader takes: a 64-bit float goes to 1.8e308."""


def _is_integer(text: str) -> bool:
    return len(text) <= LONGEST_INTEGER and INTEGER.fullmatch(text) is not None


def _is_number(text: str) -> bool:
    return NUMBER.fullmatch(text) is not None and math.isfinite(float(text))


FITS: dict[Kind, Callable[[str], bool]] = {
    "integer": _is_integer,
    "number": _is_number,
    "boolean": BOOLEANS.__contains__,
}


def kind_of_values(values: Iterable[str]) -> Kind:
    """Return the narrowest kind that holds every value exactly; empty ones say nothing."""
    seen = {_kind_of_value(value) for value in values if value}
    if seen and seen <= {"integer", "number"}:
        return "number" if "number" in seen else "integer"
    return "boolean" if seen == {"boolean"} else "text"


def _kind_of_value(value: str) -> Kind:
    if SAFE_INTEGER.fullmatch(value):
        return "integer"
    if SAFE_NUMBER.fullmatch(value) and sum(map(str.isdigit, value)) <= SAFE_DIGITS:
        return "number"
    return "boolean" if value in BOOLEANS else "text"


def kind_of_schema(schema: dict[str, Any]) -> Kind:
    """Return how a declared property's texts become values; what is none of these is text."""
    declared = schema.get("type", "string")
    types = [each for each in ([declared] if isinstance(declared, str) else declared) if each != "null"]
    return types[0] if len(types) == 1 and types[0] in FITS else "text"


def schema_of_kind(kind: Kind) -> dict[str, Any]:
    """Return the JSON Schema of a column: any of its values may be missing."""
    return {"type": ["string" if kind == "text" else kind, "null"]}


def converted(
    texts: Sequence[str], kind: Kind, nulls: frozenset[str], misfit: Callable[[int], None]
) -> Sequence[Value]:
    """Return a column's values; `misfit` is told the place of each text that the kind cannot hold.

    A text in `nulls` is null, and so is an empty one where the kind is not text.
    """
    if kind == "text":
        return [None if text in nulls else text for text in texts] if nulls else texts
    if kind == "integer" and not nulls and _are_integers(joined := "\n".join(texts), len(texts)):
        return list(map(msgspec.Raw, joined.encode().split(b"\n")))
    fits = FITS[kind]
    values: list[Value] = []
    for at, text in enumerate(texts):
        if not text or text in nulls:
            values.append(None)
        elif fits(text):
            values.append(BOOLEANS[text] if kind == "boolean" else msgspec.Raw(text.encode()))
        else:
            misfit(at)
            values.append(None)
    return values


def _are_integers(joined: str, count: int) -> bool:
    """Say whether each of `count` texts is one integer; a text may itself hold a line break, so the breaks count."""
    has_one_each = joined.count("\n") == count - 1 and INTEGERS.fullmatch(joined)
    return bool(has_one_each) and (
        len(joined) <= LONGEST_INTEGER or max(map(len, joined.split("\n"))) <= LONGEST_INTEGER
    )
