"""The connector: entries of an Atom feed, page by page."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any
from xml.etree import ElementTree as Xml

import httpx
import msgspec
from penstock_sdk import (
    AuthenticationError,
    Batch,
    ConfigError,
    Connector,
    Cursor,
    SourceContractError,
    Stream,
    TransientError,
)
from penstock_sdk.incremental import CursorField, to_utc

ATOM = "{http://www.w3.org/2005/Atom}"
TEXTS = ("id", "updated", "published", "title", "summary", "content")
TEXT = {"type": ["string", "null"]}

STREAMS = (
    Stream(
        name="entries",
        schema={
            "type": "object",
            "properties": {
                "id": {"type": "string"},
                "updated": {"type": "string", "format": "date-time"},
                "published": TEXT,
                "title": TEXT,
                "summary": TEXT,
                "content": TEXT,
                "author": TEXT,
                "link": TEXT,
                "categories": {"type": "array", "items": {"type": "string"}},
            },
            "required": ["id", "updated", "published", "title", "summary", "content", "author", "link", "categories"],
        },
        primary_key=("id",),
        cursor_field="updated",
        modes=("full", "incremental"),
        cursor_care=("ties",),
        pii=("author",),
    ),
)


class Config(msgspec.Struct, rename="camel", forbid_unknown_fields=True):
    """What a connection sets; connector.yaml's configSchema says the same."""

    url: str
    newest_first: bool = True
    overlap_days: int = 7
    timeout_seconds: float = 30.0


class Credentials(msgspec.Struct):
    """Most feeds are public; one that is not takes a name and a password."""

    username: str | None = None
    password: str | None = None


class FeedRest(Connector[Config, Credentials]):
    """Reads an Atom feed."""

    session: httpx.Client | None = None

    def authenticate(self) -> None:
        """Open the session, and ask for the first page."""
        name, password = self.credentials.username, self.credentials.password
        self.session = httpx.Client(
            timeout=self.config.timeout_seconds,
            auth=(name or "", password) if password else None,
            follow_redirects=True,
        )
        self._get(self.config.url)

    def discover(self) -> tuple[Stream, ...]:
        """Return the streams: what every feed has."""
        return STREAMS

    def read(self, stream: Stream, since: datetime | None, cursor: Cursor | None) -> Iterator[Batch]:
        """Yield the feed's pages; only the last has a cursor, as the newest entry comes first.

        The watermark stays at the newest entry that was read, less the overlap: one that shares its moment, or is put
        before it later, is found by the next read, and what was seen is dropped by its id.
        """
        overlap = timedelta(days=self.config.overlap_days)
        before = CursorField(name="updated", key=("id",), overlap=overlap).watermark(cursor)
        after = before
        for page in self._pages(before.start_since(since)):
            fresh = after.unseen(before.unseen(page))  # a page that moved meanwhile repeats some
            after = after.advanced(fresh)
            yield Batch(fresh)
        yield Batch([], cursor=after.cursor)

    def _pages(self, start: datetime | None) -> Iterable[list[dict[str, Any]]]:
        url: str | None = self.config.url
        while url:
            feed = self._get(url)
            rows = [_row(entry, url) for entry in feed.findall(f"{ATOM}entry")]
            fresh = [row for row in rows if start is None or to_utc(row["updated"]) >= start]
            yield fresh
            if self.config.newest_first and rows and not fresh:
                return  # all that follows is older still
            url = _next(feed, url)

    def _get(self, url: str) -> Xml.Element:
        """Ask the source, and turn every way in which it can fail into the class that says what to do."""
        if self.session is None:
            raise RuntimeError("authenticate() comes first")
        try:
            response = self.session.get(url)
        except (httpx.UnsupportedProtocol, httpx.InvalidURL):
            raise ConfigError("config.url must be an http or https address") from None
        except httpx.TransportError as error:
            raise TransientError(f"{httpx.URL(url).host} does not answer", operator_message=repr(error)) from None
        if response.status_code in (401, 403):
            raise AuthenticationError("the feed refuses username and password; correct the Secret")
        if response.status_code == 429 or response.is_server_error:
            raise TransientError(f"the feed answers {response.status_code}", retry_after=_retry_after(response))
        if not response.is_success:
            raise ConfigError(f"config.url: the server answers {response.status_code}")
        try:
            feed = Xml.fromstring(response.content)
        except Xml.ParseError as error:
            raise SourceContractError(f"what the feed answers is not XML: {error}") from None
        if feed.tag != f"{ATOM}feed":
            raise SourceContractError("config.url does not lead to an Atom feed")
        return feed

    def close(self) -> None:
        """End the session."""
        if self.session is not None:
            self.session.close()


def _row(entry: Xml.Element, base: str) -> dict[str, Any]:
    link = entry.find(f"{ATOM}link")
    named = {
        name: entry.findtext(f"{ATOM}{name}") for name in ("id", "updated", "published", "title", "summary", "content")
    }
    return {
        **named,
        "author": entry.findtext(f"{ATOM}author/{ATOM}name"),
        "link": str(httpx.URL(base).join(link.get("href", ""))) if link is not None else None,
        "categories": [each.get("term", "") for each in entry.findall(f"{ATOM}category")],
    }


def _next(feed: Xml.Element, base: str) -> str | None:
    """Return where the next page is (RFC 5005); it is on the feed's own server, which gets the password."""
    found = [link.get("href", "") for link in feed.findall(f"{ATOM}link") if link.get("rel") == "next"]
    if not found:
        return None
    here, there = httpx.URL(base), httpx.URL(base).join(found[0])
    if (here.scheme, here.netloc) != (there.scheme, there.netloc):
        raise SourceContractError(f"the feed's next page is on another server, {there.host}")
    return str(there)


def _retry_after(response: httpx.Response) -> float | None:
    """Return for how many seconds the source wants to be left alone: Retry-After is a number, or a date."""
    text = response.headers.get("Retry-After", "")
    if text.isdigit():
        return float(text)
    try:
        return max(0.0, (parsedate_to_datetime(text) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError, OverflowError):
        return None
