"""The benchmark's platform: `penstock operate` and `penstock serve` as processes, and what they say of themselves."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path
from typing import Any

import aiohttp
import yaml
from control_plane_cluster import STATE, Api, pids
from control_plane_player import Player
from penstock_operator.embedded.postgres import EmbeddedPostgres
from penstock_operator.embedded.private_files import free_port
from penstock_operator.embedded.s3 import EmbeddedS3
from penstock_operator.registry.database import Pool, create_pool, execute, many
from penstock_operator.registry.migrate import migrate

TICK = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Reading:
    """What a process has used until a moment."""

    at: float
    cpu: float
    rss: float = 0.0
    sweeps: float = 0.0
    sweep_seconds: float = 0.0
    waiting: float = 0.0


@dataclass
class Platform:
    """The processes, and the registry and API server under them."""

    server: Api
    pool: Pool
    environment: dict[str, str]
    directory: Path
    url: str
    postgres: int
    manifest: dict[str, Any]
    player: Player = field(init=False)
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    ports: dict[str, int] = field(default_factory=dict)
    _offset: int = 0
    _since: datetime = field(default_factory=lambda: datetime.now(UTC))

    def start(self, role: str) -> None:
        """Start a process."""
        port = self.ports[role] = int(self.url.rsplit(":", 1)[1]) if role == "serve" else free_port("127.0.0.1")
        options = ["--host", "127.0.0.1", "--port", str(port)] if role == "serve" else ["--health-port", str(port)]
        with (self.directory / f"{role}.log").open("ab") as log:
            command = [sys.executable, "-m", "penstock_operator.cli", role, *options]
            self.processes[role] = subprocess.Popen(command, env=self.environment, stdout=log, stderr=log)

    async def stop(self, role: str) -> None:
        """Stop a process, which hands its lease over."""
        process = self.processes.pop(role)
        process.terminate()
        await asyncio.to_thread(process.wait, 30)

    async def reading(self, role: str) -> Reading:
        """Read a process's own metrics."""
        url = f"http://127.0.0.1:{self.ports[role]}/metrics"
        async with aiohttp.ClientSession() as session, session.get(url) as answer:
            lines = (await answer.text()).splitlines()
        found = {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines if line[0] != "#")}
        sweep = 'penstock_loop_round_seconds_{}{{loop="sweep"}}'
        return Reading(
            time.monotonic(),
            found["process_cpu_seconds_total"],
            found["process_resident_memory_bytes"],
            found.get(sweep.format("count"), 0.0),
            found.get(sweep.format("sum"), 0.0),
            found.get("penstock_queue_keys", 0.0),
        )

    async def readings(self) -> dict[str, Reading]:
        """Return what every process has used."""
        found = {**{role: each.pid for role, each in self.processes.items()}, **pids(), "player": os.getpid()}
        postgres = [self.postgres, *_children(self.postgres)]
        taken = {name: _cpu(pid) for name, pid in found.items()} | {"postgres": sum(_cpu(pid) for pid in postgres)}
        return {name: Reading(time.monotonic(), cpu) for name, cpu in taken.items()}

    async def quiet(self) -> None:
        """Wait until the operator has handled all that it knows of."""
        still = 0
        while still < 6:
            await asyncio.sleep(0.5)
            try:
                now = await self.reading("operate")
            except aiohttp.ClientError:
                continue
            still = still + 1 if now.sweeps and not now.waiting else 0

    async def next_sweep(self, since: Reading) -> Reading:
        """Wait for the end of the next sweep."""
        while True:
            await asyncio.sleep(0.5)
            now = await self.reading("operate")
            if now.sweeps > since.sweeps and not now.waiting:
                return now

    @staticmethod
    def now() -> datetime:
        """Return the moment."""
        return datetime.now(UTC)

    async def make_due(self, count: int, over: float) -> list[str]:
        """Make so many connections due, evenly over the seconds from now on, and return their uids."""
        self._since = datetime.now(UTC)
        async with self.pool.connection() as held:
            rows = await many(
                held,
                "SELECT uid FROM penstock.tenant_connections ORDER BY uid OFFSET %(offset)s LIMIT %(count)s",
                offset=self._offset,
                count=count,
            )
            if len(rows) < count:
                self._offset = 0
                return await self.make_due(count, over)
            self._offset += count
            uids = [row["uid"] for row in rows]
            await execute(
                held,
                "UPDATE penstock.tenant_connections c SET next_run_at = now() + n * %(step)s * interval '1 s'"
                " FROM unnest(%(uids)s::text[]) WITH ORDINALITY AS t (uid, n) WHERE c.uid = t.uid",
                step=over / count,
                uids=uids,
            )
        return uids

    async def newest(self, uids: list[str]) -> list[dict[str, Any]]:
        """Return the newest run of each since they were made due."""
        async with self.pool.connection() as held:
            return await many(
                held,
                "SELECT DISTINCT ON (connection_uid) id, connection_uid, scheduled_at, phase, attempt, message FROM penstock.connector_runs"
                " WHERE connection_uid = ANY(%(uids)s) AND scheduled_at >= %(since)s ORDER BY connection_uid, id DESC",
                uids=uids,
                since=self._since,
            )

    async def runs_of(self, uids: list[str]) -> list[str]:
        """Return the newest run's id of each."""
        return [row["id"] for row in await self.newest(uids)]

    async def delays(self, uids: list[str]) -> list[float]:
        """Return how long after its due time the watch showed each run's Job, in seconds."""
        return [self.player.jobs[row["id"]] - row["scheduled_at"].timestamp() for row in await self.newest(uids)]

    async def steps(self, uids: list[str]) -> dict[str, list[float]]:
        """Return how long each run took from its due time to its row, to its attempt, and to the Job that the watch showed."""
        async with self.pool.connection() as held:
            rows = await many(
                held,
                "SELECT r.id, r.scheduled_at, r.created_at AS made, a.launched_at AS claimed FROM penstock.connector_runs r"
                " JOIN penstock.run_attempts a ON a.run_id = r.id AND a.attempt = 1 WHERE r.id = ANY(%(runs)s)",
                runs=await self.runs_of(uids),
            )
        return {
            "due to run": [(row["made"] - row["scheduled_at"]).total_seconds() for row in rows],
            "run to attempt": [(row["claimed"] - row["made"]).total_seconds() for row in rows],
            "attempt to Job": [self.player.jobs[row["id"]] - row["claimed"].timestamp() for row in rows],
        }

    async def until_jobs(self, uids: list[str], seconds: float) -> None:
        """Wait until each has a run with a Job."""
        await self._until(
            lambda rows: len(rows) == len(uids) and all(row["id"] in self.player.jobs for row in rows), uids, seconds
        )

    async def until_finished(self, uids: list[str], seconds: float) -> None:
        """Wait until each has a run that has succeeded."""
        await self._until(
            lambda rows: len(rows) == len(uids) and all(row["phase"] == "succeeded" for row in rows), uids, seconds
        )

    async def _until(self, reached: Any, uids: list[str], seconds: float) -> None:
        end = time.monotonic() + seconds
        while not reached(rows := await self.newest(uids)):
            if time.monotonic() > end:
                phases = {phase: sum(row["phase"] == phase for row in rows) for phase in {row["phase"] for row in rows}}
                odd = [row for row in rows if row["phase"] != "succeeded"][:3]
                raise SystemExit(
                    f"not within {seconds:.0f} s: {phases}, such as {odd}; errors {self.player.errors[:3]}"
                )
            await asyncio.sleep(0.5)

    async def until(self, sql: str, wanted: int) -> None:
        """Wait until a count is reached."""
        while True:
            async with self.pool.connection() as held:
                row = (await many(held, sql))[0]
            if row["count"] >= wanted:
                return
            await asyncio.sleep(0.2)

    async def forget_runs(self, uids: list[str]) -> None:
        """Take back runs that nobody is to launch."""
        async with self.pool.connection() as held:
            await execute(
                held,
                "DELETE FROM penstock.connector_runs WHERE phase = 'pending' AND connection_uid = ANY(%(uids)s)",
                uids=uids,
            )

    async def apply_definition(self) -> None:
        """Publish the definition that every connection uses."""
        meta = {"name": "faker-generate-0.1.0"}
        spec = {"image": f"registry.example/faker@sha256:{'0' * 64}", "stage": "certified", "manifest": self.manifest}
        body = {"apiVersion": "penstock.io/v1alpha1", "kind": "ConnectorDefinition", "metadata": meta, "spec": spec}
        await self.server.call("POST", "/apis/penstock.io/v1alpha1/connectordefinitions", body)


def _cpu(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / TICK


def _children(pid: int) -> list[int]:
    return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@asynccontextmanager
async def platform(directory: Path, server: Api) -> AsyncIterator[Platform]:
    """Start Postgres and S3, and end with them all that was started."""
    manifest = yaml.safe_load((resources.files("penstock_faker_generate") / "connector.yaml").read_text())
    async with AsyncExitStack() as stack:
        postgres = stack.enter_context(EmbeddedPostgres(directory / "postgres"))
        s3 = stack.enter_context(EmbeddedS3(directory / "s3")).settings
        await migrate(postgres.url)
        pool = create_pool(postgres.url)
        await pool.open(wait=True)
        stack.push_async_callback(pool.close)
        url = f"http://127.0.0.1:{free_port('127.0.0.1')}"
        environment = {
            **os.environ,
            "KUBECONFIG": str(STATE / "kc/admin.conf"),
            "PENSTOCK_DATABASE_URL": postgres.url,
            "PENSTOCK_S3_ENDPOINT": s3.endpoint or "",
            "PENSTOCK_S3_BUCKET": s3.bucket,
            "AWS_ACCESS_KEY_ID": s3.access_key or "",
            "AWS_SECRET_ACCESS_KEY": s3.secret_key or "",
            "PENSTOCK_API_URL": url,
            "PENSTOCK_NAMESPACE": "default",
        }
        data = directory / "postgres" / "data"
        postmaster = int((data / "postmaster.pid").read_text().split("\n", 1)[0])
        made = Platform(server, pool, environment, directory, url, postmaster, manifest)
        stack.callback(_end, made)
        yield made


def _end(made: Platform) -> None:
    for process in made.processes.values():
        process.terminate()
    for role, process in made.processes.items():
        process.wait(30)
        if os.environ.get("KEEP") == "1":
            print(f"--- {role}\n{(made.directory / f'{role}.log').read_text()[-3000:]}")
