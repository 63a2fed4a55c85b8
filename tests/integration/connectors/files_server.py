"""A file server on loopback that speaks HTTP's versions and ranges, and can be made to know less, or to break off."""

from __future__ import annotations

import email.utils
import hashlib
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

BEGINNING = 1_767_225_600


@dataclass
class Kept:
    """A file as it lies there."""

    body: bytes
    modified: int

    @cached_property
    def etag(self) -> str:
        return f'"{hashlib.md5(self.body + str(self.modified).encode(), usedforsecurity=False).hexdigest()}"'


@dataclass
class FilesServer:
    """What it holds, and how it behaves. `break_after` breaks each answer off after so many bytes, once a number."""

    files: dict[str, Kept] = field(default_factory=dict)
    ranges: bool = True
    etags: bool = True
    moments: bool = True
    head: bool = True
    sizes: bool = True
    head_sizes: bool = False
    authorization: str | None = None
    statuses: list[tuple[int, dict[str, str]]] = field(default_factory=list)
    failing: dict[str, int] = field(default_factory=dict)
    """Statuses of paths that cannot be read."""
    break_after: list[int] = field(default_factory=list)
    block: int = 1
    """A part begins at a multiple of it, and says so."""
    longest: int | None = None
    """A part is not longer, and says so."""
    more: dict[str, str] = field(default_factory=dict)
    """Headers that go before the server's own."""
    asked: list[tuple[str, str, str]] = field(default_factory=list)
    port: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def put(self, name: str, body: bytes, modified: int = 0) -> str:
        self.files[f"/{name}"] = Kept(body, BEGINNING + modified)
        return f"{self.url}/{name}"

    def put_listed(self, bucket: str, files: dict[str, bytes]) -> str:
        """Put files into a bucket, and what S3 lists of it; returns the pattern of all of them."""
        for key, body in files.items():
            self.put(f"{bucket}/{key}", body)
        entry = "<Contents><Key>{}</Key><Size>{}</Size><LastModified>2026-01-01T00:00:00Z</LastModified></Contents>"
        listed = "".join(entry.format(key, len(body)) for key, body in files.items())
        self.put(bucket, f"<ListBucketResult>{listed}</ListBucketResult>".encode())
        return f"s3://{bucket}/**"


class Handler(BaseHTTPRequestHandler):
    """Answers for the `files` of its subclass."""

    protocol_version = "HTTP/1.1"
    files: FilesServer

    def setup(self) -> None:
        super().setup()
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def log_message(self, *arguments: object) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        """Refuse, or give the file."""
        self.files.asked.append((self.command, self.path, self.headers.get("Range", "")))
        file = self.files.files.get(self.path.partition("?")[0])
        status, headers = self._refusal(file)
        if status == 200 and file is not None:
            self._give(file)
        else:
            self._answer(status, headers)

    do_HEAD = do_GET  # noqa: N815 - http.server calls it so

    def _refusal(self, file: Kept | None) -> tuple[int, dict[str, str]]:
        if self.files.statuses:
            return self.files.statuses.pop(0)
        failing = self.files.failing.get(self.path.partition("?")[0])
        if failing:
            return failing, {}
        if self.files.authorization not in (None, self.headers.get("Authorization")):
            return 401, {}
        if self.command == "HEAD" and not self.files.head:
            return 405, {}
        if file is None:
            return 404, {}
        changed = self.files.etags and self.headers.get("If-Match", file.etag) != file.etag
        return (412 if changed else 200), {}

    def _give(self, file: Kept) -> None:
        headers = {}
        if self.files.etags:
            headers["ETag"] = file.etag
        if self.files.moments:
            headers["Last-Modified"] = email.utils.formatdate(file.modified, usegmt=True)
        asked = self.headers.get("Range", "") if self.files.ranges else ""
        if not asked:
            self._answer(200, headers, file.body)
            return
        wanted, _, last = asked.removeprefix("bytes=").partition("-")
        first = int(wanted) // self.files.block * self.files.block
        part = file.body[first : int(last) + 1 if last else None][: self.files.longest]
        headers["Content-Range"] = f"bytes {first}-{first + len(part) - 1}/{len(file.body)}"
        self._answer(206 if part else 416, headers, part)

    def _answer(self, status: int, headers: dict[str, str], body: bytes = b"") -> None:
        self.send_response(status)
        for name, value in {**headers, **(self.files.more if status in (200, 206) else {})}.items():
            self.send_header(name, value)
        if self.files.sizes or not body or (self.files.head_sizes and self.command == "HEAD"):
            self.send_header("Content-Length", str(len(body)))
        else:
            self.send_header("Connection", "close")
            self.close_connection = True
        self.end_headers()
        if self.command == "HEAD":
            return
        if body and self.files.break_after:
            body = body[: self.files.break_after.pop(0)]
            self.close_connection = True
        self.wfile.write(body)


class Server(ThreadingHTTPServer):
    """A client that has read enough closes its connection, which is nothing to tell of."""

    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of connections that were closed."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


@contextmanager
def serving() -> Iterator[FilesServer]:
    """Serve until the block is left."""
    server = FilesServer()
    with Server(("127.0.0.1", 0), type("Serving", (Handler,), {"files": server})) as http:
        server.port = http.server_address[1]
        thread = threading.Thread(target=http.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield server
        finally:
            http.shutdown()
            thread.join()
