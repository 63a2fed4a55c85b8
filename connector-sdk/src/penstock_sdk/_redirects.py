"""Redirects: which request follows a redirect, and which hosts get credentials.

The rule is one for `penstock_sdk.http.Client` and `penstock_sdk.auth.Auth.client`:

- A redirect on the same host, scheme and port is followed with the credentials.
- A redirect to another host is followed without credentials, cookies and the client's own headers and parameters, and never
  with a body.
- A redirect from https to http, to another protocol, or the sixth in a row is a SourceContractError.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from http import HTTPStatus

import httpx

from penstock_sdk.errors import SourceContractError

MAX_REDIRECTS = 5
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
KEPT_HEADERS = ("Accept", "Content-Type")
INVALID_LOCATION = "in location header"
"""In the error that httpx raises when it parses a Location, also if it does not follow redirects."""
KEEPS_METHOD = frozenset({HTTPStatus.TEMPORARY_REDIRECT, HTTPStatus.PERMANENT_REDIRECT})
PUBLIC_HEADERS = frozenset({
    "accept", "accept-encoding", "connection", "content-encoding", "content-length", "content-type", "host",
    "transfer-encoding", "user-agent",
})  # fmt: skip
"""The headers that a request to another host keeps."""


def origin_of(url: httpx.URL) -> tuple[str, str, int]:
    """Return scheme, host and port of a URL. Credentials for one URL may be sent to the URLs of the same origin."""
    return url.scheme, url.host.lower(), url.port or (443 if url.scheme == "https" else 80)


def place_of(request: httpx.Request) -> str:
    """Return how messages name the response to a request. The query is left out, as it may hold a key."""
    return f"the response to {request.method} {request.url.path[:200]}"


@dataclass(frozen=True, slots=True)
class Redirected:
    """The request that follows a redirect, before a client adds what it sends with every request to its own host."""

    method: str
    url: httpx.URL
    content: bytes | None = None
    headers: dict[str, str] = field(default_factory=dict)


def responses_until_last(
    request: httpx.Request,
    origin: tuple[str, str, int],
    send: Callable[[httpx.Request], httpx.Response],
    build: Callable[[Redirected], httpx.Request],
) -> list[httpx.Response]:
    """Send a request, follow redirects, and return all responses. All but the last are closed.

    `origin` is the host that gets credentials. `build` makes the request that follows a redirect.
    """
    place = place_of(request)
    responses: list[httpx.Response] = []
    for _ in range(MAX_REDIRECTS + 1):
        try:
            response = send(request)
        except httpx.RemoteProtocolError as error:
            if INVALID_LOCATION not in str(error):
                raise
            raise SourceContractError(f"{place} is redirected to an address that is not valid") from None
        responses.append(response)
        if not response.has_redirect_location:
            return responses
        response.close()
        request = build(_redirected(request, response, origin, place))
    raise SourceContractError(f"{place} is redirected more than {MAX_REDIRECTS} times")


def _redirected(
    request: httpx.Request, response: httpx.Response, origin: tuple[str, str, int], place: str
) -> Redirected:
    url = _target(request, response, place)
    keeps_method = response.status_code in KEEPS_METHOD or request.method in SAFE_METHODS
    method = request.method if keeps_method else "GET"
    has_body = method == request.method and method not in SAFE_METHODS
    if origin_of(url) != origin:
        if has_body:
            raise SourceContractError(
                f"{place} is redirected to another host, {url.host}, and the body of a {method} is not sent there"
            )
        return Redirected(method, url, headers={"Accept": request.headers.get("Accept", "*/*")})
    kept = {name: request.headers[name] for name in KEPT_HEADERS if name in request.headers}
    try:
        return Redirected(method, url, request.content if has_body else None, kept)
    except httpx.RequestNotRead:
        raise SourceContractError(f"{place} is redirected, and a streamed body cannot be sent twice") from None


def _target(request: httpx.Request, response: httpx.Response, place: str) -> httpx.URL:
    url = request.url.join(response.headers.get("Location", ""))
    if url.scheme not in ("http", "https"):
        raise SourceContractError(f"{place} is redirected to {url.scheme!r}, which is not HTTP")
    if not url.host:
        raise SourceContractError(f"{place} has a redirect that leads to no host")
    if request.url.scheme == "https" and url.scheme == "http":
        raise SourceContractError(f"{place} is redirected from https to http: {url.host}")
    return url


class OneHostClient(httpx.Client):
    """An httpx client that sends its login, headers and cookies to one host only: that of its base URL.

    Without a base URL, each request decides by itself: a redirect to another host than that of the request gets none.
    """

    def send(self, request: httpx.Request, **options: object) -> httpx.Response:
        """Send a request, and follow redirects if the client or the caller asks for it."""
        follow = options.pop("follow_redirects", httpx.USE_CLIENT_DEFAULT)
        follow = self.follow_redirects if follow is httpx.USE_CLIENT_DEFAULT else follow
        origin = origin_of(self.base_url if self.base_url.host else request.url)

        def send(request: httpx.Request) -> httpx.Response:
            if origin_of(request.url) == origin:
                return super(OneHostClient, self).send(request, follow_redirects=False, **options)  # type: ignore[arg-type]
            for name in [name for name in request.headers if name not in PUBLIC_HEADERS]:
                del request.headers[name]
            return super(OneHostClient, self).send(request, follow_redirects=False, **{**options, "auth": None})  # type: ignore[arg-type]

        def build(redirected: Redirected) -> httpx.Request:
            return self.build_request(
                redirected.method, redirected.url, content=redirected.content, headers=redirected.headers
            )

        if not follow:
            return send(request)
        *history, last = responses_until_last(request, origin, send, build)
        last.history = history
        return last
