"""Leader election among the replicas."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import uuid
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any

import structlog
from aiohttp import ClientError
from kubernetes.aio import client
from kubernetes.aio.client.exceptions import ApiException

log = structlog.get_logger()


class Lease:
    """Elects one leader among the replicas by a coordination.k8s.io Lease."""

    def __init__(
        self, api: client.ApiClient, namespace: str, name: str = "penstock-operate", seconds: int = 15
    ) -> None:
        self._leases = client.CoordinationV1Api(api)
        self._namespace, self._name, self._seconds = namespace, name, seconds
        self.identity = f"{socket.gethostname()}_{uuid.uuid4().hex[:12]}"
        self._seen: tuple[str | None, float] = (None, 0.0)

    async def acquire(self) -> None:
        """Return once this replica is the leader. While the API server does not answer, no replica becomes the leader.

        The lease is read often, so that a killed leader is replaced soon after its lease has expired.
        """
        while not await self._acquired():
            await asyncio.sleep(self._seconds / 15)
        log.info("leading", identity=self.identity)

    async def _acquired(self) -> bool:
        try:
            return await asyncio.wait_for(self._try(), self._seconds)
        except (ApiException, ClientError, OSError, TimeoutError) as error:
            log.warning("lease not acquired", error=f"{type(error).__name__}: {error}")
            return False

    async def keep(self) -> None:
        """Renew the lease, and return once it is lost or could not be renewed in time: this replica must stop then.

        The time counts from before the request of a renewal, and no answer is awaited beyond it, so this replica has
        stopped before another one takes the lease.
        """
        loop, patience = asyncio.get_running_loop(), self._seconds * 2 / 3
        end = loop.time() + patience
        while loop.time() + self._seconds / 5 < end:
            await asyncio.sleep(self._seconds / 5)
            began = loop.time()
            try:
                async with asyncio.timeout_at(min(end, began + self._seconds / 3)):
                    if not await self._try():
                        return
                end = began + patience
            except (ApiException, ClientError, OSError, TimeoutError) as error:
                log.warning("lease not renewed", error=f"{type(error).__name__}: {error}")

    async def release(self) -> None:
        """Release the lease, so that the next leader starts at once. A lease that cannot be released expires."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._seconds / 3):
                while not await self._given_back():
                    await asyncio.sleep(self._seconds / 30)

    async def _given_back(self) -> bool:
        try:
            lease = await self._leases.read_namespaced_lease(self._name, self._namespace)
            if lease.spec.holder_identity == self.identity:
                lease.spec.holder_identity = ""
                await self._leases.replace_namespaced_lease(self._name, self._namespace, lease)
        except (ApiException, ClientError, OSError) as error:
            log.warning("lease not released", error=f"{type(error).__name__}: {error}")
            return False
        return True

    async def _try(self) -> bool:
        """Take the lease, or renew it. Return False if another replica holds it.

        A conflict is raised like any other error: the next read shows who wrote. That may have been this replica itself,
        by a renewal that timed out here and was carried out all the same.
        """
        try:
            lease = await self._leases.read_namespaced_lease(self._name, self._namespace)
        except ApiException as error:
            if error.status != HTTPStatus.NOT_FOUND:
                raise
            return await self._create()
        if lease.spec.holder_identity not in ("", None, self.identity) and not self._expired(lease):
            return False
        if lease.spec.holder_identity != self.identity:
            lease.spec.lease_transitions = (lease.spec.lease_transitions or 0) + 1
            lease.spec.acquire_time = datetime.now(UTC)
        lease.spec.holder_identity, lease.spec.renew_time = self.identity, datetime.now(UTC)
        lease.spec.lease_duration_seconds = self._seconds
        await self._leases.replace_namespaced_lease(self._name, self._namespace, lease)
        return True

    def _expired(self, lease: Any) -> bool:
        """Return True if the holder has not renewed the lease for its duration, by this replica's clock alone."""
        now, version = asyncio.get_running_loop().time(), lease.metadata.resource_version
        if self._seen[0] != version:
            self._seen = (version, now)
        return now - self._seen[1] > self._seconds

    async def _create(self) -> bool:
        now = datetime.now(UTC)
        spec = client.V1LeaseSpec(
            holder_identity=self.identity, lease_duration_seconds=self._seconds, acquire_time=now, renew_time=now
        )
        body = client.V1Lease(metadata=client.V1ObjectMeta(name=self._name), spec=spec)
        try:
            await self._leases.create_namespaced_lease(self._namespace, body)
        except ApiException as error:
            if error.status == HTTPStatus.CONFLICT:
                return False
            raise
        return True
