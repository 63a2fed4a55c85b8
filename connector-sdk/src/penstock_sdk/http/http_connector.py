"""The base class of connectors to an HTTP source."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

import msgspec

from penstock_sdk.contract import ConfigT_co, Connector, CredentialsT_co
from penstock_sdk.errors import ConfigError
from penstock_sdk.http.client import ANY_CREDENTIALS, Client
from penstock_sdk.http.response_rules import NotFoundError


class HttpConnector(Connector[ConfigT_co, CredentialsT_co]):
    """A connector to an HTTP source. Its author writes `open_client`, `discover` and `read`.

    `authenticate` opens the client and sends a GET request to `probe`, a path that fails with wrong credentials. With an
    empty `probe`, the base URL itself is requested; with None, no request is sent. A source that needs another request
    overrides `send_probe`.
    """

    probe: ClassVar[str | None] = ""
    _client: Client | None = None

    @abstractmethod
    def open_client(self) -> Client:
        """Return a client of the source, with the connection's config and credentials."""

    @property
    def http(self) -> Client:
        """The client, once `authenticate` has opened it."""
        if self._client is None:
            raise RuntimeError("authenticate() comes first")
        return self._client

    def authenticate(self) -> None:
        """Open the client, and send the request of `probe`."""
        self._client = self.open_client()
        keys = _secret_keys(self.credentials)
        if self._client.credentials == ANY_CREDENTIALS and keys:
            self._client.credentials = (
                f"the Secret's {'key' if len(keys) == 1 else 'keys'} {', '.join(map(repr, keys))}"
            )
        try:
            self.send_probe()
        except NotFoundError as error:
            raise ConfigError(f"{error.message}; correct the address in the config") from None

    def send_probe(self) -> None:
        """Send a request that fails with wrong credentials or a wrong address: a GET request to `probe`."""
        if self.probe is not None:
            self.http.get(self.probe)

    def close(self) -> None:
        """Close the client."""
        if self._client is not None:
            self._client.close()


def _secret_keys(credentials: object) -> list[str]:
    if isinstance(credentials, msgspec.Struct):
        return [field.encode_name for field in msgspec.structs.fields(credentials)]
    return sorted(map(str, credentials)) if isinstance(credentials, dict) else []
