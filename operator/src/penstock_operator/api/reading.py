"""The read API: runs, connections, definitions, streams, alerts and committed objects; and starting and cancelling."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Query
from fastapi.responses import PlainTextResponse
from pydantic import BaseModel

from penstock_operator.api.bearer import Token
from penstock_operator.registry import connections, definitions, objects, runs, streams
from penstock_operator.registry.database import Connection, Row
from penstock_operator.runs import outcomes
from penstock_operator.runs.refusals import Invalid, NotFound
from penstock_operator.scheduling.due import request_run

if TYPE_CHECKING:
    from penstock_operator.api.app import Services

Rows = list[dict[str, Any]]
Namespace = Annotated[str | None, Query(max_length=63, description="one namespace; without it, all")]
Name = Annotated[str | None, Query(max_length=253)]


class RunRequest(BaseModel):
    """Which connection to run now."""

    namespace: str
    name: str


async def _connection(connection: Connection, namespace: str, name: str) -> Row:
    row = await connections.connection_by_name(connection, namespace, name)
    if row is None:
        message = f"there is no connection {namespace}/{name}"
        raise NotFound(message)
    return row


async def _run(connection: Connection, run_id: str) -> Row:
    row = await runs.run_by_id(connection, run_id)
    if row is None:
        message = f"there is no run {run_id}"
        raise NotFound(message)
    return row


def reading_routes(services: Services) -> APIRouter:  # noqa: C901 - a list of routes
    """Return the routes; each asks first whether the caller may see the namespace."""
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
            row = await _connection(connection, namespace, name)
            return await streams.list_streams(connection, row["uid"])

    @router.get("/alerts")
    async def list_alerts(token: Token, namespace: Namespace = None) -> Rows:
        await may(token, "list", namespace)
        async with pool.connection() as connection:
            return await streams.list_alerts(connection, namespace)

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
            row = await _run(connection, run_id)
            await may(token, "get", row["namespace"])
            return {**row, "attempts": await runs.attempts_of(connection, run_id)}

    @router.get("/runs/{run_id}/logs", response_class=PlainTextResponse)
    async def logs(run_id: str, token: Token, attempt: int | None = None) -> str:
        async with pool.connection() as connection:
            row = await _run(connection, run_id)
        await may(token, "get", row["namespace"])
        return await services.logs(row["namespace"], f"penstock-{run_id}-{attempt or row['attempt']}")

    @router.post("/runs")
    async def start_run(request: RunRequest, token: Token) -> dict[str, str]:
        await may(token, "patch", request.namespace)
        async with pool.connection() as connection:
            row = await _connection(connection, request.namespace, request.name)
            if not row["ready"]:
                message = f"connection {request.namespace}/{request.name} is not valid; its Stalled condition says why"
                raise Invalid(message)
            run_id = await request_run(connection, row, f"api-{secrets.token_hex(8)}")
        if run_id is None:
            message = f"a run of {request.namespace}/{request.name} is under way; wait for it or cancel it"
            raise Invalid(message)
        return {"id": run_id}

    @router.post("/runs/{run_id}/cancel")
    async def cancel_run(run_id: str, token: Token) -> dict[str, str]:
        async with pool.connection() as connection:
            row = await _run(connection, run_id)
            await may(token, "patch", row["namespace"])
            async with connection.transaction():
                locked = await runs.lock_run(connection, run_id)
                if locked and locked["phase"] == "pending":
                    return {"phase": await outcomes.cancel(connection, locked)}
                if locked and locked["phase"] == "running":
                    await runs.request_cancel(connection, run_id)
        return {"phase": row["phase"]}

    return router
