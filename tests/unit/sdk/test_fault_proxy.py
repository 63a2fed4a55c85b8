"""Between connector and source: what passes is unchanged, and what is planned happens."""

from __future__ import annotations

import time

import httpx
import pytest
from penstock_sdk.testing import Target
from penstock_sdk.testing.fault_proxy import DelayedResponse, ErrorResponse, Fault, NoResponse, through_proxy
from pytest_httpserver import HTTPServer

from tests.patience import PATIENCE

NO_ANSWER = httpx.Timeout(PATIENCE, read=0.3)
"""Only the answer's absence is short: the connection itself may take its time."""


@pytest.fixture
def source(httpserver: HTTPServer) -> Target:
    httpserver.expect_request("/v1/items").respond_with_json({"next": httpserver.url_for("/v1/items?page=2")})
    return Target(artifact="trial-rest", config={"baseUrl": httpserver.url_for("/v1")}, url_field="baseUrl")


def test_the_path_stays_and_a_link_to_the_source_leads_back_to_the_relay(source: Target) -> None:
    with through_proxy(source) as (moved, relay):
        assert moved.config["baseUrl"] == f"http://127.0.0.1:{relay.port}/v1"
        answer = httpx.get(f"{moved.config['baseUrl']}/items")
        assert answer.json() == {"next": f"http://127.0.0.1:{relay.port}/v1/items?page=2"}
        assert httpx.get(answer.json()["next"]).status_code == 200
        assert len(relay.requests) == 2


def plan(number: int) -> Fault | None:
    return {1: ErrorResponse(429, 7), 2: DelayedResponse(0.3), 3: NoResponse()}.get(number)


def test_what_is_planned_for_a_request_happens_to_it_and_to_no_other(source: Target) -> None:
    with through_proxy(source, plan) as (moved, relay):
        url = f"{moved.config['baseUrl']}/items"
        refused = httpx.get(url)
        assert (refused.status_code, refused.headers["Retry-After"]) == (429, "7")
        began = time.monotonic()
        assert httpx.get(url).status_code == 200
        assert time.monotonic() - began >= 0.3
        with pytest.raises(httpx.ReadTimeout):
            httpx.get(url, timeout=NO_ANSWER)
        assert httpx.get(url).status_code == 200
        assert [refused for _, refused in relay.requests] == [True, False, False, False]


def test_a_connection_is_relayed_byte_for_byte_and_can_be_left_without_an_answer(httpserver: HTTPServer) -> None:
    httpserver.expect_request("/").respond_with_data(b"x" * 300_000)
    place = {"host": httpserver.host, "port": httpserver.port}
    subject = Target(artifact="trial-sql", config=place, host_field="host", port_field="port")
    with through_proxy(subject) as (moved, relay):
        assert httpx.get(f"http://{moved.config['host']}:{moved.config['port']}/").content == b"x" * 300_000
        relay.plan = lambda _number: NoResponse()
        with pytest.raises(httpx.ReadTimeout):
            httpx.get(f"http://{moved.config['host']}:{moved.config['port']}/", timeout=NO_ANSWER)
