"""The API server's side of the controller: resources and their status, the watch, and the Lease of the leader."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import socket
import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any, Protocol

import kopf
import structlog
from aiohttp import ClientError
from kopf._core.engines import peering
from kubernetes.aio import client
from kubernetes.aio.client.exceptions import ApiException

from penstock_operator.controller.cancellation import heed_cancellation
from penstock_operator.controller.queue import Key
from penstock_operator.controller.resources import Document, Page, StaleDocumentError, version_of
from penstock_operator.launchers.jobs import LABEL_RETIRED, LABEL_RUN, is_over
from penstock_operator.resources.models import API_VERSION, GROUP, Kind

log = structlog.get_logger()
PLURALS: dict[str, str] = {"ConnectorDefinition": "connectordefinitions", "TenantConnection": "tenantconnections"}
NOT_FOUND, CONFLICT = 404, 409
PAGE = 500
FAILURES, STEADY_SECONDS = 6, 60.0  # so many in a row, each so soon after it began, are half a minute in all
MERGE_PATCH = "application/merge-patch+json"


class KubernetesResources:
    """The resource client of a cluster."""

    def __init__(self, api: client.ApiClient) -> None:
        self._custom = client.CustomObjectsApi(api)

    async def get(self, kind: Kind, namespace: str, name: str) -> Document | None:
        """Read one resource; None when the API server says that there is none of that name."""
        try:
            if kind == "ConnectorDefinition":
                found = await self._custom.get_cluster_custom_object(GROUP, API_VERSION, PLURALS[kind], name)
            else:
                found = await self._custom.get_namespaced_custom_object(
                    GROUP, API_VERSION, namespace, PLURALS[kind], name
                )
        except ApiException as error:
            if _is_gone(error, name):
                return None
            raise
        return dict(found)

    async def list(self, kind: Kind) -> list[Document]:
        """Read all resources of a kind."""
        return [each async for page in self.pages(kind) for each in page]

    async def pages(self, kind: Kind) -> AsyncIterator[Page]:
        """Read all resources of a kind, page by page."""
        more: dict[str, str] = {}
        while True:
            page = await self._custom.list_cluster_custom_object(GROUP, API_VERSION, PLURALS[kind], limit=PAGE, **more)
            yield [{**each, "kind": kind, "apiVersion": f"{GROUP}/{API_VERSION}"} for each in page["items"]]
            more = {"_continue": page["metadata"].get("continue", "")}
            if not more["_continue"]:
                return

    async def write_status(self, document: Document, status: Document) -> str | None:
        """Patch the status; what it does not have any more is removed."""
        gone = {key: None for key in document.get("status", {}) if key not in status}
        body = {"metadata": {"resourceVersion": version_of(document)}, "status": {**gone, **status}}
        meta, plural = document["metadata"], PLURALS[document["kind"]]
        try:
            if document["kind"] == "ConnectorDefinition":
                written = await self._custom.patch_cluster_custom_object_status(
                    GROUP, API_VERSION, plural, meta["name"], body, _content_type=MERGE_PATCH
                )
            else:
                written = await self._custom.patch_namespaced_custom_object_status(
                    GROUP, API_VERSION, meta["namespace"], plural, meta["name"], body, _content_type=MERGE_PATCH
                )
        except ApiException as error:
            if _is_gone(error, meta["name"]):
                return None
            if error.status == CONFLICT:
                raise StaleDocumentError from None
            raise
        return version_of(written)


def _is_gone(error: ApiException, name: str) -> bool:
    """Say whether an error says that there is no such resource.

    An API server that does not know the kind, as while it starts, answers 404 too, and names no resource: to take that
    for a deletion would end a connection's runs.
    """
    if error.status != NOT_FOUND:
        return False
    try:
        return bool(json.loads(error.body or "")["details"]["name"] == name)
    except (ValueError, KeyError, TypeError):
        return False


def login(**arguments: Any) -> kopf.ConnectionInfo | None:
    """Return the pod's own credentials, or the kubeconfig's outside of a cluster."""
    return kopf.login_with_service_account(**arguments) or kopf.login_with_kubeconfig(**arguments)


class NothingKept(kopf.DiffBaseStorage):
    """No state that was last handled: what each event costs kopf is mostly a copy of the resource to compare with one."""

    def build(self, **_: Any) -> kopf.BodyEssence:
        """Return what is compared: nothing."""
        return kopf.BodyEssence({})

    def fetch(self, **_: Any) -> None:
        """Return what was kept: nothing."""

    def store(self, **_: Any) -> None:
        """Keep nothing."""


class Changed(Protocol):
    """What a watch calls: `listed` is what was there when it began, or began anew."""

    def __call__(self, key: Key, version: str | None, *, listed: bool = False) -> None:
        """Take a key, and the version that it has now."""


async def watch(changed: Changed, stop: asyncio.Event) -> None:
    """Watch until stopped. A watch that ends by an error, such as an API server's that starts, begins anew.

    One that does so again and again is given up, so that this replica ends and says why.
    """
    loop, failures = asyncio.get_running_loop(), 0
    while not stop.is_set():
        began = loop.time()
        try:
            await _watch(changed, stop)
        except Exception as error:
            failures = failures + 1 if loop.time() - began < STEADY_SECONDS else 1
            if failures == FAILURES:
                raise
            log.warning("watch failed, begins anew", error=f"{type(error).__name__}: {error}")
        else:
            return
        heed_cancellation()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), 2 ** (failures - 1))


async def _watch(changed: Changed, stop: asyncio.Event) -> None:
    """Tell the key and version of everything that changes, until stopped. Handlers do nothing else.

    Of a Job, only its end matters: all before it is seen in the next look at all attempts.
    """
    registry = kopf.OperatorRegistry()
    settings = kopf.OperatorSettings()
    settings.posting.enabled = False
    settings.scanning.disabled = True
    settings.persistence.diffbase_storage = NothingKept()
    kopf.on.login(registry=registry, id="login")(login)

    async def started(**_: Any) -> None:
        """Take the signals back from kopf, whose watch heeds none once an error has ended it."""
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)

    kopf.on.startup(registry=registry, id="signals")(started)
    for kind, plural in PLURALS.items():

        async def resource_changed(
            type: str | None,  # noqa: A002 - kopf's name for it
            body: kopf.Body,
            namespace: str | None,
            name: str,
            kind: str = kind,
            **_: Any,
        ) -> None:
            changed((kind, namespace or "", name), body.metadata.get("resourceVersion"), listed=type is None)

        kopf.on.event(GROUP, API_VERSION, plural, registry=registry, id=f"{plural}-changed")(resource_changed)

    async def job_changed(type: str | None, body: kopf.Body, namespace: str | None, name: str, **_: Any) -> None:  # noqa: A002 - kopf's name for it
        if type == "DELETED" or is_over(dict(body)):
            changed(("Job", namespace or "", name), None)

    labels = {LABEL_RUN: kopf.PRESENT, LABEL_RETIRED: kopf.ABSENT}
    kopf.on.event("batch", "v1", "jobs", registry=registry, labels=labels)(job_changed)
    await kopf.operator(
        registry=registry,
        settings=settings,
        identity=peering.Identity("penstock"),  # kopf asks the user database otherwise, which an image's uid is not in
        clusterwide=True,
        standalone=True,
        stop_flag=stop,
    )


class Lease:
    """One leader among the replicas, by a coordination.k8s.io Lease."""

    def __init__(
        self, api: client.ApiClient, namespace: str, name: str = "penstock-operate", seconds: int = 15
    ) -> None:
        self._leases = client.CoordinationV1Api(api)
        self._namespace, self._name, self._seconds = namespace, name, seconds
        self._identity = f"{socket.gethostname()}_{uuid.uuid4().hex[:12]}"
        self._seen: tuple[str | None, float] = (None, 0.0)

    async def acquire(self) -> None:
        """Return once this replica is the leader. An API server that does not answer makes nobody a leader.

        It looks often, so that a killed leader is followed hardly later than its lease's length.
        """
        while not await self._acquired():
            await asyncio.sleep(self._seconds / 15)
        log.info("leading", identity=self._identity)

    async def _acquired(self) -> bool:
        try:
            return await asyncio.wait_for(self._try(), self._seconds)
        except (ApiException, ClientError, OSError, TimeoutError) as error:
            log.warning("lease not acquired", error=f"{type(error).__name__}: {error}")
            return False

    async def keep(self) -> None:
        """Renew the lease, and return once it is lost, or could not be renewed in time: this replica must stop then.

        Time counts from before a renewal is asked for, and no answer is waited for beyond it: when another replica
        takes the lease, this one has stopped.
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
        """Let the next leader start at once. A lease that cannot be given back is free when its time is over."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._seconds / 3):
                while not await self._given_back():
                    await asyncio.sleep(self._seconds / 30)

    async def _given_back(self) -> bool:
        try:
            lease = await self._leases.read_namespaced_lease(self._name, self._namespace)
            if lease.spec.holder_identity == self._identity:
                lease.spec.holder_identity = ""
                await self._leases.replace_namespaced_lease(self._name, self._namespace, lease)
        except (ApiException, ClientError, OSError) as error:
            log.warning("lease not given back", error=f"{type(error).__name__}: {error}")
            return False
        return True

    async def _try(self) -> bool:
        """Take the lease, or renew it; False when it is another's.

        A conflict is raised as any other error: the next look tells who wrote. That may have been this replica itself,
        in a renewal that was given up and carried out all the same.
        """
        try:
            lease = await self._leases.read_namespaced_lease(self._name, self._namespace)
        except ApiException as error:
            if error.status != NOT_FOUND:
                raise
            return await self._create()
        if lease.spec.holder_identity not in ("", None, self._identity) and not self._expired(lease):
            return False
        if lease.spec.holder_identity != self._identity:
            lease.spec.lease_transitions = (lease.spec.lease_transitions or 0) + 1
            lease.spec.acquire_time = datetime.now(UTC)
        lease.spec.holder_identity, lease.spec.renew_time = self._identity, datetime.now(UTC)
        lease.spec.lease_duration_seconds = self._seconds
        await self._leases.replace_namespaced_lease(self._name, self._namespace, lease)
        return True

    def _expired(self, lease: Any) -> bool:
        """Say whether the holder has not renewed for the lease's length, by our own clock alone."""
        now, version = asyncio.get_running_loop().time(), lease.metadata.resource_version
        if self._seen[0] != version:
            self._seen = (version, now)
        return now - self._seen[1] > self._seconds

    async def _create(self) -> bool:
        now = datetime.now(UTC)
        spec = client.V1LeaseSpec(
            holder_identity=self._identity, lease_duration_seconds=self._seconds, acquire_time=now, renew_time=now
        )
        body = client.V1Lease(metadata=client.V1ObjectMeta(name=self._name), spec=spec)
        try:
            await self._leases.create_namespaced_lease(self._namespace, body)
        except ApiException as error:
            if error.status == CONFLICT:
                return False
            raise
        return True
