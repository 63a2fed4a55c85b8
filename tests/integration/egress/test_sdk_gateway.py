"""The SDK's end of the egress gateway: psycopg and HTTP clients use it without work by the author."""

from __future__ import annotations

import asyncio
import functools
import ipaddress
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import psycopg
import pytest
from penstock_operator.tls import ServerCertificate
from penstock_sdk import ConfigError, TransientError
from penstock_sdk._runtime.egress_gateway import EgressGateway
from penstock_sdk._runtime.platform_trust import platform_trust
from penstock_sdk.egress import tunnel, use_tunnels
from penstock_sdk.manifest import EgressRule

from tests.fakes.certificates import renewed_folder
from tests.fakes.egress import TOKEN, FakeEgressAuthority, FakeNames, gateway, listening

LOOPBACK = ipaddress.ip_address("127.0.0.1")
HOST = "db.example"


@pytest.fixture
def source_port(postgres_url: str) -> int:
    """The port of a real Postgres, which the rules declare."""
    port = urlsplit(postgres_url).port
    assert port
    return port


@pytest.fixture(params=["plain", "tls"])
async def served(
    source_port: int, request: pytest.FixtureRequest, tmp_path: Path
) -> AsyncIterator[tuple[EgressGateway, FakeEgressAuthority]]:
    """A gateway that lets db.example through, and a name that nothing answers to."""
    rules = [EgressRule(HOST, source_port, private=True), EgressRule("gone.example", source_port)]
    authority = FakeEgressAuthority(rules)
    names = FakeNames({HOST: [[LOOPBACK]]})
    if request.param == "plain":
        async with listening(gateway(authority, names=names)) as port:
            yield EgressGateway(f"http://127.0.0.1:{port}", TOKEN), authority
    else:
        trusted = platform_trust(renewed_folder(tmp_path / "tls").ca_bundle)
        presented = ServerCertificate(tmp_path / "tls").context
        async with listening(gateway(authority, names=names), presented) as port:
            yield await asyncio.to_thread(EgressGateway, f"https://localhost:{port}", TOKEN, trusted), authority
    use_tunnels(None)


pytestmark = pytest.mark.usefixtures("psycopg_as_it_was")


def rows(postgres_url: str, **options: object) -> int:
    statement = "COPY (SELECT repeat('x', 1000) FROM generate_series(1, 20000)) TO STDOUT"
    connection = psycopg.connect(postgres_url, autocommit=True, **options)  # type: ignore[arg-type]
    with connection, connection.cursor().copy(statement) as copy:
        return sum(len(data) for data in copy)


async def test_psycopg_reads_through_the_gateway(
    served: tuple[EgressGateway, FakeEgressAuthority], postgres_url: str, source_port: int
) -> None:
    client, authority = served
    environment: dict[str, str] = {}
    client.install(environment)
    counts = await asyncio.gather(
        *(asyncio.to_thread(functools.partial(rows, postgres_url, host=HOST, port=source_port)) for _ in range(3))
    )
    assert counts == [20_020_000] * 3
    asynchronous = await psycopg.AsyncConnection.connect(postgres_url, host=HOST, port=source_port)
    async with asynchronous:
        assert (await (await asynchronous.execute("SELECT 1")).fetchone()) == (1,)
    await client_closed(authority)
    assert sum(report.received for report in authority.reports) > 60_000_000
    assert environment["HTTPS_PROXY"] == client.proxy_url


async def client_closed(authority: FakeEgressAuthority) -> None:
    """Wait until the tunnels have reported their bytes, as they do when they end."""
    async with asyncio.timeout(60):
        while len(authority.reports) < 4:
            await asyncio.sleep(0.01)


async def test_a_denial_is_a_config_error(served: tuple[EgressGateway, FakeEgressAuthority], postgres_url: str) -> None:
    client, authority = served
    client.install({})
    with pytest.raises(ConfigError, match=r"egress to other.example:1 is denied: network.egress"):
        await asyncio.to_thread(functools.partial(rows, postgres_url, host="other.example", port=1))
    assert [denial.host for denial in authority.denials] == ["other.example"]


async def test_a_source_that_does_not_answer_is_a_transient_error(
    served: tuple[EgressGateway, FakeEgressAuthority], source_port: int
) -> None:
    client, _ = served
    with pytest.raises(TransientError, match=r"gone\.example"):
        await asyncio.to_thread(client.connect, "gone.example", source_port)
    with pytest.raises(TransientError, match="gateway does not answer"):
        EgressGateway("http://127.0.0.1:1", TOKEN).connect(HOST, source_port)


async def test_an_http_client_uses_it_by_its_environment(
    served: tuple[EgressGateway, FakeEgressAuthority], monkeypatch: pytest.MonkeyPatch
) -> None:
    client, authority = served
    environment: dict[str, str] = {}
    client.install(environment)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    async with httpx.AsyncClient() as http:
        assert (await http.get("http://telemetry.example/")).status_code == 403
        with pytest.raises(httpx.ProxyError, match="403"):
            await http.get("https://telemetry.example/")
    assert [(denial.host, denial.port) for denial in authority.denials] == [
        ("telemetry.example", 80),
        ("telemetry.example", 443),
    ]


def test_without_a_gateway_a_connection_is_direct() -> None:
    assert tunnel(HOST, 5432) == (HOST, 5432)


async def test_a_gateway_whose_certificate_is_not_accepted_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    renewed_folder(tmp_path / "tls")
    other = platform_trust(renewed_folder(tmp_path / "other").ca_bundle)
    authority = FakeEgressAuthority([])
    words = r"the certificate of the egress gateway localhost is not accepted: .*; the platform's owner can see `tls`"
    async with listening(gateway(authority), ServerCertificate(tmp_path / "tls").context) as port:
        client = await asyncio.to_thread(EgressGateway, f"https://localhost:{port}", TOKEN, other)
        with pytest.raises(TransientError, match=words):
            await asyncio.to_thread(client.connect, HOST, 1)
        with pytest.raises(httpx.ProxyError, match=words):
            async with httpx.AsyncClient(proxy=client.proxy_url) as http:
                await http.get("https://shop.example/")
    assert not authority.reports
