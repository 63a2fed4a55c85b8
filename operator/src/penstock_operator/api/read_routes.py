"""Routes that list and show: definitions, connections, streams, objects, runs and their logs."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.responses import StreamingResponse
from penstock_sdk.protocol import ObjectKind

from penstock_operator import ids
from penstock_operator.api import queries
from penstock_operator.api.authentication import Token
from penstock_operator.api.lookups import find_connection, find_run, tenant_of
from penstock_operator.api.models import (
    ConnectionView,
    DefinitionView,
    ObjectView,
    RunDetailView,
    RunView,
    StreamView,
)
from penstock_operator.api.paging import DocumentPage, LargePage, Links, SmallPage
from penstock_operator.api.services import Services
from penstock_operator.ids import RunId

OneNamespace = Annotated[ids.Namespace | None, Query(max_length=63, description="one namespace; without it, all")]
Name = Annotated[str | None, Query(max_length=253)]
Attempt = Annotated[int | None, Query(ge=1, le=1_000_000, description="one attempt; without it, the last")]
TEXT = "text/plain; charset=utf-8"


def catalog_routes(services: Services) -> APIRouter:
    """Return the routes of definitions, connections and streams; each checks the caller's right in the namespace first."""
    router = APIRouter()
    pool, may = services.pool, services.authenticator.person

    @router.get("/definitions")
    async def list_definitions(token: Token, page: DocumentPage, links: Links) -> list[DefinitionView]:
        """List the definitions that are not deleted, by name."""
        await may(token, "list", None, "ConnectorDefinition")
        async with pool.connection() as db:
            return links.items(await queries.list_definitions(db, page))

    @router.get("/connections")
    async def list_connections(
        token: Token, page: LargePage, links: Links, namespace: OneNamespace = None
    ) -> list[ConnectionView]:
        """List the connections that are not deleted, by namespace and name."""
        await may(token, "list", namespace)
        tenant = await tenant_of(services.authenticator, namespace)
        async with pool.connection() as db:
            return links.items(await queries.list_connections(db, page, namespace, tenant))

    @router.get("/connections/{namespace}/{name}/streams")
    async def list_streams(
        namespace: str, name: str, token: Token, page: DocumentPage, links: Links
    ) -> list[StreamView]:
        """List the streams of a connection by name, with the newest schema and the state of each."""
        await may(token, "get", namespace)
        async with pool.connection() as db:
            connection = await find_connection(db, services.authenticator, namespace, name)
            return links.items(await queries.list_streams(db, page, connection.uid))

    return router


def run_routes(services: Services) -> APIRouter:
    """Return the routes of runs, logs and objects; each checks the caller's right in the namespace first."""
    router = APIRouter()
    pool, may = services.pool, services.authenticator.person

    @router.get("/objects")
    async def list_objects(
        token: Token,
        page: LargePage,
        links: Links,
        namespace: OneNamespace = None,
        name: Name = None,
        stream: Name = None,
        run: Name = None,
        kind: ObjectKind = "data",
    ) -> list[ObjectView]:
        """List the committed objects of live generations, in the order in which they were committed."""
        await may(token, "list", namespace)
        tenant = await tenant_of(services.authenticator, namespace)
        filters = queries.ObjectFilter(namespace, name, stream, run, kind, tenant)
        async with pool.connection() as db:
            return links.items(await queries.list_objects(db, page, filters))

    @router.get("/runs")
    async def list_runs(
        token: Token, page: SmallPage, links: Links, namespace: OneNamespace = None, name: Name = None
    ) -> list[RunView]:
        """List runs, newest first."""
        await may(token, "list", namespace)
        tenant = await tenant_of(services.authenticator, namespace)
        async with pool.connection() as db:
            return links.items(await queries.list_runs(db, page, namespace, name, tenant))

    @router.get("/runs/{run_id}")
    async def show_run(run_id: str, token: Token) -> RunDetailView:
        """Show a run with its streams and attempts."""
        async with pool.connection() as db:
            await find_run(db, services.authenticator, token, "get", run_id)
            return await queries.run_detail(db, RunId(run_id))

    _add_logs(router, services)
    return router


def _add_logs(router: APIRouter, services: Services) -> None:
    """Add the route of a run's log."""
    pool = services.pool

    @router.get("/runs/{run_id}/logs", response_class=StreamingResponse, responses={200: {"content": {TEXT: {}}}})
    async def logs(run_id: str, token: Token, attempt: Attempt = None, *, follow: bool = False) -> StreamingResponse:
        """Send the log of an attempt as text; with `follow`, until the attempt or the run has ended."""
        async with pool.connection() as db:
            run = await find_run(db, services.authenticator, token, "get", run_id)
        if follow:
            return StreamingResponse(services.logs.follow(run, attempt), media_type=TEXT)
        text = await started(services.logs.read(run, attempt or run.attempt))
        return StreamingResponse(text, media_type=TEXT)


async def started(text: AsyncGenerator[bytes]) -> AsyncIterator[bytes]:
    """Return the same text once its first chunk has come, so that an error before it still gets a status of its own."""
    first = await anext(text, b"")

    async def chunks() -> AsyncIterator[bytes]:
        async with aclosing(text):
            yield first
            async for chunk in text:
                yield chunk

    return chunks()
