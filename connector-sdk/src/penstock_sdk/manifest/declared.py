"""The base of the manifest's models, and the types that several of them use."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel
from pydantic.config import JsonDict

from penstock_sdk.json_types import JsonObject


def rules(*pairs: tuple[str, str]) -> JsonDict:
    """Return the schema extension with CEL rules, each a pair of rule and message, which the API server evaluates."""
    return {"x-kubernetes-validations": [{"rule": rule, "message": message} for rule, message in pairs]}


CredentialName = Annotated[
    str,
    Field(
        max_length=60,
        json_schema_extra=rules(
            (
                "self.matches('^[A-Za-z_][A-Za-z0-9_]*$')",
                "must be letters, digits and underscores, as it is a key of the Secret and a variable's name",
            )
        ),
    ),
]
ShortText = Annotated[
    str, Field(max_length=200, json_schema_extra=rules(("self.matches('[^ \\\\t\\\\r\\\\n]')", "must not be blank")))
]
BY_NAME = {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]}
FreeForm = Annotated[JsonObject, Field(json_schema_extra={"x-kubernetes-preserve-unknown-fields": True})]


class Declared(BaseModel):
    """Base of the models that become structural schemas: camelCase in YAML, unknown fields are refused."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        alias_generator=to_camel,
        populate_by_name=True,
        use_attribute_docstrings=True,  # a field's description, as `kubectl explain` shows it
    )
