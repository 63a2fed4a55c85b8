"""One request until its response: waits, repeats and redirects."""

from __future__ import annotations

import random
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import httpx

from penstock_sdk._causes import chain_of_causes
from penstock_sdk._redirects import Redirected, origin_of, place_of, responses_until_last
from penstock_sdk._retry_after import retry_after
from penstock_sdk.errors import ConfigError, ConnectorError, SourceContractError, TransientError
from penstock_sdk.http.body_decoding import decoded_chunks
from penstock_sdk.http.rate_limit_headers import rate_limit_status
from penstock_sdk.http.rate_limits import RateLimiter
from penstock_sdk.http.response import Response
from penstock_sdk.http.response_rules import Failure, ResponseRule, failure_of

ERROR_BODY_BYTES = 64 * 1024
NEVER_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)
NO_TLS = ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "UNKNOWN_PROTOCOL", "RECORD_LAYER_FAILURE")
"""Reasons of OpenSSL for a server that does not speak TLS."""
DENIED_BY_GATEWAY = "403"


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientLimits:
    """How long requests may take, how large responses may be, and how long the client waits for the source.

    - `timeout`: seconds without a byte from the source, for the connection and for each part of the response.
    - `response_seconds`: seconds for a whole response that is held in memory.
    - `response_bytes`: the largest response that is held in memory, decompressed. A stream has no such limit.
    - `longest_wait`: seconds to wait for one request because of 429, 503 or a rate limit, all waits together. If the source
      asks for more, the attempt ends, and the platform starts another one at that time.
    - `tries`: how often a request that only reads is sent if the source does not respond to it or fails (500, 502, 504).
    """

    timeout: float = 30.0
    response_seconds: float = 300.0
    response_bytes: int = 64 * 1024 * 1024
    longest_wait: float = 300.0
    tries: int = 3

    def __post_init__(self) -> None:
        for name in self.__slots__:
            value = getattr(self, name)
            if not value > 0 and not (name == "longest_wait" and value == 0):
                raise ValueError(f"ClientLimits.{name} is {value}; it must be greater than 0")


@dataclass(slots=True, kw_only=True)
class Session:
    """The settings of a client, and its connections."""

    base: httpx.URL
    auth: httpx.Auth | None
    errors: tuple[ResponseRule, ...]
    limits: ClientLimits
    credentials: str
    rate_limit: RateLimiter
    wait: Callable[[float], None]
    clock: Callable[[], float]
    own_host_client: httpx.Client
    other_hosts_client: httpx.Client
    """Sends requests to other hosts, without credentials."""

    def is_own_host(self, url: httpx.URL) -> bool:
        """Return True if credentials may be sent to a URL: its scheme, host and port are those of the base URL."""
        return origin_of(url) == origin_of(self.base)


class Delivery:
    """One request until its response: waits, repeats and redirects."""

    def __init__(self, session: Session, request: httpx.Request, *, may_repeat: bool) -> None:
        self._session = session
        self._request = request
        self._may_repeat = may_repeat
        self._place = place_of(request)
        self._waited, self._busy, self._failures = 0.0, 0, 0

    def response(self) -> Response:
        """Return the usable response with its body."""
        while True:
            try:
                with self._sent() as response:
                    loaded = self._loaded(response)
            except httpx.TransportError as error:
                self._repeat_after(self._error_of(error), may_repeat=self._may_repeat_after(error))
                continue
            except TransientError as error:  # the body ended early
                self._repeat_after(error, may_repeat=self._may_repeat)
                continue
            failure = self._failure_of(loaded)
            if failure is None:
                return loaded
            self._repeat_or_raise(failure, loaded.headers)

    @contextmanager
    def opened(self) -> Iterator[Iterator[bytes]]:
        """Give the chunks of the usable response's body."""
        while True:
            with self._sent_or_repeated() as response:
                if response is None:
                    continue
                if response.is_success and not self._has_error_header(response):
                    yield self._chunks(response, self._place)
                    return
                loaded = self._loaded(response)
                failure = self._failure_of(loaded)
            unusable = Failure(SourceContractError(f"{self._place} is HTTP {loaded.status}"))
            self._repeat_or_raise(failure or unusable, loaded.headers)

    def _failure_of(self, response: Response) -> Failure | None:
        return failure_of(response, self._session.errors, self._session.credentials)

    def _has_error_header(self, response: httpx.Response) -> bool:
        """Return True if a rule matches without the body: a stream's body is not looked into."""
        seen = Response(response.status_code, response.headers, b"", response.url, self._place)
        return any(rule.field is None and rule.matches(seen) for rule in self._session.errors)

    @contextmanager
    def _sent_or_repeated(self) -> Iterator[httpx.Response | None]:
        try:
            sent = self._send()
        except httpx.TransportError as error:
            self._repeat_after(self._error_of(error), may_repeat=self._may_repeat_after(error))
            yield None
            return
        try:
            yield sent
        finally:
            sent.close()

    @contextmanager
    def _sent(self) -> Iterator[httpx.Response]:
        sent = self._send()
        try:
            yield sent
        finally:
            sent.close()

    def _send(self) -> httpx.Response:
        """Send the request, and follow redirects. The response has no body yet."""
        request = _copy(self._request)  # an `auth` changes the request that it gets
        return responses_until_last(request, origin_of(self._session.base), self._send_once, self._build)[-1]

    def _send_once(self, request: httpx.Request) -> httpx.Response:
        session = self._session
        try:
            if session.is_own_host(request.url):
                session.rate_limit.acquire()
                response = session.own_host_client.send(request, auth=session.auth, stream=True)
                session.rate_limit.observe(response.headers)
            else:
                response = session.other_hosts_client.send(request, stream=True)
        except (httpx.UnsupportedProtocol, httpx.LocalProtocolError, httpx.InvalidURL) as error:
            raise ConfigError(f"the address {request.url.host!r} cannot be used: {error}") from None
        except httpx.DecodingError:  # an `auth` reads the whole response itself
            raise SourceContractError(f"{self._place} is not encoded as its Content-Encoding says") from None
        return response

    def _build(self, redirected: Redirected) -> httpx.Request:
        session = self._session
        client = session.own_host_client if session.is_own_host(redirected.url) else session.other_hosts_client
        return client.build_request(
            redirected.method, redirected.url, content=redirected.content, headers=redirected.headers
        )

    def _loaded(self, response: httpx.Response) -> Response:
        """Return the response with its body, within the limits."""
        limits, began, found = self._session.limits, self._session.clock(), bytearray()
        limit = limits.response_bytes if response.is_success else ERROR_BODY_BYTES
        for chunk in self._chunks(response, self._place) if response.request.method != "HEAD" else ():
            found += chunk
            if len(found) > limit and not response.is_success:
                break  # only its beginning is shown
            if len(found) > limit:
                raise SourceContractError(
                    f"{self._place} is larger than {limit:,} bytes: ask for smaller pages, or read it with stream()"
                )
            if self._session.clock() - began > limits.response_seconds:
                raise TransientError(f"{self._place} was not complete after {limits.response_seconds:g} seconds")
        return Response(response.status_code, response.headers, bytes(found), response.url, self._place)

    def _chunks(self, response: httpx.Response, place: str) -> Iterator[bytes]:
        if response.is_stream_consumed:  # an `auth` has read it
            yield response.content
            return
        try:
            yield from decoded_chunks(response.iter_raw(), response.headers.get("Content-Encoding", ""), place)
        except httpx.TransportError as error:
            raise self._error_of(error) from None

    def _repeat_or_raise(self, failure: Failure, headers: httpx.Headers) -> None:
        """Wait before the request is sent again, or raise the error."""
        if isinstance(failure.error, TransientError) and failure.asks_to_wait:
            self._wait_as_asked(failure.error, headers)
        else:
            self._repeat_after(failure.error, may_repeat=self._may_repeat)

    def _wait_as_asked(self, error: TransientError, headers: httpx.Headers) -> None:
        status = rate_limit_status(headers)
        asked = retry_after(headers)
        if asked is None and status is not None and status.remaining <= 0:
            asked = status.reset_seconds
        seconds = asked or self._backoff(self._busy)
        self._busy += 1
        if self._waited + seconds > self._session.limits.longest_wait:
            raise TransientError(error.message, retry_after=None if asked is None else max(asked, 1.0))
        self._waited += seconds
        self._session.wait(seconds)

    def _may_repeat_after(self, error: httpx.TransportError) -> bool:
        """Return True if the request was never sent, or only reads; not if the source was too slow, as it has to do less then."""
        return isinstance(error, NEVER_SENT) or (self._may_repeat and not isinstance(error, httpx.TimeoutException))

    def _repeat_after(self, error: ConnectorError, *, may_repeat: bool) -> None:
        """Wait, if the request can be sent again; otherwise raise the error."""
        self._failures += 1
        is_final = not isinstance(error, TransientError) or not may_repeat
        if is_final or self._failures >= self._session.limits.tries:
            raise error
        self._session.wait(self._backoff(self._failures - 1))

    @staticmethod
    def _backoff(number: int) -> float:
        return float(min(2 ** min(number, 6), 60)) * random.uniform(0.8, 1.0)  # noqa: S311 - spreads clients

    def _error_of(self, error: httpx.TransportError) -> ConnectorError:
        """Return the error of a request that got no response."""
        host = _host_of(error, self._request)
        if isinstance(error, httpx.ProxyError) and str(error).startswith(DENIED_BY_GATEWAY):
            return ConfigError(
                f"the egress gateway denied {host}: declare it in network.egress of the manifest, or correct spec.config"
            )
        refused = _tls_error(error)
        if refused is not None:
            return _error_of_tls(refused, host)
        detail = repr(error)
        if isinstance(error, httpx.ConnectTimeout | httpx.PoolTimeout):
            return TransientError(f"{host} accepts no connection", operator_message=detail)
        if isinstance(error, httpx.TimeoutException):
            return TransientError(
                f"{self._place}: {host} did not respond for {self._session.limits.timeout:g} seconds",
                operator_message=detail,
            )
        if isinstance(error, httpx.RemoteProtocolError):
            return TransientError(f"{self._place} ended before it was complete", operator_message=detail)
        return TransientError(f"{host} does not answer: {type(error).__name__}", operator_message=detail)


def _host_of(error: httpx.TransportError, request: httpx.Request) -> str:
    """Return the host that a request went to, which a redirect can have changed."""
    try:
        return error.request.url.host
    except RuntimeError:  # httpx knows no request of this error
        return request.url.host


def _copy(request: httpx.Request) -> httpx.Request:
    return httpx.Request(
        request.method, request.url, headers=request.headers, content=request.read(), extensions=request.extensions
    )


def _tls_error(error: BaseException) -> ssl.SSLError | None:
    """Return the error of the TLS handshake that the config causes, from the chain of causes."""
    for cause in chain_of_causes(error):
        if isinstance(cause, ssl.SSLCertVerificationError):
            return cause
        if isinstance(cause, ssl.SSLError) and cause.reason in NO_TLS:
            return cause
    return None


def _error_of_tls(error: ssl.SSLError, host: str) -> ConfigError:
    if isinstance(error, ssl.SSLCertVerificationError):
        reason = error.verify_message.rstrip(".")
        message = (
            f"the certificate of {host} is not valid ({reason}): correct the address in the config, or the certificate;"
            " name a private certificate authority in spec.tls.caCertificates"
        )
    else:
        message = f"{host} does not respond with TLS: correct the address in the config (http:// or another port)"
    return ConfigError(message, operator_message=repr(error))
