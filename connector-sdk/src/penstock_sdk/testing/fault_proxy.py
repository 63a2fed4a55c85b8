"""A proxy between the connector and its source. It counts requests, and can delay, refuse or interrupt them."""

from __future__ import annotations

import select
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import httpx

from penstock_sdk.testing.loopback import HOST, LoopbackServer, QuietHandler
from penstock_sdk.testing.target import Target

HOP_BY_HOP = ("connection", "keep-alive", "transfer-encoding", "content-length", "content-encoding", "host", "date")
CHUNK = 65536


@dataclass(frozen=True)
class ErrorResponse:
    """An error response from the proxy instead of the source."""

    status: int
    retry_after: int | None = None


@dataclass(frozen=True)
class DelayedResponse:
    """The response is delayed by `seconds`."""

    seconds: float


class NoResponse:
    """No response is sent."""


Fault = ErrorResponse | DelayedResponse | NoResponse
FaultPlan = Callable[[int], Fault | None]
"""Returns the fault of a request, or of a connection, by its number from 1."""


@dataclass
class FaultProxy:
    """The address at which the connector finds its source, and its requests: (time, refused)."""

    host: str = HOST
    port: int = 0
    plan: FaultPlan = field(default=lambda _number: None)
    requests: list[tuple[float, bool]] = field(default_factory=list)
    released: threading.Event = field(default_factory=threading.Event)
    closing: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def next(self) -> Fault | None:
        """Count a request, and return its fault."""
        with self._lock:
            fault = self.plan(len(self.requests) + 1)
            self.requests.append((time.monotonic(), isinstance(fault, ErrorResponse)))
            return fault

    def end(self) -> None:
        """Release all waiting requests, and accept no more."""
        self.closing.set()
        self.released.set()

    def hold(self, seconds: float | None) -> None:
        """Wait for so many seconds, or for the end."""
        if seconds != 0:
            self.released.wait(seconds)


@contextmanager
def through_proxy(target: Target, plan: FaultPlan | None = None) -> Iterator[tuple[Target, FaultProxy]]:
    """Give the subject with a source that is found here."""
    proxy = FaultProxy()
    if plan:
        proxy.plan = plan
    with _http(target, proxy) if target.url_field else _tcp(target, proxy):
        try:
            yield target.at_address(proxy.host, proxy.port), proxy
        finally:
            proxy.end()


@contextmanager
def _http(target: Target, proxy: FaultProxy) -> Iterator[None]:
    url = urlsplit(str(target.config[target.url_field or ""]))
    upstream = f"{url.scheme}://{url.netloc}"  # the path stays in the config's value
    with httpx.Client(timeout=60.0) as client, LoopbackServer(_forwarder(proxy, upstream, client)) as server:
        proxy.port = server.port
        try:
            yield
        finally:
            proxy.end()


def _forwarder(proxy: FaultProxy, upstream: str, client: httpx.Client) -> type[QuietHandler]:
    class Handler(QuietHandler):
        def do_GET(self) -> None:  # noqa: N802 - http.server calls it so
            body = self.content()
            fault = proxy.next()
            if isinstance(fault, NoResponse):
                proxy.hold(None)
                self.close_connection = True
            elif isinstance(fault, ErrorResponse):
                self._refuse(fault)
            else:
                proxy.hold(fault.seconds if fault else 0)
                self._forward(body)

        do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = do_OPTIONS = do_GET  # noqa: N815

        def _refuse(self, fault: ErrorResponse) -> None:
            headers = {} if fault.retry_after is None else {"Retry-After": str(fault.retry_after)}
            self.answer(fault.status, {**headers, "Content-Type": "application/json"}, b'{"error": "refused"}')

        def _forward(self, body: bytes) -> None:
            wanted = {key: value for key, value in self.headers.items() if key.lower() not in HOP_BY_HOP}
            wanted["Accept-Encoding"] = "identity"
            try:
                answer = client.request(self.command, f"{upstream}{self.path}", headers=wanted, content=body)
            except httpx.TransportError as error:
                self.answer(502, {}, type(error).__name__.encode())
                return
            here = f"http://{HOST}:{proxy.port}"
            headers = {key: value.replace(upstream, here) for key, value in answer.headers.items()}
            kept = {key: value for key, value in headers.items() if key.lower() not in HOP_BY_HOP}
            # A source may send the URL of its next page; with its own host, the connector would bypass the proxy.
            self.answer(answer.status_code, kept, answer.content.replace(upstream.encode(), here.encode()))

    return Handler


@contextmanager
def _tcp(target: Target, proxy: FaultProxy) -> Iterator[None]:
    address = (str(target.config[target.host_field or ""]), int(str(target.config[target.port_field or ""])))
    listener = socket.create_server((proxy.host, 0))
    proxy.port = int(listener.getsockname()[1])

    def accept() -> None:
        while not proxy.closing.is_set():
            try:
                incoming, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=_forward_connection, args=(incoming, address, proxy), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield
    finally:
        proxy.end()
        listener.close()


def _forward_connection(incoming: socket.socket, address: tuple[str, int], proxy: FaultProxy) -> None:
    fault = proxy.next()
    with incoming, suppress(OSError):
        if isinstance(fault, NoResponse):
            proxy.hold(None)
            return
        if isinstance(fault, ErrorResponse):
            return
        with socket.create_connection(address, timeout=30) as outgoing:
            for end in (incoming, outgoing):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            _copy(incoming, outgoing, proxy, fault.seconds if fault else 0.0)


def _copy(incoming: socket.socket, outgoing: socket.socket, proxy: FaultProxy, delay: float) -> None:
    """Copy both ways. The first response is delayed, and each fifth after it for half as long as the previous one.

    A response begins when the source sends data after the connector has sent some. It may arrive in any number of packets.
    """
    other: dict[Any, socket.socket] = {incoming: outgoing, outgoing: incoming}
    answers, spoke_last = 0, incoming
    while not proxy.closing.is_set():
        readable, _, _ = select.select(list(other), [], [], 0.2)
        for end in readable:
            data = end.recv(CHUNK)
            if not data:
                return
            if end is outgoing and spoke_last is incoming:
                answers += 1
                if answers % 5 == 1:
                    proxy.hold(delay)
                    delay /= 2
            spoke_last = end
            other[end].sendall(data)
