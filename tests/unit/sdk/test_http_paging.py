"""Paging: every record once, whatever the size of the pages, and an error where a source leads in a circle."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from penstock_sdk import Record, SourceContractError
from penstock_sdk.contract import rows_of
from penstock_sdk.http import (
    Client,
    CursorPaginator,
    Header,
    LastRecord,
    LinkHeaderPaginator,
    NextUrlPaginator,
    OffsetPaginator,
    PageNumberPaginator,
    Paginator,
    Response,
    SinglePage,
)
from penstock_sdk.incremental import CursorField, follow
from penstock_sdk.json_types import JsonValue
from penstock_sdk.testing.source import Collection, FakeSource, Request, Throttled, tied_rows

BASE = "https://api.test"
PAGINATORS: dict[str, Paginator] = {
    "none": SinglePage(),
    "page": PageNumberPaginator(size_param="per_page", size=7),
    "offset": OffsetPaginator(size_param="per_page", size=7),
    "cursor": CursorPaginator("cursor", "next_cursor"),
    "next-url": NextUrlPaginator("next"),
    "link": LinkHeaderPaginator(),
}


def answering(collection: Collection) -> httpx.MockTransport:
    """Return a transport that answers with a collection, without a server."""

    def answer(request: httpx.Request) -> httpx.Response:
        headers = {"host": request.url.netloc.decode()}
        params = dict(request.url.params)
        found = collection.answer(Request(request.method, request.url.path, params, headers, b"", 0.0))
        body = found.body.replace(b"http://", b"https://")
        given_headers = {name: value.replace("http://", "https://") for name, value in found.headers.items()}
        return httpx.Response(found.status, content=body, headers=given_headers)

    return httpx.MockTransport(answer)


def ids(client: Client, paginator: Paginator, **options: Any) -> list[JsonValue]:
    pages = client.pages("items", paginator=paginator, records="items", **options)
    return [row.get("id") for page in pages for row in page.rows]  # type: ignore[misc]


@pytest.mark.parametrize("paging", PAGINATORS)
@given(count=st.integers(0, 60), page_size=st.integers(1, 25), largest_page=st.integers(1, 25))
def test_every_record_is_read_once_for_any_size_of_pages(
    paging: Any, count: int, page_size: int, largest_page: int
) -> None:
    items = Collection("items", tied_rows(count), paging, page_size=page_size, largest_page=largest_page)
    with Client(BASE, transport=answering(items)) as client:
        assert ids(client, PAGINATORS[paging], params={"per_page": page_size}) == list(range(count))


@given(
    count=st.integers(0, 40),
    tied=st.integers(1, 4),
    page_size=st.integers(5, 20),
    late=st.lists(st.tuples(st.integers(1, 30), st.integers(0, 12)), max_size=8),
)
def test_follow_reads_ties_and_later_records_once(
    count: int, tied: int, page_size: int, late: list[tuple[int, int]]
) -> None:
    """Records that are added during the read, at or after the value that was reached, are neither lost nor doubled."""
    items = Collection("items", tied_rows(count, tied=tied), cursor_field="updated_at", largest_page=page_size)
    client = Client(BASE, transport=answering(items))
    additions = {after: (1000 + number, seconds) for number, (after, seconds) in enumerate(late)}

    def fetch(start: Any) -> Sequence[Record]:
        value = "" if start is None else start.isoformat()
        page = next(client.pages("items", params={"updated_since": value, "per_page": page_size}, records="items"))
        return page.rows

    read: list[JsonValue] = []
    cursor = None
    for _ in range(3):  # three runs
        for number, batch in enumerate(
            follow(fetch, CursorField(name="updated_at", key=("id",)), cursor, size=page_size), 1
        ):
            read += [row["id"] for row in rows_of(batch.records)]  # type: ignore[misc]
            cursor = batch.cursor
            if number in additions and items.rows:
                key, _ = additions.pop(number)
                newest = max(str(row["updated_at"]) for row in items.rows)
                if sum(row["updated_at"] == newest for row in items.rows) < page_size - 1:
                    items.add({"id": key, "updated_at": newest})
    assert sorted(read, key=str) == sorted((row["id"] for row in items.rows), key=str)


def test_the_end_is_decided_before_the_connector_filters() -> None:
    items = Collection("items", tied_rows(30), "page")
    with Client(BASE, transport=answering(items)) as client:
        kept = []
        for page in client.pages("items", paginator=PAGINATORS["page"], records="items"):
            rows = list(page.rows)
            kept += [row["id"] for row in rows if row["id"] == 29]
            page.rows = []
    assert kept == [29]


def test_a_paginator_begins_anew_for_each_read() -> None:
    items = Collection("items", tied_rows(20), "page")
    with Client(BASE, transport=answering(items)) as client:
        interrupted = client.pages("items", paginator=PAGINATORS["page"], records="items")
        next(interrupted)
        assert ids(client, PAGINATORS["page"]) == list(range(20))


def test_a_refused_page_is_requested_again_by_itself() -> None:
    with FakeSource(Collection("items", tied_rows(20), "page")) as source:
        source.fail(lambda number: Throttled("1") if number == 2 else None)
        with Client(source.url, wait=lambda _: None) as client:
            assert ids(client, PAGINATORS["page"]) == list(range(20))


def client_of(*bodies: object, headers: dict[str, str] | None = None) -> Client:
    """Return a client whose requests are answered with these bodies, the last one again and again."""
    remaining = list(bodies)

    def answer(_: httpx.Request) -> httpx.Response:
        body = remaining.pop(0) if len(remaining) > 1 else remaining[0]
        return httpx.Response(200, json=body, headers=headers)

    return Client(BASE, transport=httpx.MockTransport(answer))


@pytest.mark.parametrize(
    ("paginator", "body"),
    [
        (CursorPaginator("cursor", "next"), {"items": [], "next": "a"}),
        (NextUrlPaginator("next"), {"items": [], "next": "/items"}),
        (CursorPaginator("after", LastRecord("id"), has_more="more"), {"items": [{"id": 1}], "more": True}),
    ],
)
def test_the_same_request_twice_is_an_error(paginator: Paginator, body: object) -> None:
    with pytest.raises(SourceContractError, match=r"leads back to a request that was already sent|of an earlier page"):
        ids(client_of(body), paginator)


@pytest.mark.parametrize("paging", ["page", "offset"])
def test_a_source_that_ignores_the_paging_is_an_error(paging: str) -> None:
    client = client_of({"items": [{"id": 1}, {"id": 2}]})
    with pytest.raises(SourceContractError, match="the records of an earlier page of /items again"):
        ids(client, PAGINATORS[paging])


def test_equal_pages_can_be_allowed() -> None:
    client = client_of({"items": [{"n": 1}]}, {"items": [{"n": 1}]}, {"items": []})
    pages = client.pages("items", paginator=PAGINATORS["page"], records="items", allow_equal_pages=True)
    assert [len(page.records) for page in pages] == [1, 1, 0]


def test_a_source_of_empty_pages_without_end_is_an_error() -> None:
    paginator = OffsetPaginator(skips="requested", has_more="more")
    with pytest.raises(SourceContractError, match="1000 pages of /items in a row are empty"):
        ids(client_of({"items": [], "more": True}), paginator)


@pytest.mark.parametrize(
    ("paginator", "first", "requests"),
    [
        (PageNumberPaginator(total_pages="pages"), {"items": [{"id": 1}], "pages": 1}, 1),
        (PageNumberPaginator(total_pages="pages"), {"items": [{"id": 1}], "pages": "1"}, 1),
        (PageNumberPaginator(total_pages="pages"), {"items": [{"id": 1}], "pages": None}, 2),
        (PageNumberPaginator(total_pages="pages"), {"items": [{"id": 1}]}, 2),
        (PageNumberPaginator(has_more="more"), {"items": [{"id": 1}], "more": False}, 1),
        (PageNumberPaginator(has_more="more", total_pages="pages"), {"items": [{"id": 1}], "more": True, "pages": 1}, 1),
        (PageNumberPaginator(has_more="more"), {"items": [], "more": True}, 2),
        (PageNumberPaginator(first=0, total_pages="pages"), {"items": [{"id": 1}], "pages": 1}, 1),
        (OffsetPaginator(total="total"), {"items": [{"id": 1}], "total": 1}, 1),
        (OffsetPaginator(total="total"), {"items": [{"id": 1}], "total": 2}, 2),
        (OffsetPaginator(has_more="more"), {"items": [{"id": 1}], "more": False}, 1),
        (CursorPaginator("cursor", "next"), {"items": [{"id": 1}], "next": ""}, 1),
        (CursorPaginator("cursor", "next"), {"items": [{"id": 1}]}, 1),
        (CursorPaginator("cursor", "next"), {"items": [{"id": 1}], "next": 0}, 1),
        (CursorPaginator("cursor", "next", has_more="more"), {"items": [{"id": 1}], "next": "a", "more": False}, 1),
        (CursorPaginator("after", LastRecord("id")), {"items": [{"id": 1}]}, 2),
        (CursorPaginator("cursor", Header("X-Next")), {"items": [{"id": 1}]}, 1),
        (NextUrlPaginator("@odata.nextLink"), {"items": [{"id": 1}], "@odata.nextLink": "/items?page=2"}, 2),
    ],
)  # fmt: skip
def test_a_response_says_where_the_end_is(paginator: Paginator, first: object, requests: int) -> None:
    client = client_of(first, {"items": [], "more": False})
    assert len(list(client.pages("items", paginator=paginator, records="items"))) == requests


@pytest.mark.parametrize(
    ("paginator", "body", "text"),
    [
        (CursorPaginator("c", "next", has_more="more"), {"items": [], "more": True}, "says that more follows, and there is no field 'next'"),
        (CursorPaginator("c", "next", has_more="more"), {"items": [], "more": "often"}, "'more' is not a boolean"),
        (CursorPaginator("c", "next"), {"items": [], "next": [1]}, "field 'next' is not a cursor"),
        (CursorPaginator("c", LastRecord("id")), {"items": [{"name": "a"}]}, "the last record has no 'id'"),
        (NextUrlPaginator("next"), {"items": [], "next": 7}, "is not the URL of the next page"),
        (NextUrlPaginator("next"), {"items": [], "next": "https://evil.test/items"}, "on another host, evil.test"),
        (NextUrlPaginator("next"), {"items": [], "next": "//evil.test/items"}, "on another host"),
        (NextUrlPaginator("next"), {"items": [], "next": "http://api.test/items"}, "on another host"),
        (OffsetPaginator(total="total"), {"items": [{"id": 1}], "total": "many"}, "'total' is not a count"),
        (OffsetPaginator(total="total"), {"items": [{"id": 1}], "total": -1}, "'total' is not a count"),
        (SinglePage(), {"things": []}, "has no field 'items'"),
        (SinglePage(), {"items": {"a": 1}}, "is not a list of records"),
        (SinglePage(), {"items": [1]}, "a record of another shape"),
        (SinglePage(), [], "has no field 'items'"),
    ],
)  # fmt: skip
def test_a_page_that_cannot_be_used_is_named(paginator: Paginator, body: object, text: str) -> None:
    with pytest.raises(SourceContractError, match=text):
        ids(client_of(body), paginator)


def test_null_is_an_empty_list() -> None:
    assert ids(client_of({"items": None}), SinglePage()) == []


@pytest.mark.parametrize(
    ("header", "path"),
    [
        ('<https://api.test/items?page=2>; rel="next"', "/items?page=2"),
        ("</items?a=1,2;3>; rel=next", "/items?a=1,2;3"),
        ('</a>; rel="prev", </b>; title="x, rel=next; <y>"; rel="last next"', "/b"),
        ('</a>; rel="prev"', None),
        ('</a>; rel="nextish"', None),
        ("", None),
    ],
)
def test_a_link_header_is_parsed(header: str, path: str | None) -> None:
    urls: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        urls.append(request.url.raw_path.decode())
        return httpx.Response(200, json=[{"id": len(urls)}], headers={"Link": header} if len(urls) == 1 else {})

    client = Client(BASE, transport=httpx.MockTransport(answer))
    assert len(list(client.pages("items", paginator=LinkHeaderPaginator()))) == (1 if path is None else 2)
    assert urls[1:] == ([] if path is None else [path])


def test_a_cursor_is_sent_in_the_body_of_a_search() -> None:
    bodies: list[bytes] = []

    def answer(request: httpx.Request) -> httpx.Response:
        bodies.append(request.content)
        return httpx.Response(200, json={"items": [len(bodies)], "next": "n" if len(bodies) == 1 else None})

    client = Client(BASE, transport=httpx.MockTransport(answer))
    paginator = CursorPaginator("page.after", "next", place="body")
    list(client.pages("search", paginator=paginator, records="items", method="POST", json={"page": {"size": 5}}))
    assert bodies == [b'{"page":{"size":5}}', b'{"page":{"size":5,"after":"n"}}']


def test_records_are_passed_on_without_being_decoded() -> None:
    body = b'{"items": [ {"id":1,"price":0.10}, {"id":2,"n":12345678901234567890123} ]}'
    client = Client(BASE, transport=httpx.MockTransport(lambda _: httpx.Response(200, content=body)))
    (page,) = client.pages("items", records="items")
    assert page.json == b'[{"id":1,"price":0.10},{"id":2,"n":12345678901234567890123}]'


def test_pages_are_read_one_at_a_time() -> None:
    requests: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        requests.append(str(request.url))
        return httpx.Response(200, json={"items": [{"id": len(requests)}]})

    pages: Iterator[object] = Client(BASE, transport=httpx.MockTransport(answer)).pages(
        "items", paginator=PAGINATORS["page"], records="items"
    )
    next(pages)
    assert len(requests) == 1


# -- pages that are not JSON


def lines_and_link(response: Response) -> tuple[list[str], str | None]:
    """Parse a page of text whose last line can be `next URL`."""
    *lines, last = response.content.decode().split()
    return ([*lines, last], None) if "=" not in last else (lines, last.removeprefix("next="))


def text_client(pages: dict[str, str]) -> Client:
    """Return a client of a source whose pages are text."""
    transport = httpx.MockTransport(lambda request: httpx.Response(200, text=pages[request.url.raw_path.decode()]))
    return Client(BASE, transport=transport)


def test_pages_of_another_format_are_followed_by_their_links() -> None:
    client = text_client({"/a?size=2": "1 2 next=/b?page=2", "/b?page=2": "3 next=c", "/c": "4"})
    assert list(client.linked_pages("a", lines_and_link, params={"size": 2})) == [["1", "2"], ["3"], ["4"]]


@pytest.mark.parametrize(
    ("link", "text"),
    [
        ("/a", "already requested"),
        ("a#top", "already requested"),
        ("https://evil.test/a", "on another host, evil.test"),
        ("//api.test:port/a", "not a valid URL"),
    ],
)
def test_a_link_that_cannot_be_followed_is_named(link: str, text: str) -> None:
    with pytest.raises(SourceContractError, match=text):
        list(text_client({"/a": f"1 next={link}"}).linked_pages("a", lines_and_link))


def test_the_default_port_is_the_same_host() -> None:
    client = text_client({"/a": f"1 next={BASE}:443/b", "/b": "2"})
    assert list(client.linked_pages("a", lines_and_link)) == [["1"], ["2"]]
