"""The egress gateway on loopback: HTTP, HTTPS and Postgres go through it, and every denial is reported."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import ipaddress
import itertools
import ssl
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import psycopg
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from penstock_operator.egress.addresses import AddressPolicy
from penstock_operator.egress.gateway import GatewayLimits
from penstock_sdk._runtime.egress_gateway import EgressGateway
from penstock_sdk.manifest import EgressRule

from tests.fakes.egress import TOKEN, FakeEgressAuthority, FakeNames, gateway, listening

LOOPBACK = ipaddress.ip_address("127.0.0.1")
HOST = "source.example"
BODY = bytes(range(256)) * 8192  # 2 MiB


@dataclasses.dataclass(frozen=True)
class Certificate:
    """A self-signed certificate of HOST."""

    path: Path
    key: Path


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    """Make a certificate."""
    folder, key = tmp_path_factory.mktemp("tls"), ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, HOST)])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(HOST)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    found = Certificate(folder / "cert.pem", folder / "key.pem")
    found.path.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    found.key.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return found


@contextlib.asynccontextmanager
async def http_source(certificate: Certificate | None = None) -> AsyncIterator[int]:
    """Serve HTTP: the answer repeats the request's head, and then its body."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                fields = dict(line.split(b": ", 1) for line in head.lower().split(b"\r\n")[1:] if line)
                sent = await reader.readexactly(int(fields.get(b"content-length", b"0")))
                body = head + (sent or BODY)
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
                await writer.drain()
        writer.close()

    context = None
    if certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate.path, certificate.key)
    server = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=context)
    yield server.sockets[0].getsockname()[1]
    server.close()


def proxy(port: int, token: str = TOKEN) -> str:
    return f"http://run:{token}@127.0.0.1:{port}"


def names() -> FakeNames:
    return FakeNames({HOST: [[LOOPBACK]], "other.example": [[LOOPBACK]]})


def private(host: str, port: int) -> EgressRule:
    return EgressRule(host, port, private=True)


async def test_plain_http_goes_through_and_every_request_is_judged() -> None:
    async with http_source() as source, http_source() as forbidden:
        authority = FakeEgressAuthority([private(HOST, source)])
        async with (
            listening(gateway(authority, names=names())) as port,
            httpx.AsyncClient(proxy=proxy(port), timeout=60) as client,
        ):
            answer = await client.get(f"http://{HOST}:{source}/a?b=c", headers={"Host": "other.example", "X-Own": "1"})
            assert answer.content.endswith(BODY)
            head = answer.content.removesuffix(BODY).decode()
            assert head.startswith("GET /a?b=c HTTP/1.1\r\n")
            assert f"host: {HOST}:{source}" in head.lower()
            assert "x-own: 1" in head.lower()
            assert "proxy-authorization" not in head.lower()
            posted = await client.post(f"http://{HOST}:{source}/", content=BODY)
            assert posted.content.endswith(BODY)
            denied = await client.get(f"http://{HOST}:{forbidden}/")
            assert denied.status_code == 403
            assert "network.egress" in denied.text
    assert [(denial.host, denial.port) for denial in authority.denials] == [(HOST, forbidden)]
    assert sum(report.received for report in authority.reports) > 2 * len(BODY)
    assert sum(report.sent for report in authority.reports) > len(BODY)


async def test_https_goes_through_with_the_name_that_was_asked_for(certificate: Certificate) -> None:
    trusted = ssl.create_default_context(cafile=str(certificate.path))
    async with http_source(certificate) as source:
        authority = FakeEgressAuthority([private(HOST, source)])
        async with (
            listening(gateway(authority, names=names())) as port,
            httpx.AsyncClient(proxy=proxy(port), verify=trusted, timeout=60) as client,
        ):
            for _ in range(3):
                answer = await client.get(f"https://{HOST}:{source}/")
                assert answer.content.endswith(BODY)
    assert not authority.denials
    assert sum(report.received for report in authority.reports) > 3 * len(BODY)


async def test_postgres_goes_through(postgres_url: str) -> None:
    parts = urlsplit(postgres_url)
    assert parts.port
    authority = FakeEgressAuthority([private("db.example", parts.port)])
    served = gateway(authority, names=FakeNames({"db.example": [[LOOPBACK]]}))
    async with listening(served) as port:
        client = EgressGateway(f"http://127.0.0.1:{port}", TOKEN)
        address, local = await asyncio.to_thread(client.tunnel, "db.example", parts.port)
        connection = await psycopg.AsyncConnection.connect(
            postgres_url, host="db.example", hostaddr=address, port=local
        )
        async with connection:
            found = await connection.execute("SELECT repeat('x', 1000000) FROM generate_series(1, 20)")
            assert sum(len(row[0]) for row in await found.fetchall()) == 20_000_000
    assert sum(report.received for report in authority.reports) > 20_000_000
    assert not authority.denials


async def exchange(port: int, request: bytes) -> bytes:
    """Send bytes to the gateway, and return its answer to the end."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    answer = await asyncio.wait_for(reader.read(), 60)
    writer.close()
    return answer


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        ("CONNECT source.example:1 HTTP/1.1\r\nHost: a\r\n\r\n", 407),
        ("CONNECT source.example:1 HTTP/1.1\r\nHost: a\r\nProxy-Authorization: Bearer other\r\n\r\n", 407),
        ("CONNECT source.example:1 HTTP/1.1\r\nHost: a\r\nProxy-Authorization: Basic !\r\n\r\n", 407),
        (f"CONNECT source.example HTTP/1.1\r\nHost: a\r\nProxy-Authorization: Bearer {TOKEN}\r\n\r\n", 400),
        (f"CONNECT http://a.example/ HTTP/1.1\r\nHost: a\r\nProxy-Authorization: Bearer {TOKEN}\r\n\r\n", 400),
        (f"GET / HTTP/1.1\r\nHost: a\r\nProxy-Authorization: Bearer {TOKEN}\r\n\r\n", 400),
        (f"GET https://a.example/ HTTP/1.1\r\nHost: a\r\nProxy-Authorization: Bearer {TOKEN}\r\n\r\n", 400),
        ("\x16\x03\x01\r\n\r\n", 400),
        ("GET http://a.example/ HTTP/1.1\r\n" + "X-Long: " + "x" * 20_000 + "\r\n\r\n", 400),
        (f"CONNECT nowhere.example:80 HTTP/1.1\r\nHost: a\r\nProxy-Authorization: Bearer {TOKEN}\r\n\r\n", 502),
    ],
)
async def test_a_request_that_is_not_served_is_answered(request_: str, status: int) -> None:
    authority = FakeEgressAuthority([private("nowhere.example", 80)])
    async with listening(gateway(authority, names=names())) as port:
        answer = await exchange(port, request_.encode("latin-1"))
    assert answer.startswith(f"HTTP/1.1 {status} ".encode())
    assert not authority.denials


async def test_a_name_is_resolved_once_and_its_second_answer_has_no_effect() -> None:
    async with http_source() as source:
        authority = FakeEgressAuthority([EgressRule(HOST, source)])
        resolver = FakeNames({HOST: [[ipaddress.ip_address("198.51.100.7"), LOOPBACK], [LOOPBACK]]})
        served = gateway(authority, AddressPolicy(), GatewayLimits(connect_seconds=0.2), resolver)
        async with listening(served) as port, httpx.AsyncClient(proxy=proxy(port)) as client:
            assert (await client.get(f"http://{HOST}:{source}/")).status_code == 403
    assert resolver.lookups == [HOST]


async def test_tunnels_end_with_their_attempt() -> None:
    async with http_source() as source:
        authority = FakeEgressAuthority([private(HOST, source)])
        served = gateway(authority, limits=GatewayLimits(recheck_seconds=0.05), names=names())
        async with listening(served) as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            target = f"{HOST}:{source}"
            writer.write(
                f"CONNECT {target} HTTP/1.1\r\nHost: a\r\nProxy-Authorization: Bearer {TOKEN}\r\n\r\n".encode()
            )
            assert b" 200 " in await reader.readuntil(b"\r\n\r\n")
            authority.has_ended = True
            assert await asyncio.wait_for(reader.read(), 60) == b""
            writer.close()


async def test_a_hello_that_comes_byte_by_byte_has_one_deadline() -> None:
    async with http_source() as source:
        authority = FakeEgressAuthority([private(HOST, source)])
        served = gateway(authority, limits=GatewayLimits(head_seconds=0.5), names=names())
        async with listening(served) as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            head = f"CONNECT {HOST}:{source} HTTP/1.1\r\nHost: a\r\nProxy-Authorization: Bearer {TOKEN}\r\n\r\n"
            writer.write(head.encode())
            assert b" 200 " in await reader.readuntil(b"\r\n\r\n")
            closed = asyncio.create_task(reader.read())
            beginning = itertools.chain(b"\x16\x03\x01\x40\0\x01\0\x3f\0", itertools.repeat(0))
            async with asyncio.timeout(60):
                while not closed.done():  # a byte long before the deadline, again and again
                    writer.write(bytes([next(beginning)]))
                    await asyncio.wait({closed}, timeout=0.02)
            writer.close()
    assert [denial.reason for denial in authority.denials] == ["the first bytes did not say in time where they go"]


async def test_connections_of_a_run_are_bounded() -> None:
    async with http_source() as source:
        authority = FakeEgressAuthority([private(HOST, source)])
        served = gateway(authority, limits=GatewayLimits(connections_per_run=2), names=names())
        head = f"CONNECT {HOST}:{source} HTTP/1.1\r\nHost: a\r\nProxy-Authorization: Bearer {TOKEN}\r\n\r\n".encode()
        async with listening(served) as port:
            opened = [await asyncio.open_connection("127.0.0.1", port) for _ in range(2)]
            for reader, writer in opened:
                writer.write(head)
                assert b" 200 " in await reader.readuntil(b"\r\n\r\n")
            assert (await exchange(port, head)).startswith(b"HTTP/1.1 429 ")
            for _, writer in opened:
                writer.close()
