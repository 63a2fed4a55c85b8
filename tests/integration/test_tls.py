"""The HTTP server over TLS: its limits hold for handshakes too, and its certificate changes while connections are open."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI
from penstock_operator.api.http_server import server_config
from penstock_operator.tls import (
    ClientTrust,
    Handshakes,
    ServerCertificate,
    TlsError,
    TrustedCertificates,
    client_context,
)

from tests.fakes.certificates import NO_OVERLAP, renewed_folder
from tests.fakes.uvicorn_server import serving_app
from tests.patience import PATIENCE

HOST = "localhost"


def app() -> FastAPI:
    made = FastAPI(openapi_url=None)

    @made.get("/healthz")
    async def healthz() -> dict[str, str]:
        return {"status": "ok"}

    return made


def serving(tls: ssl.SSLContext) -> AbstractAsyncContextManager[int]:
    """Serve on loopback, and give the port."""
    return serving_app(server_config(app(), "127.0.0.1", 0, shutdown_seconds=1, tls=tls))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The certificates of a release."""
    renewed_folder(tmp_path / "tls")
    return tmp_path / "tls"


def trusting(folder: Path) -> ssl.SSLContext:
    return ClientTrust(TrustedCertificates(folder / "ca.crt")).context


async def presented(port: int, context: ssl.SSLContext) -> bytes:
    """Return the certificate that a new connection is shown."""
    _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname=HOST)
    shown = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.close()
    return bytes(shown)


async def test_a_client_that_trusts_the_ca_is_answered(folder: Path) -> None:
    async with serving(ServerCertificate(folder).context) as port:
        async with httpx.AsyncClient(verify=trusting(folder)) as client:
            answer = await client.get(f"https://{HOST}:{port}/healthz")
        assert answer.json() == {"status": "ok"}
        with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
            async with httpx.AsyncClient() as client:
                await client.get(f"https://{HOST}:{port}/healthz")


async def test_an_address_is_no_name_of_the_certificate(folder: Path) -> None:
    async with serving(ServerCertificate(folder).context) as port:
        with pytest.raises(httpx.ConnectError, match="IP address mismatch"):
            async with httpx.AsyncClient(verify=trusting(folder)) as client:
                await client.get(f"https://127.0.0.1:{port}/healthz")


async def get(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
    """Send a request on an open connection, and return the status line."""
    writer.write(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
    status = await reader.readline()
    await reader.readuntil(b'{"status":"ok"}')
    return status


async def test_a_new_certificate_is_presented_and_open_connections_stay(tmp_path: Path) -> None:
    folder = tmp_path / "tls"
    renewed_folder(folder, after_days=-31)
    certificate, context = ServerCertificate(folder), trusting(folder)
    async with serving(certificate.context) as port:
        opened = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname=HOST)
        assert b" 200 " in await get(*opened)
        before = await presented(port, context)
        assert not certificate.reload()
        renewed_folder(folder)
        assert certificate.reload()
        assert await presented(port, context) != before
        assert b" 200 " in await get(*opened), "the connection is the one from before"
        opened[1].close()


async def test_a_client_with_the_earlier_bundle_is_answered_until_the_new_ca_signs(folder: Path) -> None:
    certificate, early = ServerCertificate(folder), trusting(folder)
    renewed_folder(folder, rotate=True)
    assert not certificate.reload(), "the serving certificate is the same"
    both = trusting(folder)
    async with serving(certificate.context) as port:
        await presented(port, early)
        await presented(port, both)
        renewed_folder(folder, lifetimes=NO_OVERLAP)
        assert certificate.reload()
        await presented(port, both)
        with pytest.raises(ssl.SSLCertVerificationError):
            await presented(port, early)


async def test_a_client_that_runs_for_months_learns_a_new_ca(folder: Path) -> None:
    trust = ClientTrust(TrustedCertificates(folder / "ca.crt"))
    renewed_folder(folder, rotate=True)
    assert trust.reload()
    assert not trust.reload()
    renewed_folder(folder, lifetimes=NO_OVERLAP)
    async with serving(ServerCertificate(folder).context) as port:
        await presented(port, trust.context)


async def test_files_that_cannot_be_used_leave_the_certificate_as_it_was(folder: Path, tmp_path: Path) -> None:
    certificate = ServerCertificate(folder)
    renewed_folder(tmp_path / "other")
    key = (folder / "tls.key").read_text()
    (folder / "tls.key").write_text((tmp_path / "other/tls.key").read_text() + "\n")
    with pytest.raises(TlsError, match="must be a certificate and its private key"):
        certificate.reload()
    async with serving(certificate.context) as port:
        await presented(port, trusting(folder))
        (folder / "tls.key").write_text(key)
        assert certificate.reload()
        await presented(port, trusting(folder))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"tls.crt": None}, r"tls\.crt: No such file or directory"),
        ({"tls.key": "nothing"}, "must be a certificate and its private key"),
    ],
)
def test_a_missing_or_broken_certificate_is_named(folder: Path, change: dict[str, str | None], words: str) -> None:
    for name, text in change.items():
        (folder / name).unlink()
        if text is not None:
            (folder / name).write_text(text)
    with pytest.raises(TlsError, match=words) as raised:
        ServerCertificate(folder)
    assert "PENSTOCK_TLS_DIRECTORY" in str(raised.value)


@pytest.mark.parametrize(
    "text", ["", "no certificate", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"]
)
def test_a_ca_file_without_a_certificate_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "ca.crt").write_text(text)
    with pytest.raises(TlsError, match="holds no certificate as PEM"):
        TrustedCertificates(tmp_path / "ca.crt").text()
    with pytest.raises(TlsError, match="cannot be read"):
        TrustedCertificates(tmp_path / "missing").text()


async def test_a_client_that_never_finishes_its_handshake_is_disconnected(folder: Path) -> None:
    handshakes = Handshakes(ServerCertificate(folder).context, seconds=0.1)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: handshakes.before(asyncio.Protocol()), "127.0.0.1", 0)
    async with server, asyncio.timeout(PATIENCE):
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        writer.write(b"\x16\x03\x01")
        with contextlib.suppress(ConnectionError):
            assert await reader.read() == b""
        assert len(handshakes) == 0
        writer.close()


async def test_the_oldest_of_too_many_handshakes_is_ended_and_clients_are_answered(folder: Path) -> None:
    handshakes = Handshakes(ServerCertificate(folder).context, most=20, seconds=PATIENCE)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: handshakes.before(asyncio.Protocol()), "127.0.0.1", 0)
    address = server.sockets[0].getsockname()
    async with server, asyncio.timeout(PATIENCE):
        opened = [await asyncio.open_connection(*address) for _ in range(50)]
        await presented(address[1], trusting(folder))
        assert len(handshakes) <= 20
        with contextlib.suppress(ConnectionError):
            assert await opened[0][0].read() == b""
        for _, writer in opened:
            writer.close()


def test_the_default_context_of_a_client_trusts_no_release() -> None:
    assert client_context().verify_mode is ssl.CERT_REQUIRED
    assert client_context().check_hostname
