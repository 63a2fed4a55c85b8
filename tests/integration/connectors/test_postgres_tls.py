"""postgres-sql and a server whose certificate is of an authority of its own.

The embedded server is built without TLS: a proxy before it speaks it, as Postgres asks for it.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from penstock_postgres_sql import PostgresSql
from penstock_postgres_sql.config import PostgresConfig, PostgresCredentials
from penstock_sdk import AuthenticationError, ConfigError
from penstock_sdk._runtime.write_guard import no_local_writes
from psycopg.conninfo import conninfo_to_dict

DAY = dt.timedelta(days=1)


@dataclass
class Authority:
    """A certificate authority, and what it signs."""

    name: str

    def __post_init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, self.name)])
        built = self._built(self._subject, self._key, DAY).add_extension(
            x509.BasicConstraints(ca=True, path_length=None), critical=True
        )
        self.certificate = _pem(built.sign(self._key, hashes.SHA256()))

    def _built(
        self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, left: dt.timedelta
    ) -> x509.CertificateBuilder:
        now = dt.datetime.now(dt.UTC)
        return (
            x509.CertificateBuilder().subject_name(subject).issuer_name(self._subject).public_key(key.public_key())
            .serial_number(x509.random_serial_number()).not_valid_before(now - 30 * DAY).not_valid_after(now + left)
        )  # fmt: skip

    def sign(self, name: str, left: dt.timedelta = DAY) -> tuple[str, str]:
        """Return a certificate for a name, and its key."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        built = self._built(subject, key, left).add_extension(
            x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False
        )
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        return _pem(built.sign(self._key, hashes.SHA256())), private.decode()


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


AUTHORITY, STRANGER = Authority("ours"), Authority("another")


class TlsProxy:
    """Speaks TLS to clients, as a Postgres server does after their request, and plainly to a server."""

    def __init__(self, folder: Path, url: str, signed: tuple[str, str], clients: str | None = None) -> None:
        parts = conninfo_to_dict(url)
        self._server = (str(parts["host"]), int(str(parts["port"])))
        (folder / "chain.pem").write_text("".join(signed))
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(folder / "chain.pem")
        if clients:
            self._context.load_verify_locations(cadata=clients)
            self._context.verify_mode = ssl.CERT_REQUIRED
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listening.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listening.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with contextlib.suppress(OSError), client:
            client.recv(8)  # the request for TLS
            client.sendall(b"S")
            with (
                self._context.wrap_socket(client, server_side=True) as secure,
                socket.create_connection(self._server) as plain,
            ):
                back = threading.Thread(target=self._relay, args=(plain, secure), daemon=True)
                back.start()
                self._relay(secure, plain)
                back.join()

    def _relay(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)


@pytest.fixture
def proxied(tmp_path: Path, source_url: str) -> Iterator[Callable[..., TlsProxy]]:
    """Proxies before the server, by the certificate that they show."""
    made: list[TlsProxy] = []
    with psycopg.connect(source_url) as session:
        session.execute("CREATE TABLE t (id int PRIMARY KEY)")

    def proxy(signed: tuple[str, str], clients: str | None = None) -> TlsProxy:
        made.append(TlsProxy(tmp_path, source_url, signed, clients))
        return made[-1]

    yield proxy
    for tls_proxy in made:
        tls_proxy.close()


def source_of(url: str, proxy: TlsProxy, secret: dict[str, str] | None = None, **config: str) -> PostgresSql:
    parts = {key: str(value) for key, value in conninfo_to_dict(url).items()}
    place = {"host": "localhost", "database": parts["dbname"], "sslmode": "verify-full", **config}
    return PostgresSql(
        PostgresConfig(port=proxy.port, **place),  # type: ignore[arg-type]
        PostgresCredentials(username=parts["user"], password=parts["password"], **(secret or {})),
    )


def reads(source: PostgresSql) -> bool:
    """Open the session under the runtime's guard, as a run does."""
    with no_local_writes():
        source.authenticate()
        found = [stream.name for stream in source.discover()] == ["public.t"]
        source.close()
    return found


@pytest.mark.parametrize("mode", ["verify-ca", "verify-full"])
def test_a_ca_from_config_or_secret_is_trusted(source_url: str, proxied: Callable[..., TlsProxy], mode: str) -> None:
    proxy = proxied(AUTHORITY.sign("localhost"))
    assert reads(source_of(source_url, proxy, sslmode=mode, ca_certificate=AUTHORITY.certificate))
    assert reads(source_of(source_url, proxy, {"ca_certificate": AUTHORITY.certificate}, sslmode=mode))


HALF = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"


@pytest.mark.parametrize("ca", [None, STRANGER.certificate, "rubbish", HALF])
def test_an_authority_that_is_not_known_is_the_config(
    source_url: str, proxied: Callable[..., TlsProxy], ca: str | None
) -> None:
    config: dict[str, Any] = {"ca_certificate": ca} if ca else {}
    with pytest.raises(ConfigError, match="caCertificate"):
        source_of(source_url, proxied(AUTHORITY.sign("localhost")), **config).authenticate()


def test_a_certificate_for_another_name_is_the_config(source_url: str, proxied: Callable[..., TlsProxy]) -> None:
    source = source_of(source_url, proxied(AUTHORITY.sign("db.example.com")), ca_certificate=AUTHORITY.certificate)
    with pytest.raises(ConfigError, match=r"spec\.config\.host.*another name"):
        source.authenticate()


def test_a_certificate_that_has_expired_is_told(source_url: str, proxied: Callable[..., TlsProxy]) -> None:
    proxy = proxied(AUTHORITY.sign("localhost", -DAY))
    with pytest.raises(ConfigError, match="expired"):
        source_of(source_url, proxy, ca_certificate=AUTHORITY.certificate).authenticate()


def test_a_client_certificate_is_shown(source_url: str, proxied: Callable[..., TlsProxy]) -> None:
    proxy = proxied(AUTHORITY.sign("localhost"), AUTHORITY.certificate)
    certificate, key = AUTHORITY.sign("reader")
    known: dict[str, Any] = {"ca_certificate": AUTHORITY.certificate}
    assert reads(source_of(source_url, proxy, {"client_certificate": certificate, "client_key": key}, **known))
    with pytest.raises(ConfigError, match="both or neither"):
        source_of(source_url, proxy, {"client_key": key}, **known).authenticate()
    other, its_key = STRANGER.sign("reader")
    with pytest.raises(AuthenticationError, match="clientCertificate"):
        source_of(source_url, proxy, {"client_certificate": other, "client_key": its_key}, **known).authenticate()
