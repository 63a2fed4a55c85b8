"""An endpoint read page by page, until the paginator says that it has ended."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from typing import NewType

from penstock_sdk.errors import SourceContractError
from penstock_sdk.http.paged_request import PagedRequest
from penstock_sdk.http.paginators import Paginator
from penstock_sdk.http.record_page import RecordPage
from penstock_sdk.http.response import Response

MOST_EMPTY_PAGES = 1_000
"""Empty pages in a row. A source that filters after it pages returns some; one whose paging is stuck returns only these."""
Digest = NewType("Digest", int)


def read_pages(
    send: Callable[[PagedRequest], Response],
    request: PagedRequest,
    paginator: Paginator,
    records: str,
    *,
    allow_equal_pages: bool,
) -> Iterator[RecordPage]:
    """Yield the pages of an endpoint; see `Client.pages`."""
    shown = "/" + request.path.partition("?")[0].lstrip("/")
    upcoming: PagedRequest | None = paginator.first_request(request)
    requests, contents, empty = set[Digest](), set[Digest](), 0
    while upcoming is not None:
        if not _add(requests, upcoming.fingerprint()):
            raise SourceContractError(
                f"the paging of {shown} leads back to a request that was already sent, so it never ends"
            )
        page = RecordPage(send(upcoming), records)
        empty = 0 if page.records else empty + 1
        if page.records and not allow_equal_pages and not _add(contents, page.json):
            raise SourceContractError(
                f"the source returns the records of an earlier page of {shown} again: it ignores the paging"
            )
        if empty > MOST_EMPTY_PAGES:
            raise SourceContractError(f"{MOST_EMPTY_PAGES} pages of {shown} in a row are empty: the paging is stuck")
        yield page
        # The page is as the source sent it: whatever the connector filters out does not end the read.
        upcoming = paginator.next_request(upcoming, page)


def _add(digests: set[Digest], content: bytes) -> bool:
    """Add the digest of some content. Return False if it was there."""
    digest = Digest(int.from_bytes(hashlib.blake2b(content, digest_size=8).digest()))
    if digest in digests:
        return False
    digests.add(digest)
    return True
