"""`penstock egress`: the process of the egress gateway. It has no rights of its own: it asks the run API with runs' tokens."""

from __future__ import annotations

import asyncio
import os

import httpx
import structlog
import uvicorn
from fastapi import FastAPI, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from penstock_operator.api.http_server import server_config
from penstock_operator.cli.serving import serving_certificate
from penstock_operator.egress.addresses import AddressPolicy, parse_networks
from penstock_operator.egress.authority import RunApiAuthority
from penstock_operator.egress.gateway import Gateway
from penstock_operator.settings import SettingsError, private_networks, required_url, trusted_certificates
from penstock_operator.tls import ClientTrust

log = structlog.get_logger()
RUN_API_SECONDS = 10.0


async def serve_egress(host: str, port: int, health_port: int) -> None:
    """Serve until told to stop. Raises SettingsError for a private range that is no network."""
    try:
        policy = AddressPolicy(parse_networks(private_networks()))
    except ValueError as error:
        raise SettingsError(f"PENSTOCK_EGRESS_PRIVATE_RANGES: {error}") from None
    url = required_url(os.environ, "PENSTOCK_API_URL")
    trust = ClientTrust(trusted_certificates())
    async with (
        serving_certificate(trust.reload) as tls,
        httpx.AsyncClient(base_url=url, timeout=RUN_API_SECONDS, trust_env=False, verify=trust.context) as client,
    ):
        gateway = Gateway(RunApiAuthority(client), policy)
        server = await gateway.listen(host, port, tls)
        log.info("egress gateway ready", port=port, private_ranges=private_networks() or "none")
        settings = server_config(probe_app(), host, health_port, shutdown_seconds=1, tls=tls)
        async with server:
            await uvicorn.Server(settings).serve()  # until SIGTERM or SIGINT
        await asyncio.wait_for(gateway.close(), RUN_API_SECONDS)


def probe_app() -> FastAPI:
    """Return the application that answers the kubelet's probes and Prometheus."""
    app = FastAPI(openapi_url=None)

    @app.get("/healthz")
    async def healthz() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/metrics")
    async def metrics() -> Response:
        return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)

    return app
