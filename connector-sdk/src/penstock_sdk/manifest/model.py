"""The model of the manifest: what one version of a connector method declares about itself.

It is the source of truth for catalog, orchestrator and governance, and part of the CRD of ConnectorDefinition, so the API
server refuses an invalid manifest. Constraints that need a message are CEL rules: the API server and `penstock validate`
evaluate the same rule and print the same message.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from penstock_sdk.manifest.authentication import Authentication
from penstock_sdk.manifest.declared import BY_NAME, Declared, FreeForm, ShortText, rules

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
Method = Literal["rest", "sql", "cdc", "bulk", "file", "object", "stream", "generate"]
Mode = Literal["full", "incremental"]


class Taxonomy(Declared):
    """Where the catalog lists the connector."""

    category: Literal["database", "saas", "files", "events", "api", "test"]
    """The category in the catalog."""
    tags: Annotated[list[ShortText], Field(max_length=20)] = []
    """Search words."""


class Capabilities(Declared):
    """What the connector can do. The platform never uses a mode that is not declared.

    `partitions` and `windows` have no default, because a default would appear in definitions that an older controller reads.
    """

    modes: Annotated[list[Mode], Field(min_length=1, max_length=2)]
    """The modes that at least one stream can be read in."""
    discovery: Literal["dynamic", "static"] = "dynamic"
    """static: every connection has the streams of streams.list; dynamic: discover() asks the source."""
    partitions: bool | None = None
    """Whether streams can be read in partitions, in parallel."""
    windows: bool | None = None
    """Whether a time span can be read again, for streams that declare it; without it `runs backfill --reread` is refused."""


class Egress(Declared):
    """One network destination. `{{config.KEY}}` stands for a value of the connection's config."""

    host: ShortText
    """A host name, or a value of the config such as {{config.host}}; a URL stands for its host."""
    port: ShortText | None = None
    """A port, or a value of the config. Without it: the port of the URL, otherwise 443."""
    private: bool | None = None
    """true: the host may have a private address, if the platform's `egress.privateRanges` has the address too."""


class RateLimit(Declared):
    """How many requests a source accepts. All connections that share it have one budget."""

    host: ShortText
    """The source's host, or a value of the config such as {{config.baseUrl}}; a URL stands for its host and port."""
    requests: Annotated[int, Field(ge=1, le=1_000_000)]
    """The requests that the source accepts in each span of `seconds`."""
    seconds: Annotated[int, Field(ge=1, le=86_400)] = 1
    """The length of the span."""
    shared: Literal["platform", "tenant"] = "platform"
    """The connections with one budget: all connections to the host, or those of one namespace, which have accounts of their own."""


class Network(Declared):
    """The destinations to which the connector connects."""

    egress: Annotated[list[Egress], Field(max_length=50)] = []
    """Every host that the connector looks up or connects to. The egress gateway denies any other host, and the run fails."""


class DeclaredStream(Declared):
    """A stream that every connection of a static connector has."""

    name: ShortText
    """The name, as discover() returns it."""
    modes: Annotated[list[Mode], Field(min_length=1, max_length=2)] = ["full"]
    """The ways it can be read."""
    primary_key: Annotated[list[ShortText], Field(max_length=20)] = []
    """The fields that identify a record."""
    cursor_field: ShortText | None = None
    """The field that an incremental read follows."""


class Streams(Declared):
    """How streams are named, and their list if it is known in advance."""

    naming: ShortText | None = None
    """How names are formed, such as schema.table."""
    list_: Annotated[list[DeclaredStream], Field(alias="list", max_length=500, json_schema_extra=BY_NAME)] = []
    """The streams of a static connector."""


class Compliance(Declared):
    """What governance needs to know."""

    data_classification: Literal["public", "internal", "confidential", "restricted"]
    """The strictest classification of the data that the source may hold."""
    pii: Literal["none", "possible", "present"]
    """Whether records may hold personal data."""


class Manifest(Declared):
    """The whole `connector.yaml`."""

    name: Identifier
    """The kind of source, such as postgres."""
    method: Method
    """The way of getting data; one artifact per method."""
    version: Version
    """The version of this artifact. A published version never changes."""
    title: ShortText
    """The title in the catalog."""
    description: Annotated[str, Field(max_length=4000)] = ""
    """What it reads and how, for people who choose a connector."""
    taxonomy: Taxonomy
    """Where the catalog lists it."""
    capabilities: Capabilities
    """What it can do."""
    authentication: Authentication
    """How it authenticates, and the keys of its Secret."""
    config_schema: Annotated[FreeForm, Field(json_schema_extra={"x-kubernetes-preserve-unknown-fields": True})]
    """The JSON Schema (2020-12) of a connection's config."""
    runners: Annotated[list[Literal["kubernetes", "process"]], Field(min_length=1, max_length=2)]
    """Where it can run: in pods, as a process of `penstock up`."""
    network: Network = Network()
    """The hosts to which it connects."""
    rate_limits: Annotated[list[RateLimit], Field(max_length=5)] | None = None
    """The rate limits of its source. A request counts against every limit of its host."""
    streams: Streams = Streams()
    """The streams that are known in advance."""
    compliance: Compliance
    """What governance needs to know."""
    state_version: Annotated[int, Field(ge=1, le=1_000_000)] = 1
    """The version of its cursors. Increase it when the connector cannot resume from older cursors."""

    @property
    def artifact(self) -> str:
        """The artifact's name, {connector}-{method}."""
        return f"{self.name}-{self.method}"

    @property
    def definition(self) -> str:
        """The definition's name, {connector}-{method}-{version}."""
        return f"{self.artifact}-{self.version}"

    def credentials(self) -> dict[str, bool]:
        """Return the keys that a Secret may have; True for a key that every method requires."""
        wanted: dict[str, bool] = {}
        methods = self.authentication.methods
        for credential in (credential for method in methods for credential in method.credentials):
            wanted[credential.name] = credential.required and len(methods) == 1
        return wanted
