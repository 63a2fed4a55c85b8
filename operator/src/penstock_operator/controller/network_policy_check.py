"""Does the cluster enforce NetworkPolicies? The controller tries a connection that its own policy forbids."""

from __future__ import annotations

import asyncio
from typing import NoReturn
from urllib.parse import urlsplit

import structlog
from prometheus_client import Gauge

log = structlog.get_logger()
ENFORCED = Gauge(
    "penstock_network_policies_enforced", "1 if the cluster enforces NetworkPolicies, 0 if not, -1 if it is not known"
)
CONNECT_SECONDS, PERIOD_SECONDS = 3.0, 600.0
NOT_ENFORCED = (
    "this cluster does not enforce NetworkPolicies: run pods can reach any host, whatever their manifests declare;"
    " install a network plugin that enforces them"
)


async def are_enforced(host: str, allowed_port: int, forbidden_port: int) -> bool | None:
    """Return whether a connection to the forbidden port fails while one to the allowed port works; None if neither works."""
    if await _connects(host, forbidden_port):
        return False
    return True if await _connects(host, allowed_port) else None


async def check_network_policies(egress_url: str, forbidden_port: int) -> NoReturn:
    """Report by log and metric, again and again, whether the policies of this release are enforced.

    The gateway listens on both ports, and the controller's NetworkPolicy allows only the one of `egress_url`.
    """
    parts = urlsplit(egress_url)
    ENFORCED.set(-1)
    told: bool | None = None
    while True:
        found = await are_enforced(str(parts.hostname), parts.port or 80, forbidden_port)
        ENFORCED.set(-1 if found is None else int(found))
        if found is False:
            log.warning("NetworkPolicies not enforced", remedy=NOT_ENFORCED)
        elif found and not told:
            log.info("NetworkPolicies enforced")
        elif found is None:
            log.warning("NetworkPolicies not checked", reason=f"the egress gateway {egress_url} does not answer")
        told = found
        await asyncio.sleep(PERIOD_SECONDS if found is not None else 10 * CONNECT_SECONDS)


async def _connects(host: str, port: int) -> bool:
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            _, writer = await asyncio.open_connection(host, port)
    except (OSError, TimeoutError):
        return False
    writer.close()
    return True
