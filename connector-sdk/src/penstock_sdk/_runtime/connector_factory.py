"""Connector instances: one for the attempt, and one for each further worker, because an instance serves one thread."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from penstock_sdk._runtime.assignment import AnyConnector, build
from penstock_sdk._runtime.client import RunClient
from penstock_sdk._runtime.credential_store import CredentialStore
from penstock_sdk.json_types import JsonObject

log = logging.getLogger("penstock")


class ConnectorFactory:
    """Creates connector instances of one connection. Thread-safe."""

    def __init__(
        self, connector: type[AnyConnector], config: JsonObject, credentials: CredentialStore, client: RunClient
    ) -> None:
        self._class = connector
        self._config = config
        self._credentials = credentials
        self._client = client
        self._lock = threading.Lock()

    def make(self) -> AnyConnector:
        """Return a connector with its config and credentials, whose rotated credentials are stored."""
        connector = build(self._class, self._config, self._credentials.values())
        connector.keep_credential_hook = partial(self._credentials.keep, self._client)
        return connector

    @contextmanager
    def authenticated(self) -> Iterator[AnyConnector]:
        """Yield another connector, authenticated, and close it at the end.

        Only one connector authenticates at a time, so that each uses the refresh token that the previous one received.
        """
        with self._lock:
            connector = self.make()
            try:
                connector.authenticate()
            except BaseException:
                close(connector)
                raise
        try:
            yield connector
        finally:
            close(connector)


def close(connector: AnyConnector) -> None:
    """Close a connector. An error of `close` is only logged, so that it does not hide how the read ended."""
    try:
        connector.close()
    except Exception:
        log.warning("the connector's close() failed", exc_info=True)
