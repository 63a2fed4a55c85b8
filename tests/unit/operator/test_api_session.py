"""The command's calls of the read API: pages are followed, and only as far as they are needed."""

from __future__ import annotations

import httpx
import pytest
from penstock_operator.api.models import StartedRun
from penstock_operator.cli.api_session import ApiSession
from penstock_operator.cli.exit_codes import CommandError
from penstock_operator.limits import MAX_PAGE_ITEMS


class Server:
    """A listing of 2,500 runs, which links its pages by another host's address."""

    def __init__(self) -> None:
        self.requests: list[httpx.URL] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request.url)
        start, limit = int(request.url.params.get("cursor", 0)), int(request.url.params["limit"])
        items = [{"id": str(number), "unknown": "newer"} for number in range(start, min(start + limit, 2500))]
        link = f'<https://other.example/v1/runs?cursor={start + limit}>; rel="next"'
        return httpx.Response(200, json=items, headers={"Link": link} if start + limit < 2500 else {})

    def session(self) -> ApiSession:
        return ApiSession(httpx.AsyncClient(transport=httpx.MockTransport(self), base_url="http://penstock"), None)


async def test_a_listing_has_the_items_of_all_pages_of_its_own_server() -> None:
    server = Server()
    runs = await server.session().listing(StartedRun, "/runs", namespace=None, name="orders")
    assert [run.id for run in runs] == [str(number) for number in range(2500)]
    assert [(url.host, url.params.get("cursor")) for url in server.requests] == [
        ("penstock", None),
        ("penstock", "1000"),
        ("penstock", "2000"),
    ]
    assert {url.params["name"] for url in server.requests} == {"orders"}
    assert "namespace" not in server.requests[0].params


@pytest.mark.parametrize(("most", "limits"), [(1, ["1"]), (1200, [str(MAX_PAGE_ITEMS), "200"]), (0, [])])
async def test_no_more_is_asked_for_than_is_needed(most: int, limits: list[str]) -> None:
    server = Server()
    assert len(await server.session().listing(StartedRun, "/runs", most=most)) == most
    assert [url.params["limit"] for url in server.requests] == limits


async def test_an_answer_of_another_shape_is_refused() -> None:
    with pytest.raises(CommandError, match="does not match the read API"):
        await Server().session().post(StartedRun, "/runs?limit=1")
