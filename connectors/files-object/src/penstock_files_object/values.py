"""Converts the texts of a CSV column to values, without changing a digit.

A number in a record is the text in the file, as JSON has no largest number and does not round. A column is inferred to be a
number only if 64 bits can hold its values: no leading zero, at most 18 digits without a fraction or 15 with one, and no
exponent (12E4 is more often an article number). Any other column is text.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Literal

import msgspec
from penstock_sdk.json_types import JsonSchema, types_of

ColumnType = Literal["text", "integer", "number", "boolean"]
Value = msgspec.Raw | str | bool | None

INTEGER = re.compile(r"-?(?:0|[1-9][0-9]*)")
NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?")
INTEGERS = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\n-?(?:0|[1-9][0-9]*))*")
SAFE_INTEGER = re.compile(r"0|-?[1-9][0-9]{0,17}")
SAFE_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)\.[0-9]+")
SAFE_DIGITS = 15
BOOLEANS: dict[str, bool] = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
LONGEST_INTEGER = 308
"""Digits of the largest integer that every JSON reader accepts: the largest 64-bit float is 1.8e308."""


def _is_integer(text: str) -> bool:
    return len(text) <= LONGEST_INTEGER and INTEGER.fullmatch(text) is not None


def _is_number(text: str) -> bool:
    return NUMBER.fullmatch(text) is not None and math.isfinite(float(text))


FITS_TYPE: dict[ColumnType, Callable[[str], bool]] = {
    "integer": _is_integer,
    "number": _is_number,
    "boolean": BOOLEANS.__contains__,
}


def type_of_values(values: Iterable[str]) -> ColumnType:
    """Return the narrowest type that holds every value exactly; empty values fit any type."""
    seen = {_type_of_value(value) for value in values if value}
    if seen and seen <= {"integer", "number"}:
        return "number" if "number" in seen else "integer"
    return "boolean" if seen == {"boolean"} else "text"


def _type_of_value(value: str) -> ColumnType:
    if SAFE_INTEGER.fullmatch(value):
        return "integer"
    if SAFE_NUMBER.fullmatch(value) and sum(map(str.isdigit, value)) <= SAFE_DIGITS:
        return "number"
    return "boolean" if value in BOOLEANS else "text"


def type_of_schema(schema: JsonSchema) -> ColumnType:
    """Return the type of a declared property; a schema with any other type is text."""
    types = [json_type for json_type in types_of(schema) if json_type != "null"]
    return next((known for known in FITS_TYPE if types == [known]), "text")


def schema_of_type(column_type: ColumnType) -> JsonSchema:
    """Return the JSON Schema of a column; any value may be null."""
    return {"type": ["string" if column_type == "text" else column_type, "null"]}


def convert_column(
    texts: Sequence[str], column_type: ColumnType, nulls: frozenset[str], on_invalid: Callable[[int], None]
) -> Sequence[Value]:
    """Return a column's values; `on_invalid` is called with the index of each text that does not have the type.

    A text in `nulls` becomes null, and so does an empty text, unless the type is text.
    """
    if column_type == "text":
        return [None if text in nulls else text for text in texts] if nulls else texts
    if column_type == "integer" and not nulls and _are_integers(joined := "\n".join(texts), len(texts)):
        return list(map(msgspec.Raw, joined.encode().split(b"\n")))
    fits = FITS_TYPE[column_type]
    values: list[Value] = []
    for at, text in enumerate(texts):
        if not text or text in nulls:
            values.append(None)
        elif fits(text):
            values.append(BOOLEANS[text] if column_type == "boolean" else msgspec.Raw(text.encode()))
        else:
            on_invalid(at)
            values.append(None)
    return values


def _are_integers(joined: str, count: int) -> bool:
    """Return True if each of `count` texts is one integer. A text may have a line break inside, so breaks are counted."""
    has_one_each = joined.count("\n") == count - 1 and INTEGERS.fullmatch(joined)
    return bool(has_one_each) and (
        len(joined) <= LONGEST_INTEGER or max(map(len, joined.split("\n"))) <= LONGEST_INTEGER
    )
