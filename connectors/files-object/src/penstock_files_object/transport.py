"""Requests, and what their answers mean: one HTTP client for both kinds of store.

S3's protocol is plain HTTP with signed headers, so the same code follows versions (ETag, If-Match), goes on after a
broken connection (Range) and honours Retry-After for both.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

import httpx
from httpx_auth import AWS4Auth
from penstock_sdk import AuthenticationError, ConfigError, ConnectorError, SourceContractError, TransientError

from penstock_files_object.config import Config, Credentials, shown
from penstock_files_object.progress import File
from penstock_files_object.refusals import Asked, ChangedError, MissingError, changed, refusal

READ_BYTES = 256 * 1024
RECONNECTS = 3
MESSAGE_BYTES = 4096
BROKEN = (httpx.NetworkError, httpx.RemoteProtocolError)  # a silent server is not asked again: that is a timeout each


@dataclass(frozen=True)
class Answer:
    """What a server says of a file, without its content."""

    headers: httpx.Headers

    @property
    def etag(self) -> str:
        """The version, whether weak or strong."""
        return str(self.headers.get("etag", ""))

    @property
    def modified(self) -> int | None:
        """The moment of the last change, in milliseconds since 1970."""
        text = self.headers.get("last-modified")
        try:
            return int(parsedate_to_datetime(text).timestamp() * 1000) if text else None
        except ValueError:
            return None

    @property
    def size(self) -> int | None:
        """The whole file's bytes."""
        total = self.headers.get("content-range", "").rpartition("/")[2] or self.headers.get("content-length", "")
        return int(total) if total.isdecimal() else None

    @property
    def version(self) -> str:
        """What changes with the content, as far as the server says."""
        return self.etag or self.headers.get("last-modified") or f"{self.size} bytes"


class Transport:
    """The client, with what it is allowed to say to whom."""

    def __init__(self, config: Config, credentials: Credentials) -> None:
        self._config = config
        self.endpoint = (config.endpoint or f"https://s3.{config.region}.amazonaws.com").rstrip("/")
        self._s3 = _s3_auth(config, credentials)
        self._http = _http_auth(credentials)
        self._client = httpx.Client(
            timeout=httpx.Timeout(config.timeout_seconds), headers={"Accept-Encoding": "identity"}, trust_env=True
        )

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def url(self, path: str) -> str:
        """Return where a path is asked for; an S3 key goes byte for byte, a bucket by path, as every server knows it."""
        if not path.startswith("s3://"):
            return path
        return f"{self.endpoint}/{quote(path.removeprefix('s3://'), safe='/')}"

    @contextmanager
    def opened(
        self, method: str, path: str, headers: dict[str, str] | None = None, query: str = ""
    ) -> Iterator[httpx.Response]:
        """Send a request and give its answer, when it is a good one; raises the class that says what to do."""
        auth = self._s3 if path.startswith("s3://") else self._http
        request = self._client.build_request(method, self.url(path) + query, headers=headers)
        with _reached(path):
            response = self._client.send(
                request, auth=auth or httpx.Auth(), stream=True, follow_redirects=self._config.follow_redirects
            )
        try:
            if response.status_code >= HTTPStatus.MULTIPLE_CHOICES:
                raise self._refusal(response, path)
            yield response
        finally:
            response.close()

    def get(self, path: str, query: str) -> bytes:
        """Return a small answer's body."""
        with self.opened("GET", path, query=query) as response, _reached(path):
            return response.read()

    def head(self, path: str) -> Answer:
        """Return what the server says of a file; a GET that is not read, where it does not answer to HEAD."""
        try:
            with self.opened("HEAD", path) as response:
                return Answer(response.headers)
        except (ConfigError, AuthenticationError, SourceContractError):
            with self.opened("GET", path) as response:
                return Answer(response.headers)

    def content(self, file: File, start: int) -> Iterator[bytes]:
        """Yield a file's bytes from `start` on; a connection that breaks is taken up where it broke.

        Raises ChangedError when the file is not the one that was listed any more.
        """
        broken = 0
        while True:
            try:
                for data in self._content(file, start):
                    yield data
                    start += len(data)
                    broken = 0
            except TransientError as error:
                broken += 1
                if broken > RECONNECTS or not isinstance(error.__cause__, BROKEN):
                    raise
            else:
                return

    def _content(self, file: File, start: int) -> Iterator[bytes]:
        headers = {**_condition(file), **({"Range": f"bytes={start}-"} if start else {})}
        if start and start == file.size:
            return
        with self._version(file, headers) as response:
            skip = 0 if response.status_code == HTTPStatus.PARTIAL_CONTENT else start
            for data in response.iter_raw(READ_BYTES):
                if skip < len(data):
                    yield data[skip:] if skip else data
                skip = max(0, skip - len(data))

    @contextmanager
    def _version(self, file: File, headers: dict[str, str]) -> Iterator[httpx.Response]:
        try:
            with self.opened("GET", file.path, headers) as response, _reached(file.path):
                _same(file, Answer(response.headers))
                yield response
        except MissingError:
            raise ChangedError(
                f"{shown(file.path)}: it was taken away after it was listed; the next attempt looks anew"
            ) from None

    def part(self, file: File, start: int, length: int) -> bytes | None:
        """Return some bytes of a file; None from a server that knows no ranges."""
        headers = {**_condition(file), "Range": f"bytes={start}-{start + length - 1}"}
        for left in reversed(range(RECONNECTS + 1)):
            try:
                with self._version(file, headers) as response:
                    return response.read() if response.status_code == HTTPStatus.PARTIAL_CONTENT else None
            except TransientError as error:
                if not left or not isinstance(error.__cause__, BROKEN):
                    raise
        return None

    def _refusal(self, response: httpx.Response, path: str) -> ConnectorError:
        with _reached(path):
            body = b"" if response.request.method == "HEAD" else next(response.iter_bytes(MESSAGE_BYTES), b"")
        auth = self._s3 if path.startswith("s3://") else self._http
        return refusal(response, body, path, Asked(self.endpoint, self._config.region, auth is not None))


def _s3_auth(config: Config, credentials: Credentials) -> httpx.Auth | None:
    key, secret = credentials.access_key_id, credentials.secret_access_key
    if bool(key) != bool(secret):
        raise AuthenticationError("accessKeyId and secretAccessKey go together: put both into the Secret, or neither")
    if not key or not secret:
        return None
    more = {"security_token": credentials.session_token} if credentials.session_token else {}
    return AWS4Auth(access_id=key, secret_key=secret, region=config.region, service="s3", **more)


def _http_auth(credentials: Credentials) -> httpx.Auth | None:
    if credentials.token:
        return _Bearer(credentials.token)
    if credentials.username and credentials.password:
        return httpx.BasicAuth(credentials.username, credentials.password)
    return None


class _Bearer(httpx.Auth):
    """A token in a header; httpx leaves it out when a redirect leads to another server."""

    def __init__(self, token: str) -> None:
        self._token = token

    def auth_flow(self, request: httpx.Request) -> Any:
        """Add the header."""
        request.headers["Authorization"] = f"Bearer {self._token}"
        yield request


def _condition(file: File) -> dict[str, str]:
    """Return the header that has the server refuse another version; a weak ETag cannot be asked for."""
    return {"If-Match": file.version} if file.version.startswith('"') else {}


def _same(file: File, answer: Answer) -> None:
    if file.version not in (answer.etag, answer.headers.get("last-modified"), f"{answer.size} bytes"):
        raise changed(file.path)


@contextmanager
def _reached(path: str) -> Iterator[None]:
    path = shown(path)
    try:
        yield
    except httpx.TimeoutException as error:
        raise TransientError(f"{path}: no answer in time ({type(error).__name__})") from error
    except httpx.TransportError as error:
        raise TransientError(f"{path}: the server cannot be reached, or broke off: {error}") from error
    except (httpx.InvalidURL, httpx.TooManyRedirects) as error:
        raise ConfigError(f"{path}: {error}") from None
