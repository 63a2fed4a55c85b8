"""The HTTP application: routes of a few lines each, over the run protocol and the registry."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any, TypeVar

import psycopg
import structlog
from aiohttp import ClientError
from fastapi import APIRouter, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from kubernetes.aio.client.exceptions import ApiException
from penstock_sdk import protocol as wire
from psycopg_pool import PoolTimeout

from penstock_operator.api.actions import action_routes
from penstock_operator.api.alerts import alert_routes
from penstock_operator.api.bearer import Token
from penstock_operator.api.read_routes import catalog_routes, run_routes
from penstock_operator.api.services import Services
from penstock_operator.api.state import state_routes
from penstock_operator.errors import Refused
from penstock_operator.failpoints import reach
from penstock_operator.registry.database import Pool
from penstock_operator.resources.storable import shown_text

log = structlog.get_logger()
Answer = TypeVar("Answer", bound=wire.Message)


def create_app(services: Services) -> FastAPI:
    """Return the application; its OpenAPI document is at /openapi.json."""
    app = FastAPI(title="Penstock", version="v1", description="The run API and the read API of Penstock.")
    app.include_router(_health_routes(services.pool))
    app.include_router(_run_routes(services), prefix="/v1/attempts", tags=["run API"])
    for routes in (catalog_routes, run_routes, action_routes, state_routes, alert_routes):
        app.include_router(routes(services), prefix="/v1", tags=["read API"])
    app.add_exception_handler(Refused, _refused)
    app.add_exception_handler(RequestValidationError, _invalid)
    for gone in (psycopg.OperationalError, PoolTimeout):
        app.add_exception_handler(gone, _unavailable)
    for away in (ApiException, ClientError):
        app.add_exception_handler(away, _without_kubernetes)
    for unstorable in (psycopg.DataError, UnicodeEncodeError, RecursionError):
        app.add_exception_handler(unstorable, _unstorable)
    return app


async def _refused(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, Refused)  # noqa: S101 - it is registered for this class only
    body = wire.ApiError(code=error.code, message=error.message)
    return JSONResponse(body.model_dump(), status_code=error.status)


async def _unavailable(_request: Request, _error: Exception) -> JSONResponse:
    body = wire.ApiError(code="unavailable", message="the registry does not answer; try again")
    return JSONResponse(body.model_dump(), status_code=HTTPStatus.SERVICE_UNAVAILABLE)


async def _without_kubernetes(_request: Request, error: Exception) -> JSONResponse:
    log.warning("not reviewed by the API server", error=f"{type(error).__name__}: {error}")
    body = wire.ApiError(code="unavailable", message="Kubernetes's API server does not answer as it should; try again")
    return JSONResponse(body.model_dump(), status_code=HTTPStatus.SERVICE_UNAVAILABLE)


async def _invalid(_request: Request, error: Exception) -> JSONResponse:
    """Say what is wrong where, as FastAPI does, without the input: it may hold a secret, or what JSON cannot."""
    assert isinstance(error, RequestValidationError)  # noqa: S101 - it is registered for this class only
    found = [
        {"type": each["type"], "loc": [shown_text(str(part)) for part in each["loc"]], "msg": shown_text(each["msg"])}
        for each in error.errors()
    ]
    return JSONResponse({"detail": found}, status_code=HTTPStatus.UNPROCESSABLE_ENTITY)


async def _unstorable(_request: Request, _error: Exception) -> JSONResponse:
    message = (
        "the request holds what cannot be stored: a NUL character, half a surrogate pair, or a number out of range"
    )
    return JSONResponse(
        wire.ApiError(code="invalid", message=message).model_dump(), status_code=HTTPStatus.UNPROCESSABLE_ENTITY
    )


def _health_routes(pool: Pool) -> APIRouter:
    router = APIRouter(tags=["health"])

    @router.get("/healthz")
    async def healthz() -> dict[str, str]:
        return {"status": "ok"}

    @router.get("/readyz")
    async def readyz() -> dict[str, str]:
        async with pool.connection(timeout=2) as db:
            await db.execute(b"SELECT 1")
        return {"status": "ok"}

    return router


def _answered(call: str, answer: Answer) -> Answer:
    """The call has committed, and its answer is yet to be sent."""
    reach(f"server.{call}")
    return answer


def _run_routes(services: Services) -> APIRouter:
    refusals: dict[int | str, dict[str, Any]] = {
        status: {"model": wire.ApiError} for status in (401, 403, 409, 425, 503)
    }
    router = APIRouter(responses=refusals)
    protocol = services.protocol

    @router.post("/start")
    async def start(request: wire.StartRequest, token: Token) -> wire.StartResponse:
        return _answered("start", await protocol.start(await services.authenticator.pod(token), request))

    @router.post("/streams")
    async def streams(request: wire.StreamsRequest, token: Token) -> wire.StreamsResponse:
        return _answered("streams", await protocol.streams(token, request))

    @router.post("/estimate")
    async def estimate(request: wire.EstimateRequest, token: Token) -> wire.EstimateResponse:
        return await protocol.estimate(token, request)

    @router.post("/uploads")
    async def uploads(request: wire.UploadsRequest, token: Token) -> wire.UploadsResponse:
        return _answered("uploads", await protocol.uploads(token, request))

    @router.post("/checkpoints")
    async def checkpoints(request: wire.CheckpointRequest, token: Token) -> wire.CheckpointResponse:
        return _answered("checkpoints", await protocol.checkpoint(token, request))

    @router.post("/credentials")
    async def credentials(request: wire.CredentialRequest, token: Token) -> wire.CredentialResponse:
        return await protocol.keep_credential(token, request)

    @router.post("/heartbeat")
    async def heartbeat(request: wire.HeartbeatRequest, token: Token) -> wire.HeartbeatResponse:
        return await protocol.heartbeat(token, request)

    @router.post("/finish")
    async def finish(request: wire.FinishRequest, token: Token) -> wire.FinishResponse:
        return _answered("finish", await protocol.finish(token, request))

    return router
