"""OAuth 2.0: tokens by client credentials, by a refresh token, and by a signed assertion."""

from __future__ import annotations

import base64
import math
import re
import ssl
import uuid
from collections.abc import Callable, Sequence
from datetime import timedelta
from http import HTTPStatus
from typing import Final
from urllib.parse import quote_plus, urlencode

from penstock_sdk.auth.base import AUTHORIZATION
from penstock_sdk.auth.keys import AssertionClock, SigningKey, client_ssl_context
from penstock_sdk.auth.provider import AnswerLostError, Provider, ProviderAnswer, error_code
from penstock_sdk.auth.shared_credentials import Issued, LoginContext
from penstock_sdk.auth.templates import text_of, url_of
from penstock_sdk.auth.tokens import Token, TokenAuth
from penstock_sdk.errors import AuthenticationError, ConfigError
from penstock_sdk.json_types import JsonObject
from penstock_sdk.manifest.authentication import (
    CLIENT_CREDENTIALS,
    DEFAULT_ALGORITHM,
    DEFAULT_CLIENT_AUTHENTICATION,
    ClientAuthentication,
    JwtBearerLogin,
    OAuth2Login,
    SigningAlgorithm,
)

JWT_BEARER = "urn:ietf:params:oauth:grant-type:jwt-bearer"
CLIENT_ASSERTION = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
ASSERTION_LIFE: Final = timedelta(minutes=5)
LONGEST_LIFETIME: Final = 366 * 86_400.0
TOKEN_TEXT = re.compile(r"[\x21-\x7e]{1,65536}")
UNCHECKED_SCOPES = frozenset({"openid", "offline_access", "profile", "email", "address", "phone"})
"""Scopes of OpenID Connect, which providers answer under other names or not at all."""
Form = dict[str, str]


class TokenEndpoint:
    """The token endpoint of an authorization server, and how the client proves its identity to it."""

    def __init__(
        self,
        url: str,
        context: LoginContext,
        client_authentication: ClientAuthentication,
        algorithm: SigningAlgorithm | None = None,
        kid: str | None = None,
    ) -> None:
        self._context, self._method, self._kid = context, client_authentication, kid
        self._key = SigningKey(context, algorithm or DEFAULT_ALGORITHM) if self._method == "private_key_jwt" else None
        self.ssl_context: ssl.SSLContext | None = (
            client_ssl_context(context) if self._method == "tls_client_auth" else None
        )
        self.provider = Provider(url, "tokenUrl", context, self.ssl_context)
        self.clock = AssertionClock()
        for name in self.client_credentials:
            context.credential(name)

    @property
    def client_credentials(self) -> tuple[str, ...]:
        """The names of the credentials that prove the client's identity."""
        if self._method == "none" and not self._context.credentials.get("client_id"):
            return ()
        return CLIENT_CREDENTIALS[self._method]

    def request(
        self, form: Callable[[], Form], sent: Sequence[str], scopes: Sequence[str], *, is_signed: bool = False
    ) -> JsonObject:
        """Return the answer to a token request. `sent` are the names of the credentials in the form.

        An assertion has the time of this machine. If the provider refuses it and its clock differs, it is signed again with
        the provider's time.
        """
        answer = self.post(form, is_signed=is_signed)
        document = token_document(answer)
        if document is None:
            raise self._refused(answer, sent)
        self.check(document, scopes)
        return document

    def post(
        self, form: Callable[[], Form], provider: Provider | None = None, *, is_signed: bool = False
    ) -> ProviderAnswer:
        """Send a form with the client's identity, and return the answer, whatever it says.

        `provider` is another endpoint of the same server, such as the one that issues device codes.
        """
        answer = self._post(form(), provider or self.provider)
        is_signed = is_signed or self._key is not None
        if (
            (not answer.is_success or error_code(answer))
            and is_signed
            and self.clock.follow(answer.headers.get("Date"))
        ):
            answer = self._post(form(), provider or self.provider)
        return answer

    def _post(self, form: Form, provider: Provider) -> ProviderAnswer:
        fields = dict(form)
        headers = {"Content-Type": "application/x-www-form-urlencoded", "Accept": "application/json"}
        self._identify(fields, headers)
        return provider.send("POST", headers=headers, content=urlencode(fields).encode())

    def _identify(self, form: Form, headers: dict[str, str]) -> None:
        """Add the client's identity to a request."""
        if not self.client_credentials:
            return
        client = self._context.credential("client_id").strip()
        if self._method == "client_secret_basic":
            pair = f"{quote_plus(client)}:{quote_plus(self._context.credential('client_secret').strip())}"
            headers[AUTHORIZATION] = f"Basic {base64.b64encode(pair.encode()).decode()}"
            return
        form.update(client_id=client)
        if self._method == "client_secret_post":
            form.update(client_secret=self._context.credential("client_secret").strip())
        if self._key is not None:
            claims: JsonObject = {"iss": client, "sub": client, "aud": self.provider.url}
            assertion = self._key.sign(self.dated(claims), self._kid)
            form.update(client_assertion_type=CLIENT_ASSERTION, client_assertion=assertion)

    def dated(self, claims: JsonObject) -> JsonObject:
        """Return claims with their times and an identifier."""
        now = self.clock.now()
        return {
            **claims,
            "iat": int(now.timestamp()),
            "exp": int((now + ASSERTION_LIFE).timestamp()),
            "jti": str(uuid.uuid4()),
        }

    def _refused(self, answer: ProviderAnswer, sent: Sequence[str]) -> Exception:
        code = error_code(answer)
        is_silent = not code and answer.status == HTTPStatus.BAD_REQUEST and not answer.is_html
        if "refresh_token" in sent and (code == "invalid_grant" or is_silent):
            return AuthenticationError(
                f"{self.provider.host} refuses refresh_token: it has expired, was revoked, or was already used; authorize again,"
                " and put the new refresh_token into the Secret"
            )
        names = sent if code == "invalid_grant" and sent else (*self.client_credentials, *sent)
        skew = self.clock.skew(answer.headers.get("Date"))
        error = self.provider.refused(answer, " or ".join(dict.fromkeys(names)) or "the client")
        if abs(skew) > ASSERTION_LIFE.total_seconds():
            error.operator_message = f"the provider's clock differs by {skew:.0f} s"
        return error

    def check(self, document: JsonObject, scopes: Sequence[str]) -> None:
        """Raise an error if the token of an answer is not usable, or lacks one of the scopes."""
        host = self.provider.host
        token = document.get("access_token")
        if not isinstance(token, str) or not TOKEN_TEXT.fullmatch(token):
            raise ConfigError(f"the answer of {host} to the login has no usable access_token: correct tokenUrl")
        kind = document.get("token_type", "Bearer")
        if not isinstance(kind, str) or kind.lower() not in ("bearer", ""):
            raise ConfigError(f"{host} issues tokens of another type than Bearer, which no connector can use")
        granted = document.get("scope")
        if isinstance(granted, str) and granted.strip():
            missing = set(scopes) - set(re.split(r"[\s,]+", granted)) - UNCHECKED_SCOPES
            if missing:
                listed = ", ".join(sorted(missing))
                raise AuthenticationError(
                    f"{host} issues a token without the scope {listed}: grant the scope to the client, and authorize again"
                )

    def issued(self, document: JsonObject, credential: str = "") -> Issued:
        """Return the token of an answer, and the credential to use the next time. The values are masked from here on."""
        token = str(document.get("access_token"))
        rotated = document.get("refresh_token")
        following = rotated if credential and isinstance(rotated, str) and rotated.strip() else credential
        for value in (token, following):
            if value:
                self._context.conceal(value)
        return Issued(following, token, _lifetime(document.get("expires_in")))


def token_document(answer: ProviderAnswer) -> JsonObject | None:
    """Return the document of an answer that is a token; None otherwise. Some providers answer HTTP 200 with an error inside."""
    document = answer.document()
    if not answer.is_success or document is None or "access_token" not in document or document.get("error"):
        return None
    return document


def _lifetime(value: object) -> float | None:
    """Return `expires_in` in seconds; None if it says nothing that can be relied on."""
    try:
        seconds = float(value) if isinstance(value, int | float | str) and not isinstance(value, bool) else math.nan
    except (ValueError, OverflowError):
        return None
    return min(seconds, LONGEST_LIFETIME) if seconds > 0 else None


def token_endpoint(login: OAuth2Login, context: LoginContext) -> TokenEndpoint:
    """Return the token endpoint of a description. Raises AuthenticationError if a credential of the client is missing."""
    return TokenEndpoint(
        url_of(login.token_url, context, "tokenUrl"),
        context,
        login.client_authentication or DEFAULT_CLIENT_AUTHENTICATION,
        login.algorithm,
        text_of(login.key_id, context, "keyId") if login.key_id else None,
    )


def request_parameters(login: OAuth2Login, context: LoginContext) -> Form:
    """Return the scope, the audience and the further parameters that a description requests."""
    found = {name: text_of(text, context, f"parameters.{name}") for name, text in login.parameters.items()}
    if login.scopes:
        found.update(scope=" ".join(login.scopes))
    if login.audience:
        found.update(audience=text_of(login.audience, context, "audience"))
    return found


class OAuth2Auth(TokenAuth):
    """A token of an authorization server: by client credentials, or by a refresh token that may be replaced at each use."""

    def __init__(self, context: LoginContext, login: OAuth2Login) -> None:
        super().__init__()
        self._context, self._login = context, login
        self._endpoint = token_endpoint(login, context)
        self.ssl_context = self._endpoint.ssl_context
        self._parameters = request_parameters(login, context)
        self._refresh = None if login.flow == "clientCredentials" else context.shared("refresh_token")

    def fetch(self, refused: str | None) -> Token:
        """Obtain a token."""
        if self._refresh is None:
            form = {**self._parameters, "grant_type": "client_credentials"}
            issued = self._endpoint.issued(self._endpoint.request(lambda: form, (), self._login.scopes))
        else:
            issued = self._refresh.issue(refused, self._refreshed)
        return Token.issued(issued.token, issued.lifetime, issued.age)

    def _refreshed(self, refresh_token: str) -> Issued:
        form = {**self._parameters, "grant_type": "refresh_token", "refresh_token": refresh_token.strip()}

        def request() -> JsonObject:
            return self._endpoint.request(lambda: form, ("refresh_token",), self._login.scopes)

        try:
            document = request()
        except AnswerLostError:
            # The provider may have replaced the token in the answer that was lost. Providers accept the old one for a short
            # time for this case; otherwise nothing is lost by asking again, as nobody has the new one.
            document = request()
        return self._endpoint.issued(document, refresh_token)

    def refusal(self) -> str:
        """Return that a fresh token is refused."""
        return (
            f"the source refuses the token that {self._endpoint.provider.host} has just issued: check the scopes and the audience"
            " that the client may request, and that the client is allowed at the source"
        )


class JwtBearerAuth(TokenAuth):
    """A token for an assertion that is signed with the credential private_key (RFC 7523)."""

    def __init__(self, context: LoginContext, login: JwtBearerLogin) -> None:
        super().__init__()
        self._login, self._context = login, context
        algorithm = login.algorithm or DEFAULT_ALGORITHM
        self._key = SigningKey(context, algorithm)
        url = url_of(login.token_url, context, "tokenUrl")
        self._endpoint = TokenEndpoint(url, context, login.client_authentication or "none", algorithm)
        self.ssl_context = self._endpoint.ssl_context
        issuer = login.issuer or "{{credentials.client_id}}"
        self._claims: JsonObject = {
            "iss": text_of(issuer, context, "issuer"),
            "sub": text_of(login.subject or issuer, context, "subject"),
            "aud": text_of(login.audience, context, "audience") if login.audience else url,
            **({"scope": " ".join(login.scopes)} if login.scope_claim and login.scopes else {}),
        }
        self._kid = text_of(login.key_id, context, "keyId") if login.key_id else None

    def fetch(self, refused: str | None) -> Token:
        """Exchange an assertion for a token."""
        del refused
        document = self._endpoint.request(self._form, ("private_key",), self._login.scopes, is_signed=True)
        issued = self._endpoint.issued(document)
        return Token.issued(issued.token, issued.lifetime)

    def _form(self) -> Form:
        form = {
            "grant_type": JWT_BEARER,
            "assertion": self._key.sign(self._endpoint.dated(self._claims), self._kid),
        }
        if self._login.scopes and not self._login.scope_claim:
            form.update(scope=" ".join(self._login.scopes))
        return form

    def refusal(self) -> str:
        """Return that a fresh token is refused."""
        return (
            f"the source refuses the token that {self._endpoint.provider.host} has just issued for private_key: check the subject"
            " and the scopes that the key may request"
        )
