"""The attempt that a process runs, and the connector instance for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

import msgspec

from penstock_sdk import protocol as wire
from penstock_sdk._runtime.json_logs import LogContext
from penstock_sdk._runtime.masking import Mask
from penstock_sdk._secret import decode_secret
from penstock_sdk.contract import Connector
from penstock_sdk.errors import AuthenticationError, ConfigError
from penstock_sdk.json_types import JsonObject

AnyConnector = Connector[object, object]


@dataclass(frozen=True)
class Assignment:
    """The attempt for which this process was launched, with its connector and credentials.

    `load` imports the connector. It is called after the attempt is claimed, so that a failed import is reported to the
    platform. `non_secret` are the names of credentials that messages may show. `log_context` are the fields of every log
    line; the attempt adds to them.
    """

    run: str
    attempt: int
    identity: wire.ConnectorIdentity
    load: Callable[[], type[AnyConnector]]
    credentials: dict[str, str] = field(repr=False)
    non_secret: frozenset[str] = frozenset()
    log_context: LogContext = field(default_factory=dict)
    manifest: JsonObject = field(default_factory=dict)

    @cached_property
    def mask(self) -> Mask:
        """The mask of the secret credentials. Rotated credentials are added to it."""
        return Mask([value for name, value in self.credentials.items() if name not in self.non_secret])


def build(connector: type[AnyConnector], config: JsonObject, secret: dict[str, str]) -> AnyConnector:
    """Return the connector with its config and credentials, converted to the types that it declares."""
    config_type, credentials_type = connector.argument_types()
    try:
        converted = msgspec.convert(config, config_type)
    except msgspec.ValidationError as error:
        message = f"spec.config: {error}"
        raise ConfigError(message) from None
    try:
        credentials = msgspec.convert(secret, credentials_type, dec_hook=decode_secret)
    except msgspec.ValidationError as error:
        message = f"spec.secretRef: the Secret does not fit the connector: {error}"
        raise AuthenticationError(message) from None
    return connector(converted, credentials)
