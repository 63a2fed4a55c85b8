"""The egress gateway as this process uses it: HTTP clients by environment variables, psycopg and others by local tunnels.

To the gateway, connections are TLS if its URL is https. The proxy of HTTP clients is then a port on loopback from which
every connection goes on to the gateway: no client needs to support proxies over TLS, or to trust the platform's CA.
"""

from __future__ import annotations

import base64
import contextlib
import os
import queue
import select
import socket
import ssl
import sys
import threading
from collections.abc import Callable, MutableMapping
from typing import TypeVar
from urllib.parse import urlsplit

from penstock_sdk import egress
from penstock_sdk._runtime.platform_trust import platform_trust, refused_certificate
from penstock_sdk._runtime.psycopg_tunnels import use_in_psycopg
from penstock_sdk.errors import ConfigError, TransientError

LOOPBACK = "127.0.0.1"
CONNECT_SECONDS = 60.0
"""How long the gateway may take to resolve a name and to try its addresses."""
LONGEST_ANSWER = 64 * 1024
PIPE_BYTES = 1024 * 1024
TLS_READ_BYTES = 256 * 1024
Argument = TypeVar("Argument")
Result = TypeVar("Result")
FORBIDDEN = 403
OK = 200
PROXY_VARIABLES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
DIRECT_VARIABLE, DIRECT_HOSTS = "NO_PROXY", "localhost,127.0.0.1,::1"
"""The connector's own servers inside the pod; no other host is reached without the gateway."""


class EgressGateway:
    """The gateway at `url`, for the run whose token it is. `trusted` verifies the gateway if its URL is https."""

    def __init__(self, url: str, token: str, trusted: ssl.SSLContext | None = None) -> None:
        parts = urlsplit(url)
        self._trusted = (trusted or platform_trust("")) if parts.scheme == "https" else None
        self._address = (str(parts.hostname), parts.port or (443 if self._trusted else 80))
        self._authorization = base64.b64encode(f"run:{token}".encode()).decode()
        self.token = token
        proxy = (
            parts.netloc if self._trusted is None else f"{LOOPBACK}:{LocalTunnel(self._open, refuse=_bad_gateway).port}"
        )
        self.proxy_url = f"http://run:{token}@{proxy}"
        self._tunnels: dict[tuple[str, int], LocalTunnel] = {}
        self._lock = threading.Lock()

    def install(self, environment: MutableMapping[str, str]) -> None:
        """Have the HTTP clients and the Postgres clients of this process use the gateway."""
        for name in PROXY_VARIABLES:
            environment[name] = environment[name.lower()] = self.proxy_url
        environment[DIRECT_VARIABLE] = environment[DIRECT_VARIABLE.lower()] = DIRECT_HOSTS
        egress.use_tunnels(self.tunnel)
        psycopg = sys.modules.get("psycopg")
        if psycopg is not None:
            use_in_psycopg(psycopg, self.tunnel)

    def tunnel(self, host: str, port: int) -> tuple[str, int]:
        """Return the local end of a tunnel, once its other end is connected. Raises ConfigError or TransientError."""
        connected = self.connect(host, port)
        with self._lock:
            tunnel = self._tunnels.get((host, port))
            if tunnel is None:
                tunnel = self._tunnels[host, port] = LocalTunnel(lambda: self.connect(host, port))
        tunnel.connected.put(connected)
        return LOOPBACK, tunnel.port

    def connect(self, host: str, port: int) -> socket.socket:
        """Return a socket whose other end is the host. Raises ConfigError if it is denied, TransientError if it does not answer."""
        name = f"[{host}]" if ":" in host else host
        opened = self._open()
        request = f"CONNECT {name}:{port} HTTP/1.1\r\nHost: {name}:{port}\r\nProxy-Authorization: Basic {self._authorization}\r\n\r\n"
        try:
            opened.sendall(request.encode("ascii", "replace"))
            status, body = _answer(opened)
        except OSError as error:
            opened.close()
            raise TransientError(f"the egress gateway broke the connection: {error}", scope="source") from error
        if status == OK:
            opened.settimeout(None)
            return opened
        opened.close()
        if status == FORBIDDEN:
            raise ConfigError(body)
        raise TransientError(f"{body} (the egress gateway answered HTTP {status})", scope="source")

    def _open(self) -> socket.socket:
        """Return a connection to the gateway itself. Raises TransientError."""
        try:
            opened = socket.create_connection(self._address, timeout=CONNECT_SECONDS)
            if self._trusted is None:
                return opened
            try:
                return self._trusted.wrap_socket(opened, server_hostname=self._address[0])
            except OSError:
                opened.close()
                raise
        except OSError as error:
            refused = refused_certificate(f"the egress gateway {self._address[0]}", error)
            raise TransientError(refused or f"the egress gateway does not answer: {error}", scope="source") from error


class LocalTunnel:
    """A port on loopback. Each connection to it goes on through the gateway, in threads that hold the GIL for system calls only.

    `refuse` returns what a client is sent if its connection cannot go on.
    """

    def __init__(self, connect: Callable[[], socket.socket], refuse: Callable[[str], bytes] = lambda _: b"") -> None:
        self._connect = connect
        self._refuse = refuse
        self._listener = socket.create_server((LOOPBACK, 0))
        self.port = int(self._listener.getsockname()[1])
        self.connected: queue.SimpleQueue[socket.socket] = queue.SimpleQueue()
        """Connections through the gateway that no client has taken yet."""
        threading.Thread(target=self._accept, name=f"tunnel {self.port}", daemon=True).start()

    def _accept(self) -> None:
        while True:
            client, _ = self._listener.accept()
            threading.Thread(target=self._carry, args=(client,), daemon=True).start()

    def _carry(self, client: socket.socket) -> None:
        try:
            source = self.connected.get_nowait()
        except queue.Empty:
            try:
                source = self._connect()
            except (ConfigError, TransientError) as error:
                with contextlib.suppress(OSError):
                    client.sendall(self._refuse(error.message))
                client.close()
                return
        if isinstance(source, ssl.SSLSocket):
            with client, source, contextlib.suppress(OSError):  # one of both ends is gone
                source.settimeout(None)
                _carry_over_tls(client, source)
            return
        upload = threading.Thread(target=_copy, args=(client, source), daemon=True)
        upload.start()
        _copy(source, client)
        upload.join()
        source.close()
        client.close()


def _copy(source: socket.socket, target: socket.socket) -> None:
    """Move bytes until the source ends, without taking them through this process's memory."""
    reading, writing = os.pipe()
    try:
        while moved := os.splice(source.fileno(), writing, PIPE_BYTES):
            while moved:
                moved -= os.splice(reading, target.fileno(), moved)
    except OSError:
        pass  # the other end is gone
    finally:
        os.close(reading)
        os.close(writing)
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_WR)


def _carry_over_tls(plain: socket.socket, secured: ssl.SSLSocket) -> None:
    """Move bytes in both directions until one side ends: TLS has no half-close.

    One thread does both, because two threads must not use one TLS session at once.
    """
    for end in (plain, secured):
        end.settimeout(0)
    upward = downward = memoryview(b"")
    while True:
        has_moved = False
        if not downward and (data := _unless_it_waits(secured.recv, TLS_READ_BYTES)) is not None:
            if not data:
                return
            downward, has_moved = memoryview(data), True
        if downward and (sent := _unless_it_waits(plain.send, downward)) is not None:
            downward, has_moved = downward[sent:], True
        if not upward and (data := _unless_it_waits(plain.recv, TLS_READ_BYTES)) is not None:
            if not data:
                return
            upward, has_moved = memoryview(data), True
        if upward and (sent := _unless_it_waits(secured.send, upward)) is not None:
            upward, has_moved = upward[sent:], True
        if not has_moved:
            waiting = select.poll()
            waiting.register(secured, (select.POLLOUT if upward else 0) | (0 if downward else select.POLLIN))
            waiting.register(plain, (select.POLLOUT if downward else 0) | (0 if upward else select.POLLIN))
            waiting.poll()


def _unless_it_waits(call: Callable[[Argument], Result], argument: Argument) -> Result | None:
    """Return the result of a call on a socket; None if it would have to wait."""
    try:
        return call(argument)
    except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
        return None


def _bad_gateway(message: str) -> bytes:
    """Return a response to an HTTP client of the proxy. Clients show its reason, and not all of them its body."""
    words = message.encode("ascii", "replace").decode().replace("\n", " ")
    return f"HTTP/1.1 502 {words}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n".encode()


def _answer(opened: socket.socket) -> tuple[int, str]:
    """Return status and body of the gateway's answer; of a tunnel that is open, nothing beyond the head is read."""
    data = b""
    while b"\r\n\r\n" not in data and len(data) < LONGEST_ANSWER:
        byte = opened.recv(1)
        if not byte:
            raise ConnectionError("no answer")
        data += byte
    head, _, _ = data.partition(b"\r\n\r\n")
    words = head.split(b" ", 2)
    status = int(words[1]) if len(words) > 1 and words[1].isdigit() else 0
    if status == OK:
        return status, ""
    body = b""
    while len(body) < LONGEST_ANSWER and (more := opened.recv(4096)):
        body += more
    return status, body.decode(errors="replace").strip()
