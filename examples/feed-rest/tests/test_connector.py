"""The connector without a platform: `read` is a generator. The conformance suite runs from connector.test.yaml."""

from __future__ import annotations

from collections.abc import Callable

import httpx
import pytest
from penstock_sdk import AuthenticationError, ConfigError, Cursor, SourceContractError, TransientError
from penstock_sdk.contract import rows_of
from penstock_sdk.http import Client

from penstock_feed_rest import FeedRest
from penstock_feed_rest.connector import ENTRIES, Config, Credentials

Handler = Callable[[httpx.Request], httpx.Response]
URL = "http://source.test/feed"


def entry(number: int, moment: str = "") -> str:
    moment = moment or f"2026-01-0{1 + number // 3}T00:00:00Z"
    return f"<entry><id>{number}</id><updated>{moment}</updated><title>t</title></entry>"


class Feed:
    """A feed of pages of four, the newest first."""

    def __init__(self) -> None:
        self.entries = [entry(number) for number in reversed(range(10))]
        self.asked: list[int] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        page = int(request.url.params.get("page", "0"))
        self.asked.append(page)
        more = f'<link rel="next" href="?page={page + 1}"/>' if (page + 1) * 4 < len(self.entries) else ""
        found = "".join(self.entries[page * 4 : page * 4 + 4])
        return httpx.Response(200, text=f'<feed xmlns="http://www.w3.org/2005/Atom">{more}{found}</feed>')


class OnHandler(FeedRest):
    """The connector on a function that answers its requests. No wait takes time."""

    handler: Handler

    def open_client(self) -> Client:
        """Return a client without a network."""
        transport = httpx.MockTransport(self.handler)
        return Client(self.config.url, transport=transport, wait=lambda _seconds: None)


def opened(handler: Handler, **config: object) -> FeedRest:
    """Return the connector, once it has requested the first page."""
    connector = OnHandler(Config(url=URL, **config), Credentials())  # type: ignore[arg-type]
    connector.handler = handler
    connector.authenticate()
    return connector


def read(connector: FeedRest, cursor: Cursor = None) -> tuple[list[str], Cursor]:
    """Read on from a cursor; return the ids and the last cursor."""
    ids: list[str] = []
    for batch in connector.read(ENTRIES, None, cursor):
        ids += [str(row["id"]) for row in rows_of(batch.records)]
        cursor = batch.cursor if batch.cursor is not None else cursor
    return ids, cursor


def test_entries_that_are_added_late_or_at_the_newest_time_are_read_once() -> None:
    feed = Feed()
    connector = opened(feed, overlap_days=2)
    ids, cursor = read(connector)
    assert ids == [str(number) for number in reversed(range(10))]
    feed.entries[:0] = [entry(11)]
    feed.entries[4:4] = [entry(50, "2026-01-03T12:00:00Z")]
    assert sorted(read(connector, cursor)[0]) == ["11", "50"]


def test_reading_on_stops_at_the_first_page_that_is_older() -> None:
    feed = Feed()
    feed.entries = [entry(number, f"2026-01-{30 - index // 4:02d}T00:00:00Z") for index, number in enumerate(range(40))]
    connector = opened(feed, overlap_days=0)
    _, cursor = read(connector)
    feed.asked.clear()
    assert read(connector, cursor)[0] == []
    assert feed.asked == [0, 1]
    unsorted = opened(feed, overlap_days=0, newest_first=False)
    feed.asked.clear()
    read(unsorted, cursor)
    assert feed.asked == list(range(10))


@pytest.mark.parametrize(
    ("status", "text", "error"),
    [
        (401, "", AuthenticationError),
        (404, "", ConfigError),
        (503, "", TransientError),
        (200, "<html", SourceContractError),
        (200, "<rss/>", SourceContractError),
    ],
)
def test_a_failure_has_the_class_that_says_what_to_do(status: int, text: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        opened(lambda _request: httpx.Response(status, text=text))


def test_a_next_page_on_another_host_is_not_requested() -> None:
    text = '<feed xmlns="http://www.w3.org/2005/Atom"><link rel="next" href="http://elsewhere.test/feed"/></feed>'
    with pytest.raises(SourceContractError, match=r"another host, elsewhere\.test"):
        read(opened(lambda _request: httpx.Response(200, text=text)))
