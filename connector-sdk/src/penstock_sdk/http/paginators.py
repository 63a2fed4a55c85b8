"""Paginators: which request follows a page.

A paginator is a value that describes the paging of an endpoint. It has no state: each read begins with a new request, so one
paginator serves all streams and all parents. It sees the page as the source sent it, before any filter of the connector.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal, Protocol, TypeAlias

import msgspec

from penstock_sdk.errors import SourceContractError
from penstock_sdk.http.paged_request import PagedRequest, Place
from penstock_sdk.http.record_page import RecordPage
from penstock_sdk.json_types import JsonValue

LINK = re.compile(r"<([^<>]*)>((?:\s*;\s*[\w!#$%&'*+.^`|~-]+\s*(?:=\s*(?:\"(?:[^\"\\]|\\.)*\"|[^\s\",;]+))?)*)")
RELATION = re.compile(r";\s*rel\s*=\s*(?:\"([^\"]*)\"|([^\s\",;]+))", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Header:
    """A header of a response, as the place of a cursor or of the next page's URL."""

    name: str


@dataclass(frozen=True, slots=True)
class LastRecord:
    """A field of the last record of a page, as the place of a cursor."""

    field: str


class Paginator(Protocol):
    """Decides which requests read an endpoint page by page."""

    def first_request(self, request: PagedRequest) -> PagedRequest:
        """Return the request for the first page."""

    def next_request(self, request: PagedRequest, page: RecordPage) -> PagedRequest | None:
        """Return the request for the page after `page`, which `request` returned; None after the last page."""


@dataclass(frozen=True, slots=True)
class SinglePage:
    """An endpoint that returns all its records in one response."""

    def first_request(self, request: PagedRequest) -> PagedRequest:
        """Return the request unchanged."""
        return request

    def next_request(self, request: PagedRequest, page: RecordPage) -> PagedRequest | None:
        """Return None."""
        del request, page
        return None


@dataclass(frozen=True, slots=True)
class LinkHeaderPaginator:
    """The header `Link: <URL>; rel="next"` (RFC 8288) has the next page. No such link: the last page."""

    relation: str = "next"

    def first_request(self, request: PagedRequest) -> PagedRequest:
        """Return the request unchanged."""
        return request

    def next_request(self, request: PagedRequest, page: RecordPage) -> PagedRequest | None:
        """Return the request for the link."""
        for value in page.response.headers.get_list("Link"):
            for target, attributes in LINK.findall(value):
                relations = [quoted or token for quoted, token in RELATION.findall(attributes)]
                if self.relation in " ".join(relations).lower().split():
                    return _at_url(request, page, target)
        return None


@dataclass(frozen=True, slots=True)
class NextUrlPaginator:
    """A field of the body, or a header, has the URL of the next page. None, "" or no field: the last page."""

    url: str | Header

    def first_request(self, request: PagedRequest) -> PagedRequest:
        """Return the request unchanged."""
        return request

    def next_request(self, request: PagedRequest, page: RecordPage) -> PagedRequest | None:
        """Return the request for the URL."""
        found = _found(page, self.url)
        if found in (None, "", False):
            return None
        if not isinstance(found, str):
            raise SourceContractError(f"{page.response.place}: {_shown(self.url)} is not the URL of the next page")
        return _at_url(request, page, found)


@dataclass(frozen=True, slots=True)
class CursorPaginator:
    """The next request has a cursor from this page: a field of the body, a `Header`, or a field of the `LastRecord`.

    `param` is the parameter of the cursor, in the query or (`place="body"`) at a path of the JSON body. The last page has no
    cursor, or null, "" or 0. With `has_more`, a boolean field of the body decides instead. A cursor from the last record
    without `has_more` ends at an empty page.
    """

    param: str
    cursor: str | Header | LastRecord
    has_more: str | None = None
    place: Place = "query"

    def first_request(self, request: PagedRequest) -> PagedRequest:
        """Return the request without a cursor."""
        return request

    def next_request(self, request: PagedRequest, page: RecordPage) -> PagedRequest | None:
        """Return the request with the page's cursor."""
        more = None if self.has_more is None else _flag(page, self.has_more)
        if more is False:
            return None
        cursor = _cursor_of_last_record(page, self.cursor) if isinstance(self.cursor, LastRecord) else None
        if not isinstance(self.cursor, LastRecord):
            cursor = _found(page, self.cursor)
        if not cursor or isinstance(cursor, bool):
            if more:
                raise SourceContractError(
                    f"{page.response.place}: {self.has_more!r} says that more follows, and there is no {_shown(self.cursor)}"
                )
            return None
        if not isinstance(cursor, str | int | float):
            raise SourceContractError(f"{page.response.place}: {_shown(self.cursor)} is not a cursor: text or a number")
        return request.with_value(self.param, cursor if isinstance(cursor, str | int) else repr(cursor), self.place)


@dataclass(frozen=True, slots=True)
class PageNumberPaginator:
    """Pages have numbers. The last page is followed by an empty one, unless the response says where the end is.

    `size` is sent as `size_param`, if given. `total_pages` (a number) and `has_more` (a boolean) are fields of the body; one
    that is null or missing does not end the read. A page with fewer records than `size` ends nothing, because a source may
    have a smaller limit of its own. Records that are added or deleted during the read move others to other pages: follow a
    cursor field instead, if the source has one.
    """

    param: str = "page"
    first: int = 1
    size_param: str | None = None
    size: int | None = None
    total_pages: str | None = None
    has_more: str | None = None
    place: Place = "query"

    def first_request(self, request: PagedRequest) -> PagedRequest:
        """Return the request for the first page."""
        sized = _sized(request, self.size_param, self.size, self.place)
        return sized.with_value(self.param, self.first, self.place)

    def next_request(self, request: PagedRequest, page: RecordPage) -> PagedRequest | None:
        """Return the request for the next number."""
        number = _sent_number(request, self.param, self.place) + 1
        total = None if self.total_pages is None else _number(page, self.total_pages)
        if _has_ended(page, self.has_more, ended=total is not None and number >= self.first + total):
            return None
        return request.with_value(self.param, number, self.place)


@dataclass(frozen=True, slots=True)
class OffsetPaginator:
    """The request has the number of records to skip. The last page is followed by an empty one, unless the response says more.

    `total` (a number of records) and `has_more` (a boolean) are fields of the body. The next offset counts the records that
    were received, so a source with a smaller limit than `size` loses none. With `skips="requested"` it grows by `size`: for a
    source that counts records which it does not return. Records that are added or deleted during the read move others: follow
    a cursor field instead, if the source has one.
    """

    param: str = "offset"
    size_param: str | None = "limit"
    size: int | None = 100
    total: str | None = None
    has_more: str | None = None
    skips: Literal["received", "requested"] = "received"
    place: Place = "query"

    def first_request(self, request: PagedRequest) -> PagedRequest:
        """Return the request with offset 0."""
        return _sized(request, self.size_param, self.size, self.place).with_value(self.param, 0, self.place)

    def next_request(self, request: PagedRequest, page: RecordPage) -> PagedRequest | None:
        """Return the request for the next offset."""
        step = self.size if self.skips == "requested" and self.size else len(page.records)
        offset = _sent_number(request, self.param, self.place) + step
        total = None if self.total is None else _number(page, self.total)
        is_empty = not page.records and self.skips == "received"  # the same offset again
        if is_empty or _has_ended(page, self.has_more, ended=total is not None and offset >= total):
            return None
        return request.with_value(self.param, offset, self.place)


def _has_ended(page: RecordPage, has_more: str | None, *, ended: bool) -> bool:
    """Return True after the last page: a count was reached, or the flag says so, or, without either, the page is empty."""
    more = None if has_more is None else _flag(page, has_more)
    return ended or more is False or (not page.records and not more)


def _sized(request: PagedRequest, size_param: str | None, size: int | None, place: Place) -> PagedRequest:
    return request if size_param is None or size is None else request.with_value(size_param, size, place)


Source: TypeAlias = str | Header | LastRecord


def _found(page: RecordPage, source: str | Header) -> JsonValue:
    if isinstance(source, Header):
        return str(page.response.headers.get(source.name, "")).strip()
    return page.response.field(source)


def _cursor_of_last_record(page: RecordPage, source: LastRecord) -> JsonValue:
    if not page.records:
        return None
    found = page.response.decoded(page.records[-1], dict[str, msgspec.Raw]).get(source.field)
    value = None if found is None else page.response.decoded(found, _SCALAR)
    if value is None:
        raise SourceContractError(
            f"{page.response.place}: the last record has no {source.field!r}, so the next page cannot be requested"
        )
    return value


_SCALAR: type[str | int | float | None] = str | int | float | None  # type: ignore[assignment]  # msgspec takes a union


def _shown(source: Source) -> str:
    if isinstance(source, Header):
        return f"header {source.name!r}"
    return f"last record's {source.field!r}" if isinstance(source, LastRecord) else f"field {source!r}"


def _flag(page: RecordPage, path: str) -> bool | None:
    """Return a boolean of the body; None if it is null or missing."""
    found = page.response.field(path)
    if found is None or isinstance(found, bool):
        return found
    if found in ("true", "false", 0, 1):
        return found in ("true", 1)
    raise SourceContractError(f"{page.response.place}: field {path!r} is not a boolean")


def _number(page: RecordPage, path: str) -> int | None:
    """Return a count of the body; None if it is null or missing."""
    found = page.response.field(path)
    if found is None:
        return None
    if isinstance(found, str) and found.strip().isascii() and found.strip().isdigit():
        return int(found[:18])
    if isinstance(found, bool) or not isinstance(found, int | float) or found < 0:
        raise SourceContractError(f"{page.response.place}: field {path!r} is not a count")
    return int(found)


def _sent_number(request: PagedRequest, name: str, place: Place) -> int:
    found: JsonValue = request.params.get(name) if place == "query" else request.json
    for key in name.split(".") if place == "body" else ():
        found = found.get(key) if isinstance(found, Mapping) else None
    return found if isinstance(found, int) else 0


def _at_url(request: PagedRequest, page: RecordPage, target: str) -> PagedRequest:
    """Return the request for a URL that the source sent. Raises SourceContractError for another host."""
    return replace(request, path=page.response.next_url(target), params={})
