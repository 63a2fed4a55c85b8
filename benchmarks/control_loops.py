"""The controller's loops alone: a real Postgres, and an API server of fixed delays in this process.

It tells what the controller itself costs, on any machine: CPU seconds, statements aside, move little with other work.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from penstock_operator import outbox
from penstock_operator.bronze.store import BronzeStore
from penstock_operator.controller.orchestrator import Components, Orchestrator
from penstock_operator.controller.resource_client import R
from penstock_operator.embedded.postgres import EmbeddedPostgres
from penstock_operator.ids import NamespaceUid
from penstock_operator.launchers import AttemptLaunch, AttemptObservation, LaunchedAttempt, LeftoverJob
from penstock_operator.launchers.logs import FileLogs
from penstock_operator.registry.database import Pool, create_pool
from penstock_operator.registry.migrate import migrate
from penstock_operator.resources.documents import (
    Document,
    Resource,
    ResourceKey,
    ResourceStatus,
    parse_resource,
    status_document,
)
from penstock_operator.resources.models import Kind
from penstock_operator.settings import S3Settings, Timings

CONNECTIONS = int(os.environ.get("CONNECTIONS", "10000"))
RUNS = min(1000, CONNECTIONS)
READ, WRITE, LIST = 0.004, 0.012, 0.1  # seconds, as an API server on two cores takes them


class Cluster:
    """Resources and Jobs in memory; every call takes its time and is counted."""

    def __init__(self) -> None:
        self.documents: dict[ResourceKey, Document] = {}
        self.calls: Counter[str] = Counter()

    async def _call(self, name: str, seconds: float) -> None:
        self.calls[name] += 1
        await asyncio.sleep(seconds)

    async def get(self, kind: type[R], namespace: str, name: str) -> R | None:
        """Read one."""
        await self._call("read", READ)
        document = self.documents.get((kind.KIND, namespace, name))
        return kind.parse(document) if document else None

    async def pages(self, kind: type[R]) -> AsyncIterator[list[R]]:
        """Read all, in pages."""
        found = [document for key, document in self.documents.items() if key[0] == kind.KIND]
        for start in range(0, len(found), 500):
            await self._call("list", LIST)
            yield [kind.parse(document) for document in found[start : start + 500]]

    async def namespace_uid(self, namespace: str) -> NamespaceUid | None:
        """Read a namespace."""
        await self._call("read", READ)
        return NamespaceUid(f"uid-{namespace}")

    async def write_status(self, resource: Resource, status: ResourceStatus) -> str | None:
        """Write a status."""
        await self._call("write", WRITE)
        version = str(self.calls["write"])
        document = self.documents[resource.key]
        metadata = {**document["metadata"], "resourceVersion": version}
        self.documents[resource.key] = {**document, "metadata": metadata, "status": status_document(status)}
        return version

    async def launch(self, launch: AttemptLaunch) -> str:
        """Make a Job."""
        await self._call("write", WRITE)
        return f"uid-{launch.job_name}"

    async def observe(self, launch: LaunchedAttempt) -> AttemptObservation:
        """Read a Job."""
        del launch
        await self._call("read", READ)
        return AttemptObservation("active")

    async def observe_many(self, attempts: list[LaunchedAttempt]) -> dict[str, AttemptObservation]:
        """Read the lists."""
        for _ in range(0, len(attempts), 500):
            await self._call("list", LIST)
        return {each.job_name: AttemptObservation("active") for each in attempts}

    async def stop(self, launch: LaunchedAttempt) -> None:
        """Nothing is stopped here."""
        raise NotImplementedError

    async def retire(self, launch: LaunchedAttempt) -> None:
        """Nothing ends here."""
        raise NotImplementedError

    async def leftovers(self) -> AsyncIterator[list[LeftoverJob]]:
        """Nothing is left over here."""
        yield []

    async def discard(self, leftover: LeftoverJob) -> None:
        """Nothing is left over here."""
        raise NotImplementedError


def fill(cluster: Cluster) -> None:
    """Put the definition and the connections in."""
    manifest = yaml.safe_load((resources.files("penstock_faker_generate") / "connector.yaml").read_text())
    spec = {"image": f"i@sha256:{'0' * 64}", "stage": "certified", "manifest": manifest}
    documents = [_document("ConnectorDefinition", {"name": f"faker-generate-{manifest['version']}"}, spec)]
    wanted = {
        "connector": {"name": "faker", "method": "generate"},
        "config": {"records": 10},
        "streams": [{"name": "people", "mode": "incremental"}],
        "schedule": "*/15 * * * *",
        "timeZone": "Europe/Paris",
    }
    for number in range(CONNECTIONS):
        meta = {"name": f"c{number}", "namespace": f"team-{number % 50}"}
        documents.append(_document("TenantConnection", meta, wanted))
    cluster.documents = {parse_resource(document).key: document for document in documents}


def _document(kind: Kind, meta: dict[str, Any], spec: dict[str, Any]) -> Document:
    metadata = {**meta, "uid": f"uid-{meta['name']}", "generation": 1, "resourceVersion": "0"}
    return {"apiVersion": "penstock.io/v1alpha1", "kind": kind, "metadata": metadata, "spec": spec}


class Lap:
    """The time, the CPU and the calls of one step."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster, self._calls = cluster, Counter(cluster.calls)
        self._began, self._cpu = time.monotonic(), time.process_time()

    def end(self, what: str, count: int) -> None:
        """Print them."""
        seconds, cpu = time.monotonic() - self._began, time.process_time() - self._cpu
        calls = ", ".join(f"{number} {name}s" for name, number in sorted((self._cluster.calls - self._calls).items()))
        each = f"{cpu / count * 1000:6.3f} ms CPU each"
        print(f"{what:34} {count:6} in {seconds:6.1f} s, {each}; {calls or 'no calls'}", flush=True)


async def measure(pool: Pool, directory: Path) -> None:
    """Take each step."""
    cluster = Cluster()
    fill(cluster)
    store = BronzeStore(S3Settings("http://127.0.0.1:9", "none", access_key="none", secret_key="none"))  # noqa: S106
    parts = Components(pool, cluster, cluster, store, Timings(), FileLogs(directory), installation="bench")
    for what in ("first sweep", "sweep of a new process"):
        orchestrator = Orchestrator(parts)
        working = asyncio.create_task(orchestrator.queue.work())
        await _sweep(cluster, orchestrator, what)
        await asyncio.sleep(2)  # the definition's connections are counted a second later
        await _sweep(cluster, orchestrator, "sweep again")
        working.cancel()
    await _runs(pool, cluster, Orchestrator(parts))


async def _sweep(cluster: Cluster, orchestrator: Orchestrator, what: str) -> None:
    lap = Lap(cluster)
    registering = asyncio.create_task(_registered(orchestrator, Lap(cluster)))
    await orchestrator.sweeper.sweep()
    await registering
    await orchestrator.queue.room(1)
    lap.end(what, CONNECTIONS)


async def _registered(orchestrator: Orchestrator, lap: Lap) -> None:
    if not orchestrator.sweeper.registered.is_set():
        await orchestrator.sweeper.registered.wait()
        lap.end("until all are on schedule", CONNECTIONS)


async def _runs(pool: Pool, cluster: Cluster, orchestrator: Orchestrator) -> None:
    async with pool.connection() as db:
        await db.execute(
            b"UPDATE penstock.tenant_connections SET next_run_at = now() - interval '1 s'"
            b" WHERE uid IN (SELECT uid FROM penstock.tenant_connections LIMIT %s)",
            [RUNS],
        )
    lap = Lap(cluster)
    while await orchestrator.schedule():
        pass
    lap.end("due times to runs", RUNS)
    lap, before = Lap(cluster), cluster.calls["write"]
    while cluster.calls["write"] < before + RUNS:
        await orchestrator.launch()
    await orchestrator.supervisor.settled()
    lap.end("runs to Jobs", RUNS)
    working = asyncio.create_task(orchestrator.queue.work())
    await asyncio.sleep(outbox.COALESCE_SECONDS)
    lap = Lap(cluster)
    await orchestrator.outbox_dispatcher.drain()
    await orchestrator.queue.room(1)
    lap.end("statuses of runs that began", RUNS)
    working.cancel()
    lap = Lap(cluster)
    await orchestrator.supervisor.observe_all()
    await orchestrator.supervisor.settled()
    lap.end("a look at all attempts", RUNS)


async def main(directory: Path) -> None:
    """Bring Postgres up and measure."""
    with EmbeddedPostgres(directory / "postgres") as server:
        await migrate(server.url)
        async with create_pool(server.url) as pool:
            await measure(pool, directory / "logs")
    print(f"load {os.getloadavg()[0]:.1f}")


with tempfile.TemporaryDirectory(prefix="penstock-bench-") as scratch:
    Path(scratch).chmod(0o711)  # so that Postgres, which refuses root, finds its files here
    asyncio.run(main(Path(scratch)))
