"""The attempt's credentials: the Secret's, and in their place those that the source has replaced since.

Some sources hand out a new refresh token with each use and forget the old one: whoever loses the new one has to be let in
by a person again. The platform keeps it before it is used. What is kept descends from a value of the Secret; once the
owner has put another value there, that one counts.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Mapping

from penstock_sdk import protocol as wire
from penstock_sdk._runtime.client import RunClient
from penstock_sdk._runtime.masking import Mask


class CredentialStore:
    """What a connector authenticates with. No value of them shows in a repr, a log line or a message."""

    def __init__(self, secret: Mapping[str, str], non_secret: frozenset[str], mask: Mask) -> None:
        self._seeds = {name: hashlib.sha256(value.encode()).hexdigest() for name, value in secret.items()}
        self._values = dict(secret)
        self._non_secret = non_secret
        self._mask = mask
        self._lock = threading.Lock()

    def apply_rotated(self, rotated: Mapping[str, wire.RotatedCredential]) -> None:
        """Put what the platform has kept in place of the Secret's values that it descends from."""
        for name, credential in rotated.items():
            if self._seeds.get(name) == credential.seed:
                self._replace(name, credential.value)

    def values(self) -> dict[str, str]:
        """Return the values to authenticate with."""
        return dict(self._values)

    def keep(self, client: RunClient, name: str, value: str) -> None:
        """Have the platform keep a value; it is masked from before the call on. Several readers may call it."""
        with self._lock:
            self._replace(name, value)
            seed = self._seeds.get(name, hashlib.sha256(b"").hexdigest())
            client.keep_credential(wire.CredentialRequest(name=name, value=value, seed=seed))

    def _replace(self, name: str, value: str) -> None:
        if name not in self._non_secret:
            self._mask.add(value)
        self._values[name] = value
