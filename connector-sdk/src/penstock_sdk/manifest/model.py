"""The manifest's model: what one version of one connector method declares of itself.

It is the source of truth for catalog, orchestrator and governance, and part of the ConnectorDefinition's CRD, so
that the API server refuses an invalid one. Constraints that need words are CEL rules with a message of their own:
the API server and `penstock validate` evaluate the same rule and print the same message.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel


def rules(*pairs: tuple[str, str]) -> dict[str, Any]:
    """Return the schema extension that makes the API server evaluate CEL rules: (rule, message) each."""
    return {"x-kubernetes-validations": [{"rule": rule, "message": message} for rule, message in pairs]}


SEMVER = r"^(0|[1-9][0-9]*)\\.(0|[1-9][0-9]*)\\.(0|[1-9][0-9]*)(-[0-9a-z.-]+)?$"
Identifier = Annotated[
    str,
    Field(
        max_length=40,
        json_schema_extra=rules(
            (
                "self.matches('^[a-z][a-z0-9]*(-[a-z0-9]+)*$')",
                "must be lower-case letters, digits and single dashes, and begin with a letter, such as 'postgres'",
            )
        ),
    ),
]
Version = Annotated[
    str,
    Field(
        max_length=60,
        json_schema_extra=rules(
            (
                f"self.matches('{SEMVER}')",
                "must be a semantic version such as '1.2.0' (no leading 'v', no build metadata)",
            )
        ),
    ),
]
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
ShortText = Annotated[str, Field(max_length=200)]
Method = Literal["rest", "sql", "cdc", "bulk", "file", "object", "stream", "generate"]
Mode = Literal["full", "incremental"]
FreeForm = Annotated[dict[str, Any], Field(json_schema_extra={"x-kubernetes-preserve-unknown-fields": True})]


class Declared(BaseModel):
    """Base of the manifest's parts: camelCase in YAML, unknown fields refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, alias_generator=to_camel, populate_by_name=True)


class Taxonomy(Declared):
    """Where the catalog lists the connector."""

    category: Literal["database", "saas", "files", "events", "api", "test"]
    tags: Annotated[list[ShortText], Field(max_length=20)] = []


class Capabilities(Declared):
    """What the connector can do; an undeclared mode is never asked of it."""

    modes: Annotated[list[Mode], Field(min_length=1, max_length=2)]
    discovery: Literal["dynamic", "static"] = "dynamic"


class Credential(Declared):
    """One key that the connection's Secret must (or may) hold. `secret: false` lets messages show it, as a user name."""

    name: CredentialName
    required: bool = True
    secret: bool = True


class AuthenticationMethod(Declared):
    """One way to authenticate, with the credentials that it takes."""

    type: Literal["none", "basic", "apiKey", "oauth2", "saml"]
    credentials: Annotated[list[Credential], Field(max_length=20)] = []


class Authentication(Declared):
    """The ways to authenticate."""

    methods: Annotated[list[AuthenticationMethod], Field(min_length=1, max_length=5)]


class Egress(Declared):
    """One network destination; `{{config.KEY}}` stands for a value of the connection's config."""

    host: ShortText
    port: ShortText | None = None


class Network(Declared):
    """The destinations that the connector talks to."""

    egress: Annotated[list[Egress], Field(max_length=50)] = []


class DeclaredStream(Declared):
    """A stream that every connection of a static connector has."""

    name: ShortText
    modes: Annotated[list[Mode], Field(max_length=2)] = ["full"]
    primary_key: Annotated[list[ShortText], Field(max_length=20)] = []
    cursor_field: ShortText | None = None


class Streams(Declared):
    """How streams are named, and which there are where that is known beforehand."""

    naming: ShortText | None = None
    list_: Annotated[list[DeclaredStream], Field(alias="list", max_length=500)] = []


class Compliance(Declared):
    """What governance needs to know."""

    data_classification: Literal["public", "internal", "confidential", "restricted"]
    pii: Literal["none", "possible", "present"]


class Manifest(Declared):
    """The whole `connector.yaml`."""

    name: Identifier
    method: Method
    version: Version
    title: ShortText
    description: Annotated[str, Field(max_length=4000)] = ""
    taxonomy: Taxonomy
    capabilities: Capabilities
    authentication: Authentication
    config_schema: Annotated[FreeForm, Field(json_schema_extra={"x-kubernetes-preserve-unknown-fields": True})]
    runners: Annotated[list[Literal["kubernetes", "process"]], Field(min_length=1, max_length=2)]
    network: Network = Network()
    streams: Streams = Streams()
    compliance: Compliance
    state_version: Annotated[int, Field(ge=1, le=1_000_000)] = 1

    @property
    def artifact(self) -> str:
        """The artifact's name, {connector}-{method}."""
        return f"{self.name}-{self.method}"

    @property
    def definition(self) -> str:
        """The definition's name, {connector}-{method}-{version}."""
        return f"{self.artifact}-{self.version}"

    def credentials(self) -> dict[str, bool]:
        """Return the keys that a Secret may hold; true where every method that takes a key requires it."""
        wanted: dict[str, bool] = {}
        methods = self.authentication.methods
        for credential in (each for method in methods for each in method.credentials):
            wanted[credential.name] = credential.required and len(methods) == 1
        return wanted
