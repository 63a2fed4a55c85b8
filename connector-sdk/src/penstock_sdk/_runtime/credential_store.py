"""The attempt's credentials: those of the Secret, or the newer values with which the source has replaced them.

Some sources return a new refresh token at each use and invalidate the old one. If the new token is lost, a person has to
authorize again, so the platform stores it before it is used. A stored value belongs to the value of the Secret that it
replaced; if the owner changes the Secret, the value of the Secret is used.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Mapping

from penstock_sdk import protocol as wire
from penstock_sdk._runtime.client import RunClient
from penstock_sdk._runtime.masking import Mask

SHORTEST_TOKEN = 8


class CredentialStore:
    """The credentials of one attempt. No value appears in a repr, a log line or a message."""

    def __init__(self, secret: Mapping[str, str], non_secret: frozenset[str], mask: Mask) -> None:
        self._seeds = {name: hashlib.sha256(value.encode()).hexdigest() for name, value in secret.items()}
        self._values = dict(secret)
        self._non_secret = non_secret
        self._mask = mask
        self._lock = threading.Lock()

    def apply_rotated(self, rotated: Mapping[str, wire.RotatedCredential]) -> None:
        """Replace values of the Secret with the stored values that belong to them."""
        for name, credential in rotated.items():
            if self._seeds.get(name) == credential.seed:
                self._replace(name, credential.value)

    def seed(self, name: str) -> str:
        """Return the digest of the Secret's value."""
        return self._seeds.get(name, hashlib.sha256(b"").hexdigest())

    def replace(self, name: str, value: str) -> None:
        """Use a value that the platform has stored."""
        with self._lock:
            self._replace(name, value)

    def values(self) -> dict[str, str]:
        """Return the values for the connector."""
        return dict(self._values)

    def conceal(self, value: str) -> None:
        """Mask a value that is no credential of the Secret, such as an access token; a short one would hide other text."""
        if len(value) >= SHORTEST_TOKEN:
            self._mask.add(value)

    def keep(self, client: RunClient, name: str, value: str) -> None:
        """Let the platform store a value. The value is masked before the call. Several workers may call it."""
        with self._lock:
            self._replace(name, value)
            client.keep_credential(wire.CredentialRequest(name=name, value=value, seed=self.seed(name)))

    def _replace(self, name: str, value: str) -> None:
        if name not in self._non_secret:
            self._mask.add(value)
        self._values[name] = value
