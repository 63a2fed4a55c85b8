"""The HTTP application: routes of a few lines each, over the run protocol and the registry."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection
from typing import Annotated, Any, Literal, TypeVar, cast

from fastapi import APIRouter, Depends, FastAPI, Request
from penstock_sdk import protocol as wire
from psycopg import AsyncConnection

from penstock_operator.api.actions import action_routes
from penstock_operator.api.alert_routes import alert_routes
from penstock_operator.api.audit_routes import audit_routes
from penstock_operator.api.authentication import Token
from penstock_operator.api.error_responses import add_error_handlers
from penstock_operator.api.read_routes import catalog_routes, run_routes
from penstock_operator.api.refusal_audit import RefusalAudit
from penstock_operator.api.request_limits import RequestLimits
from penstock_operator.api.services import Services
from penstock_operator.api.state_routes import state_routes
from penstock_operator.audit.refusal_recorder import RefusalRecorder
from penstock_operator.failpoints import reach
from penstock_operator.registry.database import Pool
from penstock_operator.runs.protocol import PodIdentity

Api = Literal["run", "read"]
BOTH_APIS: tuple[Api, ...] = ("run", "read")
READY_SECONDS = 2.0
"""How long an answer of Postgres counts."""
Answer = TypeVar("Answer", bound=wire.Message)
RUN_API_REFUSALS: dict[int | str, dict[str, Any]] = {
    status: {"model": wire.ApiError} for status in (401, 403, 408, 409, 413, 425, 503)
}
REFUSALS: dict[int | str, dict[str, Any]] = {
    status: {"model": wire.ApiError} for status in (401, 403, 404, 408, 413, 503)
}


def create_app(services: Services, apis: Collection[Api] = BOTH_APIS) -> FastAPI:
    """Return the application that serves these APIs; its OpenAPI document is at /openapi.json.

    In a cluster each API has a port of its own, so that a run's pod reaches one of them only.
    """
    app = FastAPI(title="Penstock", version="v1", description="The run API and the read API of Penstock.")
    app.include_router(_health_routes(services.pool))
    if "run" in apis:
        for run_api in (_run_routes, _credential_routes, _egress_routes):
            app.include_router(run_api(services), prefix="/v1/attempts", tags=["run API"])
    if "read" in apis:
        for routes in (catalog_routes, run_routes, action_routes, state_routes, alert_routes, audit_routes):
            app.include_router(routes(services), prefix="/v1", tags=["read API"], responses=REFUSALS)
    add_error_handlers(app)
    app.add_middleware(RequestLimits, authority=services.authenticator, run_tokens=services.protocol)
    app.add_middleware(RefusalAudit, recorder=RefusalRecorder(services.pool))
    return app


def _calling_pod(request: Request) -> PodIdentity:
    """Return the pod whose token the middleware has checked."""
    return cast("PodIdentity", request.state.pod)


CallingPod = Annotated[PodIdentity, Depends(_calling_pod)]


def _health_routes(pool: Pool) -> APIRouter:
    router = APIRouter(tags=["health"])
    registry = RegistryCheck(pool)

    @router.get("/healthz")
    async def healthz() -> dict[str, str]:
        return {"status": "ok"}

    @router.get("/readyz")
    async def readyz() -> dict[str, str]:
        await registry.check()
        return {"status": "ok"}

    return router


class RegistryCheck:
    """Asks whether Postgres answers: on a connection of its own, because the pool's may all be in use, and once in a while."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._one_at_a_time = asyncio.Lock()
        self._answered = 0.0

    async def check(self) -> None:
        """Raise psycopg.OperationalError if Postgres does not answer."""
        async with self._one_at_a_time:
            if time.monotonic() - self._answered < READY_SECONDS:
                return
            async with await AsyncConnection.connect(
                str(self._pool.conninfo), connect_timeout=2, autocommit=True
            ) as db:
                await db.execute(b"SELECT 1")
            self._answered = time.monotonic()


def _answered(call: str, answer: Answer) -> Answer:
    """The call has committed, and its answer is yet to be sent."""
    reach(f"server.{call}")
    return answer


def _run_routes(services: Services) -> APIRouter:
    router = APIRouter(responses=RUN_API_REFUSALS)
    protocol = services.protocol

    @router.post("/start")
    async def start(request: wire.StartRequest, pod: CallingPod, _token: Token) -> wire.StartResponse:
        return _answered("start", await protocol.start(pod, request))

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

    @router.post("/rate-limit")
    async def rate_limit(request: wire.RateLimitRequest, token: Token) -> wire.RateLimitResponse:
        return await protocol.lease_requests(token, request)

    @router.post("/heartbeat")
    async def heartbeat(request: wire.HeartbeatRequest, token: Token) -> wire.HeartbeatResponse:
        return await protocol.heartbeat(token, request)

    @router.post("/finish")
    async def finish(request: wire.FinishRequest, token: Token) -> wire.FinishResponse:
        return _answered("finish", await protocol.finish(token, request))

    return router


def _credential_routes(services: Services) -> APIRouter:
    """Return the calls about credentials that a source replaces."""
    router = APIRouter(responses=RUN_API_REFUSALS)
    protocol = services.protocol

    @router.post("/credentials")
    async def credentials(request: wire.CredentialRequest, token: Token) -> wire.CredentialResponse:
        return await protocol.keep_credential(token, request)

    @router.post("/credentials/lease")
    async def lease_credential(request: wire.CredentialLeaseRequest, token: Token) -> wire.CredentialLeaseResponse:
        return await protocol.lease_credential(token, request)

    @router.post("/credentials/release")
    async def release_credential(
        request: wire.CredentialReleaseRequest, token: Token
    ) -> wire.CredentialReleaseResponse:
        return await protocol.release_credential(token, request)

    return router


def _egress_routes(services: Services) -> APIRouter:
    """Return what the egress gateway calls, with the token of the run that it serves."""
    router = APIRouter(responses=RUN_API_REFUSALS)
    protocol = services.protocol

    @router.post("/egress")
    async def egress(request: wire.EgressRequest, token: Token) -> wire.EgressResponse:
        del request
        return await protocol.egress(token)

    @router.post("/egress/report")
    async def egress_report(request: wire.EgressReport, token: Token) -> wire.EgressReportResponse:
        return await protocol.egress_report(token, request)

    return router
