"""Pages of a listing: a limit of items and of bytes, and an opaque cursor in a `Link` header.

The body of a listing stays a JSON list, and clients that need no second page see no difference. The header is that of
RFC 8288; its target has a query only, which a client resolves against the URL that it asked for, whatever proxy is in
between.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Generic, TypeVar

from fastapi import Depends, Query, Request, Response
from pydantic import TypeAdapter, ValidationError

from penstock_operator.errors import Invalid
from penstock_operator.limits import MAX_PAGE_CURSOR_CHARACTERS, MAX_PAGE_ITEMS
from penstock_operator.registry.database import RowsWithin

T = TypeVar("T")
K = TypeVar("K")
KEY = TypeAdapter[list[str | int]](list[str | int])


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """Items of a listing; `cursor` is where the next page begins, None on the last one."""

    items: list[T]
    cursor: str | None


@dataclass(frozen=True, slots=True)
class PageRequest:
    """Which page of a listing is asked for."""

    limit: int
    cursor: str | None = None

    @property
    def rows(self) -> int:
        """How many rows a statement returns for the page: one more says that there is another page."""
        return self.limit + 1

    def after(self, key: TypeAdapter[K]) -> K | None:
        """Return the key of the last item of the page before, None on the first page. Raises Invalid."""
        if self.cursor is None:
            return None
        try:
            return key.validate_json(base64.b64decode(self.cursor, altchars=b"-_", validate=True), strict=True)
        except (binascii.Error, ValidationError, ValueError):
            raise Invalid("cursor: not a cursor of this listing; use the one of its Link header") from None

    def page(self, found: RowsWithin[T], key: Callable[[T], tuple[str | int, ...]]) -> Page[T]:
        """Return the page that the rows make; `key` returns the columns that the statement sorts by."""
        items = found.rows[: self.limit]
        if len(found.rows) <= self.limit and not found.more:
            return Page(items, None)
        text = KEY.dump_json(list(key(items[-1])))
        return Page(items, base64.b64encode(text, altchars=b"-_").decode())


Cursor = Annotated[
    str | None,
    Query(max_length=MAX_PAGE_CURSOR_CHARACTERS, description="the `cursor` of the Link header of the page before"),
]


def page_request(default: int) -> Callable[..., PageRequest]:
    """Return the dependency of a route whose pages have `default` items unless the caller gives a limit."""

    def requested(
        limit: Annotated[int, Query(ge=1, le=MAX_PAGE_ITEMS, description="items of a page")] = default,
        cursor: Cursor = None,
    ) -> PageRequest:
        return PageRequest(limit, cursor)

    return requested


SmallPage = Annotated[PageRequest, Depends(page_request(20))]
LargePage = Annotated[PageRequest, Depends(page_request(MAX_PAGE_ITEMS))]
DocumentPage = Annotated[PageRequest, Depends(page_request(100))]
"""For items that hold a whole manifest or schema."""


class LinkedPages:
    """Writes the `Link` header of an answer."""

    def __init__(self, request: Request, response: Response) -> None:
        self._request = request
        self._response = response

    def items(self, page: Page[T]) -> list[T]:
        """Return the items, and link the next page."""
        if page.cursor is not None:
            query = self._request.url.include_query_params(cursor=page.cursor).query
            self._response.headers["Link"] = f'<?{query}>; rel="next"'
        return page.items


Links = Annotated[LinkedPages, Depends(LinkedPages)]
