"""Between the connector and its source: what passes is counted, and can be held up, refused or cut off."""

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
from penstock_sdk.testing.subject import Subject

HOP_BY_HOP = ("connection", "keep-alive", "transfer-encoding", "content-length", "content-encoding", "host", "date")
CHUNK = 65536


@dataclass(frozen=True)
class Refusal:
    """An answer that the source did not give."""

    status: int
    retry_after: int | None = None


@dataclass(frozen=True)
class Delay:
    """The answer comes later by so many seconds."""

    seconds: float


class Silence:
    """No answer comes."""


Fault = Refusal | Delay | Silence
Plan = Callable[[int], Fault | None]
"""What happens to the request, or the connection, of this number: from 1."""


@dataclass
class Interposer:
    """Where the connector finds its source, and when it asked: (moment, refused)."""

    host: str = HOST
    port: int = 0
    plan: Plan = field(default=lambda _number: None)
    asked: list[tuple[float, bool]] = field(default_factory=list)
    released: threading.Event = field(default_factory=threading.Event)
    closing: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def next(self) -> Fault | None:
        """Count a request, and say what happens to it."""
        with self._lock:
            fault = self.plan(len(self.asked) + 1)
            self.asked.append((time.monotonic(), isinstance(fault, Refusal)))
            return fault

    def end(self) -> None:
        """Let go of all that waits, and take no more."""
        self.closing.set()
        self.released.set()

    def hold(self, seconds: float | None) -> None:
        """Wait for so long, or for the end."""
        if seconds != 0:
            self.released.wait(seconds)


@contextmanager
def between(subject: Subject, plan: Plan | None = None) -> Iterator[tuple[Subject, Interposer]]:
    """Give the subject with a source that is found here."""
    middle = Interposer()
    if plan:
        middle.plan = plan
    with _http(subject, middle) if subject.url_field else _tcp(subject, middle):
        try:
            yield subject.located(middle.host, middle.port), middle
        finally:
            middle.end()


@contextmanager
def _http(subject: Subject, middle: Interposer) -> Iterator[None]:
    url = urlsplit(str(subject.config[subject.url_field or ""]))
    upstream = f"{url.scheme}://{url.netloc}"  # the path stays in the config's value, as the connector knows it
    with httpx.Client(timeout=60.0) as client, LoopbackServer(_forwarder(middle, upstream, client)) as server:
        middle.port = server.port
        try:
            yield
        finally:
            middle.end()


def _forwarder(middle: Interposer, upstream: str, client: httpx.Client) -> type[QuietHandler]:
    class Handler(QuietHandler):
        def do_GET(self) -> None:  # noqa: N802 - http.server calls it so
            body = self.content()
            fault = middle.next()
            if isinstance(fault, Silence):
                middle.hold(None)
                self.close_connection = True
            elif isinstance(fault, Refusal):
                self._refuse(fault)
            else:
                middle.hold(fault.seconds if fault else 0)
                self._forward(body)

        do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = do_OPTIONS = do_GET  # noqa: N815

        def _refuse(self, fault: Refusal) -> None:
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
            here = f"http://{HOST}:{middle.port}"
            headers = {key: value.replace(upstream, here) for key, value in answer.headers.items()}
            kept = {key: value for key, value in headers.items() if key.lower() not in HOP_BY_HOP}
            # A source that gives its next page as a whole address would lead the connector past us.
            self.answer(answer.status_code, kept, answer.content.replace(upstream.encode(), here.encode()))

    return Handler


@contextmanager
def _tcp(subject: Subject, middle: Interposer) -> Iterator[None]:
    target = (str(subject.config[subject.host_field or ""]), int(subject.config[subject.port_field or ""]))
    listener = socket.create_server((middle.host, 0))
    middle.port = int(listener.getsockname()[1])

    def accept() -> None:
        while not middle.closing.is_set():
            try:
                incoming, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=_relay, args=(incoming, target, middle), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield
    finally:
        middle.end()
        listener.close()


def _relay(incoming: socket.socket, target: tuple[str, int], middle: Interposer) -> None:
    fault = middle.next()
    with incoming, suppress(OSError):
        if isinstance(fault, Silence):
            middle.hold(None)
            return
        if isinstance(fault, Refusal):
            return
        with socket.create_connection(target, timeout=30) as outgoing:
            for end in (incoming, outgoing):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            _copy(incoming, outgoing, middle, fault.seconds if fault else 0.0)


def _copy(incoming: socket.socket, outgoing: socket.socket, middle: Interposer, delay: float) -> None:
    """Copy both ways; the first answer is held up, and each fifth after it for half as long as the one before.

    An answer begins where the source speaks after the connector has: how many packets it comes in is the machine's.
    """
    other: dict[Any, socket.socket] = {incoming: outgoing, outgoing: incoming}
    answers, spoke_last = 0, incoming
    while not middle.closing.is_set():
        readable, _, _ = select.select(list(other), [], [], 0.2)
        for end in readable:
            data = end.recv(CHUNK)
            if not data:
                return
            if end is outgoing and spoke_last is incoming:
                answers += 1
                if answers % 5 == 1:
                    middle.hold(delay)
                    delay /= 2
            spoke_last = end
            other[end].sendall(data)
