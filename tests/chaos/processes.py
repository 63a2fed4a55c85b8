"""The processes of the miniature cluster: `python -m tests.chaos.processes operate|serve`, to be killed.

`operate` is the orchestrator over a folder of resources and a folder of Jobs; `serve` is the run API. They are what
`penstock operate` and `penstock serve` are made of, without Kubernetes: two replicas of each run at the same time, and
no lease keeps the two operators apart, which is harder than a cluster is.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import uuid
from dataclasses import asdict
from pathlib import Path

import uvicorn
from penstock_operator.api.app import create_app
from penstock_operator.api.authentication import EmbeddedAuthenticator
from penstock_operator.api.services import Services
from penstock_operator.bronze.store import BronzeStore
from penstock_operator.controller.orchestrator import Components, Orchestrator
from penstock_operator.embedded.folder import FolderResources
from penstock_operator.launchers import AttemptLaunch, AttemptObservation, LaunchedAttempt
from penstock_operator.launchers.logs import FileLogs
from penstock_operator.logs.reader import RunLogs
from penstock_operator.registry.database import create_pool
from penstock_operator.runs.protocol import RunProtocol
from penstock_operator.settings import Quotas, Timings, database_url, s3_settings
from penstock_sdk.protocol import Limits

from tests.patience import PATIENCE

SECRET = b"of the miniature cluster"
AT_ONCE = 12  # connectors, so that many due at once do not stand in their own way
TIMINGS = Timings(poll=0.1, observe=0.3, sweep=5.0, heartbeat_deadline=4.0, start_deadline=60.0)
LIMITS = Limits(checkpoint_records=200, checkpoint_seconds=5, heartbeat_seconds=0.5)


class FolderJobs:
    """A launcher whose Jobs are files: made once, whoever makes them, and carried by whoever watches the folder."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def _file(self, job_name: str, kind: str) -> Path:
        return self._directory / f"{job_name}.{kind}"

    async def launch(self, launch: AttemptLaunch) -> str:
        """Make the Job, or adopt the one that is there: a name is used once, as in an API server."""
        uid = uuid.uuid4().hex
        scratch = self._file(launch.job_name, uid)
        made = LaunchedAttempt(launch.run_id, launch.attempt, launch.job_name, uid, launch.namespace, launch.connection)
        scratch.write_text(json.dumps(asdict(made)))
        try:
            os.link(scratch, self._file(launch.job_name, "job"))
        except FileExistsError:
            uid = json.loads(self._file(launch.job_name, "job").read_text())["job_uid"]
        scratch.unlink()
        return uid

    async def observe(self, launch: LaunchedAttempt) -> AttemptObservation:
        """Say whether the Job is there, and how it ended."""
        if not self._file(launch.job_name, "job").exists():
            return AttemptObservation("gone", "AttemptLost", "the Job is gone", disrupted=True)
        ended = self._file(launch.job_name, "ended")
        code = int(ended.read_text()) if ended.exists() else None
        if code is None:
            return AttemptObservation("active")
        if code == 0:
            return AttemptObservation("succeeded")
        if code < 0 or code == 31:
            return AttemptObservation("failed", "AttemptLost", "the pod was killed", exit_code=code, disrupted=True)
        return AttemptObservation("failed", "DefectError", f"exit code {code}", "DefectError", code)

    async def observe_many(self, attempts: list[LaunchedAttempt]) -> dict[str, AttemptObservation]:
        """Say the same of many."""
        return {attempt.job_name: await self.observe(attempt) for attempt in attempts}

    async def stop(self, launch: LaunchedAttempt) -> None:
        """Ask for the Job's end."""
        self._file(launch.job_name, "stop").touch()

    async def retire(self, launch: LaunchedAttempt) -> None:
        """Let the Job go; its name stays taken, as the run's attempt is never carried again."""
        self._file(launch.job_name, "stop").touch()

    async def leftovers(self, *_: object) -> list[object]:
        """Nothing is collected here."""
        return []


async def operate(directory: Path) -> None:
    """Run every loop until killed."""
    pool = create_pool(database_url(), size=6)
    await pool.open(wait=True, timeout=PATIENCE)
    resources = FolderResources(directory / "resources")
    resources.refresh()
    logs = FileLogs(directory / "logs")
    parts = Components(
        pool,
        resources,
        FolderJobs(directory / "jobs"),  # type: ignore[arg-type]
        BronzeStore(s3_settings()),
        TIMINGS,
        logs,
        quotas=Quotas(runs_per_tenant=AT_ONCE),
    )
    await Orchestrator(parts).run()


async def serve(port: int) -> None:
    """Serve the run API until killed."""
    pool = create_pool(database_url(), size=6)
    await pool.open(wait=True, timeout=PATIENCE)
    store = BronzeStore(s3_settings())
    logs = RunLogs(pool, FileLogs(Path("/nonexistent")), store)
    services = Services(RunProtocol(pool, store, LIMITS), pool, EmbeddedAuthenticator(SECRET), logs)
    config = uvicorn.Config(create_app(services), host="127.0.0.1", port=port, log_level="warning", lifespan="off")
    await uvicorn.Server(config).serve()


if __name__ == "__main__":
    part, place = sys.argv[1:]
    asyncio.run(operate(Path(place)) if part == "operate" else serve(int(place)))
