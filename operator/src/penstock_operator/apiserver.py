"""Lists of the API server, read with patience: what fails in passing costs a page, and not the list."""

from __future__ import annotations

import asyncio
import functools
import json
from collections.abc import AsyncIterator
from http import HTTPStatus
from typing import Any, Protocol

from aiohttp import ClientError
from kubernetes.aio.client.exceptions import ApiException
from kubernetes.aio.utils.retry import Backoff, on_retry_after_error

LIMIT = 500
PAGE_SECONDS = 60.0
PATIENCE = Backoff(steps=6, duration=0.2, factor=2.0, jitter=0.5)  # six to nine seconds in all, or what is asked for


class PageReader(Protocol):
    """Asks for one page of a list."""

    async def __call__(self, **where: Any) -> dict[str, Any]:
        """Return the page that `limit` and `_continue` name, or the whole list. Raises ApiException when refused."""


async def pages(read: PageReader, limit: int = LIMIT) -> AsyncIterator[list[dict[str, Any]]]:
    """Yield the items of a list, page by page, `limit` items at a time: an API server counts no bytes.

    All pages are of one moment, unless the API server forgets it before the list is at its end. Then the rest is of a later
    one: an item may come twice, and none is left out that is there all the time.

    Raises ApiException when refused, and what has not passed in time: that too, ClientError, OSError.
    """
    where: dict[str, Any] | None = {"limit": limit}
    while where is not None:
        try:
            async with asyncio.timeout(PAGE_SECONDS):
                page = await on_retry_after_error(PATIENCE, _passes, functools.partial(read, **where))
        except ApiException as error:
            if error.status != HTTPStatus.GONE or "_continue" not in where:
                raise
            where = _later(error, limit)
            continue
        yield page["items"]
        token = page["metadata"].get("continue")
        where = {"limit": limit, "_continue": token} if token else None


def _passes(error: Exception) -> bool:
    if isinstance(error, ApiException):
        return error.status == HTTPStatus.TOO_MANY_REQUESTS or (error.status or 0) >= HTTPStatus.INTERNAL_SERVER_ERROR
    return isinstance(error, ClientError | OSError)


def _later(expired: ApiException, limit: int) -> dict[str, Any]:
    """Return what asks for the rest of a list that expired, as the API server offers; without an offer, for all of it."""
    try:
        return {"limit": limit, "_continue": json.loads(expired.body or "")["metadata"]["continue"]}
    except (ValueError, KeyError, TypeError):
        return {}
