"""Redirects: the two clients that follow them have one rule, and credentials never leave the host."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import httpx
import pytest
from penstock_sdk import SourceContractError
from penstock_sdk.auth import Auth
from penstock_sdk.http import Client
from penstock_sdk.testing.source import Answer, Collection, FakeSource, Request, tied_rows

from tests.unit.sdk.auth.logins import login

SECRET = "a-secret"
HEADERS = {"X-Tenant": SECRET}


def toolkit_client(base_url: str, auth: Auth) -> Client:
    return Client(base_url, auth=auth, headers=HEADERS, wait=lambda _seconds: None)


def login_client(base_url: str, auth: Auth) -> httpx.Client:
    return auth.client(base_url=base_url, headers=HEADERS, follow_redirects=True)


CLIENTS = pytest.mark.parametrize("open_client", [toolkit_client, login_client])
Open = Callable[[str, Auth], AbstractContextManager[Any]]


@pytest.fixture
def source() -> Iterator[FakeSource]:
    with FakeSource(Collection("items", tied_rows(6), paging="none")) as running:
        yield running


@pytest.fixture
def other_source() -> Iterator[FakeSource]:
    """Another host: another port is one, too."""
    with FakeSource(Collection("items", tied_rows(3), paging="none")) as running:
        yield running


def key(place: str = "header", name: str = "X-Api-Key") -> Auth:
    return login("apiKey", {"api_key": SECRET}, {"in": place, "name": name})


def redirect_to(location: str, status: int = 302) -> Answer:
    return Answer(status, b"", {"Location": location, "Set-Cookie": f"session={SECRET}"})


def places_of_secrets(request: Request) -> set[str]:
    """Return the headers and parameters that hold a credential."""
    return {name for name, value in {**request.headers, **request.params}.items() if SECRET in value}


@CLIENTS
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize(("place", "name"), [("header", "x-api-key"), ("cookie", "cookie"), ("query", "key")])
def test_a_redirect_to_another_host_carries_no_credentials(
    open_client: Open, status: int, place: str, name: str, source: FakeSource, other_source: FakeSource
) -> None:
    source.fail_next(redirect_to(f"{other_source.url}/items", status))
    with open_client(source.url, key(place, "sid" if place == "cookie" else name)) as client:
        client.get("items")
    assert places_of_secrets(source.requests[0]) == {name, "x-tenant"}
    (sent,) = other_source.requests
    assert (places_of_secrets(sent), sent.params) == (set(), {})


@CLIENTS
def test_a_redirect_back_carries_credentials_again(
    open_client: Open, source: FakeSource, other_source: FakeSource
) -> None:
    source.fail_next(redirect_to(f"{other_source.url}/moved"))
    other_source.fail_next(Answer(302, b"", {"Location": f"{source.url}/items"}))
    with open_client(source.url, key()) as client:
        client.get("items")
    assert places_of_secrets(source.requests[1]) == {"x-api-key", "x-tenant", "cookie"}


@CLIENTS
def test_an_absolute_url_of_another_host_gets_no_credentials(
    open_client: Open, source: FakeSource, other_source: FakeSource
) -> None:
    source.fail_next(Answer(200, b"{}", {"Set-Cookie": f"session={SECRET}"}))
    with open_client(source.url, key()) as client:
        client.get("items")
        client.get(f"{other_source.url}/items")
    assert places_of_secrets(other_source.requests[0]) == set()


@CLIENTS
@pytest.mark.parametrize(
    ("status", "method", "body"), [(307, "POST", b'{"a":1}'), (308, "POST", b'{"a":1}'), (302, "GET", b"")]
)
def test_a_redirect_on_the_same_host_is_followed(
    open_client: Open, status: int, method: str, body: bytes, source: FakeSource
) -> None:
    source.fail_next(redirect_to("/items", status))
    with open_client(source.url, key()) as client:
        client.post("old", json={"a": 1})
    assert (source.requests[1].method, source.requests[1].body) == (method, body)
    assert places_of_secrets(source.requests[1]) == {"x-api-key", "x-tenant", "cookie"}


@CLIENTS
@pytest.mark.parametrize("status", [307, 308])
def test_a_body_is_not_sent_to_another_host(
    open_client: Open, status: int, source: FakeSource, other_source: FakeSource
) -> None:
    source.fail_next(redirect_to(f"{other_source.url}/items", status))
    with (
        open_client(source.url, key()) as client,
        pytest.raises(SourceContractError, match="redirected to another host"),
    ):
        client.post("items", json={"a": 1})
    assert other_source.requests == []


@CLIENTS
@pytest.mark.parametrize(
    ("location", "text"),
    [
        ("ftp://elsewhere", "not HTTP"),
        ("https://", "leads to no host"),
        ("//api.test:port/", "an address that is not valid"),
        ("/again", "more than 5 times"),
    ],
)
def test_a_redirect_that_leads_nowhere_is_named(
    open_client: Open, location: str, text: str, source: FakeSource
) -> None:
    source.fail(lambda _: redirect_to(location))
    with open_client(source.url, key()) as client, pytest.raises(SourceContractError, match=text):
        client.get("items")


@CLIENTS
def test_five_redirects_in_a_row_are_followed(open_client: Open, source: FakeSource) -> None:
    source.fail_next(*[redirect_to("/items")] * 5)
    with open_client(source.url, key()) as client:
        client.get("items")
    assert len(source.requests) == 6


@CLIENTS
def test_a_redirect_from_https_to_http_is_refused(open_client: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(_transport: object, request: httpx.Request) -> httpx.Response:
        return httpx.Response(302, headers={"Location": "http://api.test/v1/items"}, request=request)

    monkeypatch.setattr(httpx.HTTPTransport, "handle_request", answer)
    opened, refused = (
        open_client("https://api.test/v1", key()),
        pytest.raises(SourceContractError, match="https to http"),
    )
    with opened as client, refused:
        client.get("items")


def test_a_client_of_a_login_returns_redirects_unless_it_should_follow(source: FakeSource) -> None:
    source.fail_next(redirect_to("/items"), redirect_to("/items"))
    with key().client(base_url=source.url) as client:
        assert client.get("items").status_code == 302
        followed = client.get("items", follow_redirects=True)
    assert [response.status_code for response in [*followed.history, followed]] == [302, 200]


def test_a_client_of_a_login_keeps_a_stream_open(source: FakeSource) -> None:
    source.fail_next(redirect_to("/items"))
    with login_client(source.url, key()) as client, client.stream("GET", "items") as response:
        assert b"item 5" in b"".join(response.iter_bytes())


def test_a_streamed_body_is_not_sent_twice(source: FakeSource) -> None:
    source.fail_next(redirect_to("/items", 307))
    with login_client(source.url, key()) as client, pytest.raises(SourceContractError, match="cannot be sent twice"):
        client.post("items", content=iter([b"a"]))


def test_without_a_base_url_the_first_host_gets_the_credentials(source: FakeSource, other_source: FakeSource) -> None:
    source.fail_next(redirect_to(f"{other_source.url}/items"))
    with login_client("", key()) as client:
        client.get(f"{source.url}/items")
    assert places_of_secrets(source.requests[0]) == {"x-api-key", "x-tenant"}
    assert places_of_secrets(other_source.requests[0]) == set()
