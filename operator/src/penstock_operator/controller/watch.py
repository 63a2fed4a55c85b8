"""The watch, by kopf: what changes in the cluster, told by its key and version."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from typing import Any, Protocol

import kopf
import structlog
from kopf._core.engines import peering

from penstock_operator.controller.cancellation import heed_cancellation
from penstock_operator.controller.workqueue import Key
from penstock_operator.launchers.jobs import LABEL_RUN, is_over
from penstock_operator.resources.models import API_VERSION, GROUP, PLURALS
from penstock_operator.resources.scope import EVERYTHING, Scope

log = structlog.get_logger()
FAILURES, STEADY_SECONDS = 6, 60.0  # so many in a row, each so soon after it began, are half a minute in all


def login(**arguments: Any) -> kopf.ConnectionInfo | None:
    """Return the pod's own credentials, or the kubeconfig's outside of a cluster."""
    return kopf.login_with_service_account(**arguments) or kopf.login_with_kubeconfig(**arguments)


class NoHandledState(kopf.DiffBaseStorage):
    """No state that was last handled: what each event costs kopf is mostly a copy of the resource to compare with one."""

    def build(self, **_: Any) -> kopf.BodyEssence:
        """Return what is compared: nothing."""
        return kopf.BodyEssence({})

    def fetch(self, **_: Any) -> None:
        """Return what was kept: nothing."""

    def store(self, **_: Any) -> None:
        """Keep nothing."""


class ChangeHandler(Protocol):
    """What a watch calls: `listed` is what was there when it began, or began anew."""

    def __call__(self, key: Key, version: str | None, *, listed: bool = False) -> None:
        """Take a key, and the version that it has now."""


async def watch(changed: ChangeHandler, stop: asyncio.Event, scope: Scope = EVERYTHING) -> None:
    """Watch until stopped. A watch that ends by an error, such as an API server's that starts, begins anew.

    One that does so again and again is given up, so that this replica ends and says why.
    """
    loop, failures = asyncio.get_running_loop(), 0
    while not stop.is_set():
        began = loop.time()
        try:
            await _watch(changed, stop, scope)
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


async def _watch(changed: ChangeHandler, stop: asyncio.Event, scope: Scope) -> None:
    """Tell the key and version of everything that changes, until stopped. Handlers do nothing else.

    Of a Job, only its end matters: all before it is seen in the next look at all attempts. A connection that leaves the
    scope, as its labels change, is found by the next sweep.
    """
    registry = kopf.OperatorRegistry()
    settings = kopf.OperatorSettings()
    settings.posting.enabled = False
    settings.scanning.disabled = True
    settings.persistence.diffbase_storage = NoHandledState()
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
            if kind == "ConnectorDefinition" or scope.covers(namespace or "", body.metadata.labels):
                changed((kind, namespace or "", name), body.metadata.get("resourceVersion"), listed=type is None)

        kopf.on.event(GROUP, API_VERSION, plural, registry=registry, id=f"{plural}-changed")(resource_changed)

    async def job_changed(type: str | None, body: kopf.Body, namespace: str | None, name: str, **_: Any) -> None:  # noqa: A002 - kopf's name for it
        if type == "DELETED" or is_over(dict(body)):
            changed(("Job", namespace or "", name), None)

    kopf.on.event("batch", "v1", "jobs", registry=registry, labels={LABEL_RUN: kopf.PRESENT})(job_changed)
    await kopf.operator(
        registry=registry,
        settings=settings,
        identity=peering.Identity("penstock"),  # kopf asks the user database otherwise, which an image's uid is not in
        clusterwide=not scope.namespaces,
        namespaces=scope.namespaces,
        standalone=True,
        stop_flag=stop,
    )
