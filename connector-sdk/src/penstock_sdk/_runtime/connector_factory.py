"""Connector instances: one for the attempt, and one for each further worker, because an instance serves one thread."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

from penstock_sdk._runtime.assignment import AnyConnector, build
from penstock_sdk._runtime.client import RunClient
from penstock_sdk._runtime.credential_store import CredentialStore
from penstock_sdk.json_types import JsonObject

if TYPE_CHECKING:
    from penstock_sdk.auth.base import Auth
    from penstock_sdk.auth.shared_credentials import SharedCredential

log = logging.getLogger("penstock")


class ConnectorFactory:
    """Creates connector instances of one connection. Thread-safe."""

    def __init__(
        self,
        connector: type[AnyConnector],
        manifest: JsonObject,
        config: JsonObject,
        credentials: CredentialStore,
        client: RunClient,
    ) -> None:
        self._class = connector
        self._manifest = manifest
        self._config = config
        self._credentials = credentials
        self._client = client
        self._lock = threading.Lock()
        self._login_lock = threading.Lock()
        self._login: Auth | None = None

    def make(self) -> AnyConnector:
        """Return a connector with its config and credentials, whose rotated credentials are stored."""
        connector = build(self._class, self._config, self._credentials.values())
        connector.keep_credential_hook = partial(self._credentials.keep, self._client)
        connector.authentication_hook = self._authentication
        return connector

    def _authentication(self) -> Auth:
        """Return the login of the attempt, which all its connector instances share."""
        # A connector that logs in by itself pays for no import of it.
        from penstock_sdk.auth import auth_for
        from penstock_sdk.manifest import Manifest

        with self._login_lock:
            if self._login is None:
                self._login = auth_for(
                    Manifest.model_validate(self._manifest),
                    self._config,
                    self._credentials.values(),
                    conceal=self._credentials.conceal,
                    share=self._shared,
                )
            return self._login

    def _shared(self, name: str) -> SharedCredential:
        from penstock_sdk._runtime.leased_credential import LeasedCredential

        return LeasedCredential(self._client, self._credentials, name)

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
