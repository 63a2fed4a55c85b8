"""A neighbour in the network, without the release's CA or its keys, between run pods, the server and the gateway."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from pathlib import Path

import httpx
import pytest
from penstock_operator.api.http_server import server_config
from penstock_operator.cli.egress_gateway import probe_app
from penstock_operator.egress.gateway import GatewayLimits
from penstock_operator.tls import ServerCertificate
from penstock_sdk._runtime.client import PlatformUnavailableError, RetryPolicy, RunClient
from penstock_sdk._runtime.egress_gateway import EgressGateway
from penstock_sdk._runtime.platform_trust import platform_trust
from penstock_sdk.errors import TransientError
from penstock_sdk.protocol import EgressReport

from tests.adversarial.attacks import StartAttack
from tests.fakes.certificates import renewed_folder
from tests.fakes.egress import TOKEN, FakeEgressAuthority, gateway, listening
from tests.fakes.uvicorn_server import serving_app

CONNECT = b"CONNECT shop.example:443 HTTP/1.1\r\nHost: shop.example\r\n\r\n"
GET = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"


async def answered(port: int, request: bytes) -> bytes:
    """Return what a server answers to bytes without TLS."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    received = b""
    with contextlib.suppress(ConnectionError):
        received = await reader.read(1000)
    writer.close()
    return received


def old_version(version: ssl.TLSVersion) -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = context.maximum_version = version
    return context


async def has_session(port: int, context: ssl.SSLContext) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname="localhost")
    except OSError:
        return False
    writer.close()
    return True


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
async def test_a_neighbour_gets_nothing_without_tls_or_with_an_old_version(tmp_path: Path, attack: StartAttack) -> None:
    renewed_folder(tmp_path / "tls")
    context = ServerCertificate(tmp_path / "tls").context
    limits = GatewayLimits(head_seconds=5)
    config = server_config(probe_app(), "127.0.0.1", 0, shutdown_seconds=1, tls=context)
    async with (
        serving_app(config) as server,
        listening(gateway(FakeEgressAuthority([]), limits=limits), context) as proxy,
    ):
        with attack("speak without TLS", actor="network neighbour", invariant=7) as tries:
            for port, request in ((server, GET), (proxy, CONNECT)):
                found = await answered(port, request)
                tries.record(succeeded=b"HTTP/" in found, detail=found)
        with attack("speak an old version of TLS", actor="network neighbour", invariant=7) as tries:
            for port in (server, proxy):
                for version in (ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1):
                    tries.record(succeeded=await has_session(port, old_version(version)), detail=version)


async def test_a_neighbour_cannot_take_the_place_of_a_server(tmp_path: Path, attack: StartAttack) -> None:
    """The neighbour has certificates for the right names, of a CA of its own, and none of the release's."""
    bundle = renewed_folder(tmp_path / "release").ca_bundle
    renewed_folder(tmp_path / "neighbour")
    context = ServerCertificate(tmp_path / "neighbour").context
    config = server_config(probe_app(), "127.0.0.1", 0, shutdown_seconds=1, tls=context)
    authority = FakeEgressAuthority([])
    async with serving_app(config) as server, listening(gateway(authority), context) as proxy:
        with attack("answer as the run API", actor="network neighbour", invariant=7) as tries:
            client = RunClient(
                f"https://localhost:{server}", TOKEN, RetryPolicy(seconds=0, sleep=lambda _: None), None, bundle
            )
            try:
                await asyncio.to_thread(client.egress_report, EgressReport())
                tries.record(succeeded=True, detail="an answer was accepted")
            except PlatformUnavailableError as refused:
                tries.record(succeeded="is not accepted" not in refused.message, detail=refused.message)
            client.close()
        with attack("answer as the egress gateway", actor="network neighbour", invariant=7) as tries:
            reached = await asyncio.to_thread(
                EgressGateway, f"https://localhost:{proxy}", TOKEN, platform_trust(bundle)
            )
            try:
                await asyncio.to_thread(reached.connect, "shop.example", 443)
                tries.record(succeeded=True, detail="a tunnel was opened")
            except TransientError as refused:
                tries.record(succeeded="is not accepted" not in refused.message, detail=refused.message)
            async with httpx.AsyncClient(proxy=reached.proxy_url) as http:
                try:
                    answer = await http.get("http://shop.example/")
                    tries.record(succeeded=answer.status_code != 502, detail=answer)
                except httpx.TransportError as refused:
                    tries.record(succeeded=False, detail=refused)
        assert not authority.reports
