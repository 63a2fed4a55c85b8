"""The checks of a manifest's `authentication` that compare it with itself and with the configSchema."""

from __future__ import annotations

import re
from collections.abc import Iterator

from penstock_sdk.json_types import JsonSchema, properties_of
from penstock_sdk.manifest.authentication import AuthenticationMethod
from penstock_sdk.manifest.declared import Declared
from penstock_sdk.manifest.egress_rules import PLACEHOLDER
from penstock_sdk.manifest.model import Manifest

CREDENTIAL_PLACEHOLDER = re.compile(r"\{\{\s*credentials\.([A-Za-z0-9_]+)\s*\}\}")
"""A value of the Secret in a text: `{{credentials.KEY}}`."""
ANY_PLACEHOLDER = re.compile(r"\{\{.*?\}\}")
WITH_CREDENTIALS = ("fields", "headers", "issuer", "subject", "keyId")
"""The texts that may have a value of the Secret: no other one is sent to the place that issued the credential."""
CHOICE_PATH = ("authentication", "method")
"""The field of a config that chooses the method."""


def authentication_problems(manifest: Manifest, path: str = "authentication") -> list[str]:
    """Return the problems of a manifest's methods, each with its path and a remedy; empty if there are none."""
    methods = manifest.authentication.methods
    found = [problem for index, method in enumerate(methods) for problem in _method_problems(manifest, method, index)]
    return [f"{path}.methods{problem}" for problem in (*found, *_choice_problems(manifest))]


def choices(manifest: Manifest) -> list[str] | None:
    """Return the methods that a config may name in `authentication.method`; None if the configSchema has no such field."""
    node: JsonSchema = manifest.config_schema
    for key in CHOICE_PATH:
        children = properties_of(node)
        if key not in children:
            return None
        node = children[key]
    named = node.get("enum", [])
    return [str(name) for name in named] if isinstance(named, list) else []


def _method_problems(manifest: Manifest, method: AuthenticationMethod, index: int) -> Iterator[str]:
    if method.member is None:
        return
    declared = {credential.name for credential in method.credentials}
    place = f"[{index}]"
    for name in sorted(method.needed - declared):
        yield f"{place}.credentials: Required value: {method.type} needs the credential {name}: add {{name: {name}}}"
    for field, text in _texts(method.member):
        where = f"{place}.{method.type}.{field}"
        yield from (f"{where}: {problem}" for problem in _text_problems(manifest, field, text, declared))


def _texts(member: Declared, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield the texts of a description, each with its path."""
    for field, value in member.model_dump(by_alias=True, exclude_none=True).items():
        path = f"{prefix}{field}"
        if isinstance(value, str):
            yield path, value
        elif isinstance(value, dict):
            yield from ((f"{path}.{key}", text) for key, text in value.items() if isinstance(text, str))


def _text_problems(manifest: Manifest, field: str, text: str, declared: set[str]) -> Iterator[str]:
    fields = properties_of(manifest.config_schema)
    for match in ANY_PLACEHOLDER.finditer(text):
        credential = CREDENTIAL_PLACEHOLDER.fullmatch(match[0])
        config = PLACEHOLDER.fullmatch(match[0])
        if credential and field.partition(".")[0] not in WITH_CREDENTIALS:
            yield f"Invalid value: {match[0]} has no place here; only values of the config are filled in"
        elif credential and credential[1] not in declared:
            yield f"Invalid value: the method has no credential {credential[1]}: add it to credentials"
        elif config and fields and config[1].partition(".")[0] not in fields:
            yield f"Invalid value: configSchema has no property {config[1].partition('.')[0]}: add it, or correct the name"
        elif not credential and not config:
            yield f"Invalid value: {match[0]} is not known; write {{{{config.KEY}}}}, or {{{{credentials.KEY}}}} in a login call"
    if field.lower().endswith("url"):
        base = PLACEHOLDER.match(text)
        rest = text[base.end() :] if base else ""
        if rest and not rest.startswith(("/", "?")):
            yield "Invalid value: after a value of the config that begins a URL, a path must follow; otherwise begin with https://"


def _choice_problems(manifest: Manifest) -> Iterator[str]:
    methods = manifest.authentication.methods
    labels = [method.label for method in methods]
    described = [(index, method) for index, method in enumerate(methods) if method.is_described]
    for index, method in described:
        if method.label in labels[:index]:
            yield f"[{index}].name: Duplicate value: {method.label}: give each method a name of its own"
    named = choices(manifest)
    if named is not None:
        unknown = [name for name in named if name not in labels]
        known = ", ".join(labels)
        for name in unknown:
            yield f": Invalid value: configSchema lets authentication.method be {name!r}, and the methods are: {known}"
        return
    for place, (index, method) in enumerate(described):
        if any(method.needed == earlier.needed for _, earlier in described[:place]):
            yield (
                f"[{index}]: Invalid value: it takes the same credentials as another method, so a Secret does not tell which"
                " is meant: declare authentication.method in configSchema, with an enum of the methods' names"
            )
