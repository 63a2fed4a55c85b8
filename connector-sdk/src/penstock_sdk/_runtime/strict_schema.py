"""A stream's JSON Schema as a type that msgspec checks while it decodes: types, required fields, null, enums, bounds, lengths.

Rules for which msgspec has no type (`not`, `if`, alternatives of several objects) are not checked: a record is rejected
only if its schema certainly forbids it. `format` is an annotation, as JSON Schema defines by default.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, NotRequired, Required, TypedDict

import msgspec

from penstock_sdk.json_types import JsonSchema

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
_Node = Mapping[str, Any]
"""A schema inside of a schema. Its keywords may have any value: a type that msgspec refuses is not checked."""
VALUE = re.compile(r"Invalid enum value .*(?= - at )|Invalid enum value .*", re.DOTALL)


class StrictSchema:
    """Checks the JSON of records against a schema, primary key included."""

    def __init__(self, schema: JsonSchema, primary_key: Sequence[str]) -> None:
        checked: Any = record_type(schema, primary_key)
        many: Any = list.__class_getitem__(checked)
        self._one = msgspec.json.Decoder(checked)
        self._many = msgspec.json.Decoder(many)

    def matches(self, rows: Sequence[Any]) -> bool:
        """Return True if all records match the schema."""
        try:
            return len(self._many.decode(b"[" + b",".join(rows) + b"]")) == len(rows)
        except msgspec.MsgspecError:
            return False

    def mismatch(self, row: Any) -> str:
        """Return what does not match, by path and types, never by value."""
        try:
            self._one.decode(row)
        except msgspec.MsgspecError as error:
            words = str(error).replace("`", "")
            return VALUE.sub("it is not one of the values of the enum", words)
        return "it matches"


def record_type(schema: JsonSchema, primary_key: Sequence[str]) -> Any:
    """Return the type of one record. The fields of the key are required and not null."""
    node: _Node = schema
    required = {*node.get("required", []), *primary_key}
    properties = {**{key: {} for key in primary_key}, **node.get("properties", {})}
    made = _object({"properties": properties, "required": list(required)}, schema, 0, frozenset(primary_key))
    return made if _is_sound(made) else dict[str, Any]


def _object(node: _Node, root: _Node, depth: int, keys: frozenset[str] = frozenset()) -> Any:
    required = node.get("required", [])
    fields = {
        name: Required[_type(child, root, depth + 1, nullable=name not in keys)]
        if name in required
        else NotRequired[_type(child, root, depth + 1)]
        for name, child in node["properties"].items()
    }
    return TypedDict("Record", fields)  # type: ignore[operator]


def _type(node: Any, root: _Node, depth: int, *, nullable: bool = True) -> Any:
    """Return the type of a value; Any for a schema that is not supported."""
    if (
        not isinstance(node, dict)
        or depth > DEEPEST
        or any(key in node for key in ("$ref", "anyOf", "oneOf", "allOf", "not"))
    ):
        return Any if nullable else _not_null(Any)
    declared = node.get("type")
    names = [declared] if isinstance(declared, str) else list(declared or [])
    if not names or ("enum" not in node and "const" not in node and not set(names) <= TYPE_OF.keys() | {"null"}):
        return Any if nullable else _not_null(Any)
    made = (
        _enum(node)
        if "enum" in node or "const" in node
        else _union([TYPE_OF[name](node, root, depth) for name in names if name != "null"])
    )
    if "null" in names and nullable:
        made = made | None
    return made if _is_sound(made) else Any


def _not_null(_: Any) -> Any:
    return str | int | float | bool | list[Any] | dict[str, Any]


def _union(alternatives: list[Any]) -> Any:
    made = alternatives[0] if alternatives else None
    for alternative in alternatives[1:]:
        made = made | alternative
    return made


def _enum(node: _Node) -> Any:
    values = [node["const"]] if "const" in node else node["enum"]
    plain = all(value is None or (isinstance(value, str | int) and not isinstance(value, bool)) for value in values)
    return Literal[tuple(values)] if plain and values else Any


def _limited(type_: Any, node: _Node, names: dict[str, str]) -> Any:
    limits = {meta: node[key] for key, meta in names.items() if key in node}
    if not limits:
        return type_
    try:
        limited = Annotated[type_, msgspec.Meta(**limits)]
    except (TypeError, ValueError, re.error):  # a bound that is not a number, an invalid pattern
        return type_
    return limited if _is_sound(limited) else type_


def _string(node: _Node, _root: _Node, _depth: int) -> Any:
    return _limited(str, node, LENGTHS)


def _number(node: _Node, _root: _Node, _depth: int) -> Any:
    return _limited(float, node, BOUNDS)


def _integer(node: _Node, _root: _Node, _depth: int) -> Any:
    return _limited(int, node, BOUNDS)


def _boolean(_node: _Node, _root: _Node, _depth: int) -> Any:
    return bool


def _array(node: _Node, root: _Node, depth: int) -> Any:
    return _limited(list[_type(node.get("items"), root, depth + 1)], node, ITEM_COUNTS)  # type: ignore[misc]


def _nested(node: _Node, root: _Node, depth: int) -> Any:
    if isinstance(node.get("properties"), dict):
        return _object(node, root, depth)
    return dict[str, _type(node.get("additionalProperties"), root, depth + 1)]  # type: ignore[misc]


TYPE_OF = {
    "string": _string,
    "number": _number,
    "integer": _integer,
    "boolean": _boolean,
    "array": _array,
    "object": _nested,
}


def _is_sound(type_: Any) -> bool:
    """Return True if msgspec supports the type: a union may hold one object, one array and one kind of text."""
    try:
        msgspec.json.Decoder(type_)
    except Exception:  # noqa: BLE001 - an invalid pattern, a bound of a wrong type, an ambiguous union
        return False
    return True
