"""GraphQL: a query, and a connection read page by page."""

from __future__ import annotations

from collections.abc import Iterator

from penstock_sdk.errors import SourceContractError
from penstock_sdk.http.client import Client
from penstock_sdk.http.paged_request import PagedRequest
from penstock_sdk.http.paginators import CursorPaginator
from penstock_sdk.http.paging import read_pages
from penstock_sdk.http.record_page import RecordPage
from penstock_sdk.http.response import Response
from penstock_sdk.json_types import JsonObject

LONGEST_DETAIL = 300


def graphql(client: Client, path: str, query: str, variables: JsonObject | None = None) -> Response:
    """Send a query, and return the response; its `field("data…")` has the result.

    Raises SourceContractError if the response has `errors`, also beside data: a part of the result would be missing. Declare
    a `ResponseRule` for errors of another class, such as a rate limit.
    """
    return _checked(client.post(path, json={"query": query, "variables": dict(variables or {})}, only_reads=True))


def graphql_pages(
    client: Client,
    path: str,
    query: str,
    *,
    connection: str,
    variables: JsonObject | None = None,
    after: str = "after",
    records: str = "nodes",
) -> Iterator[RecordPage]:
    """Yield the pages of a connection, such as "repository.issues", by its `pageInfo {hasNextPage endCursor}`.

    The query has a variable `$after` (or the name in `after`) for the cursor, and asks for `pageInfo` and `nodes`.
    """
    place = f"data.{connection}"
    paginator = CursorPaginator(
        f"variables.{after}", f"{place}.pageInfo.endCursor", f"{place}.pageInfo.hasNextPage", "body"
    )

    def send(request: PagedRequest) -> Response:
        return _checked(client.post(path, json=request.json, only_reads=True))

    first = PagedRequest(path, {}, "POST", {"query": query, "variables": dict(variables or {})})
    return read_pages(send, first, paginator, f"{place}.{records}", allow_equal_pages=False)


def _checked(response: Response) -> Response:
    errors = response.field("errors")
    if not errors:
        return response
    first = errors[0] if isinstance(errors, list) else errors
    message = first.get("message") if isinstance(first, dict) else first
    detail = " ".join(str(message).split())[:LONGEST_DETAIL]
    raise SourceContractError(f"{response.place} has GraphQL errors; the source says: {detail}")
