"""Every text, list and mapping that a pod sends has a limit, and each limit holds exactly."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest
from penstock_sdk import protocol
from penstock_sdk.protocol import Message
from pydantic import ValidationError

REQUESTS = [
    model
    for name, model in vars(protocol).items()
    if inspect.isclass(model) and issubclass(model, Message) and name.endswith(("Request", "Report"))
]
SAMPLES = {"string": "x", "integer": 1, "number": 1.0, "boolean": True, "null": None}
PATTERNS = {
    "^[0-9a-f]{64}$": "0" * 64,
    "^[A-Za-z0-9_-]{32,128}$": "k" * 32,
    "^[A-Za-z0-9_-]{16,128}$": "k" * 16,
}


@dataclass(frozen=True)
class Place:
    """One part of a message: its path, its schema, and a message that is valid but for it."""

    request: type[Message]
    path: tuple[str, ...]
    schema: dict[str, Any]


def resolved(schema: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    if "$ref" in schema:
        return resolved({**definitions[schema["$ref"].rsplit("/", 1)[1]]}, definitions)
    if "anyOf" in schema and len(schema["anyOf"]) == 2 and schema["anyOf"][1] == {"type": "null"}:
        return resolved({**schema["anyOf"][0]}, definitions)
    return schema


def places(request: type[Message]) -> Iterator[Place]:
    document = request.model_json_schema(by_alias=True)
    definitions = document.get("$defs", {})

    def inside(schema: dict[str, Any], path: tuple[str, ...]) -> Iterator[Place]:
        found = resolved(schema, definitions)
        yield Place(request, path, found)
        if "maxBytes" in found:
            return
        for name, field in found.get("properties", {}).items():
            yield from inside(field, (*path, name))
        if isinstance(found.get("items"), dict):
            yield from inside(found["items"], (*path, "[]"))
        if isinstance(found.get("additionalProperties"), dict):
            yield from inside(found["additionalProperties"], (*path, "{}"))

    yield from inside(document, ())


PLACES = [place for request in REQUESTS for place in places(request)]


def limit_of(schema: dict[str, Any]) -> tuple[str, int] | None:
    keywords = ("maxLength", "maxItems", "maxProperties", "maxBytes")
    return next(((keyword, schema[keyword]) for keyword in keywords if keyword in schema), None)


def name(place: Place) -> str:
    return ".".join((place.request.__name__, *place.path))


def sample(schema: dict[str, Any], definitions: dict[str, Any]) -> Any:  # noqa: PLR0911 - one for each kind
    """Return the smallest valid value."""
    found = resolved(schema, definitions)
    if "enum" in found:
        return found["enum"][0]
    if "const" in found:
        return found["const"]
    if found.get("format") == "date-time":
        return datetime.now(UTC).isoformat()
    if "pattern" in found:
        return PATTERNS[found["pattern"]]
    if found.get("type") == "object":
        return {key: sample(found["properties"][key], definitions) for key in found.get("required", ())}
    if found.get("type") == "array":
        return [sample(found["items"], definitions)] * found.get("minItems", 0)
    if found.get("type") == "integer":
        return max(1, found.get("minimum", 1))
    return SAMPLES.get(found.get("type", "null"))


def filled(schema: dict[str, Any], size: int, definitions: dict[str, Any]) -> Any:
    """Return a value of exactly this size."""
    if "maxBytes" in schema:
        return {"a": "x" * (size - len('{"a":""}'))}
    if schema.get("type") == "string":
        return "x" * size
    if schema.get("type") == "array":
        return [sample(schema["items"], definitions)] * size
    keys = (resolved(schema.get("propertyNames", {}), definitions).get("enum")) or [
        f"k{index}" for index in range(size)
    ]
    assert len(keys) >= size, "a closed set of keys needs no limit"
    return {key: sample(schema["additionalProperties"], definitions) for key in keys[:size]}


def message(place: Place, size: int) -> Any:
    document = place.request.model_json_schema(by_alias=True)
    definitions = document.get("$defs", {})

    def put(schema: dict[str, Any], path: tuple[str, ...]) -> Any:
        if not path:
            return filled(resolved(schema, definitions), size, definitions)
        found, (step, *rest) = resolved(schema, definitions), path
        if step == "[]":
            return [put(found["items"], tuple(rest))]
        if step == "{}":
            return {"k": put(found["additionalProperties"], tuple(rest))}
        return {**sample(found, definitions), step: put(found["properties"][step], tuple(rest))}

    return put(document, place.path)


@pytest.mark.parametrize("place", PLACES, ids=name)
def test_whatever_grows_has_a_limit(place: Place) -> None:
    schema = place.schema
    grows = schema.get("type") in ("string", "array") or isinstance(schema.get("additionalProperties"), dict)
    closed = any(key in schema for key in ("enum", "const", "pattern", "format"))
    closed = closed or "enum" in schema.get("propertyNames", {})
    if grows and not closed:
        assert limit_of(schema), f"{name(place)} has no limit"
    if schema.get("type") == "integer" and "const" not in schema:
        assert "maximum" in schema, f"{name(place)} has no largest number"


@pytest.mark.parametrize("place", [place for place in PLACES if limit_of(place.schema)], ids=name)
def test_a_limit_holds_exactly_and_its_error_names_the_field(place: Place) -> None:
    limit = limit_of(place.schema)
    assert limit is not None
    _, most = limit
    place.request.model_validate(message(place, most))
    with pytest.raises(ValidationError) as refused:
        place.request.model_validate(message(place, most + 1))
    (error,) = refused.value.errors()
    steps = [step for step in place.path if step not in ("[]", "{}")]
    assert [step for step in error["loc"] if step in steps] == steps
    assert str(most) in error["msg"].replace(",", "")
