"""Middleware that refuses a request before it costs anything: without a valid token, too large, too slow, or too many.

FastAPI reads a body before the dependencies of a route run, so a check of the token there comes too late. Here the order is:
a place among the requests, the token, the size that the headers announce, and then the body, within a deadline. The route
gets a complete body whose size and number of values are within the limits of `penstock_operator.limits`.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from typing import Protocol

from fastapi import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from penstock_operator import limits
from penstock_operator.api.error_responses import error_response
from penstock_operator.errors import Invalid, TooBusy, TooLarge, TooSlow, Unauthenticated
from penstock_operator.runs.protocol import PodIdentity

HEALTH_PATHS = frozenset({"/healthz", "/readyz"})
START = f"{limits.RUN_API_PATH}start"
MOST_LENGTH_DIGITS = 20
CLOSE = {"Connection": "close"}
"""The header of a refusal: the rest of the body is not read."""


class TokenAuthority(Protocol):
    """Says whether a token is one of this platform. Each call raises Unauthenticated if it is not."""

    async def pod(self, token: str) -> PodIdentity:
        """Return the pod that the token belongs to."""

    async def holder(self, token: str) -> str:
        """Return the name of the person that the token belongs to."""


class RunTokens(Protocol):
    """Says whether a token is the run token of an attempt."""

    async def is_run_token(self, token: str) -> bool:
        """Return True if an attempt, ended or not, has this token."""


@dataclass(frozen=True, slots=True)
class RequestHead:
    """What is known of a request before its body is read."""

    request: Request
    method: str
    path: str

    @classmethod
    def of(cls, request: Request) -> RequestHead:
        """Return the head of a request."""
        return cls(request, request.method, request.url.path)

    @property
    def most_bytes(self) -> int:
        """How many bytes the body of such a call may have."""
        return limits.body_limit(self.method, self.path)

    @property
    def follows_log(self) -> bool:
        """True if the request may last as long as a run."""
        return self.path.endswith("/logs") and "follow" in self.request.query_params

    def token(self) -> str:
        """Return the bearer token. Raises Unauthenticated without one."""
        scheme, _, token = self.request.headers.get("authorization", "").partition(" ")
        token = token.strip()
        if scheme.lower() != "bearer" or not token:
            raise Unauthenticated
        if len(token) > limits.MAX_TOKEN_CHARACTERS:
            raise Unauthenticated(f"the token is longer than {limits.MAX_TOKEN_CHARACTERS:,} characters")
        return token

    def length(self) -> int:
        """Return how many bytes the body may have: as announced, or the limit of the call for a body in chunks."""
        headers = self.request.headers
        encoding = headers.get("content-encoding", "identity").strip().lower()
        if encoding not in ("", "identity"):
            raise Invalid(f"Content-Encoding: {encoding[:50]} is not accepted; send the body without compression")
        length = headers.get("content-length")
        if length is None:
            if "transfer-encoding" in headers and self.most_bytes == 0:
                raise self.too_large()
            return self.most_bytes if "transfer-encoding" in headers else 0
        if not length.isdecimal() or len(length) > MOST_LENGTH_DIGITS or int(length) > self.most_bytes:
            raise self.too_large()
        return int(length)

    def too_large(self) -> TooLarge:
        """Return the refusal of a body that has too many bytes."""
        call, most = f"{self.method} {self.path[:200]}", self.most_bytes
        return TooLarge(f"{call}: the body may have at most {most:,} bytes" if most else f"{call}: takes no body")


class RequestLimits:
    """The middleware."""

    def __init__(self, app: ASGIApp, authority: TokenAuthority, run_tokens: RunTokens) -> None:
        self._app = app
        self._tokens = TokenCheck(authority, run_tokens)
        self._requests = Places(limits.MAX_REQUESTS)
        self._followed = Places(limits.MAX_FOLLOWED_LOGS)
        self._held = HeldBytes(limits.MAX_BODY_BYTES_HELD)
        self._large = asyncio.Semaphore(1)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer why it is refused."""
        if scope.get("type") != "http":
            await self._app(scope, receive, send)
            return
        request = Request(scope)
        head = RequestHead.of(request)
        try:
            if head.path in HEALTH_PATHS:
                head.length()
                await self._app(scope, receive, send)
                return
            places = self._followed if head.follows_log else self._requests
            with places.taken():
                await self._limited(head, receive, send)
        except Exception as error:
            response = await error_response(request, error)
            if response is None:
                raise
            response.headers.update(CLOSE)
            await response(scope, receive, send)

    async def _limited(self, head: RequestHead, receive: Receive, send: Send) -> None:
        scope = head.request.scope
        if head.path.startswith("/v1/"):
            await self._tokens.check(head)
        try:
            most = head.length()
            if most == 0:
                await self._app(scope, _replayed(b"", receive), send)
                return
            async with self._held.reserved(most):
                body = await _read_body(head, receive, most)
                if len(body) <= limits.LARGE_BODY_BYTES:
                    await self._app(scope, _replayed(body, receive), send)
                    return
                async with self._large:
                    await self._app(scope, _replayed(body, receive), send)
        except TooLarge:
            if head.most_bytes > 0:
                await _discard_body(receive)
            raise


class TokenCheck:
    """Checks tokens before a body is read. What the holder may do is the route's to check."""

    def __init__(self, authority: TokenAuthority, run_tokens: RunTokens) -> None:
        self._authority = authority
        self._run_tokens = run_tokens
        self._checks = asyncio.Semaphore(limits.MAX_TOKEN_CHECKS)
        self._known: OrderedDict[bytes, float] = OrderedDict()

    async def check(self, head: RequestHead) -> None:
        """Raise Unauthenticated without a valid token. The pod that calls `start` is kept in the request's state."""
        token = head.token()
        if head.path == START:
            async with self._checks:
                head.request.state.pod = await self._authority.pod(token)
        elif head.path.startswith(limits.RUN_API_PATH):
            await self._check_run_token(token)
        elif head.most_bytes:
            async with self._checks:
                await self._authority.holder(token)

    async def _check_run_token(self, token: str) -> None:
        digest = hashlib.sha256(token.encode()).digest()
        seen = self._known.get(digest)
        if seen is not None and time.monotonic() - seen < limits.KNOWN_TOKEN_SECONDS:
            return
        async with self._checks:
            if not await self._run_tokens.is_run_token(token):
                raise Unauthenticated
        self._known[digest] = time.monotonic()
        self._known.move_to_end(digest)
        if len(self._known) > limits.MAX_KNOWN_TOKENS:
            self._known.popitem(last=False)


class Places:
    """Bounds how many requests are in progress; one beyond it is refused at once."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._taken = 0

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Take a place. Raises TooBusy without a free one."""
        if self._taken >= self._most:
            raise TooBusy
        self._taken += 1
        try:
            yield
        finally:
            self._taken -= 1


class HeldBytes:
    """Bounds the memory of bodies that are being received; one beyond it waits."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._held = 0
        self._freed = asyncio.Condition()

    @asynccontextmanager
    async def reserved(self, size: int) -> AsyncIterator[None]:
        """Reserve bytes until the request is answered. Raises TooBusy if none become free."""
        try:
            async with asyncio.timeout(limits.BODY_SECONDS), self._freed:
                await self._freed.wait_for(lambda: self._held + size <= self._most)
                self._held += size
        except TimeoutError:
            raise TooBusy from None
        try:
            yield
        finally:
            self._held -= size
            async with self._freed:
                self._freed.notify_all()


async def _read_body(head: RequestHead, receive: Receive, most: int) -> bytes:
    """Return the whole body. Raises TooLarge, and TooSlow if it does not arrive in time or the client goes away."""
    body, more = bytearray(), True
    seconds = limits.BODY_SECONDS + most / limits.BODY_BYTES_PER_SECOND
    try:
        async with asyncio.timeout(seconds):
            while more:
                message = await receive()
                if message.get("type") != "http.request":
                    raise TooSlow("the client closed the connection before the end of the body")
                body += message.get("body", b"")
                more = message.get("more_body", False)
                if len(body) > most:
                    raise head.too_large()
    except TimeoutError:
        raise TooSlow(f"the body did not arrive within {seconds:.0f} s") from None
    values = sum(body.count(sign) for sign in (b",", b"[", b"{"))
    if values > limits.MAX_JSON_VALUES:
        raise TooLarge(f"the body has about {values:,} JSON values; at most {limits.MAX_JSON_VALUES:,} are accepted")
    return bytes(body)


async def _discard_body(receive: Receive) -> None:
    """Read the rest of a body that is too large, within limits: a client that is still sending may not see the answer."""
    left, more = limits.MAX_DISCARDED_BYTES, True
    with suppress(TimeoutError):
        async with asyncio.timeout(limits.BODY_SECONDS):
            while more and left > 0:
                message = await receive()
                left -= len(message.get("body", b""))
                more = message.get("more_body", False)


def _replayed(body: bytes, receive: Receive) -> Receive:
    """Return a `receive` that gives the body at once, and later tells whether the client has gone."""
    message: Message | None = {"type": "http.request", "body": body, "more_body": False}

    async def receive_body() -> Message:
        nonlocal message
        given, message = message, None
        return given if given is not None else await receive()

    return receive_body
