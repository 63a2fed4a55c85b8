"""The read API: definitions, connections, streams and alerts; runs, their logs and committed objects."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Query
from fastapi.responses import PlainTextResponse

from penstock_operator.api.bearer import Token
from penstock_operator.api.finding import find_connection, find_run
from penstock_operator.registry import attempts, connections, definitions, objects, runs, streams

if TYPE_CHECKING:
    from penstock_operator.api.app import Services

Rows = list[dict[str, Any]]
Namespace = Annotated[str | None, Query(max_length=63, description="one namespace; without it, all")]
Name = Annotated[str | None, Query(max_length=253)]


def catalog_routes(services: Services) -> APIRouter:
    """Return the routes of what there is; each asks first whether the caller may see the namespace."""
    router = APIRouter()
    pool, may = services.pool, services.authenticator.person

    @router.get("/definitions")
    async def list_definitions(token: Token) -> Rows:
        await may(token, "list", None)
        async with pool.connection() as connection:
            return await definitions.list_definitions(connection)

    @router.get("/connections")
    async def list_connections(token: Token, namespace: Namespace = None) -> Rows:
        await may(token, "list", namespace)
        async with pool.connection() as connection:
            return await connections.list_connections(connection, namespace)

    @router.get("/connections/{namespace}/{name}/streams")
    async def list_streams(namespace: str, name: str, token: Token) -> Rows:
        await may(token, "get", namespace)
        async with pool.connection() as connection:
            row = await find_connection(connection, namespace, name)
            return await streams.list_streams(connection, row["uid"])

    @router.get("/alerts")
    async def list_alerts(token: Token, namespace: Namespace = None) -> Rows:
        await may(token, "list", namespace)
        async with pool.connection() as connection:
            return await streams.list_alerts(connection, namespace)

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
    ) -> Rows:
        await may(token, "list", namespace)
        async with pool.connection() as connection:
            return await objects.committed_objects(connection, namespace, name, stream, run)

    @router.get("/runs")
    async def list_runs(
        token: Token,
        namespace: Namespace = None,
        name: Name = None,
        limit: Annotated[int, Query(ge=1, le=1000)] = 20,
    ) -> Rows:
        await may(token, "list", namespace)
        async with pool.connection() as connection:
            return await runs.list_runs(connection, namespace, name, limit)

    @router.get("/runs/{run_id}")
    async def show_run(run_id: str, token: Token) -> dict[str, Any]:
        async with pool.connection() as connection:
            row = await find_run(connection, run_id)
            await may(token, "get", row["namespace"])
            return {**row, "attempts": await attempts.attempts_of(connection, run_id)}

    @router.get("/runs/{run_id}/logs", response_class=PlainTextResponse)
    async def logs(run_id: str, token: Token, attempt: int | None = None) -> str:
        async with pool.connection() as connection:
            row = await find_run(connection, run_id)
        await may(token, "get", row["namespace"])
        return await services.logs(row["namespace"], f"penstock-{run_id}-{attempt or row['attempt']}")

    return router
