"""Types of JSON: documents whose fields another party decides.

Use them only for values that are JSON by nature: the config of a connection, which the author's schema describes, a cursor,
a JSON Schema, a manifest before it is checked. A value whose fields this code knows has a class of its own.

A JsonObject is read only; to make one, fill a `dict[str, JsonValue]`. To read one, convert it to a type of its own, which
also checks it: `msgspec.convert(cursor, Position)`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

__all__ = ["JsonObject", "JsonSchema", "JsonValue", "list_at", "properties_of", "types_of"]

if TYPE_CHECKING:
    JsonValue: TypeAlias = str | int | float | bool | Sequence["JsonValue"] | Mapping[str, "JsonValue"] | None
    """One JSON value, as `json.loads` returns it. A tuple is written as a list."""
    JsonObject: TypeAlias = Mapping[str, JsonValue]
    """One JSON object."""
else:  # msgspec and pydantic cannot build a validator from a type that contains itself
    JsonValue = Any
    JsonObject = dict[str, Any]

JsonSchema: TypeAlias = JsonObject
"""A JSON Schema (2020-12)."""


def properties_of(schema: JsonSchema) -> dict[str, JsonSchema]:
    """Return the schemas of an object's fields, by name. Empty if the schema declares no fields.

    A field whose schema is `true` or `false` has the empty schema.
    """
    declared = schema.get("properties")
    fields = declared if isinstance(declared, dict) else {}
    return {name: field if isinstance(field, dict) else {} for name, field in fields.items()}


def types_of(schema: JsonSchema) -> list[str]:
    """Return the types that a schema allows, such as ["string", "null"]. Empty if it allows every type."""
    declared = schema.get("type")
    return (
        [declared] if isinstance(declared, str) else [name for name in list_at(schema, "type") if isinstance(name, str)]
    )


def list_at(document: JsonObject, key: str) -> Sequence[JsonValue]:
    """Return the list under a key; an empty one if there is no list."""
    found = document.get(key)
    return found if isinstance(found, list | tuple) else ()
