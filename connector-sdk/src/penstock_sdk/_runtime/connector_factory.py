"""The connector that an attempt begins with, and those of its further workers: an instance serves one thread."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from penstock_sdk._runtime.assignment import AnyConnector, build
from penstock_sdk._runtime.client import RunClient
from penstock_sdk._runtime.credential_store import CredentialStore

log = logging.getLogger("penstock")


class ConnectorFactory:
    """Makes connectors of one connection. Thread-safe."""

    def __init__(
        self, connector: type[AnyConnector], config: dict[str, Any], credentials: CredentialStore, client: RunClient
    ) -> None:
        self._class = connector
        self._config = config
        self._credentials = credentials
        self._client = client
        self._lock = threading.Lock()

    def make(self) -> AnyConnector:
        """Return a connector with its config and credentials, which keeps what its source replaces."""
        connector = build(self._class, self._config, self._credentials.values())
        connector.keep_credential_hook = partial(self._credentials.keep, self._client)
        return connector

    @contextmanager
    def authenticated(self) -> Iterator[AnyConnector]:
        """Give a further connector, authenticated, and close it at the end.

        One authenticates at a time: a refresh token that the source replaces meanwhile is the next one's.
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
    """Close, and let nothing that goes wrong here hide how the reading ended."""
    try:
        connector.close()
    except Exception:
        log.warning("the connector's close() failed", exc_info=True)
