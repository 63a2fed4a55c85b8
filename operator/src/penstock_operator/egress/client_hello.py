"""The first bytes of a tunnel: which host does a TLS client name before its session is encrypted? Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

HANDSHAKE, CLIENT_HELLO = 0x16, 0x01
SERVER_NAME, ENCRYPTED_CLIENT_HELLO = 0x0000, 0xFE0D
HOST_NAME = 0
LONGEST_HELLO = 64 * 1024
RECORD_HEADER, MESSAGE_HEADER, LONGEST_RECORD = 5, 4, 16 * 1024 + 256
POSTGRES_REQUESTS = (bytes.fromhex("0000000804d2162f"), bytes.fromhex("0000000804d21630"))
"""SSLRequest and GSSENCRequest. After the server's one-byte answer, a Postgres client sends a ClientHello or another one."""
POSTGRES_REQUEST_BYTES = 8
TLS_MAJOR = 3
TLS_RECORDS = range(0x14, 0x19)
"""The types of TLS records. A server may skip one of another type before the ClientHello, so all are looked at."""
SSL2_HELLO = b"\x01\x03"
"""In a ClientHello in the form of SSL 2, which names no host and which servers still take."""
NO_HELLO = "the TLS session does not begin with a ClientHello"
OPENING_BYTES = 32
"""How many of a client's first bytes say which protocol it speaks."""
HTTP_REQUEST = re.compile(rb"[A-Z]{3,20} ")


class HelloError(Exception):
    """The bytes begin a TLS session and are no valid ClientHello."""


@dataclass(frozen=True, slots=True)
class ClientHello:
    """The part of a ClientHello that says where it goes."""

    server_name: str | None
    encrypted: bool
    """Whether the real name may be another one, in an encrypted extension (ECH)."""


Opening = Literal["incomplete", "tls", "postgres", "http", "other"]


def opening(data: bytes) -> Opening:
    """Say what a client's first bytes begin."""
    tls = data[:1] and data[0] in TLS_RECORDS and data[1:2] in (b"", bytes([TLS_MAJOR]))
    if tls or (data[:1] >= b"\x80" and data[2:4] == SSL2_HELLO):
        return "tls"
    if any(request.startswith(data[:POSTGRES_REQUEST_BYTES]) for request in POSTGRES_REQUESTS):
        return "postgres" if len(data) >= POSTGRES_REQUEST_BYTES else "incomplete"
    if HTTP_REQUEST.match(data):
        return "http"
    may_be_http = len(data) <= len(b"CONNECT") and data.isalpha() and data.isupper()
    return "incomplete" if may_be_http else "other"


def client_hello(data: bytes) -> ClientHello | None:
    """Return what the ClientHello at the beginning of `data` says; None if more bytes are needed. Raises HelloError."""
    return ClientHelloReader().feed(data)


class ClientHelloReader:
    """Reads the first message of a TLS session, whose bytes arrive in pieces and may be spread over several records.

    Each byte is looked at once, however small the pieces are.
    """

    def __init__(self) -> None:
        self._records = bytearray()
        """Bytes that are not whole records yet."""
        self._message = bytearray()

    def feed(self, data: bytes) -> ClientHello | None:
        """Take the next bytes. Return the ClientHello once it is whole. Raises HelloError if it is none."""
        self._records += data
        at = 0
        while len(self._records) - at >= RECORD_HEADER:
            kind, version = self._records[at], self._records[at + 1]
            size = int.from_bytes(self._records[at + 3 : at + RECORD_HEADER])
            if kind != HANDSHAKE or version != TLS_MAJOR or not 0 < size <= LONGEST_RECORD:
                raise HelloError(NO_HELLO)
            end = at + RECORD_HEADER + size
            if end > len(self._records):
                break
            self._message += self._records[at + RECORD_HEADER : end]
            at = end
            whole = self._whole_message()
            if whole is not None:
                return _parsed(whole)
        del self._records[:at]
        return None

    def _whole_message(self) -> bytes | None:
        if len(self._message) < MESSAGE_HEADER:
            return None
        length = int.from_bytes(self._message[1:MESSAGE_HEADER])
        if self._message[0] != CLIENT_HELLO or length > LONGEST_HELLO:
            raise HelloError(NO_HELLO)
        end = MESSAGE_HEADER + length
        return bytes(self._message[MESSAGE_HEADER:end]) if len(self._message) >= end else None


class _Fields:
    """Length-prefixed fields, read one after the other."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def take(self, size: int) -> bytes:
        """Return the next bytes."""
        found = self._data[self._at : self._at + size]
        if len(found) < size:
            raise HelloError("the ClientHello is cut off")
        self._at += size
        return found

    def vector(self, prefix: int) -> bytes:
        """Return the next field, whose length is in `prefix` bytes before it."""
        return self.take(int.from_bytes(self.take(prefix)))

    def is_at_end(self) -> bool:
        """Return True when nothing is left."""
        return self._at >= len(self._data)


def _parsed(message: bytes) -> ClientHello:
    fields = _Fields(message)
    fields.take(2 + 32)  # legacy version, random
    fields.vector(1)  # session id
    fields.vector(2)  # cipher suites
    fields.vector(1)  # compression methods
    if fields.is_at_end():
        return ClientHello(None, encrypted=False)
    extensions, found = _Fields(fields.vector(2)), dict[int, bytes]()
    while not extensions.is_at_end():
        kind = int.from_bytes(extensions.take(2))
        if kind in found:
            raise HelloError("the ClientHello has an extension twice")
        found[kind] = extensions.vector(2)
    if not fields.is_at_end():
        raise HelloError("the ClientHello has bytes after its extensions")
    name = _server_name(found[SERVER_NAME]) if SERVER_NAME in found else None
    return ClientHello(name, encrypted=ENCRYPTED_CLIENT_HELLO in found)


def _server_name(extension: bytes) -> str:
    outer = _Fields(extension)
    names = _Fields(outer.vector(2))
    kind, name = int.from_bytes(names.take(1)), names.vector(2)
    if kind != HOST_NAME or not names.is_at_end() or not outer.is_at_end() or not name.isascii() or b"\0" in name:
        raise HelloError("the ClientHello does not name one host")
    return name.decode().rstrip(".").lower()
