"""The watch, by kopf: it reports the key and version of each resource that changes."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from typing import Any, Protocol

import kopf
import structlog
from kopf._core.engines import peering

from penstock_operator.controller.cancellation import raise_if_cancelled
from penstock_operator.controller.workqueue import Key
from penstock_operator.launchers.jobs import LABEL_RUN, is_over
from penstock_operator.resources.models import API_VERSION, GROUP, PLURALS
from penstock_operator.resources.scope import EVERYTHING, Scope

log = structlog.get_logger()
FAILURES, STEADY_SECONDS = (
    6,
    60.0,
)  # so many in a row, each within so many seconds of its start, take half a minute in all


def login(**arguments: Any) -> kopf.ConnectionInfo | None:
    """Return the pod's credentials, or those of the kubeconfig outside of a cluster."""
    return kopf.login_with_service_account(**arguments) or kopf.login_with_kubeconfig(**arguments)


class NoHandledState(kopf.DiffBaseStorage):
    """Keeps no last handled state. Copying a resource to compare it with one is most of the time that kopf spends on an event."""

    def build(self, **_: Any) -> kopf.BodyEssence:
        """Return an empty essence, so that nothing is compared."""
        return kopf.BodyEssence({})

    def fetch(self, **_: Any) -> None:
        """Return None: nothing was kept."""

    def store(self, **_: Any) -> None:
        """Keep nothing."""


class ChangeHandler(Protocol):
    """Called for each change. `listed` is True for a resource that was there when the watch began, or began anew."""

    def __call__(self, key: Key, version: str | None, *, listed: bool = False) -> None:
        """Take a key, and the version that it has now."""


async def watch(changed: ChangeHandler, stop: asyncio.Event, scope: Scope = EVERYTHING) -> None:
    """Watch until stopped. A watch that ends by an error, as while an API server starts, begins anew.

    After FAILURES errors in a row the error is raised, so that this replica ends and reports it.
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
            log.warning("watch failed", error=f"{type(error).__name__}: {error}")
        else:
            return
        raise_if_cancelled()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), 2 ** (failures - 1))


async def _watch(changed: ChangeHandler, stop: asyncio.Event, scope: Scope) -> None:
    """Report the key and version of every change, until stopped. Handlers do nothing else.

    Only the end of a Job is reported: everything before it is seen when all attempts are observed. A connection whose
    changed labels take it out of the scope is found by the next sweep.
    """
    registry = kopf.OperatorRegistry()
    settings = kopf.OperatorSettings()
    settings.posting.enabled = False
    settings.scanning.disabled = True
    settings.persistence.diffbase_storage = NoHandledState()
    kopf.on.login(registry=registry, id="login")(login)

    async def started(**_: Any) -> None:
        """Handle the signals here: kopf ignores them once an error has ended its watch."""
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
        identity=peering.Identity("penstock"),  # kopf would else look up the user, which an image's uid has none of
        clusterwide=not scope.namespaces,
        namespaces=scope.namespaces,
        standalone=True,
        stop_flag=stop,
    )
