"""A toolkit for connectors to HTTP sources: one client for requests, retries, paging and limits.

    HttpConnector   the base class of a connector: authenticate() and close() are written
    Client          requests; each response that is not usable is an error that says what to do
    Client.pages    an endpoint page by page, with one of the paginators
    read_children   an endpoint below each record of another one, with a cursor for each
    AsyncJob        an export that the source prepares
    graphql_pages   a GraphQL connection page by page
    json_pages, line_pages, csv_pages   a large response of Client.stream, record by record
    map_in_order    requests side by side, with results in order

docs/authors/http.md is the guide.
"""

from __future__ import annotations

from penstock_sdk._retry_after import retry_after
from penstock_sdk.http.async_job import AsyncJob, JobFailedError, JobId
from penstock_sdk.http.client import Client, url_path
from penstock_sdk.http.concurrency import map_in_order
from penstock_sdk.http.delivery import ClientLimits
from penstock_sdk.http.graphql import graphql, graphql_pages
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
from penstock_sdk.http.parent_child import read_children
from penstock_sdk.http.rate_limit_headers import RateLimitStatus, rate_limit_status
from penstock_sdk.http.rate_limits import RateLimiter, SharedRateLimiter, SourceRateLimiter
from penstock_sdk.http.record_page import RecordPage
from penstock_sdk.http.response import Response
from penstock_sdk.http.response_rules import ExpiredCursorError, NotFoundError, ResponseRule
from penstock_sdk.http.streaming import csv_pages, decompressed, json_pages, line_pages

__all__ = [
    "AsyncJob",
    "Client",
    "ClientLimits",
    "CursorPaginator",
    "ExpiredCursorError",
    "Header",
    "HttpConnector",
    "JobFailedError",
    "JobId",
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
    "SharedRateLimiter",
    "SinglePage",
    "SourceRateLimiter",
    "csv_pages",
    "decompressed",
    "graphql",
    "graphql_pages",
    "json_pages",
    "line_pages",
    "map_in_order",
    "rate_limit_status",
    "read_children",
    "retry_after",
    "url_path",
]
