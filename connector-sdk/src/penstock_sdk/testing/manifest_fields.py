"""The fields of a manifest that the checks of the suite read.

The manifest may be invalid: the check `manifest` reports it, and the other checks still run. So this model requires only the
fields that a check needs, and ignores all others; a check that needs a wrong field is not run. `penstock_sdk.manifest.Manifest` is the complete model.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from penstock_sdk.json_types import JsonObject, JsonSchema


class CredentialFields(msgspec.Struct, frozen=True):
    """One key of the Secret."""

    name: str
    required: bool = True


class MethodFields(msgspec.Struct, frozen=True):
    """One way to authenticate."""

    credentials: list[CredentialFields] = []


class AuthenticationFields(msgspec.Struct, frozen=True):
    """The ways to authenticate."""

    methods: list[MethodFields]


class CapabilityFields(msgspec.Struct, frozen=True):
    """What the connector can do."""

    modes: list[str]
    discovery: str = "dynamic"
    partitions: bool | None = None
    windows: bool | None = None


class NetworkFields(msgspec.Struct, frozen=True):
    """The destinations to which the connector connects. The checks of faults ask only whether there are any."""

    egress: list[object] = []


class StreamFields(msgspec.Struct, frozen=True, rename="camel"):
    """A stream that every connection of a static connector has."""

    name: str
    modes: tuple[str, ...] = ("full",)
    primary_key: list[str] = []
    cursor_field: str | None = None


class StreamsFields(msgspec.Struct, frozen=True):
    """The streams that are known in advance."""

    known: list[StreamFields] = msgspec.field(name="list", default=[])


class ComplianceFields(msgspec.Struct, frozen=True):
    """What governance needs to know."""

    pii: str


class ManifestFields(msgspec.Struct, frozen=True, rename="camel"):
    """The manifest of the connector under test."""

    name: str
    method: str
    version: str
    capabilities: CapabilityFields
    authentication: AuthenticationFields
    config_schema: JsonSchema
    compliance: ComplianceFields
    network: NetworkFields = NetworkFields()
    streams: StreamsFields = StreamsFields()

    @classmethod
    def parse(cls, document: JsonObject) -> ManifestFields:
        """Return the fields. Raises msgspec.ValidationError if a field that a check needs is missing or of another type."""
        return msgspec.convert(document, cls)

    def credentials(self) -> Iterator[CredentialFields]:
        """Yield the credentials of all methods."""
        for method in self.authentication.methods:
            yield from method.credentials
