"""A toolkit for connectors to HTTP sources: one client for requests, retries, paging and limits.

    HttpConnector   the base class of a connector: authenticate() and close() are written
    Client          requests; each response that is not usable is an error that says what to do
    Client.pages    an endpoint page by page, with one of the paginators

docs/authors/http.md is the guide.
"""

from __future__ import annotations

from penstock_sdk.http.client import Client, url_path
from penstock_sdk.http.delivery import ClientLimits
from penstock_sdk.http.http_connector import HttpConnector
from penstock_sdk.http.paged_request import PagedRequest, Parameter
from penstock_sdk.http.paginators import (
    CursorPaginator,
    Header,
    LastRecord,
    LinkHeaderPaginator,
    NextUrlPaginator,
    OffsetPaginator,
    PageNumberPaginator,
    Paginator,
    SinglePage,
)
from penstock_sdk.http.rate_limits import RateLimiter, SourceRateLimiter
from penstock_sdk.http.record_page import RecordPage
from penstock_sdk.http.response import Response
from penstock_sdk.http.response_rules import ExpiredCursorError, NotFoundError, ResponseRule
from penstock_sdk.http.retry_after import RateLimitStatus, rate_limit_status, retry_after

__all__ = [
    "Client",
    "ClientLimits",
    "CursorPaginator",
    "ExpiredCursorError",
    "Header",
    "HttpConnector",
    "LastRecord",
    "LinkHeaderPaginator",
    "NextUrlPaginator",
    "NotFoundError",
    "OffsetPaginator",
    "PageNumberPaginator",
    "PagedRequest",
    "Paginator",
    "Parameter",
    "RateLimitStatus",
    "RateLimiter",
    "RecordPage",
    "Response",
    "ResponseRule",
    "SinglePage",
    "SourceRateLimiter",
    "rate_limit_status",
    "retry_after",
    "url_path",
]
