"""The JSON Schema of a record from an OpenAPI document: 3.0, 3.1, or Swagger 2."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import yaml

from penstock_sdk._safe_yaml import load_yaml
from penstock_sdk._spelling import nearest_word
from penstock_sdk.author.command_errors import printable
from penstock_sdk.author.project import ProjectError
from penstock_sdk.author.schema_inference import DRAFT
from penstock_sdk.json_types import JsonObject, JsonSchema, JsonValue, list_at, types_of
from penstock_sdk.pii import suggest_fields

FORMATS = ("date-time", "date", "time", "uuid", "email", "uri")
"""Formats that JSON Schema has, too. `int64`, `password` and others say nothing about JSON."""
CHOICES = ("anyOf", "oneOf")
EXPANSION = "x-expansionResources"
"""An extension: the schemas that replace an identifier if a request asks for them. A record has the identifier."""
LARGEST = 50_000
"""Subschemas of a schema with its references written out."""
SHOWN_NAMES = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Extent:
    """How much of a schema is kept.

    - `depth`: the levels of fields; an object below them has its type only. None: all.
    - `without`: the paths of fields that records do not have, such as "lines" or "card.checks".
    - `descriptions`: False leaves out the descriptions of fields.
    """

    depth: int | None = None
    without: Sequence[str] = ()
    descriptions: bool = True


ALL = Extent()


def schema_of_openapi(path: Path, name: str, extent: Extent = ALL) -> tuple[JsonSchema, dict[str, str]]:
    """Return a schema of an OpenAPI document for records, and the fields that look like personal data.

    References are written out. The schema of an array is that of its items. Only what a record needs is kept: types, formats,
    fields and their descriptions. Limits and enumerations are left out, because sources exceed what they document, and so are
    fields that are only written. A field that holds an identifier unless the request expands it (`x-expansionResources`) has
    the schema of the identifier. Raises ProjectError if the document has no such schema or field.
    """
    document = _document(path)
    schemas = _schemas(document)
    if name not in schemas:
        near = nearest_word(name, sorted(schemas))
        known = ", ".join(sorted(schemas)[:SHOWN_NAMES]) or "none"
        raise ProjectError(
            f"{path} has no schema {name!r}{f'; did you mean {near!r}?' if near else ''} It has: {known}"
        )
    place = "components/schemas" if "components" in document else "definitions"
    found = _Conversion(document, path, extent).converted(schemas[name], (f"#/{place}/{name}",), 0)
    items = found.get("items")
    record = items if found.get("type") == "array" and isinstance(items, Mapping) else found
    if "object" not in types_of(record):
        raise ProjectError(f"{path}: the schema {name!r} is no object, so it is not the schema of a record")
    for field in extent.without:
        record = _without_field(record, field.split("."), f"{path}: the schema {name!r} has no field {field!r}")
    schema: JsonSchema = {"$schema": DRAFT, **record}
    return schema, dict(sorted(suggest_fields(schema, []).items()))


def _document(path: Path) -> JsonObject:
    try:
        text = path.read_text(encoding="utf-8-sig")
        document: Any = msgspec.json.decode(text) if path.suffix.lower() == ".json" else load_yaml(text)
    except UnicodeDecodeError as error:
        raise ProjectError(f"{path}: not UTF-8 at byte {error.start}: save it as UTF-8 text") from None
    except (ValueError, yaml.YAMLError) as error:
        raise ProjectError(f"{path}: neither JSON nor YAML: {printable(error)}") from None
    if not isinstance(document, dict) or not ("openapi" in document or "swagger" in document):
        raise ProjectError(f"{path}: no OpenAPI document: it has neither 'openapi' nor 'swagger'")
    return document


def _schemas(document: JsonObject) -> JsonObject:
    components = document.get("components")
    found = components.get("schemas") if isinstance(components, Mapping) else document.get("definitions")
    return found if isinstance(found, Mapping) else {}


class _Conversion:
    """Converts the schemas of one document."""

    def __init__(self, document: JsonObject, path: Path, extent: Extent) -> None:
        self._document, self._path, self._extent = document, path, extent
        self._count = 0

    def converted(self, schema: JsonValue, inside: tuple[str, ...], level: int) -> JsonSchema:
        """Return a schema with references written out.

        `inside` are the references that it is part of, and `level` is the number of fields in which it is nested.
        """
        self._count += 1
        if self._count > LARGEST:
            raise ProjectError(
                f"{self._path}: the schema has more than {LARGEST:,} parts with its references written out"
            )
        if not isinstance(schema, Mapping):
            return {}
        reference = schema.get("$ref")
        if isinstance(reference, str):
            return {} if reference in inside else self.converted(self._resolved(reference), (*inside, reference), level)
        choices = next((list_at(schema, word) for word in CHOICES if word in schema), ())
        if choices:
            return self._choice(schema, _not_expanded(schema, choices), inside, level)
        found = self._merged(
            [self._plain(schema, inside, level)]
            + [self.converted(inner, inside, level) for inner in list_at(schema, "allOf")]
        )
        return found if not schema.get("nullable") else {**found, "type": _nullable(types_of(found))}

    def _choice(
        self, schema: JsonObject, choices: Sequence[JsonValue], inside: tuple[str, ...], level: int
    ) -> JsonSchema:
        """Return one of several schemas. If they only differ in being null, it is one schema that may be null."""
        converted = [self.converted(choice, inside, level) for choice in choices]
        not_null = [choice for choice in converted if types_of(choice) != ["null"]]
        may_be_null = len(not_null) < len(converted) or bool(schema.get("nullable"))
        others = [choice for at, choice in enumerate(not_null) if choice not in not_null[:at]]
        if len(others) == 1:
            only = others[0]
            return {**only, "type": _nullable(types_of(only))} if may_be_null and types_of(only) else only
        null: list[JsonSchema] = [{"type": "null"}] if may_be_null else []
        return {"anyOf": [*others, *null]}

    def _plain(self, schema: JsonObject, inside: tuple[str, ...], level: int) -> JsonSchema:
        types = types_of(schema) or (["object"] if "properties" in schema else [])
        description, text_format = schema.get("description"), schema.get("format")
        found: dict[str, JsonValue] = {
            "type": types[0] if len(types) == 1 else types or None,
            "format": text_format if text_format in FORMATS else None,
            "description": self._description(description),
            **self._fields(schema, inside, level),
            "items": self.converted(schema.get("items"), inside, level) if "items" in schema else None,
        }
        return {name: value for name, value in found.items() if value is not None}

    def _description(self, text: JsonValue) -> str | None:
        return " ".join(text.split()) or None if isinstance(text, str) and self._extent.descriptions else None

    def _fields(self, schema: JsonObject, inside: tuple[str, ...], level: int) -> JsonSchema:
        properties = schema.get("properties")
        if not isinstance(properties, Mapping) or level == self._extent.depth:
            return {}
        kept = {name: field for name, field in properties.items() if not _is_write_only(field)}
        required = [name for name in list_at(schema, "required") if name in kept]
        fields: JsonSchema = {
            "properties": {name: self.converted(field, inside, level + 1) for name, field in kept.items()}
        }
        return {**fields, "required": required} if required else fields

    @staticmethod
    def _merged(schemas: list[JsonSchema]) -> JsonSchema:
        """Return a schema that a value fits which fits all: their fields together, and the types of the last that has some."""
        merged: dict[str, JsonValue] = {}
        properties: dict[str, JsonValue] = {}
        required: list[JsonValue] = []
        for schema in schemas:
            merged.update(schema)
            fields = schema.get("properties")
            properties.update(fields if isinstance(fields, Mapping) else {})
            required += [name for name in list_at(schema, "required") if name not in required]
        return {
            **merged,
            **({"properties": properties} if properties else {}),
            **({"required": required} if required else {}),
        }

    def _resolved(self, reference: str) -> JsonValue:
        if not reference.startswith("#/"):
            raise ProjectError(
                f"{self._path}: the reference {reference!r} leads to another document; write them into one"
            )
        found: JsonValue = self._document
        for key in reference.removeprefix("#/").split("/"):
            name = key.replace("~1", "/").replace("~0", "~")
            if not isinstance(found, Mapping) or name not in found:
                raise ProjectError(f"{self._path}: the reference {reference!r} leads nowhere")
            found = found[name]
        return found


def _not_expanded(schema: JsonObject, choices: Sequence[JsonValue]) -> Sequence[JsonValue]:
    """Return the choices without those that a request has to ask for; all if nothing else is left."""
    expansion = schema.get(EXPANSION)
    expanded = list_at(expansion, "oneOf") if isinstance(expansion, Mapping) else ()
    return [choice for choice in choices if choice not in expanded] or choices


def _without_field(schema: JsonSchema, path: Sequence[str], problem: str) -> JsonSchema:
    """Return a schema of records that do not have a field. Raises ProjectError if the schema does not have it."""
    items = schema.get("items")
    if isinstance(items, Mapping):
        return {**schema, "items": _without_field(items, path, problem)}
    name, *rest = path
    properties = schema.get("properties")
    inner = properties.get(name) if isinstance(properties, Mapping) else None
    if not isinstance(properties, Mapping) or not isinstance(inner, Mapping):
        raise ProjectError(problem)
    if rest:
        return {**schema, "properties": {**properties, name: _without_field(inner, rest, problem)}}
    required = [field for field in list_at(schema, "required") if field != name]
    others = {field: value for field, value in properties.items() if field != name}
    kept = {word: value for word, value in schema.items() if word != "required"} | {"properties": others}
    return {**kept, "required": required} if required else kept


def _is_write_only(field: JsonValue) -> bool:
    return isinstance(field, Mapping) and field.get("writeOnly") is True


def _nullable(types: Sequence[str]) -> list[str]:
    return [*(name for name in types if name != "null"), "null"]
