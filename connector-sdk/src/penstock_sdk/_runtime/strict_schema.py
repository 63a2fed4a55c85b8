"""A stream's JSON Schema as a type that msgspec checks while it decodes: types, presence, null, enums, bounds, lengths.

What msgspec has no type for (`not`, `if`, choices of several objects) is not checked: a record is rejected only for what
its schema certainly forbids. `format` is a note about a value, as JSON Schema has it by default.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, Any, Literal, NotRequired, Required, TypedDict

import msgspec

Schema = dict[str, Any]
BOUNDS = {
    "minimum": "ge",
    "maximum": "le",
    "exclusiveMinimum": "gt",
    "exclusiveMaximum": "lt",
    "multipleOf": "multiple_of",
}
LENGTHS = {"minLength": "min_length", "maxLength": "max_length", "pattern": "pattern"}
ITEM_COUNTS = {"minItems": "min_length", "maxItems": "max_length"}
DEEPEST = 20
VALUE = re.compile(r"Invalid enum value .*(?= - at )|Invalid enum value .*", re.DOTALL)


class StrictSchema:
    """Checks the JSON of records against a schema, primary key included."""

    def __init__(self, schema: Schema, primary_key: Sequence[str]) -> None:
        checked: Any = record_type(schema, primary_key)
        many: Any = list.__class_getitem__(checked)
        self._one = msgspec.json.Decoder(checked)
        self._many = msgspec.json.Decoder(many)

    def fit(self, rows: Sequence[Any]) -> bool:
        """Say whether all of them fit."""
        try:
            return len(self._many.decode(b"[" + b",".join(rows) + b"]")) == len(rows)
        except msgspec.MsgspecError:
            return False

    def words(self, row: Any) -> str:
        """Say what does not fit, by its path and types, never by its value."""
        try:
            self._one.decode(row)
        except msgspec.MsgspecError as error:
            words = str(error).replace("`", "")
            return VALUE.sub("it is none of the enum's values", words)
        return "it fits"


def record_type(schema: Schema, primary_key: Sequence[str]) -> Any:
    """Return the type of one record, whose key must be there and not null."""
    required = {*schema.get("required", []), *primary_key}
    properties = {**{key: {} for key in primary_key}, **schema.get("properties", {})}
    made = _object({"properties": properties, "required": list(required)}, schema, 0, frozenset(primary_key))
    return made if _is_sound(made) else dict[str, Any]


def _object(node: Schema, root: Schema, depth: int, keys: frozenset[str] = frozenset()) -> Any:
    required = node.get("required", [])
    fields = {
        name: Required[_type(child, root, depth + 1, nullable=name not in keys)]
        if name in required
        else NotRequired[_type(child, root, depth + 1)]
        for name, child in node["properties"].items()
    }
    return TypedDict("Record", fields)  # type: ignore[operator]


def _type(node: Any, root: Schema, depth: int, *, nullable: bool = True) -> Any:
    """Return the type of a value; Any for what is not understood."""
    if (
        not isinstance(node, dict)
        or depth > DEEPEST
        or any(key in node for key in ("$ref", "anyOf", "oneOf", "allOf", "not"))
    ):
        return Any if nullable else _not_null(Any)
    declared = node.get("type")
    names = [declared] if isinstance(declared, str) else list(declared or [])
    if not names or ("enum" not in node and "const" not in node and not set(names) <= PARTS.keys() | {"null"}):
        return Any if nullable else _not_null(Any)
    made = (
        _enum(node)
        if "enum" in node or "const" in node
        else _union([PARTS[name](node, root, depth) for name in names if name != "null"])
    )
    if "null" in names and nullable:
        made = made | None
    return made if _is_sound(made) else Any


def _not_null(_: Any) -> Any:
    return str | int | float | bool | list[Any] | dict[str, Any]


def _union(parts: list[Any]) -> Any:
    made = parts[0] if parts else None
    for part in parts[1:]:
        made = made | part
    return made


def _enum(node: Schema) -> Any:
    values = [node["const"]] if "const" in node else node["enum"]
    plain = all(value is None or (isinstance(value, str | int) and not isinstance(value, bool)) for value in values)
    return Literal[tuple(values)] if plain and values else Any


def _limited(type_: Any, node: Schema, names: dict[str, str]) -> Any:
    limits = {meta: node[key] for key, meta in names.items() if key in node}
    if not limits:
        return type_
    try:
        limited = Annotated[type_, msgspec.Meta(**limits)]
    except (TypeError, ValueError, re.error):  # a bound that is no number, a pattern that is none
        return type_
    return limited if _is_sound(limited) else type_


def _string(node: Schema, _root: Schema, _depth: int) -> Any:
    return _limited(str, node, LENGTHS)


def _number(node: Schema, _root: Schema, _depth: int) -> Any:
    return _limited(float, node, BOUNDS)


def _integer(node: Schema, _root: Schema, _depth: int) -> Any:
    return _limited(int, node, BOUNDS)


def _boolean(_node: Schema, _root: Schema, _depth: int) -> Any:
    return bool


def _array(node: Schema, root: Schema, depth: int) -> Any:
    return _limited(list[_type(node.get("items"), root, depth + 1)], node, ITEM_COUNTS)  # type: ignore[misc]


def _nested(node: Schema, root: Schema, depth: int) -> Any:
    if isinstance(node.get("properties"), dict):
        return _object(node, root, depth)
    return dict[str, _type(node.get("additionalProperties"), root, depth + 1)]  # type: ignore[misc]


PARTS = {
    "string": _string,
    "number": _number,
    "integer": _integer,
    "boolean": _boolean,
    "array": _array,
    "object": _nested,
}


def _is_sound(type_: Any) -> bool:
    """Say whether msgspec can check the type: it takes one object, one array and one text form in a choice."""
    try:
        msgspec.json.Decoder(type_)
    except Exception:  # noqa: BLE001 - a pattern that is none, a bound of the wrong type, a choice that it cannot tell apart
        return False
    return True
