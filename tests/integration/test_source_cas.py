"""A source with a private CA: the connection names the CA, and every client of the connector accepts the source."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from penstock_operator.api.http_server import server_config
from penstock_operator.resources.documents import Connection
from penstock_operator.tls import ServerCertificate
from penstock_sdk._runtime.platform_trust import platform_trust
from penstock_sdk._runtime.source_trust import BUNDLE_VARIABLES, trust_source
from penstock_sdk.protocol import SOURCE_CA_VARIABLE

from tests.fakes.certificates import renewed_folder
from tests.fakes.uvicorn_server import serving_app

CLIENTS = """
import ssl, sys, urllib.request
import httpx
url = sys.argv[1]
assert httpx.get(url).status_code == 404
assert ssl.create_default_context().cert_store_stats()["x509_ca"] > 50, "the system's CAs are trusted too"
try:
    urllib.request.urlopen(url)
except urllib.error.HTTPError as error:
    assert error.code == 404
import boto3, botocore
client = boto3.client("s3", endpoint_url=url, aws_access_key_id="k", aws_secret_access_key="s", region_name="x")
try:
    client.list_buckets()
except botocore.exceptions.ClientError as error:
    assert error.response["ResponseMetadata"]["HTTPStatusCode"] == 404
"""


async def test_each_client_of_a_connector_accepts_the_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = renewed_folder(tmp_path / "tls")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    environment = {SOURCE_CA_VARIABLE: made.ca_bundle}
    bundle = trust_source(environment)
    assert bundle is not None
    assert {environment[name] for name in BUNDLE_VARIABLES} == {str(bundle)}
    config = server_config(
        FastAPI(), "127.0.0.1", 0, shutdown_seconds=1, tls=ServerCertificate(tmp_path / "tls").context
    )
    async with serving_app(config) as port:
        command = [sys.executable, "-c", CLIENTS, f"https://localhost:{port}"]
        for given, code in ((environment, 0), ({}, 1)):
            done = await asyncio.to_thread(
                subprocess.run, command, check=False, capture_output=True, text=True, env={**os.environ, **given}
            )
            assert done.returncode == code, done.stderr
        monkeypatch.setenv("SSL_CERT_FILE", str(bundle))
        with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
            await asyncio.to_thread(httpx.Client(verify=platform_trust("")).get, f"https://localhost:{port}")


def test_without_cas_nothing_is_changed() -> None:
    environment: dict[str, str] = {}
    assert trust_source(environment) is None
    assert environment == {}


def connection(ca_certificates: str) -> Connection:
    spec: dict[str, Any] = {"connector": {"name": "faker", "method": "generate", "version": "^0.1"}}
    spec["tls"] = {"caCertificates": ca_certificates}
    metadata = {"name": "c", "namespace": "team", "uid": "u"}
    return Connection.parse(
        {"apiVersion": "penstock.io/v1alpha1", "kind": "TenantConnection", "metadata": metadata, "spec": spec}
    )


def test_certificates_that_cannot_be_read_are_refused_by_the_name_of_their_field(tmp_path: Path) -> None:
    made = renewed_folder(tmp_path / "tls")
    assert connection(made.ca_bundle).problems == []
    broken = made.ca_bundle.replace("MII", "AAA", 1)
    for text, words in (
        (broken, "a certificate in it cannot be read"),
        ("nothing", "must be certificates as PEM"),
        (made.ca_bundle + made.ca_key, "no private key"),
        (made.ca_bundle * 100, "65536"),
    ):
        (problem,) = connection(text).problems
        assert problem.startswith("spec.tls.caCertificates: "), problem
        assert words in problem
