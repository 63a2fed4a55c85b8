"""The registry over TLS: a real Postgres with a certificate of the release, and what is said when it is not accepted."""

from __future__ import annotations

import asyncio
import contextlib
import os
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

import psycopg
import pytest
from penstock_operator.settings import database_url
from penstock_operator.tls import server_context

from tests.fakes.certificates import renewed_folder

SSL_REQUEST = 80877103
NAME = "penstock.penstock-system.svc"


@dataclass(frozen=True)
class TlsServer:
    """A Postgres that speaks TLS; `url` names the host of its certificate."""

    url: str
    ca_file: Path


class TlsFront:
    """Speaks TLS in front of a Postgres, as the server itself would: the embedded one is built without TLS."""

    def __init__(self, folder: Path, port: int) -> None:
        self._context = server_context()
        self._context.set_alpn_protocols(["postgresql"])
        self._context.load_cert_chain(folder / "tls.crt", folder / "tls.key")
        self._behind = port
        self._loop = asyncio.new_event_loop()
        self._server = self._loop.run_until_complete(asyncio.start_server(self._serve, "127.0.0.1", 0))
        self.port = int(self._server.sockets[0].getsockname()[1])
        self._thread = threading.Thread(target=self._loop.run_forever)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._server.close()
        self._loop.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert await reader.readexactly(8) == struct.pack("!II", 8, SSL_REQUEST)
        writer.write(b"S")
        with contextlib.suppress(OSError):
            await writer.start_tls(self._context)
            read, written = await asyncio.open_connection("127.0.0.1", self._behind)
            await asyncio.gather(_copy(reader, written), _copy(read, writer))


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
    writer.close()


@pytest.fixture(scope="module")
def server(postgres_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TlsServer]:
    """The server."""
    folder = tmp_path_factory.mktemp("tls")
    renewed_folder(folder)
    parts = urlsplit(postgres_url)
    with TlsFront(folder, parts.port or 0) as front:
        netloc = f"{parts.username}:{parts.password}@{NAME}:{front.port}"
        yield TlsServer(parts._replace(netloc=netloc, query="hostaddr=127.0.0.1").geturl(), folder / "ca.crt")


def test_the_registry_is_reached_over_tls_that_is_verified(server: TlsServer) -> None:
    environment = {"PENSTOCK_DATABASE_URL": server.url, "PENSTOCK_POSTGRES_CA_FILE": str(server.ca_file)}
    with psycopg.connect(database_url(environment)) as connection:
        assert connection.pgconn.ssl_in_use
        assert connection.execute("SELECT 1").fetchone() == (1,)


@pytest.mark.parametrize(
    ("change", "environment", "words"),
    [
        ((NAME, "elsewhere.example"), {}, "does not match host name"),
        (("", ""), {"PENSTOCK_POSTGRES_CA_FILE": ""}, "certificate verify failed"),
        (("", ""), {"PENSTOCK_POSTGRES_CA_FILE": "/nowhere/ca.crt"}, "does not exist"),
    ],
)
def test_a_certificate_that_is_not_accepted_is_one_sentence_with_a_remedy(
    server: TlsServer, change: tuple[str, str], environment: dict[str, str], words: str
) -> None:
    url = server.url.replace(*change) if change[0] else server.url
    given = {"PENSTOCK_DATABASE_URL": url, "PENSTOCK_POSTGRES_CA_FILE": str(server.ca_file), **environment}
    command = [sys.executable, "-m", "penstock_operator.cli", "migrate"]
    done = subprocess.run(command, check=False, capture_output=True, text=True, env={**os.environ, **given})
    assert done.returncode == 2
    assert words in done.stderr
    assert "set postgres.caSecret (PENSTOCK_POSTGRES_CA_FILE)" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert "Traceback" not in done.stderr
