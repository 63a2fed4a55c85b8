"""The client of an HTTP source: requests, and the error class of everything that can go wrong with one."""

from __future__ import annotations

import functools
import re
import ssl
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import metadata
from types import TracebackType
from typing import Self, TypeVar
from urllib.parse import quote

import httpx
import msgspec

from penstock_sdk import _waiting
from penstock_sdk._redirects import SAFE_METHODS, origin_of
from penstock_sdk.errors import ConfigError, SourceContractError
from penstock_sdk.http.body_decoding import ACCEPTED_ENCODINGS
from penstock_sdk.http.delivery import ClientLimits, Delivery, Session
from penstock_sdk.http.paged_request import PagedRequest, Parameter
from penstock_sdk.http.paginators import Paginator, SinglePage
from penstock_sdk.http.paging import read_pages
from penstock_sdk.http.rate_limits import RateLimiter, default_rate_limiter
from penstock_sdk.http.record_page import RecordPage
from penstock_sdk.http.response import Response
from penstock_sdk.http.response_rules import ResponseRule
from penstock_sdk.json_types import JsonValue

T = TypeVar("T")
ANY_CREDENTIALS = "the Secret"
ABSOLUTE = re.compile(r"https?://", re.IGNORECASE)


class Client:
    """Sends requests to one source, below `base_url`.

    It raises a ConnectorError for every response that is not usable. After 429 and 503 it waits as long as the source asks,
    up to `limits.longest_wait`, and sends the request again; the attempt goes on. A response without Retry-After is followed
    by waits of 1, 2, 4, … 60 seconds.

    - `auth`: any `httpx.Auth`. It and `headers`, `params` and cookies are sent to the host of `base_url` only: neither a
      redirect nor an absolute URL takes them to another host.
    - `errors`: rules for responses whose status does not say what is wrong; see `ResponseRule`.
    - `credentials`: what messages about refused credentials name, such as "the Secret's key 'token'".
    - `rate_limit`: keeps requests within the source's rate limit. By default, the budget of the manifest's `rateLimits` is
      shared with all connections to the source, and the client waits when the headers of a response say that no request remains.
    - `tls`: a context for a private certificate authority or a client certificate; by default that of `auth`, if it has one.
    - `transport`, `wait`, `clock`: for tests.

    Requests go through the egress gateway, as those of any httpx client. A client can be used by several threads, if `auth`
    can.
    """

    def __init__(
        self,
        base_url: str,
        *,
        auth: httpx.Auth | None = None,
        headers: Mapping[str, str] | None = None,
        params: Mapping[str, Parameter] | None = None,
        errors: Sequence[ResponseRule] = (),
        limits: ClientLimits = ClientLimits(),  # noqa: B008 - frozen
        credentials: str = ANY_CREDENTIALS,
        rate_limit: RateLimiter | None = None,
        tls: ssl.SSLContext | None = None,
        transport: httpx.BaseTransport | None = None,
        wait: Callable[[float], None] = _waiting.wait,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        verify = tls or getattr(auth, "ssl_context", None) or _trusted_authorities()
        common = {
            "Accept-Encoding": ACCEPTED_ENCODINGS,
            "User-Agent": f"penstock-sdk/{metadata.version('penstock-sdk')}",
        }
        own_headers = {**common, **(headers or {})}
        self._params = _sent(params or {})
        base = _base_url(base_url)
        _, host, port = origin_of(base)
        self._session = Session(
            base=base,
            auth=auth,
            errors=tuple(errors),
            limits=limits,
            credentials=credentials,
            rate_limit=rate_limit
            or default_rate_limiter(host, port, longest_wait=limits.longest_wait, wait=wait, clock=clock),
            wait=wait,
            clock=clock,
            own_host_client=httpx.Client(
                headers=own_headers, timeout=limits.timeout, verify=verify, transport=transport
            ),
            other_hosts_client=httpx.Client(headers=common, timeout=limits.timeout, verify=verify, transport=transport),
        )

    @property
    def base_url(self) -> str:
        """The address below which paths are."""
        return str(self._session.base)

    @property
    def limits(self) -> ClientLimits:
        """The limits of time and size."""
        return self._session.limits

    @property
    def credentials(self) -> str:
        """What messages about refused credentials name."""
        return self._session.credentials

    @credentials.setter
    def credentials(self, text: str) -> None:
        self._session.credentials = text

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections."""
        self._session.own_host_client.close()
        self._session.other_hosts_client.close()

    def wait(self, seconds: float) -> None:
        """Wait between two requests, such as two polls of a job. The wait ends when the attempt has to end."""
        self._session.wait(seconds)

    def get(
        self,
        path: str,
        *,
        params: Mapping[str, Parameter] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Response:
        """Send a GET request. `path` is relative to `base_url`; an absolute URL of another host gets no credentials."""
        return self.request("GET", path, params=params, headers=headers)

    def post(
        self,
        path: str,
        *,
        json: JsonValue = None,
        form: Mapping[str, str] | None = None,
        params: Mapping[str, Parameter] | None = None,
        headers: Mapping[str, str] | None = None,
        only_reads: bool = False,
    ) -> Response:
        """Send a POST request with a JSON body or a form. Set `only_reads` for a search, which can be sent twice."""
        return self.request("POST", path, params=params, json=json, form=form, headers=headers, only_reads=only_reads)

    def request(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, Parameter] | None = None,
        json: JsonValue = None,
        form: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        only_reads: bool | None = None,
    ) -> Response:
        """Send a request and return the whole response. Raises a ConnectorError if it is not usable.

        A request that `only_reads` (by default GET, HEAD and OPTIONS) is sent again if the source does not respond to it or
        fails; any other only if it was certainly not handled.
        """
        request = self._build(method, path, params, json, form, headers)
        may_repeat = method.upper() in SAFE_METHODS if only_reads is None else only_reads
        return Delivery(self._session, request, may_repeat=may_repeat).response()

    def pages(
        self,
        path: str,
        *,
        paginator: Paginator = SinglePage(),  # noqa: B008 - frozen
        records: str = "",
        params: Mapping[str, Parameter] | None = None,
        method: str = "GET",
        json: JsonValue = None,
        allow_equal_pages: bool = False,
    ) -> Iterator[RecordPage]:
        """Yield the pages of an endpoint, each as soon as it is read.

        `records` is the path of the list of records in the body, such as "data.items"; "" if the body is the list. A request
        with another method than GET must be a search, which can be sent twice. Raises SourceContractError if the source leads
        back to a request that was already sent, or returns the records of an earlier page again. Set `allow_equal_pages` if
        the records have no key, so that two pages can be equal.
        """

        def send(request: PagedRequest) -> Response:
            return self.request(request.method, request.path, params=request.params, json=request.json, only_reads=True)

        first = PagedRequest(path, dict(params or {}), method, json)
        return read_pages(send, first, paginator, records, allow_equal_pages=allow_equal_pages)

    def linked_pages(
        self,
        path: str,
        parse: Callable[[Response], tuple[T, str | None]],
        *,
        params: Mapping[str, Parameter] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Iterator[T]:
        """Yield the pages of an endpoint whose pages are not JSON, such as XML, and link to the next page.

        `parse` returns the content of a page, and the link to the next page: an absolute or relative URL, or None on the last
        page. Raises SourceContractError if a link leads back to a page that was already requested, or to another host.
        """
        url: str | None = path
        requested = set[str]()
        while url is not None:
            response = self.get(url, params=None if requested else params, headers=headers)
            requested.update((url, str(response.url)))
            content, link = parse(response)
            yield content
            url = None if link is None else response.next_url(link)
            if url in requested:
                raise SourceContractError(
                    f"{response.place} links to a page that was already requested, so the paging never ends"
                )

    @contextmanager
    def stream(
        self,
        path: str,
        *,
        method: str = "GET",
        params: Mapping[str, Parameter] | None = None,
        json: JsonValue = None,
        headers: Mapping[str, str] | None = None,
    ) -> Iterator[Iterator[bytes]]:
        """Send a request, and give the body of the response in chunks of at most 64 KiB, decompressed.

        The body is not held in memory. The request is sent again as long as no chunk was taken.
        """
        request = self._build(method, path, params, json, None, headers)
        with Delivery(self._session, request, may_repeat=method.upper() in SAFE_METHODS).opened() as chunks:
            yield chunks

    def _build(
        self,
        method: str,
        path: str,
        params: Mapping[str, Parameter] | None,
        json: JsonValue,
        form: Mapping[str, str] | None,
        headers: Mapping[str, str] | None,
    ) -> httpx.Request:
        url = self._url(path)
        own = self._session.is_own_host(url)
        added = {**(self._params if own else {}), **_sent(params or {})}
        merged = url.copy_merge_params(added) if added else url  # a URL of the source stays as it is, byte by byte
        client = self._session.own_host_client if own else self._session.other_hosts_client
        content = None if json is None else msgspec.json.encode(json)
        kind = {"Content-Type": "application/json"} if content is not None else {}
        # A response of another kind than JSON is still accepted, as exports and downloads are.
        accept = (
            {} if "accept" in {name.lower() for name in headers or {}} else {"Accept": "application/json, */*;q=0.5"}
        )
        try:
            return client.build_request(
                method, merged, content=content, data=form, headers={**accept, **kind, **(headers or {})}
            )
        except (ValueError, TypeError, httpx.InvalidURL) as error:
            raise ConfigError(f"the request to {merged.path} cannot be sent: {error}") from None

    def _url(self, path: str) -> httpx.URL:
        try:
            if ABSOLUTE.match(path):
                return httpx.URL(path)
            base = self._session.base
            return httpx.URL(f"{str(base).rstrip('/')}/{path.lstrip('/')}") if path else base
        except httpx.InvalidURL as error:
            raise SourceContractError(f"{path[:200]!r} is not a valid URL: {error}") from None


@functools.cache
def _trusted_authorities() -> ssl.SSLContext:
    """Return the context of all clients: reading the certificates takes 40 ms."""
    return httpx.create_ssl_context()


def url_path(*segments: str | int) -> str:
    """Return a path of segments, each quoted: a "/" or "?" inside an identifier stays in its segment.

    Raises SourceContractError for a segment that is empty, "." or "..", which would be another path.
    """
    for segment in segments:
        if str(segment) in ("", ".", ".."):
            raise SourceContractError(f"{str(segment)!r} cannot be a segment of a path")
    return "/".join(quote(str(segment), safe="") for segment in segments)


def _sent(params: Mapping[str, Parameter]) -> dict[str, str]:
    """Return parameters as text, without those that are None."""
    return {
        name: str(value).lower() if isinstance(value, bool) else str(value)
        for name, value in params.items()
        if value is not None
    }


def _base_url(text: str) -> httpx.URL:
    try:
        url = httpx.URL(text)
    except (httpx.InvalidURL, TypeError) as error:
        raise ConfigError(f"the address of the source is not a valid URL: {error}") from None
    if url.scheme not in ("http", "https") or not url.host:
        raise ConfigError(f"the address of the source must begin with https:// or http://, not {text[:100]!r}")
    if url.userinfo:
        raise ConfigError("the address of the source holds a user or a password; put them into the Secret")
    if url.query or url.fragment:
        raise ConfigError("the address of the source has a query or a fragment; leave out what follows its path")
    return url
