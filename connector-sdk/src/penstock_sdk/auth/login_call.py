"""A login call whose answer has a token for the requests after it."""

from __future__ import annotations

import base64
import json
from http.cookies import CookieError, SimpleCookie
from urllib.parse import urlencode

import httpx

from penstock_sdk.auth.base import AUTHORIZATION
from penstock_sdk.auth.fixed_credentials import put_key
from penstock_sdk.auth.provider import Provider, ProviderAnswer, error_code
from penstock_sdk.auth.shared_credentials import LoginContext
from penstock_sdk.auth.templates import text_of, url_of
from penstock_sdk.auth.tokens import Token, TokenAuth
from penstock_sdk.errors import AuthenticationError
from penstock_sdk.json_types import JsonValue
from penstock_sdk.manifest.authentication import SessionLogin

MOST_CHARACTERS = 65_536


class SessionAuth(TokenAuth):
    """A token of a login call."""

    def __init__(self, context: LoginContext, login: SessionLogin, names: tuple[str, ...]) -> None:
        super().__init__()
        self._context, self._login = context, login
        self._names = " or ".join(names) or "the login"
        self._provider = Provider(url_of(login.login_url, context, "loginUrl"), "loginUrl", context)
        self._content, self._headers = self._request()

    def private_headers(self) -> frozenset[str]:
        """Return the header that carries the token."""
        place = self._login.send
        return self.credential_headers | {place.name.lower() if place.in_ == "header" else "cookie"}

    def _request(self) -> tuple[bytes | None, dict[str, str]]:
        login, context = self._login, self._context
        fields = {name: text_of(text, context, f"session.fields.{name}") for name, text in login.fields.items()}
        headers = {name: text_of(text, context, f"session.headers.{name}") for name, text in login.headers.items()}
        headers.setdefault("Accept", "application/json")
        if login.basic:
            pair = f"{context.credential('username').strip()}:{context.credential('password').strip()}"
            headers[AUTHORIZATION] = f"Basic {base64.b64encode(pair.encode()).decode()}"
        form = login.body or "json"
        if form == "none":
            return None, headers
        kind = "application/json" if form == "json" else "application/x-www-form-urlencoded"
        body = json.dumps(fields) if form == "json" else urlencode(fields)
        return body.encode(), {**headers, "Content-Type": kind}

    def fetch(self, refused: str | None) -> Token:
        """Log in."""
        del refused
        answer = self._provider.send(self._login.http_method or "POST", headers=self._headers, content=self._content)
        token = self._token_of(answer) if answer.is_success else None
        if token is None:
            raise self._refused(answer)
        self._context.conceal(token)
        lifetime = self._login.lifetime_seconds
        return Token.issued(token, float(lifetime) if lifetime else None)

    def _refused(self, answer: ProviderAnswer) -> Exception:
        if answer.is_success and not error_code(answer) and answer.document() is not None:
            # A login that answers 200 and no token has not accepted the credentials, or the manifest looks in a wrong place.
            return AuthenticationError(
                f"{self._provider.host} answers the login without a token in {self._login.token!r}: it refuses {self._names};"
                " put valid values into the Secret"
            )
        return self._provider.refused(answer, self._names)

    def _token_of(self, answer: ProviderAnswer) -> str | None:
        place, name = self._login.token_in or "body", self._login.token
        if place == "header":
            found: JsonValue = answer.headers.get(name)
        elif place == "cookie":
            found = _cookie(answer.headers, name)
        else:
            found = answer.document()
            for key in name.split("."):
                found = found.get(key) if isinstance(found, dict) else None
        if isinstance(found, bool) or not isinstance(found, str | int):
            return None
        text = str(found).strip()
        return text if text.isprintable() and text.isascii() and 0 < len(text) <= MOST_CHARACTERS else None

    def put(self, request: httpx.Request, token: str) -> None:
        """Put the token where the manifest says."""
        put_key(request, self._login.send, token)

    def refusal(self) -> str:
        """Return that a fresh token is refused."""
        return f"the source refuses the token that {self._provider.host} has just issued: check the rights of {self._names}"


def _cookie(headers: httpx.Headers, name: str) -> str | None:
    for line in headers.get_list("Set-Cookie"):
        try:
            found = SimpleCookie(line).get(name)
        except CookieError:
            continue
        if found is not None:
            return found.value
    return None
