"""The host of a TLS session, as its ClientHello names it; OpenSSL makes the ClientHellos, and is asked what it sees."""

from __future__ import annotations

import random
import ssl
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from penstock_operator.egress.client_hello import HelloError, client_hello, opening

ECH = bytes.fromhex("fe0d") + (3).to_bytes(2) + b"\0\0\0"


def hello_of(host: str | None, **options: Any) -> bytes:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    for name, value in options.items():
        setattr(context, name, value)
    outgoing = ssl.MemoryBIO()
    session = context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname=host)
    with pytest.raises(ssl.SSLWantReadError):
        session.do_handshake()
    return outgoing.read()


def in_records(hello: bytes, size: int) -> bytes:
    body = hello[5:]
    pieces = [body[at : at + size] for at in range(0, len(body), size)]
    return b"".join(hello[:3] + len(piece).to_bytes(2) + piece for piece in pieces)


def seen_by_openssl(data: bytes) -> str | None:
    """Return the name that OpenSSL's server sees; raise ssl.SSLError where it sees no ClientHello."""
    seen: list[str | None] = []
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.sni_callback = lambda _session, name, _context: seen.append(name)
    incoming = ssl.MemoryBIO()
    incoming.write(data)
    session = context.wrap_bio(incoming, ssl.MemoryBIO(), server_side=True)
    try:
        session.do_handshake()
    except ssl.SSLError:
        if not seen:
            raise
    return seen[0]


def with_extension(hello: bytes, extension: bytes) -> bytes:
    """Return the ClientHello with one more extension at its end."""
    body = bytearray(hello[9:])
    at = 34
    at += 1 + body[at]
    at += 2 + int.from_bytes(body[at : at + 2])
    at += 1 + body[at]
    length = int.from_bytes(body[at : at + 2]) + len(extension)
    body[at : at + 2] = length.to_bytes(2)
    message = b"\x01" + (len(body) + len(extension)).to_bytes(3) + bytes(body) + extension
    return hello[:3] + len(message).to_bytes(2) + message


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("size", [1, 3, 4, 5, 17, 200, 10_000])
def test_the_name_is_read_however_the_hello_is_cut(version: ssl.TLSVersion, size: int) -> None:
    hello = hello_of("Db.Example.com", maximum_version=version)
    found = client_hello(in_records(hello, size))
    assert found is not None
    assert found.server_name == "db.example.com"
    assert not found.encrypted


@pytest.mark.parametrize("size", [1, 7, 500])
def test_a_hello_that_is_not_whole_is_waited_for(size: int) -> None:
    data = in_records(hello_of("db.example.com"), size)
    assert all(client_hello(data[:end]) is None for end in range(0, len(data), max(1, len(data) // 50)))
    assert client_hello(data + b"more") == client_hello(data)


def test_a_session_without_a_name_has_none() -> None:
    found = client_hello(hello_of(None))
    assert found is not None
    assert found.server_name is None


def test_an_encrypted_hello_is_seen() -> None:
    found = client_hello(with_extension(hello_of("outer.example"), ECH))
    assert found is not None
    assert found.encrypted


def test_a_second_name_is_refused() -> None:
    name = b"evil.example"
    entry = b"\0" + len(name).to_bytes(2) + name
    listed = len(entry).to_bytes(2) + entry
    with pytest.raises(HelloError, match="twice"):
        client_hello(with_extension(hello_of("good.example"), b"\0\0" + len(listed).to_bytes(2) + listed))


@given(st.integers(0, 2**32), st.integers(1, 12))
def test_it_never_sees_another_name_than_openssl(seed: int, changes: int) -> None:
    rng = random.Random(seed)
    data = bytearray(in_records(hello_of("db.example.com"), rng.choice([50, 10_000])))
    for _ in range(changes):
        data[rng.randrange(len(data))] = rng.randrange(256)
    try:
        ours = client_hello(bytes(data))
    except HelloError:
        return
    if ours is None or ours.server_name is None:
        return
    try:
        theirs = seen_by_openssl(bytes(data))
    except (ssl.SSLError, UnicodeError):
        return
    assert theirs is None or theirs.lower().rstrip(".") == ours.server_name


@given(st.binary(max_size=400))
def test_no_bytes_are_an_error_of_ours(data: bytes) -> None:
    opening(data)
    try:
        client_hello(b"\x16\x03\x01" + data)
    except HelloError:
        return


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"", "incomplete"),
        (b"\x16\x03", "tls"),
        (b"GET / HTTP/1.1", "http"),
        (b"PRI * HTTP/2.0", "http"),
        (b"GE", "incomplete"),
        (b"\0\0\0\x08\x04\xd2\x16\x2f", "postgres"),
        (b"\0\0\0\x08\x04\xd2\x16\x30", "postgres"),
        (b"\0\0\0", "incomplete"),
        (b"\0\0\0\x4e\0\3\0\0user", "other"),
        (b"SSH-2.0-x", "other"),
    ],
)
def test_the_first_bytes_tell_the_protocol(data: bytes, kind: str) -> None:
    assert opening(data) == kind
