"""Kubernetes structural schemas: generated from a model, and checked with the messages of the API server.

`penstock validate` and `penstock up` refuse the same documents as `kubectl apply`, with the same messages, because they
evaluate the same schema and the same CEL rules.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any, cast

import cel
from pydantic import BaseModel

from penstock_sdk.json_types import JsonSchema, JsonValue

COPIED_KEYWORDS = (
    "type",
    "enum",
    "minimum",
    "maximum",
    "minLength",
    "maxLength",
    "minItems",
    "maxItems",
    "pattern",
    "default",
    "nullable",
)
PRESERVE = "x-kubernetes-preserve-unknown-fields"
RULES = "x-kubernetes-validations"
QUANTITY_UNITS = {
    "": 1.0,
    "m": 0.001,
    "k": 1e3,
    "M": 1e6,
    "G": 1e9,
    "T": 1e12,
    "Ki": 2.0**10,
    "Mi": 2.0**20,
    "Gi": 2.0**30,
    "Ti": 2.0**40,
}
_Schema = dict[str, Any]
"""A structural schema, whose keywords have the types that Kubernetes requires."""
TYPES: dict[str, type | tuple[type, ...]] = {
    "object": dict,
    "array": list,
    "string": str,
    "boolean": bool,
    "integer": int,
    "number": (int, float),
}


def structural_schema(model: type[BaseModel]) -> JsonSchema:
    """Return the structural schema of a model: without references, unions and everything else that a CRD may not have."""
    source = model.model_json_schema(by_alias=True, mode="validation")
    return _convert(source, source.get("$defs", {}))


def _convert(node: _Schema, definitions: Mapping[str, _Schema]) -> _Schema:
    if "$ref" in node:
        target = definitions[node["$ref"].rsplit("/", 1)[1]]
        return _convert({**target, **{key: value for key, value in node.items() if key != "$ref"}}, definitions)
    if "anyOf" in node:
        chosen = next(alternative for alternative in node["anyOf"] if alternative.get("type") != "null")
        rest = {key: value for key, value in node.items() if key not in ("anyOf", "default")}
        return _convert({**rest, **chosen}, definitions)
    result: _Schema = {key: node[key] for key in COPIED_KEYWORDS if key in node and node[key] is not None}
    if "const" in node:
        result.update(type="string", enum=[node["const"]])
    if "description" in node:
        result["description"] = " ".join(node["description"].split())
    result.update({key: value for key, value in node.items() if key.startswith("x-kubernetes-")})
    return _with_children(result, node, definitions)


def _with_children(result: _Schema, node: _Schema, definitions: Mapping[str, _Schema]) -> _Schema:
    if "properties" in node:
        result["properties"] = {key: _convert(child, definitions) for key, child in node["properties"].items()}
        if node.get("required"):
            result["required"] = sorted(node["required"])
    elif isinstance(node.get("additionalProperties"), dict) and PRESERVE not in result:
        result["additionalProperties"] = _convert(node["additionalProperties"], definitions)
    if "items" in node:
        result["items"] = _convert(node["items"], definitions)
    if isinstance(result.get("default"), dict | list):
        result["default"] = _without_nulls(result["default"])
        if not result["default"]:
            del result["default"]
    return result


def _without_nulls(value: Any) -> Any:
    """Return a default without null values, which a structural schema cannot have."""
    if isinstance(value, dict):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    return [_without_nulls(item) for item in value] if isinstance(value, list) else value


def problems(document: JsonValue, schema: JsonSchema, path: str = "") -> list[str]:
    """Return the messages with which the API server would refuse the document; empty if it is valid."""
    known = cast("_Schema", schema)
    found = list(_structure(document, known, path))
    return found or list(_rules(with_defaults(document, known), known, path))


def _structure(value: Any, schema: _Schema, path: str) -> Iterator[str]:
    wrong = _type_problem(value, schema, path)
    if wrong:
        yield wrong
        return
    yield from _bounds(value, schema, path)
    if isinstance(value, dict):
        yield from _members(value, schema, path)
    elif isinstance(value, list):
        yield from _duplicates(value, schema.get("x-kubernetes-list-map-keys", []), path)
        for index, item in enumerate(value):
            yield from _structure(item, schema.get("items", {}), f"{path}[{index}]")


def _type_problem(value: Any, schema: _Schema, path: str) -> str | None:
    wanted = schema.get("type")
    if wanted is None or schema.get("x-kubernetes-int-or-string"):
        return None
    is_bool = isinstance(value, bool) and wanted != "boolean"
    if isinstance(value, TYPES[wanted]) and not is_bool:
        return None
    actual = next((name for name, kind in TYPES.items() if isinstance(value, kind)), "null")
    actual = "boolean" if isinstance(value, bool) else actual
    return f'{path}: Invalid value: "{actual}": {path} in body must be of type {wanted}: "{actual}"'


def _bounds(value: Any, schema: _Schema, path: str) -> Iterator[str]:
    if "enum" in schema and value not in schema["enum"]:
        supported = ", ".join(json.dumps(value) for value in schema["enum"])
        yield f"{path}: Unsupported value: {json.dumps(value)}: supported values: {supported}"
    if isinstance(value, int | float) and not isinstance(value, bool):
        if value < schema.get("minimum", value):
            yield f"{path}: Invalid value: {value}: {path} in body should be greater than or equal to {schema['minimum']}"
        if value > schema.get("maximum", value):
            yield f"{path}: Invalid value: {value}: {path} in body should be less than or equal to {schema['maximum']}"
    if isinstance(value, str) and len(value) > schema.get("maxLength", len(value)):
        yield f"{path}: Too long: may not be more than {schema['maxLength']} bytes"
    if isinstance(value, str) and len(value) < schema.get("minLength", 0):
        yield f'{path}: Invalid value: "{value}": {path} in body should be at least {schema["minLength"]} chars long'
    if isinstance(value, list) and len(value) < schema.get("minItems", 0):
        yield f"{path}: Invalid value: {len(value)}: {path} in body should have at least {schema['minItems']} items"
    if isinstance(value, list) and len(value) > schema.get("maxItems", len(value)):
        yield f"{path}: Too many: {len(value)}: must have at most {schema['maxItems']} items"


def _members(value: dict[str, Any], schema: _Schema, path: str) -> Iterator[str]:
    prefix = f"{path}." if path else ""
    for key in schema.get("required", []):
        if key not in value:
            yield f"{prefix}{key}: Required value"
    known = schema.get("properties", {})
    for key, item in value.items():
        if key in known:
            yield from _structure(item, known[key], f"{prefix}{key}")
        elif "additionalProperties" in schema:
            yield from _structure(item, schema["additionalProperties"], f"{prefix}{key}")
        elif not schema.get(PRESERVE):
            yield f'unknown field "{prefix}{key}"'


def _duplicates(items: list[Any], keys: list[str], path: str) -> Iterator[str]:
    seen: list[Any] = []
    for index, item in enumerate(items):
        key = {name: item[name] for name in keys if isinstance(item, dict) and name in item}
        if key and key in seen:
            yield f"{path}[{index}]: Duplicate value: {json.dumps(key, separators=(',', ':'))}"
        seen.append(key)


def _rules(value: Any, schema: _Schema, path: str) -> Iterator[str]:
    for rule in schema.get(RULES, []):
        if "oldSelf" not in rule["rule"] and not _compiled(rule["rule"]).execute(_context(value)):
            shown = json.dumps(value) if isinstance(value, str | int | float) else f'"{_kind(value)}"'
            yield f"{path or '<nil>'}: Invalid value: {shown}: {rule['message']}"
    for key, child in schema.get("properties", {}).items():
        if isinstance(value, dict) and key in value:
            yield from _rules(value[key], child, f"{path}.{key}" if path else key)
    if isinstance(value, list):
        for index, item in enumerate(value):
            yield from _rules(item, schema.get("items", {}), f"{path}[{index}]")


@cache
def _compiled(rule: str) -> cel.Program:
    """Return a compiled rule. To compile it takes eight times as long as to run it. All rules come from the schema."""
    return cel.compile(rule)


def _context(value: Any) -> cel.Context:
    """Return the context of a rule: CEL's functions, and those of Kubernetes for quantities."""
    context = cel.Context(variables={"self": value})
    context.add_function("quantity", _quantity)
    context.add_function("compareTo", lambda one, other: (one > other) - (one < other))
    return context


def _quantity(text: str) -> float:
    number = text.rstrip("".join(QUANTITY_UNITS))
    return float(number) * QUANTITY_UNITS[text[len(number) :]]


def _kind(value: Any) -> str:
    return "array" if isinstance(value, list) else "object"


def with_defaults(value: JsonValue, schema: JsonSchema) -> JsonValue:
    """Return the document with the defaults of the schema, as the API server stores it."""
    filled: JsonValue = _filled(value, cast("_Schema", schema))
    return filled


def _filled(value: Any, schema: _Schema) -> Any:
    if isinstance(value, list):
        return [_filled(item, schema.get("items", {})) for item in value]
    if not isinstance(value, dict) or "properties" not in schema:
        return value
    known = schema["properties"]
    filled = {key: child["default"] for key, child in known.items() if "default" in child and key not in value}
    return {**{key: _filled(item, known.get(key, {})) for key, item in value.items()}, **filled}
