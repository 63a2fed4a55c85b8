"""A client's request to the gateway: which run sends it, and where does it want to go? And the refusals. Pure."""

from __future__ import annotations

import base64
import binascii
import contextlib
from collections.abc import Iterable
from http import HTTPStatus
from urllib.parse import urlsplit

import h11
from penstock_sdk import protocol as wire
from penstock_sdk.manifest import normal_host

CONNECT = b"CONNECT"
HTTP_PORT = 80
HOP_BY_HOP = frozenset(
    (b"connection", b"keep-alive", b"proxy-authorization", b"proxy-connection", b"te", b"trailer", b"upgrade", b"host")
)


class Refusal(Exception):  # noqa: N818 - an answer to the client
    """The request is not served. `denial` is set if a rule forbids it: the run API keeps it."""

    def __init__(self, status: HTTPStatus, message: str, denial: wire.EgressDenial | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.denial = denial

    def response(self) -> bytes:
        """Return the whole HTTP response."""
        body = f"{self.message}\n".encode()
        wants_token = self.status == HTTPStatus.PROXY_AUTHENTICATION_REQUIRED
        lines = [
            f"HTTP/1.1 {self.status.value} {self.status.phrase}",
            *(['Proxy-Authenticate: Basic realm="penstock"'] if wants_token else []),
            "Content-Type: text/plain; charset=utf-8",
            f"Content-Length: {len(body)}",
            "Connection: close",
        ]
        return "\r\n".join([*lines, "", ""]).encode() + body


def run_token(request: h11.Request) -> str:
    """Return the run token of `Proxy-Authorization`: a bearer token, or the password of Basic. Raises Refusal."""
    for name, value in request.headers:
        if name == b"proxy-authorization":
            scheme, _, rest = value.decode("ascii", "replace").strip().partition(" ")
            if scheme.lower() == "bearer" and rest:
                return rest.strip()
            if scheme.lower() == "basic":
                with contextlib.suppress(binascii.Error, ValueError):
                    return base64.b64decode(rest.strip(), validate=True).decode().partition(":")[2]
    raise Refusal(HTTPStatus.PROXY_AUTHENTICATION_REQUIRED, "Proxy-Authorization: give the run token")


def destination(request: h11.Request) -> tuple[str, int]:
    """Return host and port of a request. Raises Refusal for a target that does not name them."""
    target = request.target.decode("ascii", "replace")
    connects = request.method == CONNECT
    try:
        parts = urlsplit(f"//{target}" if connects else target)
        host, port = normal_host(parts.hostname or ""), parts.port
    except ValueError:
        host, port = None, None
    else:
        port = port or (None if connects else HTTP_PORT)
        wellformed = "@" not in parts.netloc and (parts.netloc == target if connects else parts.scheme == "http")
        host = host if wellformed else None
    if host is None or port is None:
        raise Refusal(HTTPStatus.BAD_REQUEST, "write CONNECT host:port, or a request with a whole http:// URL")
    return host, port


def request_to_source(request: h11.Request, host: str, port: int) -> h11.Request:
    """Return a plain HTTP request as its source gets it: `Host` is the destination, whatever the client wrote."""
    parts = urlsplit(request.target.decode("ascii"))
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    name = f"[{host}]" if ":" in host else host
    authority = name if port == HTTP_PORT else f"{name}:{port}"
    headers = [(b"host", authority.encode()), *end_to_end(request.headers), (b"connection", b"close")]
    return h11.Request(method=request.method, target=path.encode("ascii"), headers=headers)


def end_to_end(headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """Return the headers that are not of one connection; with chunks, a length is left out, as it could contradict them."""
    named = {
        name.strip().lower() for key, value in headers if key == b"connection" for name in value.split(b",")
    } | HOP_BY_HOP
    if any(key == b"transfer-encoding" for key, _ in headers):
        named |= {b"content-length"}
    return [(key, value) for key, value in headers if key not in named]
