"""Tokens: obtained when first needed, renewed before they expire, and once more when the source refuses one early."""

from __future__ import annotations

import math
import threading
import time
from abc import abstractmethod
from dataclasses import dataclass, field
from http import HTTPStatus

import httpx

from penstock_sdk.auth.base import AUTHORIZATION, Auth
from penstock_sdk.protocol import usable_seconds


@dataclass(frozen=True, slots=True)
class Token:
    """A token, and the time of the monotonic clock until which it is used."""

    value: str = field(repr=False)
    usable_until: float = math.inf

    @classmethod
    def issued(cls, value: str, lifetime: float | None, age: float = 0.0) -> Token:
        """Return a token that was issued `age` seconds ago for `lifetime` seconds; None: until the source refuses it."""
        if lifetime is None:
            return cls(value)
        return cls(value, time.monotonic() + usable_seconds(lifetime) - age)

    @property
    def is_usable(self) -> bool:
        """Return True until shortly before the token expires."""
        return time.monotonic() < self.usable_until


class TokenAuth(Auth):
    """A login by a token that a provider issues."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._token: Token | None = None

    @abstractmethod
    def fetch(self, refused: str | None) -> Token:
        """Obtain a token. `refused` is the one that the source has refused. Called by one thread at a time."""

    def put(self, request: httpx.Request, token: str) -> None:
        """Put a token on a request."""
        request.headers[AUTHORIZATION] = f"Bearer {token}"

    def apply(self, request: httpx.Request) -> None:
        """Put a usable token on the request."""
        token = self.token()
        request.extensions = {**request.extensions, "penstock.token": token.value}
        self.put(request, token.value)

    def token(self, refused: str | None = None) -> Token:
        """Return a usable token, other than the one that the source has refused."""
        with self._lock:
            if self._token is None or not self._token.is_usable or self._token.value == refused:
                self._token = self.fetch(refused)
            return self._token

    def renew(self, request: httpx.Request, response: httpx.Response) -> bool:
        """Obtain another token if the source refuses this one."""
        if response.status_code != HTTPStatus.UNAUTHORIZED:
            return False
        refused = str(request.extensions.get("penstock.token"))
        return self.token(refused).value != refused
