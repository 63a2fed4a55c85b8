"""An authorization server and a source on loopback, with rotation and reuse detection, and answers that a test replaces."""

from __future__ import annotations

import base64
import json
import ssl
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Self
from urllib.parse import parse_qs, unquote_plus, urlsplit

from penstock_sdk.testing.loopback import HOST, LoopbackServer, QuietHandler


@dataclass(frozen=True)
class Reply:
    """An answer: a dict is sent as JSON."""

    status: int = 200
    body: dict[str, Any] | bytes = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def content(self) -> bytes:
        """The body as it is sent."""
        return self.body if isinstance(self.body, bytes) else json.dumps(self.body).encode()


@dataclass(frozen=True)
class Call:
    """A request that the server got."""

    method: str
    path: str
    query: dict[str, list[str]]
    headers: dict[str, str]
    content: bytes

    @property
    def form(self) -> dict[str, str]:
        """The fields of the body."""
        return {name: values[0] for name, values in parse_qs(self.content.decode(), keep_blank_values=True).items()}

    @property
    def basic(self) -> tuple[str, str]:
        """User and password of Basic authentication, decoded as RFC 6749 demands of clients."""
        pair = base64.b64decode(self.headers["authorization"].removeprefix("Basic ")).decode()
        user, _, password = pair.partition(":")
        return unquote_plus(user), unquote_plus(password)


class FakeProvider:
    """Issues tokens at /token, and is a source at every other path, which accepts the tokens that it has issued.

    `token_replies` are answered first, one each. A refresh token is good for one use; a second use revokes everything that
    came from it, unless `leeway` allows it.
    """

    def __init__(self, *, lifetime: float | None = 300, rotates: bool = True, leeway: bool = False) -> None:
        self.calls: list[Call] = []
        self.token_replies: list[Reply | Callable[[Call], Reply | None]] = []
        self.source: Callable[[Call], Reply] = self.guarded
        self.lifetime, self.rotates, self.leeway = lifetime, rotates, leeway
        self.refresh_token = "refresh-0"
        self.used: set[str] = set()
        self.reused: list[str] = []
        self.valid: set[str] = set()
        self.issued = 0
        self._lock = threading.Lock()
        self._server = LoopbackServer(_handler(self))
        self.url = f"http://{HOST}:{self._server.port}"
        self.token_url = f"{self.url}/token"

    def use_tls(self, context: ssl.SSLContext) -> None:
        """Serve with TLS."""
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.url = self.url.replace("http://", "https://")
        self.token_url = f"{self.url}/token"

    def __enter__(self) -> Self:
        self._server.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.__exit__()

    @property
    def token_calls(self) -> list[Call]:
        """The requests for tokens."""
        return [call for call in self.calls if call.path == "/token"]

    @property
    def source_calls(self) -> list[Call]:
        """The requests to the source."""
        return [call for call in self.calls if call.path != "/token"]

    def answer(self, call: Call) -> Reply | None:
        """Return the reply; None breaks the connection."""
        with self._lock:
            self.calls.append(call)
            if call.path != "/token":
                return self.source(call)
            if self.token_replies:
                reply = self.token_replies.pop(0)
                return reply if isinstance(reply, Reply) else reply(call)
            return self.grant(call)

    def grant(self, call: Call) -> Reply:
        """Issue a token."""
        form = call.form
        answer: dict[str, Any] = {"token_type": "Bearer"}
        if self.lifetime is not None:
            answer["expires_in"] = self.lifetime
        if form.get("grant_type") == "refresh_token":
            given = form["refresh_token"]
            if given in self.used and not self.leeway:
                self.reused.append(given)
                self.valid.clear()
                self.refresh_token = "revoked"
            if given != self.refresh_token and not (self.leeway and given in self.used):
                return Reply(400, {"error": "invalid_grant"})
            if self.rotates:
                self.used.add(given)
                self.refresh_token = f"refresh-{self.issued + 1}"
            answer["refresh_token"] = self.refresh_token
        self.issued += 1
        answer["access_token"] = f"access-token-{self.issued}"
        self.valid.add(answer["access_token"])
        return Reply(200, answer)

    def guarded(self, call: Call) -> Reply:
        token = call.headers.get("authorization", "").removeprefix("Bearer ")
        return Reply(200, {"ok": True}) if token in self.valid else Reply(401, {"error": "unauthorized"})


def _handler(provider: FakeProvider) -> type[QuietHandler]:
    class Handler(QuietHandler):
        def _serve(self) -> None:
            parts = urlsplit(self.path)
            headers = {name.lower(): value for name, value in self.headers.items()}
            call = Call(self.command, parts.path, parse_qs(parts.query), headers, self.content())
            reply = provider.answer(call)
            if reply is None:
                self.close_connection = True
                return
            content = reply.content
            if "Content-Length" in reply.headers:
                self.send_response(reply.status)
                for name, value in reply.headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(content)
                self.wfile.flush()
                self.close_connection = True
                return
            self.answer(reply.status, {"Content-Type": "application/json", **reply.headers}, content)

        do_GET = do_POST = do_PUT = _serve  # noqa: N815

        def send_response(self, code: int, message: str | None = None) -> None:
            self.log_request(code)
            self.send_response_only(code, message)

    return Handler
