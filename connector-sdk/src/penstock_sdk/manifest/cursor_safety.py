"""Which cursors can lose records, why, and what to do instead. Pure functions. docs/authors/cursors.md has the same table.

`unsafe_cursor` judges by the schema before anything is read, `unsafe_values` by records that were read. A stream declares
which losses its connector prevents (`Stream.cursor_care`), and is not refused for these.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from penstock_sdk.json_types import JsonSchema, list_at, properties_of, types_of

DEPTH = 20
FEW = 5


@dataclass(frozen=True)
class Rule:
    """One way to lose records: `why` they are lost, the `remedy`, and the words of `cursor_care` that prevent it."""

    name: str
    why: str
    remedy: str
    answered_by: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.why}; {self.remedy}"


NOT_IN_SCHEMA = Rule(
    "not-in-schema",
    "the cursor field is not in the stream's schema, so records may lack it",
    "name a top-level field of the schema",
)
MAY_BE_NULL = Rule(
    "may-be-null",
    "the cursor field may be null or missing, and no cursor finds a record without a value",
    "follow a `required` field that is never null, or declare `nulls` if such records are read in another way",
    ("nulls",),
)
NO_ORDER = Rule(
    "no-order",
    "the cursor field is a boolean or an object, and these have no order",
    "follow a timestamp or a growing number",
)
UNKNOWN_ORDER = Rule(
    "unknown-order",
    "the cursor field may hold values of several types, which cannot all be compared",
    "give it one type, or declare `order` if the source itself compares the values in one total order",
    ("order",),
)
FLOAT = Rule(
    "float",
    "the cursor field is a floating-point number: it may be rounded, and records between the two values are lost",
    "follow an integer or a timestamp, or declare `order` if no value is rounded",
    ("order",),
)
TEXT = Rule(
    "text",
    "the cursor field is text without a format that has an order: source and connector may sort it differently, or it is random",
    "give it `format: date-time` if it is a timestamp, or declare `order` if only the source compares the values",
    ("order",),
)
DATE = Rule(
    "date",
    "the cursor field is a date: records that are added or changed later on the last day read have a value already read",
    "follow a timestamp, or read only days that have ended (penstock_sdk.incremental.local_days) and declare `settled`",
    ("settled",),
)
NO_KEY = Rule(
    "no-key",
    "there is no primary key, so records that share the cursor's value cannot be distinguished: they are lost or read twice",
    "declare the primary key, or read only values that no new record can get and declare `settled`",
    ("settled",),
)
TIES = Rule(
    "ties",
    "records share values of the cursor field, and nothing declares that later records with the last value are read",
    "query for values at or after the last one and drop the keys seen there (penstock_sdk.incremental.follow), and declare `ties`",
    ("ties", "settled"),
)
COARSE = Rule(
    "coarse",
    "the cursor field's timestamps are whole seconds, which records share, and nothing declares that late ones are read",
    "drop the keys seen at the last value (penstock_sdk.incremental.follow) and declare `ties`, or read with a lag and declare"
    " `settled`",
    ("ties", "settled"),
)
RULES = (NOT_IN_SCHEMA, MAY_BE_NULL, NO_ORDER, UNKNOWN_ORDER, FLOAT, TEXT, DATE, NO_KEY, TIES, COARSE)


@dataclass(frozen=True)
class Followed:
    """The properties of a stream that decide whether its cursor is safe."""

    schema: JsonSchema
    primary_key: tuple[str, ...]
    cursor_field: str | None
    modes: tuple[str, ...]
    care: tuple[str, ...] = ()

    @property
    def judged(self) -> bool:
        """True if it follows a field. If it follows a cursor of the source, such as a token, only the connector can judge."""
        return "incremental" in self.modes and self.cursor_field is not None


def unsafe_cursor(stream: Followed) -> list[Rule]:
    """Return the rules that a stream's cursor breaks, judged by its schema."""
    return (
        [rule for rule in _of_schema(stream) if not set(rule.answered_by) & set(stream.care)] if stream.judged else []
    )


def unsafe_values(stream: Followed, values: Sequence[Any]) -> list[Rule]:
    """Return the rules that a stream's cursor breaks, judged by values of the cursor field in some records."""
    if not stream.judged or stream.primary_key == (stream.cursor_field,):
        return []
    found = [TIES] if len({str(value) for value in values}) < len(values) else []
    found += [COARSE] if not found and len(values) >= FEW and all(map(_is_whole, values)) else []
    return [rule for rule in found if not set(rule.answered_by) & set(stream.care)]


def _is_whole(value: Any) -> bool:
    """Return True for a timestamp with whole seconds."""
    try:
        return (
            isinstance(value, str) and len(value) > len("2026-01-01") and not datetime.fromisoformat(value).microsecond
        )
    except ValueError:
        return False


def _of_schema(stream: Followed) -> Iterator[Rule]:
    field, required = _field(stream.schema, stream.cursor_field or "")
    if field is None:
        yield NOT_IN_SCHEMA
        return
    kinds = _kinds(field, stream.schema)
    if not required or "null" in kinds:
        yield MAY_BE_NULL
    unordered = _unordered(kinds - {"null"})
    if unordered:
        yield unordered
    if not stream.primary_key:
        yield NO_KEY


def _unordered(kinds: frozenset[str]) -> Rule | None:
    if kinds and kinds <= {"boolean", "object"}:
        return NO_ORDER
    if len(kinds) != 1 or kinds <= {"any", "array"}:
        return FLOAT if kinds == {"integer", "number"} else UNKNOWN_ORDER
    (kind,) = kinds
    return {"integer": None, "date-time": None, "number": FLOAT, "date": DATE}.get(kind, TEXT)


def _field(schema: JsonSchema, name: str) -> tuple[JsonSchema | None, bool]:
    """Return the schema of a top-level field, or None, and whether the field is required."""
    found: JsonSchema | None = None
    required = False
    for node in _applied(schema, schema, DEPTH):
        found = properties_of(node).get(name) if found is None else found
        required = required or name in list_at(node, "required")
    return found, required


def _applied(node: Any, root: JsonSchema, depth: int) -> Iterator[JsonSchema]:
    """Yield a schema and all schemas that apply together with it."""
    if not isinstance(node, Mapping) or not depth:
        return
    yield node
    for applied in (*list_at(node, "allOf"), _referred(node, root)):
        yield from _applied(applied, root, depth - 1)


def _referred(node: JsonSchema, root: JsonSchema) -> Any:
    """Return the target of a reference within the document; None for any other reference."""
    reference = node.get("$ref")
    if not isinstance(reference, str) or not reference.startswith("#/"):
        return None
    found: Any = root
    for step in reference[2:].split("/"):
        found = found.get(step.replace("~1", "/").replace("~0", "~")) if isinstance(found, Mapping) else None
    return found


def _kinds(node: Any, root: JsonSchema, depth: int = DEPTH) -> frozenset[str]:
    """Return the possible kinds of a value: JSON types, text by its format, `any` if the schema does not say."""
    kinds = [found for applied in _applied(node, root, depth) if (found := _declared_kinds(applied, root, depth))]
    return frozenset.intersection(*kinds) or kinds[0] if kinds else frozenset({"any"})


def _declared_kinds(node: JsonSchema, root: JsonSchema, depth: int) -> frozenset[str]:
    for choice in ("anyOf", "oneOf"):
        if choice in node:
            return frozenset().union(*(_kinds(alternative, root, depth - 1) for alternative in list_at(node, choice)))
    if "const" in node or "enum" in node:
        return frozenset(map(_kind_of, list_at(node, "enum") if "enum" in node else [node["const"]]))
    return frozenset(_named(name, node) for name in types_of(node))


def _named(name: str, node: JsonSchema) -> str:
    if name == "number" and isinstance(node.get("multipleOf"), int):
        return "integer"
    return str(node.get("format", "string")) if name == "string" else name


def _kind_of(value: Any) -> str:
    names = {bool: "boolean", int: "integer", float: "number", str: "string", list: "array", dict: "object"}
    return names.get(type(value), "null")
