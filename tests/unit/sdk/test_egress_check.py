"""Where no gateway is, the SDK itself holds a connector to the hosts of its manifest."""

from __future__ import annotations

import contextlib
import http.client
import socket
import threading
from collections.abc import Iterator

import httpx
import psycopg
import pytest
from penstock_sdk import ConfigError
from penstock_sdk._runtime.egress_check import EgressCheck
from penstock_sdk.manifest import EgressRule


@pytest.fixture
def listeners() -> Iterator[list[int]]:
    """Two ports of this machine that take connections."""
    opened = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
    yield [listener.getsockname()[1] for listener in opened]
    for listener in opened:
        listener.close()


pytestmark = pytest.mark.usefixtures("psycopg_as_it_was")


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_declared_destination_is_reached_and_another_port_is_not(listeners: list[int], host: str) -> None:
    declared, other = listeners
    check = EgressCheck([EgressRule(host, declared)])
    with check.installed():
        socket.create_connection((host, declared)).close()
        with pytest.raises(ConfigError, match=rf"egress to 127.0.0.1:{other} is denied"):
            socket.create_connection(("127.0.0.1", other))
    assert [(denial.host, denial.port) for denial in check.denials] == [("127.0.0.1", other)]
    socket.create_connection(("127.0.0.1", other)).close()  # it ends with the block


def test_a_name_is_not_even_looked_up() -> None:
    check = EgressCheck([EgressRule("localhost", 80)])
    with check.installed():
        for ask in (
            lambda: socket.getaddrinfo("telemetry.invalid", 443),
            lambda: httpx.get("https://telemetry.invalid/"),
            lambda: http.client.HTTPSConnection("telemetry.invalid").request("GET", "/"),
            lambda: psycopg.connect("host=telemetry.invalid port=443"),
        ):
            with pytest.raises(ConfigError, match=r"telemetry\.invalid:443"):
                ask()
    assert len(check.denials) == 1, "each destination once"


def test_a_connector_that_hides_the_error_is_denied_all_the_same(listeners: list[int]) -> None:
    check = EgressCheck([])

    def hidden() -> None:
        with contextlib.suppress(Exception):
            socket.create_connection(("127.0.0.1", listeners[0]))

    with check.installed():
        thread = threading.Thread(target=hidden)
        thread.start()
        thread.join()
    assert [denial.port for denial in check.denials] == [listeners[0]]


def test_the_platforms_own_connections_are_not_the_connectors(listeners: list[int]) -> None:
    check = EgressCheck([])
    with check.installed():
        with check.platform_traffic():
            socket.create_connection(("127.0.0.1", listeners[0])).close()
        with pytest.raises(ConfigError):
            socket.create_connection(("127.0.0.1", listeners[0]))
