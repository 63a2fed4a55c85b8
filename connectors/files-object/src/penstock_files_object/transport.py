"""Requests, and what their answers mean: one HTTP client for both kinds of store.

S3's protocol is plain HTTP with signed headers, so the same code follows versions (ETag, If-Match), goes on after a
broken connection (Range) and honours Retry-After for both.
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

from penstock_files_object.answers import Answer, Part, check_same
from penstock_files_object.availability import Availability
from penstock_files_object.config import Config, Credentials, shown
from penstock_files_object.progress import File
from penstock_files_object.refusals import (
    Asked,
    BusyError,
    ChangedError,
    MissingError,
    NotNowError,
    changed,
    refusal,
)

READ_BYTES = 256 * 1024
RECONNECTS = 3
MESSAGE_BYTES = 4096
BROKEN = (httpx.NetworkError, httpx.RemoteProtocolError)  # a silent server is not asked again: that is a timeout each


class Transport:
    """The client, with what it is allowed to say to whom."""

    def __init__(self, config: Config, credentials: Credentials) -> None:
        self._config = config
        self.endpoint = (config.endpoint or f"https://s3.{config.region}.amazonaws.com").rstrip("/")
        self._s3 = _s3_auth(config, credentials)
        self._http = _http_auth(credentials)
        self._availability = Availability(self.endpoint)
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
        self._availability.check(path)
        with self._reached(path):
            request = self._client.build_request(method, self.url(path) + query, headers=headers)
            response = self._client.send(
                request, auth=auth or httpx.Auth(), stream=True, follow_redirects=self._config.follow_redirects
            )
        try:
            if response.status_code not in (HTTPStatus.OK, HTTPStatus.PARTIAL_CONTENT):
                raise self._refusal(response, path)
            self._availability.answered(path)
            yield response
        finally:
            response.close()

    def get(self, path: str, query: str) -> bytes:
        """Return a small answer's body."""
        with self.opened("GET", path, query=query) as response, self._reached(path):
            return response.read()

    def head(self, path: str) -> Answer:
        """Return what the server says of a file; a GET that is not read, where it does not answer to HEAD."""
        try:
            with self.opened("HEAD", path) as response:
                return Answer(response)
        except (ConfigError, AuthenticationError, SourceContractError):
            with self.opened("GET", path) as response:
                return Answer(response)

    def content(self, file: File, start: int) -> Iterator[bytes]:
        """Yield a file's bytes from `start` on; a connection that breaks is taken up where it broke.

        Raises ChangedError when the file is not the one that was listed any more, SourceContractError when a server's
        answers contradict each other.
        """
        broken = 0
        reading = _Reading(file)
        while not reading.is_at_end(start):
            before, ranges = start, reading.ranges
            try:
                for data in self._content(reading, start):
                    yield data
                    start += len(data)
                    broken = 0
            except TransientError as error:
                broken += 1
                if broken > RECONNECTS or not isinstance(error.__cause__, BROKEN):
                    raise
                continue
            if ranges == reading.ranges and (reading.total is None or start >= reading.total):
                return
            if ranges == reading.ranges and start == before:
                raise SourceContractError(
                    f"{file.name}: the server gives nothing from byte {start} of {reading.total} on"
                )

    def _content(self, reading: _Reading, start: int) -> Iterator[bytes]:
        """Yield the bytes of one answer, from `start` on."""
        headers = {**_condition(reading.file), **({"Range": f"bytes={start}-"} if start and reading.ranges else {})}
        with self._version(reading.file, headers) as response:
            answer = Answer(response)
            position = reading.begin(answer, start)
            if position is None:
                return
            for data in response.iter_raw(READ_BYTES):
                rest = data[max(0, start - position) :]
                position += len(data)
                if rest:
                    yield rest
            if reading.total is not None and position < reading.expected_end(answer):
                missing = httpx.RemoteProtocolError("the answer ended before its length")
                raise TransientError(
                    f"{reading.file.name}: the server's answer ended at byte {position} of {reading.total}",
                    scope="stream",
                ) from missing

    @contextmanager
    def _version(self, file: File, headers: dict[str, str]) -> Iterator[httpx.Response]:
        try:
            with self.opened("GET", file.path, headers) as response, self._reached(file.path):
                check_same(file, Answer(response))
                yield response
        except MissingError:
            raise ChangedError(
                f"{shown(file.path)}: it was taken away after it was listed; the next attempt looks anew"
            ) from None

    def part(self, file: File, start: int, length: int) -> bytes | None:
        """Return some bytes of a file, fewer only at its end; None from a server that knows no ranges."""
        headers = {**_condition(file), "Range": f"bytes={start}-{start + length - 1}"}
        for left in reversed(range(RECONNECTS + 1)):
            try:
                with self._version(file, headers) as response:
                    answer = Answer(response)
                    part = answer.part
                    if part is None or not part.first <= start < part.last + 1:
                        return None
                    answer.refuse_encoding(file.path)
                    return _read_part(response, part, start, length)
            except TransientError as error:
                if not left or not isinstance(error.__cause__, BROKEN):
                    raise
        return None

    def _refusal(self, response: httpx.Response, path: str) -> ConnectorError:
        with self._reached(path):
            body = b"" if response.request.method == "HEAD" else next(response.iter_bytes(MESSAGE_BYTES), b"")
        auth = self._s3 if path.startswith("s3://") else self._http
        error = refusal(response, body, path, Asked(self.endpoint, self._config.region, auth is not None))
        if isinstance(error, BusyError):
            self._availability.asked_for_patience(path, error)
        elif isinstance(error, NotNowError):
            self._availability.failed(path, error)
        else:
            self._availability.answered(path)
        return error

    @contextmanager
    def _reached(self, path: str) -> Iterator[None]:
        """Turn what keeps an answer from coming into the class that says what to do, and remember it of the host."""
        try:
            with _translated(path):
                yield
        except NotNowError as error:
            self._availability.failed(path, error)
            raise


def _s3_auth(config: Config, credentials: Credentials) -> httpx.Auth | None:
    key, secret = credentials.access_key_id, credentials.secret_access_key
    if bool(key) != bool(secret):
        raise AuthenticationError("accessKeyId and secretAccessKey go together: put both into the Secret, or neither")
    if not key or not secret:
        return None
    _check_header("accessKeyId", key)
    _check_header("sessionToken", credentials.session_token or "")
    more = {"security_token": credentials.session_token} if credentials.session_token else {}
    return AWS4Auth(access_id=key, secret_key=secret, region=config.region, service="s3", **more)


def _http_auth(credentials: Credentials) -> httpx.Auth | None:
    if credentials.token:
        _check_header("token", credentials.token)
        return _Bearer(credentials.token)
    if credentials.username and credentials.password:
        return httpx.BasicAuth(credentials.username, credentials.password)
    return None


def _check_header(name: str, value: str) -> None:
    if not value.isascii() or not value.isprintable() or value != value.strip():
        raise AuthenticationError(
            f"{name} in the Secret holds a line break, a space at its end or a character that no HTTP header can carry;"
            " write it without"
        )


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


class _Reading:
    """What the answers that give one file's content said of it."""

    def __init__(self, file: File) -> None:
        self.file = file
        self.ranges = True
        self.total: int | None = None
        self._known = False
        self._encodings: tuple[str, ...] = ()

    def is_at_end(self, position: int) -> bool:
        """Say whether nothing is left to ask for."""
        total = self.total if self._known else self.file.size
        return position > 0 and total is not None and position == total

    def begin(self, answer: Answer, start: int) -> int | None:
        """Return the byte at which an answer begins; None if it begins after `start`, so the file is asked for anew."""
        answer.refuse_encoding(self.file.path, beside=("gzip", "x-gzip", "zstd"))
        if self._known and answer.encodings != self._encodings:
            raise changed(self.file.path)
        part = answer.part
        if answer.status == HTTPStatus.PARTIAL_CONTENT and (part is None or part.first > start):
            if not self.ranges:
                raise SourceContractError(
                    f"{self.file.name}: the server answers with another part than was asked for"
                    f" (Content-Range: {answer.headers.get('content-range', 'none')!r})"
                )
            self.ranges = False
            return None
        total = part.total if part else answer.length
        listed = None if answer.encodings else self.file.size
        if total is not None and listed and total != listed:
            raise changed(self.file.path)
        self._known, self._encodings = True, answer.encodings
        self.total = listed or None if total is None else total
        return part.first if part else 0

    def expected_end(self, answer: Answer) -> int:
        """Return the byte at which the answer must end."""
        return answer.part.last + 1 if answer.part else self.total or 0


def _read_part(response: httpx.Response, part: Part, start: int, length: int) -> bytes:
    """Return the bytes from `start` on; what the server gives before them is left out."""
    wanted, held = start - part.first + length, bytearray()
    for data in response.iter_raw():
        held += data
        if len(held) >= wanted:
            break
    if len(held) < min(wanted, part.last + 1 - part.first):
        raise TransientError(
            "the server's answer ended before its length", scope="stream"
        ) from httpx.RemoteProtocolError("too short")
    return bytes(held[start - part.first : wanted])


@contextmanager
def _translated(path: str) -> Iterator[None]:
    path = shown(path)
    try:
        yield
    except httpx.TimeoutException as error:
        raise NotNowError(f"{path}: no answer in time ({type(error).__name__})", scope="stream") from error
    except (httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
        raise ConfigError(f"{path}: it is no address that can be asked for: {error}") from None
    except httpx.TooManyRedirects:
        raise ConfigError(f"{path}: the server leads from address to address without end; correct the path") from None
    except httpx.TransportError as error:
        raise NotNowError(f"{path}: the server cannot be reached, or broke off: {error}", scope="stream") from error
    except UnicodeError:
        raise ConfigError(f"{path}: the address or a header holds a character that HTTP cannot carry") from None
