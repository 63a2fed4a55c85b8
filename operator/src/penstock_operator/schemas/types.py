"""What values a field may hold, by JSON Schema 2020-12, and how two such sets lie to each other. Pure.

A schema becomes a flat map from path to field. Annotations (titles, descriptions, `x-…`) say nothing of values and are
left out; a keyword that is not understood is compared as it is written, so that no change of it goes unseen.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from penstock_sdk.json_types import JsonSchema

Schema = Mapping[str, Any]
ITEMS = None
Step = str | None
Path = tuple[Step, ...]
"""Names of properties from the root; None stands for an array's items."""

TYPES = frozenset({"object", "array", "string", "boolean", "integer", "fraction"})
"""What a value may be; `number` is integer and fraction, so that integer to number is a wider set. Null is apart."""
ANNOTATIONS = frozenset(
    [
        "$schema",
        "$id",
        "$anchor",
        "$comment",
        "$defs",
        "definitions",
        "title",
        "description",
        "examples",
        "default",
        "deprecated",
        "readOnly",
        "writeOnly",
    ]
)
STRUCTURE = frozenset(
    ["type", "nullable", "properties", "items", "required", "enum", "const", "anyOf", "oneOf", "$ref"]
)
LOWER_IS_WIDER = frozenset(["minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties", "minContains"])
HIGHER_IS_WIDER = frozenset(["maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties", "maxContains"])


class TypeRelation(Enum):
    """How the new set lies to the old one."""

    EQUAL = "equal"
    WIDER = "wider"
    NARROWER = "narrower"
    DIFFERENT = "different"

    def also(self, other: TypeRelation) -> TypeRelation:
        """Return how both together lie: wider here and narrower there is different."""
        if TypeRelation.EQUAL in (self, other) or self is other:
            return other if self is TypeRelation.EQUAL else self
        return TypeRelation.DIFFERENT


@dataclass(frozen=True)
class FieldType:
    """The values of one field. `enum` holds their JSON, None where any value of the types is one."""

    types: frozenset[str]
    nullable: bool
    enum: frozenset[str] | None = None
    limits: dict[str, Any] = field(default_factory=dict)
    optional: bool = False

    def words(self) -> str:
        """Say what it holds, without a value."""
        shown = sorted("number" if type_ == "fraction" else type_ for type_ in self.types - self._beneath_number())
        kinds = "any value" if self.types == TYPES else " or ".join(shown) or "nothing"
        listed = f" ({len(self.enum)} values)" if self.enum is not None else ""
        limits = "".join(
            f" {key} {value}" for key, value in sorted(self.limits.items()) if isinstance(value, str | int)
        )
        return f"{kinds}{listed}{limits}"

    def _beneath_number(self) -> frozenset[str]:
        return frozenset({"integer"}) if "fraction" in self.types else frozenset()


def compare(old: FieldType, new: FieldType) -> TypeRelation:
    """Say how the values of `new` lie to those of `old`, null apart."""
    order = _sets(old.types, new.types).also(_enums(old.enum, new.enum))
    for key in old.limits.keys() | new.limits.keys():
        order = order.also(_limit(key, old.limits.get(key), new.limits.get(key)))
    return order


def _sets(old: frozenset[str], new: frozenset[str]) -> TypeRelation:
    if old == new:
        return TypeRelation.EQUAL
    return TypeRelation.WIDER if old < new else TypeRelation.NARROWER if new < old else TypeRelation.DIFFERENT


def _enums(old: frozenset[str] | None, new: frozenset[str] | None) -> TypeRelation:
    if old is None or new is None:
        return TypeRelation.EQUAL if old == new else TypeRelation.WIDER if new is None else TypeRelation.NARROWER
    return _sets(old, new)


def _limit(key: str, old: Any, new: Any) -> TypeRelation:
    """A limit that is absent is the widest."""
    if _json(old) == _json(new):
        return TypeRelation.EQUAL
    if old is None or new is None:
        return TypeRelation.WIDER if new is None else TypeRelation.NARROWER
    if key in LOWER_IS_WIDER | HIGHER_IS_WIDER and isinstance(old, int | float) and isinstance(new, int | float):
        return TypeRelation.WIDER if (new < old) == (key in LOWER_IS_WIDER) else TypeRelation.NARROWER
    return TypeRelation.DIFFERENT


def fields_of(schema: JsonSchema) -> dict[Path, FieldType]:
    """Return every field of a schema by its path; the root's path is empty."""
    found: dict[Path, FieldType] = {}
    _collect(schema, schema, (), frozenset(), found)
    return found


def _collect(node: Any, root: Schema, path: Path, refs: frozenset[str], found: dict[Path, FieldType]) -> None:
    node, refs = _resolved(node, root, refs)
    made = _field(node)
    found[path] = made
    required = node.get("required", [])
    for name, child in node.get("properties", {}).items():
        _collect(child, root, (*path, name), refs, found)
        if name not in required:
            inner = found[*path, name]
            found[*path, name] = FieldType(inner.types, inner.nullable, inner.enum, inner.limits, optional=True)
    if "array" in made.types and made.types != TYPES:
        _collect(node.get("items", True), root, (*path, ITEMS), refs, found)


def _resolved(node: Any, root: Schema, refs: frozenset[str]) -> tuple[Schema, frozenset[str]]:
    """Follow references within the document, and take the one branch of a choice that is not null.

    A reference to what is being followed, or to another document, stays a limit of its own name.
    """
    node = _well_formed(node)
    while isinstance(reference := node.get("$ref"), str):
        del node["$ref"]
        target = None if reference in refs else _target(root, reference)
        if target is None:
            node["reference"] = reference
        else:
            refs, node = refs | {reference}, {**_well_formed(target), **node}
    for choice in ("anyOf", "oneOf"):
        if choice in node:
            node, refs = _chosen(node, choice, node[choice], root, refs)
    return node, refs


def _well_formed(node: Any) -> Schema:
    """Return the node as a mapping; what is no JSON Schema in it becomes a limit of its own name."""
    if not isinstance(node, dict):
        return {} if node is True else {"enum": []} if node is False else {"not a schema": node}
    return {key if _fits(key, value) else f"malformed {key}": value for key, value in node.items()}


def _fits(key: str, value: Any) -> bool:
    if key == "type":
        return isinstance(value, str) or (isinstance(value, list) and all(isinstance(item, str) for item in value))
    expected: dict[str, type] = {"properties": dict, "required": list, "enum": list, "anyOf": list, "oneOf": list}
    return isinstance(value, expected.get(key, object))


def _target(root: Schema, reference: str) -> Schema | None:
    node: Any = root
    if not reference.startswith("#"):
        return None
    for step in reference[1:].split("/")[1:]:
        node = node.get(step.replace("~1", "/").replace("~0", "~")) if isinstance(node, dict) else None
    return node if isinstance(node, dict) else None


def _chosen(
    node: Schema, choice: str, branches: list[Any], root: Schema, refs: frozenset[str]
) -> tuple[Schema, frozenset[str]]:
    rest = {key: value for key, value in node.items() if key != choice}
    real = [branch for branch in branches if branch != {"type": "null"}]
    nullable = {"nullable": True} if len(real) < len(branches) else {}
    if len(real) == 1:
        inner, refs = _resolved(real[0], root, refs)
        return {**inner, **rest, **nullable}, refs
    types = frozenset[str]().union(*(_types(_resolved(branch, root, refs)[0])[0] for branch in real))
    return {**rest, **nullable, "types": types, f"{choice} of": sorted(map(_json, real))}, refs


def _field(node: Schema) -> FieldType:
    types, nullable = _types(node)
    enum = [node["const"]] if "const" in node else node.get("enum")
    limits = {key: value for key, value in node.items() if _is_limit(key, value)}
    if enum is None:
        return FieldType(types, nullable, None, limits)
    listed = frozenset(_json(value) for value in enum if value is not None)
    return FieldType(types, nullable and (None in enum or bool(node.get("nullable"))), listed, limits)


def _types(node: Schema) -> tuple[frozenset[str], bool]:
    """Return the types without null, and whether null is one of them."""
    if "types" in node:
        return node["types"], bool(node.get("nullable"))
    declared = node.get("type")
    if declared is None:
        values = [node["const"]] if "const" in node else node.get("enum")
        if values is None:
            return TYPES, True
        return frozenset(_type_of(value) for value in values if value is not None), None in values
    names = {declared} if isinstance(declared, str) else set(declared)
    wide = names | ({"integer", "fraction"} if "number" in names else set())
    return frozenset(wide - {"number", "null"}), "null" in names or bool(node.get("nullable"))


def _type_of(value: Any) -> str:
    kinds: list[tuple[type, str]] = [(bool, "boolean"), (int, "integer"), (float, "fraction"), (str, "string")]
    return next(
        (name for kind, name in kinds if isinstance(value, kind)), "array" if isinstance(value, list) else "object"
    )


def _is_limit(key: str, value: Any) -> bool:
    known = key in ANNOTATIONS or key in STRUCTURE or key == "types" or key.startswith("x-")
    return not known and not (key == "additionalProperties" and value is True)


def _json(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=str)
