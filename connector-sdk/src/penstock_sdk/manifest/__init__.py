"""The manifest, `connector.yaml`: its model, its schema, and its checks."""

from __future__ import annotations

from functools import cache

from penstock_sdk.json_types import JsonSchema, JsonValue
from penstock_sdk.manifest.authentication import AuthenticationMethod, Credential
from penstock_sdk.manifest.authentication_checks import authentication_problems
from penstock_sdk.manifest.config_schema import config_problems, schema_problems
from penstock_sdk.manifest.cursor_safety import Followed, Rule, unsafe_cursor, unsafe_values
from penstock_sdk.manifest.declared import Declared, rules
from penstock_sdk.manifest.egress_rules import (
    DEFAULT_EGRESS_PORT,
    PLACEHOLDER,
    EgressRule,
    config_values,
    egress_rules,
    fill_in,
    fill_in_url,
    is_address,
    normal_host,
)
from penstock_sdk.manifest.model import DeclaredStream, Manifest
from penstock_sdk.manifest.rate_budget import RateRule, TokenLease, lease_tokens, rate_rules, refilled
from penstock_sdk.manifest.structural import problems, structural_schema, with_defaults

__all__ = [
    "DEFAULT_EGRESS_PORT",
    "PLACEHOLDER",
    "AuthenticationMethod",
    "Credential",
    "Declared",
    "DeclaredStream",
    "EgressRule",
    "Followed",
    "Manifest",
    "RateRule",
    "Rule",
    "TokenLease",
    "authentication_problems",
    "config_problems",
    "config_values",
    "egress_rules",
    "fill_in",
    "fill_in_url",
    "is_address",
    "lease_tokens",
    "manifest_problems",
    "manifest_schema",
    "normal_host",
    "problems",
    "rate_rules",
    "refilled",
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
    prefix = f"{path}." if path else ""
    return (
        found
        or schema_problems(declared, f"{prefix}configSchema")
        or authentication_problems(Manifest.model_validate(document), f"{prefix}authentication")
    )
