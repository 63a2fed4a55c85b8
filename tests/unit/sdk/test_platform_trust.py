"""Whom a run's process trusts as the platform, and how it says that a certificate is not accepted."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from penstock_operator.tls import ServerCertificate
from penstock_sdk import protocol as wire
from penstock_sdk._runtime.client import PlatformUnavailableError, RetryPolicy, RunClient
from penstock_sdk._runtime.platform_trust import platform_trust
from penstock_sdk.errors import AttemptFenced, DefectError

from tests.fakes.certificates import renewed_folder


class FencingHandler(BaseHTTPRequestHandler):
    """Answers each call as for an attempt that has been replaced."""

    def do_POST(self) -> None:
        """Answer."""
        self.rfile.read(int(self.headers["Content-Length"]))
        body = b'{"code":"fenced","message":"another attempt runs"}'
        self.send_response(409)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name there
        """Write nothing."""


@pytest.fixture
def run_api(tmp_path: Path) -> Iterator[int]:
    """The port of a run API over TLS, whose certificate is for `localhost`."""
    renewed_folder(tmp_path / "tls")
    server = HTTPServer(("127.0.0.1", 0), FencingHandler)
    server.socket = ServerCertificate(tmp_path / "tls").context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server.server_port
    server.shutdown()
    server.server_close()


def call(url: str, ca_certificates: str) -> None:
    policy = RetryPolicy(seconds=0, sleep=lambda _: None)
    client = RunClient(url, "token", policy, ca_certificates=ca_certificates)
    try:
        client.egress_report(wire.EgressReport())
    finally:
        client.close()


def test_the_run_api_is_trusted_by_the_ca_of_the_job(run_api: int, tmp_path: Path) -> None:
    with pytest.raises(AttemptFenced, match="another attempt runs"):
        call(f"https://localhost:{run_api}", (tmp_path / "tls/ca.crt").read_text())


def test_a_certificate_that_is_not_accepted_is_named(
    run_api: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    other = renewed_folder(tmp_path / "other").ca_bundle
    words = (
        r"the certificate of the run API \(egress/report\) is not accepted: .*certificate.*`tls` of the chart's values"
    )
    for ca_certificates in ("", other):
        with pytest.raises(PlatformUnavailableError, match=words):
            call(f"https://localhost:{run_api}", ca_certificates)
    with pytest.raises(PlatformUnavailableError, match=r"IP address mismatch"):
        call(f"https://127.0.0.1:{run_api}", (tmp_path / "tls/ca.crt").read_text())
    assert "is not accepted" in caplog.text


def test_text_that_is_no_certificate_is_refused_by_the_name_of_its_variable() -> None:
    with pytest.raises(DefectError, match="PENSTOCK_CA_CERTIFICATES holds no certificate as PEM"):
        platform_trust("nothing")


def test_older_versions_of_tls_are_not_spoken() -> None:
    assert platform_trust("").minimum_version is ssl.TLSVersion.TLSv1_2
