"""What stands between a client and a server, on loopback, and does to their traffic what networks do."""

from __future__ import annotations

import contextlib
import random
import socket
import struct
import threading
from collections import Counter
from collections.abc import Callable
from typing import Self

CHUNK = 65536
CONNECT_SECONDS, STALL_SECONDS = 5, 3.0
NO_LINGER = struct.pack("ii", 1, 0)


class Proxy:
    """Listens on a port of its own. `counted` says what it did."""

    def __init__(self, targets: list[int], seed: int = 0) -> None:
        self.targets = targets
        self.counted: Counter[str] = Counter()
        self.faults = threading.Event()
        self._random = random.Random(seed)
        self._down = threading.Event()
        self._closed = threading.Event()
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._closed.set()
        self._listener.close()
        self.cut()

    def down(self) -> None:
        """Refuse every connection from now on, and cut those that are open."""
        self._down.set()
        self.cut()

    def up(self) -> None:
        """Let connections through again."""
        self._down.clear()

    def cut(self) -> None:
        """Cut every open connection."""
        with self._lock:
            opened, self._open = self._open, set()
        for opened_socket in opened:
            reset(opened_socket)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if self._down.is_set():
                self.counted["refused"] += 1
                reset(client)
                continue
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        try:
            server = self._connect()
            with self._lock:
                self._open |= {client, server}
            self.carry(client, server)
        except OSError:
            reset(client)

    def _connect(self) -> socket.socket:
        """Open the way to the first target, from a random one on, that answers."""
        start = self._random.randrange(len(self.targets))
        for port in self.targets[start:] + self.targets[:start]:
            with contextlib.suppress(OSError):
                return socket.create_connection(("127.0.0.1", port), CONNECT_SECONDS)
        raise ConnectionRefusedError

    def carry(self, client: socket.socket, server: socket.socket) -> None:
        """Carry bytes both ways until either side ends."""
        server.settimeout(None)
        threading.Thread(target=self._pump, args=(client, server, self.sent), daemon=True).start()
        self._pump(server, client, self.received)

    def _pump(self, source: socket.socket, sink: socket.socket, seen: Callable[..., bool]) -> None:
        try:
            while data := source.recv(CHUNK):
                if not seen(source, sink, data):
                    break
                sink.sendall(data)
        except OSError:
            pass
        for item in (source, sink):
            with contextlib.suppress(OSError):
                item.shutdown(socket.SHUT_RDWR)
            self._forget(item)

    def _forget(self, each: socket.socket) -> None:
        with self._lock:
            self._open.discard(each)
        each.close()

    def sent(self, client: socket.socket, server: socket.socket, data: bytes) -> bool:
        """Look at what a client sends; False ends the connection."""
        return True

    def received(self, server: socket.socket, client: socket.socket, data: bytes) -> bool:
        """Look at what a server answers; False ends the connection, and the answer is lost."""
        return True


def reset(each: socket.socket) -> None:
    """Close at once, without a goodbye."""
    with contextlib.suppress(OSError):
        each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_LINGER)
        each.shutdown(socket.SHUT_RDWR)
    each.close()


class PostgresProxy(Proxy):
    """Loses the answer to a COMMIT, when told to: Postgres has committed, and the client cannot know."""

    def __init__(self, targets: list[int], seed: int = 0) -> None:
        super().__init__(targets, seed)
        self._lose = 0
        self._doomed: set[socket.socket] = set()

    def lose_next_commit(self) -> None:
        """Cut the connection that commits next, after Postgres has answered and before the answer arrives."""
        with self._lock:
            self._lose += 1

    def sent(self, client: socket.socket, server: socket.socket, data: bytes) -> bool:
        """Mark the connection whose COMMIT passes."""
        if b"COMMIT" in data:
            with self._lock:
                if self._lose:
                    self._lose -= 1
                    self._doomed.add(server)
        return True

    def received(self, server: socket.socket, client: socket.socket, data: bytes) -> bool:
        """Drop the answer of a marked connection."""
        with self._lock:
            if server not in self._doomed:
                return True
            self._doomed.discard(server)
        self.counted["commit answered, answer lost"] += 1
        return False


class S3Proxy(Proxy):
    """Takes requests one by one, and spoils some of them while `faults` is set."""

    RATES = (("503", 0.10), ("reset", 0.05), ("stall", 0.02), ("answer lost", 0.05))

    def carry(self, client: socket.socket, server: socket.socket) -> None:
        """Carry one request after the other, each on a connection of its own to the server."""
        server.close()
        client.settimeout(60)
        with client:
            while request := _read_request(client):
                if not self._answer(client, request):
                    reset(client)
                    return

    def _fault(self) -> str:
        if not self.faults.is_set():
            return ""
        with self._lock:
            drawn = self._random.random()
        for name, rate in self.RATES:
            drawn -= rate
            if drawn < 0:
                self.counted[name] += 1
                return name
        return ""

    def _answer(self, client: socket.socket, request: bytes) -> bool:
        self.counted["requests"] += 1
        fault = self._fault()
        if fault == "stall":
            self._closed.wait(STALL_SECONDS)
        if fault in ("reset", "stall"):
            return False
        if fault == "503":
            client.sendall(b"HTTP/1.1 503 Slow Down\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            return False
        answer = self._ask(request)
        if fault == "answer lost" or not answer:
            return False
        client.sendall(answer)
        with contextlib.suppress(OSError):
            client.shutdown(socket.SHUT_WR)
        return True

    def _ask(self, request: bytes) -> bytes:
        with self._connect() as server:
            server.settimeout(60)
            server.sendall(request)
            parts = []
            while data := server.recv(CHUNK):
                parts.append(data)
            return b"".join(parts)


def _read_request(client: socket.socket) -> bytes:
    """Return a request whole, with the server asked to close afterwards; nothing when the client has ended."""
    data = b""
    while b"\r\n\r\n" not in data:
        more = client.recv(CHUNK)
        if not more:
            return b""
        data += more
    head, body = data.split(b"\r\n\r\n", 1)
    lines = head.split(b"\r\n")
    headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(b":") for line in lines[1:])}
    if headers.get(b"expect", b"").lower() == b"100-continue":
        client.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
    while len(body) < int(headers.get(b"content-length", b"0")):
        more = client.recv(CHUNK)
        if not more:
            return b""
        body += more
    kept = [line for line in lines if not line.lower().startswith((b"expect:", b"connection:"))]
    return b"\r\n".join([*kept, b"Connection: close"]) + b"\r\n\r\n" + body
