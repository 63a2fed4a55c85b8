"""Sends requests, and resumes downloads: one HTTP client for S3 and for HTTP servers.

S3's protocol is HTTP with signed headers. So the same code checks versions (ETag, If-Match), resumes after a broken
connection (Range) and honours Retry-After for both.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

import httpx
from httpx_auth import AWS4Auth
from penstock_sdk import AuthenticationError, ConfigError, ConnectorError, SourceContractError, TransientError

from penstock_files_object.circuit_breaker import CircuitBreaker
from penstock_files_object.config import FilesConfig, FilesCredentials, display_path
from penstock_files_object.error_mapping import (
    FileChangedError,
    MissingFileError,
    RequestContext,
    ServerUnavailableError,
    ThrottledError,
    file_changed,
    response_error,
)
from penstock_files_object.file_cursor import File
from penstock_files_object.file_response import ByteSpan, FileResponse, check_same_version

READ_BYTES = 256 * 1024
RECONNECTS = 3
"""Times that a broken connection is opened again without any byte in between."""
ERROR_BODY_BYTES = 4096
BROKEN_CONNECTION = (httpx.NetworkError, httpx.RemoteProtocolError)
"""Errors after which a download resumes. A timeout is not one of them: each further request would wait as long again."""


class Transport:
    """The HTTP client with the credentials of the connection."""

    def __init__(self, config: FilesConfig, credentials: FilesCredentials) -> None:
        self._config = config
        self.endpoint = (config.endpoint or f"https://s3.{config.region}.amazonaws.com").rstrip("/")
        self._s3 = _s3_auth(config, credentials)
        self._http = _http_auth(credentials)
        self._circuit_breaker = CircuitBreaker(self.endpoint)
        self._client = httpx.Client(
            timeout=httpx.Timeout(config.timeout_seconds), headers={"Accept-Encoding": "identity"}, trust_env=True
        )

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def url(self, path: str) -> str:
        """Return the URL of a path. S3 URLs have the bucket in the path, which every S3-compatible store supports."""
        if not path.startswith("s3://"):
            return path
        return f"{self.endpoint}/{quote(path.removeprefix('s3://'), safe='/')}"

    @contextmanager
    def request(
        self, method: str, path: str, headers: dict[str, str] | None = None, query: str = ""
    ) -> Iterator[httpx.Response]:
        """Send a request and give its response, if the status is 200 or 206. Raises the SDK error for any other status."""
        auth = self._s3 if path.startswith("s3://") else self._http
        self._circuit_breaker.check(path)
        with self._recorded_failures(path):
            request = self._client.build_request(method, self.url(path) + query, headers=headers)
            response = self._client.send(
                request, auth=auth or httpx.Auth(), stream=True, follow_redirects=self._config.follow_redirects
            )
        try:
            if response.status_code not in (HTTPStatus.OK, HTTPStatus.PARTIAL_CONTENT):
                raise self._response_error(response, path)
            self._circuit_breaker.record_success(path)
            yield response
        finally:
            response.close()

    def get(self, path: str, query: str) -> bytes:
        """Return the body of a small response."""
        with self.request("GET", path, query=query) as response, self._recorded_failures(path):
            return response.read()

    def head(self, path: str) -> FileResponse:
        """Return a file's headers. If the server refuses HEAD, a GET is sent and its body is not read."""
        try:
            with self.request("HEAD", path) as response:
                return FileResponse(response)
        except (ConfigError, AuthenticationError, SourceContractError):
            with self.request("GET", path) as response:
                return FileResponse(response)

    def content(self, file: File, start: int) -> Iterator[bytes]:
        """Yield a file's bytes from `start` on. If the connection breaks, the download resumes where it broke.

        Raises FileChangedError if the file is not the version that was listed, and SourceContractError if the server's
        responses contradict each other.
        """
        breaks = 0
        download = _Download(file)
        while not download.is_at_end(start):
            before, uses_ranges = start, download.uses_ranges
            try:
                for data in self._content(download, start):
                    yield data
                    start += len(data)
                    breaks = 0
            except TransientError as error:
                breaks += 1
                if breaks > RECONNECTS or not isinstance(error.__cause__, BROKEN_CONNECTION):
                    raise
                continue
            if uses_ranges != download.uses_ranges:
                continue
            if download.total is None or start >= download.total:
                return
            if start == before:
                raise SourceContractError(
                    f"{file.name}: the server sends no bytes after byte {start} of {download.total}; check the server, or"
                    " leave the file out of spec.config.streams.paths"
                )

    def _content(self, download: _Download, start: int) -> Iterator[bytes]:
        """Yield the bytes of one response, from `start` on."""
        range_header = {"Range": f"bytes={start}-"} if start and download.uses_ranges else {}
        with self._get(download.file, {**_version_condition(download.file), **range_header}) as response:
            file_response = FileResponse(response)
            at = download.begin(file_response, start)
            if at is None:
                return
            for data in response.iter_raw(READ_BYTES):
                rest = data[max(0, start - at) :]
                at += len(data)
                if rest:
                    yield rest
            if download.total is not None and at < download.expected_end(file_response):
                cause = httpx.RemoteProtocolError("the response ended before its length")
                raise TransientError(
                    f"{download.file.name}: the server's response ended at byte {at} of {download.total}",
                    scope="stream",
                ) from cause

    @contextmanager
    def _get(self, file: File, headers: dict[str, str]) -> Iterator[httpx.Response]:
        """Request a file's content, and check that it is the version that was listed."""
        try:
            with self.request("GET", file.path, headers) as response, self._recorded_failures(file.path):
                check_same_version(file, FileResponse(response))
                yield response
        except MissingFileError:
            raise FileChangedError(
                f"{display_path(file.path)}: it was deleted after it was listed; the next attempt lists the files again"
            ) from None

    def read_bytes(self, file: File, start: int, length: int) -> bytes | None:
        """Return `length` bytes of a file, fewer only at its end; None if the server does not support Range."""
        headers = {**_version_condition(file), "Range": f"bytes={start}-{start + length - 1}"}
        for retries_left in reversed(range(RECONNECTS + 1)):
            try:
                with self._get(file, headers) as response:
                    file_response = FileResponse(response)
                    span = file_response.span
                    if span is None or not span.first <= start < span.last + 1:
                        return None
                    file_response.refuse_encoding(file.path)
                    return _read_span(response, span, start, length)
            except TransientError as error:
                if not retries_left or not isinstance(error.__cause__, BROKEN_CONNECTION):
                    raise
        return None

    def _response_error(self, response: httpx.Response, path: str) -> ConnectorError:
        with self._recorded_failures(path):
            body = b"" if response.request.method == "HEAD" else next(response.iter_bytes(ERROR_BODY_BYTES), b"")
        auth = self._s3 if path.startswith("s3://") else self._http
        context = RequestContext(self.endpoint, self._config.region, with_credentials=auth is not None)
        error = response_error(response, body, path, context)
        if isinstance(error, ThrottledError):
            self._circuit_breaker.record_throttling(path, error)
        elif isinstance(error, ServerUnavailableError):
            self._circuit_breaker.record_failure(path, error)
        else:
            self._circuit_breaker.record_success(path)
        return error

    @contextmanager
    def _recorded_failures(self, path: str) -> Iterator[None]:
        """Raise httpx's errors as SDK errors, and count them for the circuit breaker."""
        try:
            with _mapped_errors(path):
                yield
        except ServerUnavailableError as error:
            self._circuit_breaker.record_failure(path, error)
            raise


def _s3_auth(config: FilesConfig, credentials: FilesCredentials) -> httpx.Auth | None:
    key, secret = credentials.access_key_id, credentials.secret_access_key
    if bool(key) != bool(secret):
        raise AuthenticationError("accessKeyId and secretAccessKey go together: put both into the Secret, or neither")
    if not key or not secret:
        return None
    _check_header("accessKeyId", key)
    _check_header("sessionToken", credentials.session_token or "")
    token = {"security_token": credentials.session_token} if credentials.session_token else {}
    return AWS4Auth(access_id=key, secret_key=secret, region=config.region, service="s3", **token)


def _http_auth(credentials: FilesCredentials) -> httpx.Auth | None:
    if credentials.token:
        _check_header("token", credentials.token)
        return _BearerAuth(credentials.token)
    if credentials.username and credentials.password:
        return httpx.BasicAuth(credentials.username, credentials.password)
    return None


def _check_header(name: str, value: str) -> None:
    if not value.isascii() or not value.isprintable() or value != value.strip():
        raise AuthenticationError(
            f"{name} in the Secret has a line break, a space at an end, or a character that an HTTP header cannot have;"
            " remove it"
        )


class _BearerAuth(httpx.Auth):
    """Sends a token in a header. httpx removes the header if a redirect leads to another server."""

    def __init__(self, token: str) -> None:
        self._token = token

    def auth_flow(self, request: httpx.Request) -> Any:
        """Add the header."""
        request.headers["Authorization"] = f"Bearer {self._token}"
        yield request


def _version_condition(file: File) -> dict[str, str]:
    """Return the If-Match header, with which the server refuses another version. It needs a strong ETag."""
    return {"If-Match": file.version} if file.version.startswith('"') else {}


class _Download:
    """What the responses so far say about one file's content."""

    def __init__(self, file: File) -> None:
        self.file = file
        self.uses_ranges = True
        self.total: int | None = None
        self._has_response = False
        self._encodings: tuple[str, ...] = ()

    def is_at_end(self, at: int) -> bool:
        """Return True if no bytes are left to request."""
        total = self.total if self._has_response else self.file.size
        return at > 0 and total is not None and at == total

    def begin(self, response: FileResponse, start: int) -> int | None:
        """Return the byte at which a response begins; None if it begins after `start`: the file is then requested whole."""
        response.refuse_encoding(self.file.path, allowed=("gzip", "x-gzip", "zstd"))
        if self._has_response and response.encodings != self._encodings:
            raise file_changed(self.file.path)
        span = response.span
        if response.status == HTTPStatus.PARTIAL_CONTENT and (span is None or span.first > start):
            if not self.uses_ranges:
                raise SourceContractError(
                    f"{self.file.name}: the server sends other bytes than were requested"
                    f" (Content-Range: {response.headers.get('content-range', 'none')!r}); check the server"
                )
            self.uses_ranges = False
            return None
        total = span.total if span else response.length
        listed = None if response.encodings else self.file.size
        if total is not None and listed and total != listed:
            raise file_changed(self.file.path)
        self._has_response, self._encodings = True, response.encodings
        self.total = listed or None if total is None else total
        return span.first if span else 0

    def expected_end(self, response: FileResponse) -> int:
        """Return the byte at which the response must end."""
        return response.span.last + 1 if response.span else self.total or 0


def _read_span(response: httpx.Response, span: ByteSpan, start: int, length: int) -> bytes:
    """Return `length` bytes from `start` on; the body may begin before `start`."""
    needed, body = start - span.first + length, bytearray()
    for data in response.iter_raw():
        body += data
        if len(body) >= needed:
            break
    if len(body) < min(needed, span.last + 1 - span.first):
        raise TransientError(
            "the server's response ended before its length", scope="stream"
        ) from httpx.RemoteProtocolError("too short")
    return bytes(body[start - span.first : needed])


@contextmanager
def _mapped_errors(path: str) -> Iterator[None]:
    path = display_path(path)
    try:
        yield
    except httpx.TimeoutException as error:
        raise ServerUnavailableError(
            f"{path}: no answer in time ({type(error).__name__}); if the server is slow, raise spec.config.timeoutSeconds",
            scope="stream",
        ) from error
    except (httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
        raise ConfigError(f"{path}: it is not a valid address: {error}; correct spec.config.streams.paths") from None
    except httpx.TooManyRedirects:
        raise ConfigError(
            f"{path}: the server redirects without end; correct the path in spec.config.streams.paths"
        ) from None
    except httpx.TransportError as error:
        raise ServerUnavailableError(
            f"{path}: the server cannot be reached, or the connection broke: {error}", scope="stream"
        ) from error
    except UnicodeError:
        raise ConfigError(
            f"{path}: the address or a header has a character that HTTP cannot carry; correct spec.config.streams.paths"
        ) from None
