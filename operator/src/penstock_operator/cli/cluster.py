"""`penstock operate` and `penstock serve`: the two processes of a cluster."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from http import HTTPStatus

import structlog
import uvicorn
from fastapi import FastAPI, Response
from fastapi.responses import JSONResponse
from kubernetes.aio import client, config
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from penstock_operator.api.app import create_app
from penstock_operator.api.http_server import server_config
from penstock_operator.api.services import Services
from penstock_operator.api.token_review import KubernetesAuthenticator
from penstock_operator.bronze.store import BronzeStore
from penstock_operator.cli.serving import serving_certificate
from penstock_operator.controller.admission_check import WARNING, check_admission_policies
from penstock_operator.controller.bucket_claim import hold_bucket
from penstock_operator.controller.health import Health
from penstock_operator.controller.kubernetes_resources import KubernetesResources
from penstock_operator.controller.lease import Lease
from penstock_operator.controller.network_policy_check import check_network_policies
from penstock_operator.controller.orchestrator import Components, Orchestrator
from penstock_operator.controller.watch import watch
from penstock_operator.credentials.vault import Vault
from penstock_operator.launchers.jobs import JobSettings
from penstock_operator.launchers.kubernetes import KubernetesLauncher
from penstock_operator.launchers.pod_logs import PodLogs
from penstock_operator.logs.reader import RunLogs
from penstock_operator.registry import installation
from penstock_operator.registry.database import Pool, create_pool
from penstock_operator.registry.installation import CONTROLLER
from penstock_operator.resources.scope import Scope
from penstock_operator.runs.protocol import RunProtocol
from penstock_operator.settings import (
    admission_policies,
    credentials_keys,
    database_url,
    egress,
    egress_probe_port,
    given_installation,
    log_bytes,
    quotas,
    read_audiences,
    required_url,
    retention,
    s3_settings,
    timings,
    trusted_certificates,
    watch_scope,
)

log = structlog.get_logger()
REGISTERED_SECONDS = 30.0


@asynccontextmanager
async def _api_client() -> AsyncIterator[client.ApiClient]:
    if os.environ.get("KUBERNETES_SERVICE_HOST"):
        config.load_incluster_config()
    else:
        await config.load_kube_config()
    async with client.ApiClient() as api:
        yield api


@asynccontextmanager
async def _pool(name: str = "penstock-serve") -> AsyncIterator[Pool]:
    pool = create_pool(database_url(), name=name)
    await pool.open(wait=True, timeout=60)
    try:
        yield pool
    finally:
        await pool.close()


async def serve(host: str, port: int, read_port: int) -> None:
    """Serve the run API and the read API until stopped by a signal.

    Each has its own port, connections and sessions with Postgres: whoever keeps one of them busy does not delay the other.
    """
    async with (
        serving_certificate() as tls,
        _pool() as pool,
        _pool("penstock-read") as reading,
        _api_client() as api,
        _api_client() as following,
    ):
        store, authenticator = BronzeStore(s3_settings()), KubernetesAuthenticator(api, read_audiences())
        protocol = RunProtocol(pool, store, vault=Vault(credentials_keys()))
        logs = RunLogs(reading, PodLogs(following), store)
        run_api = create_app(Services(protocol, pool, authenticator, logs), ["run"])
        read_api = create_app(Services(protocol, reading, authenticator, logs), ["read"])
        await _serve_all(
            server_config(run_api, host, port, shutdown_seconds=10, tls=tls),
            server_config(read_api, host, read_port, shutdown_seconds=10, tls=tls),
        )


async def _serve_all(*configs: uvicorn.Config) -> None:
    """Serve until a signal or until one of the servers ends; then all of them end what they have begun."""
    servers = [uvicorn.Server(config) for config in configs]

    def stop() -> None:
        for server in servers:
            server.should_exit = True

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop)

    async def serve_one(server: uvicorn.Server) -> None:
        try:
            await server._serve()  # noqa: SLF001 - the signals are ours
        finally:
            stop()

    async with asyncio.TaskGroup() as group:
        for server in servers:
            group.create_task(serve_one(server))


def health_app(health: Health) -> FastAPI:
    """Return the app of the probes: alive unless a round hangs, ready unless the leader's rounds keep failing."""
    app = FastAPI(openapi_url=None)

    def answer(problems: dict[str, str]) -> JSONResponse:
        status = "failing" if problems else "ok"
        body = {"status": status, "role": health.role, "loops": problems, "warnings": health.warnings}
        return JSONResponse(body, status_code=HTTPStatus.SERVICE_UNAVAILABLE if problems else HTTPStatus.OK)

    @app.get("/healthz")
    async def healthz() -> JSONResponse:
        return answer(health.hanging())

    @app.get("/readyz")
    async def readyz() -> JSONResponse:
        return answer(health.failing())

    @app.get("/metrics")
    async def metrics() -> Response:
        return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)

    return app


async def operate(health_port: int) -> bool:
    """Wait to be the leader, lead, and end with the lease, so that there are never two leaders.

    Returns False if this replica lost the lead without a signal to stop.
    """
    stop, health = asyncio.Event(), Health()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    everywhere = "0.0.0.0"  # noqa: S104 - the kubelet's probes come from outside the pod
    async with serving_certificate() as tls:
        settings = server_config(health_app(health), everywhere, health_port, shutdown_seconds=1, tls=tls)
        probes = asyncio.create_task(uvicorn.Server(settings)._serve())  # noqa: SLF001 - the signals are ours
        await _wait_and_lead(health, stop)
        probes.cancel()
    return stop.is_set()


async def _wait_and_lead(health: Health, stop: asyncio.Event) -> None:
    async with _pool(CONTROLLER) as pool, _api_client() as api:
        name = os.environ.get("PENSTOCK_LEASE") or "penstock-operate"
        lease = Lease(api, os.environ.get("PENSTOCK_NAMESPACE", "default"), name)
        waiting = [asyncio.create_task(lease.acquire()), asyncio.create_task(stop.wait())]
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        if not stop.is_set():
            waiting[0].result()  # an error while waiting does not make a leader
            health.lead()
            await _lead(pool, api, (lease, health), stop)
        for task in waiting:
            task.cancel()


async def _lead(pool: Pool, api: client.ApiClient, leadership: tuple[Lease, Health], stop: asyncio.Event) -> None:
    waits, (lease, health) = timings(), leadership
    ours, scope, store = await _installation(pool), watch_scope(), BronzeStore(s3_settings())
    gateway = egress()
    jobs = JobSettings(required_url(os.environ, "PENSTOCK_API_URL"), ours, gateway)
    launcher = KubernetesLauncher(api, jobs, scope, trusted_certificates())
    parts = Components(
        pool,
        KubernetesResources(api, scope),
        launcher,
        store,
        waits,
        PodLogs(api),
        log_bytes=log_bytes(),
        retention=retention(),
        quotas=quotas(),
        installation=ours,
        scope=scope,
    )
    orchestrator = Orchestrator(parts, health)
    watching = asyncio.Event()
    tasks = [
        asyncio.create_task(orchestrator.run(), name="loops"),
        asyncio.create_task(_watch(orchestrator, watching, scope), name="watch"),
        asyncio.create_task(hold_bucket(store, ours), name="bucket"),
        asyncio.create_task(lease.keep(), name="lease"),
        asyncio.create_task(stop.wait(), name="stop"),
    ]
    forbidden_port = egress_probe_port()
    if gateway is None:
        log.warning("egress gateway not set", effect="run pods can reach any host that the cluster lets them reach")
    elif forbidden_port:
        tasks.append(asyncio.create_task(check_network_policies(gateway.url, forbidden_port), name="network policies"))
    if policies := admission_policies():
        checking = check_admission_policies(client.AdmissionregistrationV1Api(api), policies, health)
        tasks.append(asyncio.create_task(checking, name="admission policies"))
    else:
        log.warning("admission policies not set", remedy="set admission.enabled=true in the chart")
        health.warn(WARNING, "the release has no admission policies: admission.enabled is false")
    ended, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    watching.set()
    for task in ended:
        error = task.exception()
        if task.get_name() == "watch" and error is None:
            stop.set()  # the watch handles SIGTERM and SIGINT: it ends without an error for one of them
        log.warning(
            "stepping down", because=task.get_name(), error=f"{type(error).__name__}: {error}" if error else None
        )
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await lease.release()


async def _installation(pool: Pool) -> str:
    """Return the id of this installation: the one that is set, else the registry's."""
    given = given_installation()
    async with pool.connection() as db:
        if given and await installation.set_installation_id(db, given):
            log.warning("installation id of the registry changed", installation=given)
        return await installation.installation_id(db)


async def _watch(orchestrator: Orchestrator, stop: asyncio.Event, scope: Scope) -> None:
    """Watch once all new connections are on schedule, or after a time limit. The watch lists everything first, so it misses nothing."""
    with suppress(TimeoutError):
        await asyncio.wait_for(orchestrator.sweeper.registered.wait(), REGISTERED_SECONDS)
    await watch(orchestrator.sweeper.changed, stop, scope)
