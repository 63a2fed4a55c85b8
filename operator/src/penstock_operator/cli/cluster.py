"""`penstock operate` and `penstock serve`: the two processes of a cluster."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import structlog
import uvicorn
from fastapi import FastAPI, Response
from kubernetes.aio import client, config
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from penstock_operator.api.app import Services, create_app
from penstock_operator.api.kubernetes import KubernetesAuthenticator, PodLogs
from penstock_operator.bronze.store import BronzeStore
from penstock_operator.controller.kubernetes import KubernetesResources, Lease, watch
from penstock_operator.controller.orchestrator import Orchestrator, Parts
from penstock_operator.launchers.jobs import JobSettings
from penstock_operator.launchers.kubernetes import KubernetesLauncher
from penstock_operator.registry.database import Pool, create_pool
from penstock_operator.runs.protocol import RunProtocol
from penstock_operator.settings import Timings, database_url, required, s3_settings

log = structlog.get_logger()


@asynccontextmanager
async def _api_client() -> AsyncIterator[client.ApiClient]:
    if os.environ.get("KUBERNETES_SERVICE_HOST"):
        config.load_incluster_config()
    else:
        await config.load_kube_config()
    async with client.ApiClient() as api:
        yield api


@asynccontextmanager
async def _pool() -> AsyncIterator[Pool]:
    pool = create_pool(database_url())
    await pool.open(wait=True, timeout=60)
    try:
        yield pool
    finally:
        await pool.close()


async def serve(host: str, port: int) -> None:
    """Serve until told to stop."""
    async with _pool() as pool, _api_client() as api:
        protocol = RunProtocol(pool, BronzeStore(s3_settings()))
        app = create_app(Services(protocol, pool, KubernetesAuthenticator(api), PodLogs(api)))
        await uvicorn.Server(uvicorn.Config(app, host=host, port=port, log_level="warning", lifespan="off")).serve()


def _health_app() -> FastAPI:
    app = FastAPI(openapi_url=None)

    @app.get("/healthz")
    async def healthz() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/metrics")
    async def metrics() -> Response:
        return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)

    return app


async def operate(health_port: int) -> None:
    """Wait to be the leader, lead, and end with the lease: a restart is cheap, two leaders are not wanted."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    settings = uvicorn.Config(_health_app(), host="0.0.0.0", port=health_port, log_level="warning", lifespan="off")  # noqa: S104
    health = asyncio.create_task(uvicorn.Server(settings)._serve())  # noqa: SLF001 - the signals are ours
    async with _pool() as pool, _api_client() as api:
        lease = Lease(api, os.environ.get("PENSTOCK_NAMESPACE", "default"))
        waiting = [asyncio.create_task(lease.acquire()), asyncio.create_task(stop.wait())]
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        if not stop.is_set():
            await _lead(pool, api, lease, stop)
        for task in (*waiting, health):
            task.cancel()


async def _lead(pool: Pool, api: client.ApiClient, lease: Lease, stop: asyncio.Event) -> None:
    timings = Timings()
    launcher = KubernetesLauncher(api, JobSettings(required(os.environ, "PENSTOCK_API_URL")), timings.job_ttl)
    orchestrator = Orchestrator(Parts(pool, KubernetesResources(api), launcher, BronzeStore(s3_settings()), timings))
    watching = asyncio.Event()
    tasks = [
        asyncio.create_task(orchestrator.run(), name="loops"),
        asyncio.create_task(watch(orchestrator.queue.add, watching), name="watch"),
        asyncio.create_task(lease.keep(), name="lease"),
        asyncio.create_task(stop.wait(), name="stop"),
    ]
    ended, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    watching.set()
    for task in ended:
        error = task.exception()
        log.warning(
            "stepping down", because=task.get_name(), error=f"{type(error).__name__}: {error}" if error else None
        )
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    if stop.is_set():
        await lease.release()
