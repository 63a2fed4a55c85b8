"""What a login is built from, and credentials that a provider replaces when they are used."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from penstock_sdk.errors import AuthenticationError
from penstock_sdk.json_types import JsonObject


@dataclass(frozen=True, slots=True)
class Issued:
    """The answer of a provider that used a credential: a token, and the credential to use the next time.

    `lifetime` is in seconds; None if the provider does not say it. `age` is how long ago the provider answered, in seconds.
    """

    credential: str = field(repr=False)
    token: str = field(repr=False)
    lifetime: float | None = None
    age: float = 0.0


class SharedCredential(Protocol):
    """A credential that several connectors may use, and that its use may replace."""

    def issue(self, refused: str | None, request: Callable[[str], Issued]) -> Issued:
        """Return a valid token: one that another connector got, or the one that `request` gets.

        `request` is called with the newest value of the credential, while nobody else uses it. A new value is stored before
        this returns. `refused` is a token that the source has refused, so it is not returned.
        """


class LocalCredential:
    """A credential of this process alone. `keep` stores a new value; without it, a new value lasts as long as the process."""

    def __init__(self, value: str, keep: Callable[[str], None] | None = None) -> None:
        self._value = value
        self._keep = keep
        self._lock = threading.Lock()

    def issue(self, refused: str | None, request: Callable[[str], Issued]) -> Issued:
        """Return the token that `request` gets."""
        del refused
        with self._lock:
            issued = request(self._value)
            if issued.credential != self._value:
                if self._keep:
                    self._keep(issued.credential)
                self._value = issued.credential
            return issued


@dataclass(frozen=True)
class LoginContext:
    """What a login is built from: the config with its defaults, and the credentials.

    `conceal` masks a value in everything that the process writes. `share` returns the credential of a name as one that other
    connectors may use too.
    """

    config: JsonObject
    credentials: Mapping[str, str] = field(repr=False)
    conceal: Callable[[str], None] = lambda _value: None
    share: Callable[[str], SharedCredential] | None = None

    def credential(self, name: str) -> str:
        """Return a credential. Raises AuthenticationError if the Secret has none of this name."""
        value = self.credentials.get(name, "")
        if not value.strip():
            raise AuthenticationError(f"spec.secretRef: the Secret has no value for {name}: add the key {name}")
        return value

    def shared(self, name: str) -> SharedCredential:
        """Return a credential that its use may replace. Raises AuthenticationError if the Secret has none of this name."""
        value = self.credential(name)
        return self.share(name) if self.share else LocalCredential(value)

    def without_secrets(self, text: str) -> str:
        """Return a text of another party without the values of credentials, printable and short."""
        for value in self.credentials.values():
            if value.strip():
                text = text.replace(value, "***")
        return "".join(character if character.isprintable() else " " for character in text)[:300]
