"""The manifest, `connector.yaml`: its model, its schema, and its checks."""

from __future__ import annotations

from functools import cache
from typing import Any

import jsonschema

from penstock_sdk.json_types import JsonObject, JsonSchema, JsonValue
from penstock_sdk.manifest.cursor_safety import Followed, Rule, unsafe_cursor, unsafe_values
from penstock_sdk.manifest.egress_rules import EgressRule, egress_rules, normal_host
from penstock_sdk.manifest.model import AuthenticationMethod, Credential, Declared, DeclaredStream, Manifest, rules
from penstock_sdk.manifest.structural import problems, structural_schema, with_defaults

__all__ = [
    "AuthenticationMethod",
    "Credential",
    "Declared",
    "DeclaredStream",
    "EgressRule",
    "Followed",
    "Manifest",
    "Rule",
    "config_problems",
    "egress_rules",
    "manifest_problems",
    "manifest_schema",
    "normal_host",
    "problems",
    "rules",
    "structural_schema",
    "unsafe_cursor",
    "unsafe_values",
    "with_defaults",
]


@cache
def manifest_schema() -> JsonSchema:
    """Return the structural schema of the manifest, as it stands in the CRD of ConnectorDefinition."""
    return structural_schema(Manifest)


def manifest_problems(document: JsonValue, path: str = "") -> list[str]:
    """Return the problems of a manifest, each with its path; empty if it is valid."""
    found = problems(document, manifest_schema(), path)
    declared = document.get("configSchema") if isinstance(document, dict) else None
    return found or _schema_problems(declared, f"{path}.configSchema" if path else "configSchema")


def _schema_problems(schema: Any, path: str) -> list[str]:
    try:
        jsonschema.Draft202012Validator.check_schema(schema)
    except jsonschema.SchemaError as error:
        where = "".join(f".{part}" for part in error.absolute_path)
        return [f"{path}{where}: Invalid value: not a JSON Schema (2020-12): {error.message}"]
    return []


def config_problems(config: JsonObject, schema: JsonSchema, path: str = "spec.config") -> list[str]:
    """Return the problems of a connection's config by the connector's schema, each with its path and a remedy."""
    validator = jsonschema.Draft202012Validator(schema)
    errors = sorted(validator.iter_errors(config), key=lambda error: [str(part) for part in error.absolute_path])
    return [f"{path}{''.join(f'.{part}' for part in error.absolute_path)}: {_advice(error)}" for error in errors]


def _advice(error: jsonschema.ValidationError) -> str:
    expected: Any = error.validator_value
    schema: Any = error.schema
    if error.validator == "required" and isinstance(error.instance, dict):
        missing = ", ".join(repr(key) for key in expected if key not in error.instance)
        return f"add {missing}: the connector requires it"
    if error.validator == "additionalProperties":
        known = ", ".join(sorted(schema.get("properties", {})))
        return f"{error.message}; the connector knows: {known}"
    if error.validator == "type":
        return f"must be of type {expected}"
    return f"{error.message}"
