"""The base of every login: credentials on a request, the answer 401, and redirects to other hosts."""

from __future__ import annotations

import re
import ssl
from abc import abstractmethod
from collections.abc import Callable, Generator, Mapping
from http import HTTPStatus
from typing import Any, ClassVar, Final, TypeAlias

import httpx

from penstock_sdk._redirects import OneHostClient, origin_of
from penstock_sdk.errors import AuthenticationError, TransientError

TIMEOUT_SECONDS: Final = 30.0
AUTHORIZATION = "Authorization"
REQUEST = "request"
INSUFFICIENT_SCOPE = re.compile(r"error=\"?insufficient_scope\"?", re.IGNORECASE)
NEEDED_SCOPE = re.compile(r"scope=\"([\x20-\x21\x23-\x5b\x5d-\x7e]{1,200})\"", re.IGNORECASE)
HeaderList: TypeAlias = list[tuple[bytes, bytes]]
Trace: TypeAlias = Callable[[str, dict[str, Any]], object]
"""A function that httpcore calls at each step of a request, with the name of the step."""


class Auth(httpx.Auth):
    """A login. Thread-safe: the workers of an attempt share one.

    `ssl_context` has the client certificate, for the logins that need one; `client` uses it.
    """

    credential_headers: ClassVar[frozenset[str]] = frozenset({"authorization"})
    """The headers, in lower case, that carry credentials of every instance of the class."""
    ssl_context: ssl.SSLContext | None = None

    def client(
        self,
        *,
        base_url: str = "",
        timeout: float = TIMEOUT_SECONDS,
        headers: Mapping[str, str] | None = None,
        follow_redirects: bool = False,
    ) -> httpx.Client:
        """Return a client that logs in by this login.

        No other host gets the credentials, the cookies or `headers`: neither by a redirect nor, with a `base_url`, by an
        absolute URL. `follow_redirects` follows redirects by the rule of `penstock_sdk.http.Client`.
        """
        return OneHostClient(
            auth=self,
            base_url=base_url,
            timeout=timeout,
            headers=headers,
            follow_redirects=follow_redirects,
            verify=True if self.ssl_context is None else self.ssl_context,
        )

    @abstractmethod
    def apply(self, request: httpx.Request) -> None:
        """Put the credentials on a request, and obtain them first if necessary."""

    def renew(self, request: httpx.Request, response: httpx.Response) -> bool:
        """Return True if the request should be sent again, because the login has newer credentials than those refused."""
        del request, response
        return False

    @abstractmethod
    def refusal(self) -> str:
        """Return the message for credentials that the source refuses: which ones, and the remedy."""

    def private_headers(self) -> frozenset[str]:
        """Return the headers, in lower case, that no other host may get."""
        return self.credential_headers

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """Send the request with the credentials, and a second time if they can be renewed."""
        can_repeat = isinstance(request.stream, httpx.ByteStream)
        origin = origin_of(request.url)
        self.apply(request)
        _keep_toorigin_of(request, self.private_headers())
        response = yield request
        if origin_of(response.request.url) != origin:
            return  # another host has answered, which got no credentials
        if self.renew(request, response):
            if not can_repeat:
                message = "the login has expired while a body was sent that cannot be sent twice; the next attempt sends it again"
                raise TransientError(message)
            self.apply(request)
            _keep_toorigin_of(request, self.private_headers())
            response = yield request
        if origin_of(response.request.url) == origin:
            self.check(response)

    def check(self, response: httpx.Response) -> None:
        """Raise AuthenticationError if the source refuses the credentials, or wants a scope that the token lacks."""
        if response.status_code == HTTPStatus.UNAUTHORIZED:
            raise AuthenticationError(self.refusal(), operator_message=f"HTTP 401 of {response.request.url.host}")
        challenge = response.headers.get("WWW-Authenticate", "")
        if response.status_code == HTTPStatus.FORBIDDEN and INSUFFICIENT_SCOPE.search(challenge):
            needed = NEEDED_SCOPE.search(challenge)
            scope = f"the scope {needed[1]!r}" if needed else "a scope that it lacks"
            message = f"the source accepts the login, but the request needs {scope}: grant it to the client, and authorize again"
            raise AuthenticationError(message, scope="stream")


def _keep_toorigin_of(request: httpx.Request, private: frozenset[str]) -> None:
    """Have the transport take private headers away from a request to another host than the request's.

    This is for clients that authors make themselves, as `httpx.Client(auth=..., follow_redirects=True)`; those of
    `Auth.client` and `penstock_sdk.http` follow redirects above the login (`penstock_sdk._redirects`). httpx follows them below
    it, with all headers but Authorization and Cookie, and hands the extensions of a request on. So the place that sees every
    request is httpcore, before it sends the headers.
    """
    names = frozenset(name.encode() for name in private)
    scheme, host = request.url.scheme.encode(), request.headers.get("Host", "").encode()
    before: Trace | None = request.extensions.get("trace")

    def trace(step: str, info: dict[str, Any]) -> object:
        if step.endswith(".send_request_headers.started"):
            sent = info[REQUEST]
            if _goes_elsewhere(sent.headers, bytes(sent.url.scheme), bytes(sent.url.target), scheme, host):
                sent.headers = [(name, value) for name, value in sent.headers if name.lower() not in names]
        return before(step, info) if before is not None else None

    request.extensions = {**request.extensions, "trace": trace}


def _goes_elsewhere(headers: HeaderList, sent_scheme: bytes, target: bytes, scheme: bytes, host: bytes) -> bool:
    """Return True if a request goes to another host, or without TLS where the first one had it."""
    through_proxy = target.startswith(b"http://")  # of an HTTP proxy, the URL is the proxy's own
    sent_scheme = b"http" if through_proxy else sent_scheme
    sent_host = next((value for name, value in headers if name.lower() == b"host"), b"")
    return (sent_scheme, sent_host.lower()) != (scheme, host.lower())
