"""The connector: entries of an Atom feed, page by page."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any
from xml.etree import ElementTree as Xml

import msgspec
from penstock_sdk import Batch, Cursor, SourceContractError, Stream
from penstock_sdk.http import Client, ClientLimits, HttpConnector, Response
from penstock_sdk.incremental import CursorField, to_utc
from penstock_sdk.json_types import JsonObject

ACCEPT = {"Accept": "application/atom+xml, application/xml;q=0.9, */*;q=0.5"}
ATOM = "{http://www.w3.org/2005/Atom}"
TEXTS = ("id", "updated", "published", "title", "summary", "content")
PROPERTIES: JsonObject = {
    **{name: {"type": ["string", "null"]} for name in (*TEXTS, "author", "link")},
    "id": {"type": "string"},
    "updated": {"type": "string", "format": "date-time"},
    "categories": {"type": "array", "items": {"type": "string"}},
}
ENTRIES = Stream(
    name="entries",
    schema={"type": "object", "properties": PROPERTIES, "required": list(PROPERTIES)},
    primary_key=("id",),
    cursor_field="updated",
    modes=("full", "incremental"),
    cursor_care=("ties",),
    pii=("author",),
)


class Config(msgspec.Struct, rename="camel", forbid_unknown_fields=True):
    """The config of a connection, as the configSchema of connector.yaml declares it."""

    url: str
    newest_first: bool = True
    overlap_days: int = 7
    timeout_seconds: float = 30.0


class Credentials(msgspec.Struct):
    """The keys of the Secret. Most feeds are public; the others need both."""

    username: str | None = None
    password: str | None = None


class FeedRest(HttpConnector[Config, Credentials]):
    """Reads an Atom feed."""

    def open_client(self) -> Client:
        """Return a client for the feed's host."""
        limits = ClientLimits(timeout=self.config.timeout_seconds)
        return Client(self.config.url.partition("?")[0], auth=self.authentication, limits=limits)

    def send_probe(self) -> None:
        """Request the first page."""
        next(self._pages(None))

    def discover(self) -> tuple[Stream, ...]:
        """Return the stream, which is the same for every feed."""
        return (ENTRIES,)

    def read(self, stream: Stream, since: datetime | None, cursor: Cursor | None) -> Iterator[Batch]:
        """Yield the feed's pages. Only the last batch has a cursor, because the newest entry comes first.

        The cursor holds the time of the newest entry, and the ids of the entries in the overlap before it. The next
        read begins at the start of the overlap and leaves out these ids, so it finds entries that were added late.
        """
        overlap = timedelta(days=self.config.overlap_days)
        before = after = CursorField(name="updated", key=("id",), overlap=overlap).watermark(cursor)
        for page in self._pages(before.start_since(since)):
            fresh = after.unseen(before.unseen(page))  # a page that moved during the read repeats some entries
            after = after.advanced(fresh)
            yield Batch(fresh)
        yield Batch([], cursor=after.cursor)

    def _pages(self, start: datetime | None) -> Iterator[list[dict[str, Any]]]:
        for rows in self.http.linked_pages(self.config.url, _page, headers=ACCEPT):
            fresh = [row for row in rows if start is None or to_utc(row["updated"]) >= start]
            yield fresh
            if self.config.newest_first and rows and not fresh:
                return  # all entries that follow are older


def _page(response: Response) -> tuple[list[dict[str, Any]], str | None]:
    """Return the entries of a page, and the link to the next page (RFC 5005)."""
    try:
        feed = Xml.fromstring(response.content)
    except Xml.ParseError as error:
        raise SourceContractError(f"{response.place} is not XML: {error}") from None
    if feed.tag != f"{ATOM}feed":
        raise SourceContractError(f"{response.place} is not an Atom feed: correct config.url")
    next_link = feed.find(f"{ATOM}link[@rel='next']")
    entries = [_row(entry, response) for entry in feed.iterfind(f"{ATOM}entry")]
    return entries, None if next_link is None else next_link.get("href", "")


def _row(entry: Xml.Element, response: Response) -> dict[str, Any]:
    link = entry.find(f"{ATOM}link")
    return {
        **{name: entry.findtext(f"{ATOM}{name}") for name in TEXTS},
        "author": entry.findtext(f"{ATOM}author/{ATOM}name"),
        "link": None if link is None else response.absolute_url(link.get("href", "")),
        "categories": [category.get("term", "") for category in entry.iterfind(f"{ATOM}category")],
    }
