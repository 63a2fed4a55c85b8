"""The read API: definitions, connections, streams and alerts; runs, their logs and committed objects."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Query
from fastapi.responses import StreamingResponse
from penstock_sdk.protocol import ObjectKind

from penstock_operator import definitions
from penstock_operator.api.bearer import Token
from penstock_operator.api.lookups import find_connection, find_run
from penstock_operator.api.services import Services
from penstock_operator.connections import connection_store
from penstock_operator.runs import attempt_store, bronze_objects, run_store, state_store, stream_outcomes

Rows = list[dict[str, Any]]
Namespace = Annotated[str | None, Query(max_length=63, description="one namespace; without it, all")]
Name = Annotated[str | None, Query(max_length=253)]
Attempt = Annotated[int | None, Query(ge=1, le=1_000_000, description="one attempt; without it, the last")]
TEXT = "text/plain; charset=utf-8"


def catalog_routes(services: Services) -> APIRouter:
    """Return the routes of what there is; each asks first whether the caller may see the namespace."""
    router = APIRouter()
    pool, may = services.pool, services.authenticator.person

    @router.get("/definitions")
    async def list_definitions(token: Token) -> Rows:
        await may(token, "list", None, "ConnectorDefinition")
        async with pool.connection() as db:
            return await definitions.list_definitions(db)

    @router.get("/connections")
    async def list_connections(token: Token, namespace: Namespace = None) -> Rows:
        await may(token, "list", namespace)
        async with pool.connection() as db:
            return await connection_store.list_connections(db, namespace)

    @router.get("/connections/{namespace}/{name}/streams")
    async def list_streams(namespace: str, name: str, token: Token) -> Rows:
        await may(token, "get", namespace)
        async with pool.connection() as db:
            row = await find_connection(db, namespace, name)
            return await state_store.list_streams(db, row["uid"])

    return router


def run_routes(services: Services) -> APIRouter:
    """Return the routes of what has run and what it left; each asks first whether the caller may see the namespace."""
    router = APIRouter()
    pool, may = services.pool, services.authenticator.person

    @router.get("/objects")
    async def list_objects(
        token: Token,
        namespace: Namespace = None,
        name: Name = None,
        stream: Name = None,
        run: Name = None,
        kind: ObjectKind = "data",
    ) -> Rows:
        await may(token, "list", namespace)
        async with pool.connection() as db:
            return await bronze_objects.committed_objects(db, namespace, name, stream, run, kind)

    @router.get("/runs")
    async def list_runs(
        token: Token,
        namespace: Namespace = None,
        name: Name = None,
        limit: Annotated[int, Query(ge=1, le=1000)] = 20,
    ) -> Rows:
        await may(token, "list", namespace)
        async with pool.connection() as db:
            return await run_store.list_runs(db, namespace, name, limit)

    @router.get("/runs/{run_id}")
    async def show_run(run_id: str, token: Token) -> dict[str, Any]:
        async with pool.connection() as db:
            row = await find_run(db, run_id)
            await may(token, "get", row["namespace"])
            found = [asdict(each) for each in await stream_outcomes.of_run(db, run_id)]
            return {**row, "streams": found, "attempts": await attempt_store.attempts_of(db, run_id)}

    @router.get("/runs/{run_id}/logs", response_class=StreamingResponse, responses={200: {"content": {TEXT: {}}}})
    async def logs(run_id: str, token: Token, attempt: Attempt = None, *, follow: bool = False) -> StreamingResponse:
        async with pool.connection() as db:
            row = await find_run(db, run_id)
        await may(token, "get", row["namespace"])
        if follow:
            return StreamingResponse(services.logs.follow(row, attempt), media_type=TEXT)
        return StreamingResponse(await begun(services.logs.read(row, attempt or row["attempt"])), media_type=TEXT)

    return router


async def begun(text: AsyncGenerator[bytes]) -> AsyncIterator[bytes]:
    """Return the same text, after its first piece came: a refusal can still be answered as one."""
    first = await anext(text, b"")

    async def whole() -> AsyncIterator[bytes]:
        async with aclosing(text):
            yield first
            async for chunk in text:
                yield chunk

    return whole()
