"""Lists that the API server spoils, against an HTTP server that does so."""

from __future__ import annotations

from typing import Any

import pytest
from kubernetes.aio import client
from kubernetes.aio.client.exceptions import ApiException
from kubernetes.aio.utils.retry import Backoff
from penstock_operator import apiserver
from penstock_operator.controller.kubernetes_resources import KubernetesResources
from penstock_operator.ids import AttemptNumber, ConnectionName, Namespace, RunId
from penstock_operator.launchers import LaunchedAttempt
from penstock_operator.launchers.jobs import JobSettings
from penstock_operator.launchers.kubernetes import KubernetesLauncher
from penstock_operator.resources.documents import Connection
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from tests.fakes.page_reader import FakePageReader
from tests.unit.operator.conftest import answered

CONNECTIONS = "/apis/penstock.io/v1alpha1/tenantconnections"
EXPIRED = {"kind": "Status", "code": 410, "reason": "Expired"}
REFUSED = {"kind": "Status", "code": 403, "reason": "Forbidden"}


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Patience in hundredths."""
    monkeypatch.setattr(apiserver, "PATIENCE", Backoff(steps=6, duration=0.002, factor=2.0))


class Server:
    """Answers with names in pages of two, after as many faults as there are for the page that is asked for."""

    def __init__(self, names: list[str], faults: dict[str, list[Response]]) -> None:
        self._names, self._faults = names, faults
        self.asked: list[tuple[str | None, str]] = []

    def __call__(self, request: Request) -> Response:
        """Answer one request."""
        limit, token = request.args.get("limit"), request.args.get("continue", "")
        self.asked.append((limit, token))
        if self._faults.get(token):
            return self._faults[token].pop(0)
        first = int(token.removeprefix("later-") or 0)
        last = first + 2 if limit else len(self._names)
        more = {"continue": str(last)} if last < len(self._names) else {}
        return answered({"metadata": more, "items": [{"metadata": {"name": name}} for name in self._names[first:last]]})


async def names(api: client.ApiClient, httpserver: HTTPServer, server: Server) -> list[str]:
    """Return the names that a list gives."""
    httpserver.expect_request(CONNECTIONS).respond_with_handler(server)
    pages = KubernetesResources(api).pages(Connection)
    return [connection.name async for page in pages for connection in page]


async def test_a_page_that_fails_in_passing_is_asked_for_again(api: client.ApiClient, httpserver: HTTPServer) -> None:
    busy = [answered({}, status, **{"Retry-After": "0"}) for status in (429, 503, 500)]
    server = Server(["a", "b", "c", "d", "e"], {"2": [*busy, answered({}, 504)]})
    assert await names(api, httpserver, server) == ["a", "b", "c", "d", "e"]
    assert [token for _, token in server.asked] == ["", "2", "2", "2", "2", "2", "4"]
    assert {limit for limit, _ in server.asked} == {"100"}, "a page of the largest connections has to fit into memory"


async def test_a_page_that_goes_on_failing_ends_the_list_with_its_error(
    api: client.ApiClient, httpserver: HTTPServer
) -> None:
    server = Server(["a"], {"": [answered({}, 503) for _ in range(9)]})
    with pytest.raises(ApiException, match="503"):
        await names(api, httpserver, server)
    assert len(server.asked) == 6


async def test_what_is_refused_is_asked_for_once(api: client.ApiClient, httpserver: HTTPServer) -> None:
    server = Server(["a", "b", "c"], {"2": [answered(REFUSED, 403)]})
    with pytest.raises(ApiException, match="403"):
        await names(api, httpserver, server)
    assert [token for _, token in server.asked] == ["", "2"]


async def test_a_list_that_expires_goes_on_where_the_api_server_offers(
    api: client.ApiClient, httpserver: HTTPServer
) -> None:
    offer = answered({**EXPIRED, "metadata": {"continue": "later-2"}}, 410)
    server = Server(["a", "b", "c", "d", "e"], {"2": [offer]})
    assert await names(api, httpserver, server) == ["a", "b", "c", "d", "e"]
    assert server.asked == [("100", ""), ("100", "2"), ("100", "later-2"), ("100", "4")]


@pytest.mark.parametrize("body", [EXPIRED, {**EXPIRED, "metadata": {}}])
async def test_a_list_that_expires_without_an_offer_is_read_whole(
    api: client.ApiClient, httpserver: HTTPServer, body: dict[str, Any]
) -> None:
    server = Server(["a", "b", "c"], {"2": [answered(body, 410)]})
    assert await names(api, httpserver, server) == ["a", "b", "a", "b", "c"]
    assert server.asked == [("100", ""), ("100", "2"), (None, "")]


async def test_a_list_that_has_expired_before_it_began_is_an_error(
    api: client.ApiClient, httpserver: HTTPServer
) -> None:
    server = Server(["a"], {"": [answered(EXPIRED, 410)]})
    with pytest.raises(ApiException, match="410"):
        await names(api, httpserver, server)


async def test_lists_of_pods_and_jobs_are_as_patient(api: client.ApiClient, httpserver: HTTPServer) -> None:
    asked = list[str]()

    def server(request: Request) -> Response:
        kind = request.path.rpartition("/")[2]
        asked.append(kind + request.args.get("continue", ""))
        if asked[-1] == f"{kind}2":
            return answered({**EXPIRED, "metadata": {"continue": "3"}}, 410)
        if asked.count(asked[-1]) == 1:
            return answered({}, 503)
        return answered({"metadata": {} if asked[-1] == f"{kind}3" else {"continue": "2"}, "items": []})

    httpserver.expect_request("/apis/batch/v1/jobs").respond_with_handler(server)
    httpserver.expect_request("/api/v1/pods").respond_with_handler(server)
    attempt = LaunchedAttempt(
        RunId("r1"), AttemptNumber(1), "orders-r1-1", "j1", Namespace("team"), ConnectionName("orders")
    )
    assert await KubernetesLauncher(api, JobSettings("http://penstock")).observe_many([attempt]) == {}
    assert asked == [*("pods", "pods", "pods2", "pods3", "pods3"), *("jobs", "jobs", "jobs2", "jobs3", "jobs3")]


async def test_a_list_is_read_page_by_page() -> None:
    read = FakePageReader("abcde")
    found = [item["metadata"]["name"] async for page in apiserver.pages(read) for item in page]
    assert (found, read.asked) == (["a", "b", "c", "d", "e"], ["", "c", "e"])


async def test_a_page_that_does_not_arrive_ends_the_list_with_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(apiserver, "PAGE_SECONDS", 0.01)
    pages = apiserver.pages(FakePageReader("abcde", hanging="c"))
    assert len(await anext(pages)) == 2
    with pytest.raises(TimeoutError):
        await anext(pages)
