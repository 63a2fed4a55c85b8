"""Logins whose credentials are those of the Secret: basic, API keys, bearer tokens, client certificates."""

from __future__ import annotations

import base64
from urllib.parse import quote

import httpx

from penstock_sdk.auth.base import AUTHORIZATION, Auth
from penstock_sdk.auth.keys import client_ssl_context
from penstock_sdk.auth.shared_credentials import LoginContext
from penstock_sdk.errors import AuthenticationError
from penstock_sdk.manifest.authentication import KeyPlace

COOKIE = "Cookie"
HIGHEST_HEADER_CHARACTER = 255


def header_value(value: str, name: str) -> str:
    """Return a credential for a header, without the line end of its file. Raises AuthenticationError if it does not fit."""
    bare = value.strip()
    if not bare or any(ord(character) < ord(" ") or ord(character) > HIGHEST_HEADER_CHARACTER for character in bare):
        raise AuthenticationError(
            f"spec.secretRef: {name} has a character that a request cannot carry, such as a line end: put the value alone into the Secret"
        )
    return bare


def put_key(request: httpx.Request, place: KeyPlace, value: str) -> None:
    """Put a key or a token where a request carries it."""
    text = f"{place.prefix or ''}{value}"
    if place.in_ == "header":
        request.headers[place.name] = text
    elif place.in_ == "query":
        request.url = request.url.copy_set_param(place.name, text)
    else:
        pairs = [pair for pair in request.headers.get("Cookie", "").split("; ") if pair]
        others = [pair for pair in pairs if not pair.startswith(f"{place.name}=")]
        encoded = quote(text, safe="!#$%&'()*+-./:<=>?@[]^_`{|}~")
        request.headers[COOKIE] = "; ".join([*others, f"{place.name}={encoded}"])


class NoAuth(Auth):
    """No login."""

    def apply(self, request: httpx.Request) -> None:
        """Leave the request as it is."""

    def refusal(self) -> str:
        """Return that the source wants a login."""
        return "the source answers HTTP 401, and the connection has no credentials: set spec.secretRef to a Secret with them"


class BasicAuth(Auth):
    """User name and password."""

    def __init__(self, context: LoginContext) -> None:
        username = context.credential("username").rstrip("\r\n")
        password = context.credential("password").rstrip("\r\n")
        if ":" in username:
            raise AuthenticationError("spec.secretRef: username has a colon, which Basic authentication cannot send")
        encoded = base64.b64encode(f"{username}:{password}".encode()).decode()
        context.conceal(encoded)
        self._header = f"Basic {encoded}"

    def apply(self, request: httpx.Request) -> None:
        """Put the header on the request."""
        request.headers[AUTHORIZATION] = self._header

    def refusal(self) -> str:
        """Return that the pair is refused."""
        return "the source refuses username and password: put the pair that it accepts into the Secret"


class ApiKeyAuth(Auth):
    """A key in a header, in the query or in a cookie."""

    def __init__(self, context: LoginContext, place: KeyPlace) -> None:
        self._place = place
        self._key = header_value(context.credential("api_key"), "api_key")

    def private_headers(self) -> frozenset[str]:
        """Return the header of the key."""
        return self.credential_headers | {self._place.name.lower() if self._place.in_ == "header" else "cookie"}

    def apply(self, request: httpx.Request) -> None:
        """Put the key on the request."""
        put_key(request, self._place, self._key)

    def refusal(self) -> str:
        """Return that the key is refused."""
        return "the source refuses api_key, which is wrong, expired or revoked: create a new key at the source, and put it into the Secret"


class BearerAuth(Auth):
    """A token that a person has made at the source."""

    def __init__(self, context: LoginContext) -> None:
        self._token = header_value(context.credential("token"), "token")

    def apply(self, request: httpx.Request) -> None:
        """Put the token on the request."""
        request.headers[AUTHORIZATION] = f"Bearer {self._token}"

    def refusal(self) -> str:
        """Return that the token is refused."""
        return "the source refuses token, which is wrong, expired or revoked: create a new token at the source, and put it into the Secret"


class ClientCertificateAuth(Auth):
    """A certificate that the client shows in the TLS handshake. Use `client`, or give `ssl_context` to your client."""

    def __init__(self, context: LoginContext) -> None:
        self.ssl_context = client_ssl_context(context)

    def apply(self, request: httpx.Request) -> None:
        """Leave the request as it is: the certificate is a part of the connection."""

    def refusal(self) -> str:
        """Return that the certificate is refused."""
        return "the source refuses client_certificate: put a certificate that it trusts, and its client_key, into the Secret"
