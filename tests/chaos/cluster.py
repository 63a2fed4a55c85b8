"""A miniature cluster of real processes on this machine, each of which can be killed, paused or cut off.

Postgres and S3 are real servers, each behind a proxy of ours. The driver is the kubelet: it starts a connector for each
Job that an operator makes, and writes down how it ended.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
import yaml
from penstock_operator.api.authentication import EmbeddedAuthenticator
from penstock_operator.embedded.postgres import EmbeddedPostgres
from penstock_operator.embedded.private_files import free_port
from penstock_operator.embedded.s3 import EmbeddedS3
from penstock_sdk.failpoints import FAILPOINTS_VARIABLE
from penstock_sdk.protocol import (
    API_URL_VARIABLE,
    ATTEMPT_VARIABLE,
    CONNECTOR_VARIABLE,
    RUN_ID_VARIABLE,
    TOKEN_FILE_VARIABLE,
)
from psycopg.rows import dict_row

from tests.chaos.processes import SECRET
from tests.chaos.proxies import PostgresProxy, Proxy, S3Proxy
from tests.integration.world import MANIFEST
from tests.patience import PATIENCE

ROOT = Path(__file__).parents[2]
GIVEN_AGAIN = 5  # orders to die that pods did not come to; more than these is a failpoint that is not there
TOKENS = EmbeddedAuthenticator(SECRET)
DEFINITION = {
    "apiVersion": "penstock.io/v1alpha1",
    "kind": "ConnectorDefinition",
    "metadata": {"name": "faker-generate-0.1.0"},
    "spec": {"image": f"i@sha256:{'0' * 64}", "stage": "certified", "manifest": MANIFEST},
}
NEVER = "0 0 1 1 *"


@dataclass
class Pod:
    """A connector's process."""

    job: str
    run_id: str
    attempt: int
    process: subprocess.Popen[bytes]
    order: str = ""
    """The failpoint that it is to die at."""
    cut_off: bool = False

    def kill(self) -> None:
        self.process.kill()


@dataclass
class Cluster:
    """Everything that is up."""

    directory: Path
    postgres: EmbeddedPostgres
    s3: EmbeddedS3
    database: PostgresProxy
    bucket: S3Proxy
    service: Proxy
    servers: list[int]
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    pods: dict[str, Pod] = field(default_factory=dict)
    failpoints: list[str] = field(default_factory=list)
    """What the next pods are started with, one each."""
    given_again: int = 0
    died_at_failpoints: int = 0
    deaths: list[tuple[str, int, float]] = field(default_factory=list)
    """Run, attempt and moment of each pod that was killed."""
    closing: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _processes_lock: threading.Lock = field(default_factory=threading.Lock)

    # Parts.

    def start_process(self, name: str, failpoint: str = "") -> None:
        """Start an operator or a server, to be killed at a failpoint if one is given."""
        kind, number = name.split("-")
        place = str(self.directory) if kind == "operate" else str(self.servers[int(number)])
        environment = {**self.environment(), **({FAILPOINTS_VARIABLE: failpoint} if failpoint else {})}
        log = (self.directory / f"{name}.log").open("ab")
        command = [sys.executable, "-m", "tests.chaos.processes", kind, place]
        self.processes[name] = subprocess.Popen(command, env=environment, cwd=ROOT, stdout=log, stderr=log)

    def kill_process(self, name: str, failpoint: str = "") -> None:
        """Kill a part and start it anew."""
        with self._processes_lock:
            self.processes[name].kill()
            self.processes[name].wait()
            self.start_process(name, failpoint)

    def _restart_processes(self) -> None:
        """Start what a failpoint has killed anew."""
        with self._processes_lock:
            for name, process in list(self.processes.items()):
                if process.poll() is not None and not self.closing.is_set():
                    self.died_at_failpoints += 1
                    self.start_process(name)

    def environment(self) -> dict[str, str]:
        """What operators and servers are started with: the way to Postgres and S3 is through the proxies."""
        settings = self.s3.settings
        return {
            "PATH": os.environ["PATH"],
            "PENSTOCK_DATABASE_URL": self.url(self.database.port),
            "PENSTOCK_S3_ENDPOINT": f"http://127.0.0.1:{self.bucket.port}",
            "PENSTOCK_S3_BUCKET": settings.bucket,
            "PENSTOCK_S3_PREFIX": settings.prefix,
            "AWS_ACCESS_KEY_ID": settings.access_key or "",
            "AWS_SECRET_ACCESS_KEY": settings.secret_key or "",
        }

    def url(self, port: int) -> str:
        """The registry's address at a port."""
        head, _, tail = self.postgres.url.rpartition(":")
        return f"{head}:{port}/{tail.split('/', 1)[1]}"

    # The kubelet.

    def carry_jobs(self) -> None:
        """Start a pod for each new Job, and write down the end of each that has ended; until closed."""
        while not self.closing.wait(0.05):
            with self._lock:
                for path in sorted((self.directory / "jobs").glob("*.job")):
                    if path.stem not in self.pods:
                        self._start_pod(path)
                for pod in list(self.pods.values()):
                    self._look_at(pod)
            self._restart_processes()

    def _start_pod(self, path: Path) -> None:
        launch = json.loads(path.read_text())
        token = self.directory / "tokens" / path.stem
        token.write_text(TOKENS.mint_pod(launch["job_uid"]))
        environment = {
            "PATH": os.environ["PATH"],
            API_URL_VARIABLE: f"http://127.0.0.1:{self.service.port}",
            RUN_ID_VARIABLE: launch["run_id"],
            ATTEMPT_VARIABLE: str(launch["attempt"]),
            CONNECTOR_VARIABLE: "faker-generate",
            TOKEN_FILE_VARIABLE: str(token),
        }
        order = ""
        if self.failpoints and launch["attempt"] == 1:  # a later attempt may have nothing left to do there
            order = environment[FAILPOINTS_VARIABLE] = self.failpoints.pop(0)
        with (self.directory / "logs" / f"{path.stem}.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "penstock_sdk"],
                env=environment,
                stdout=log,
                stderr=log,
                cwd="/",
                start_new_session=True,  # a pod is paused with all its processes
            )
        self.pods[path.stem] = Pod(path.stem, launch["run_id"], launch["attempt"], process, order)

    def _look_at(self, pod: Pod) -> None:
        ended = self.directory / "jobs" / f"{pod.job}.ended"
        if pod.cut_off or ended.exists():
            return
        if pod.process.poll() is not None:
            if pod.process.returncode == -signal.SIGKILL:
                self.deaths.append((pod.run_id, pod.attempt, time.time()))
            elif pod.order and self.given_again < GIVEN_AGAIN:
                self.given_again += 1  # on a machine that stood still it was given up before it came there
                self.failpoints.append(pod.order)
            scratch = ended.with_suffix(".writing")
            scratch.write_text(str(pod.process.returncode))
            scratch.replace(ended)
        elif ended.with_suffix(".stop").exists():
            pod.process.terminate()

    def running(self) -> list[Pod]:
        """The pods that run now."""
        with self._lock:
            return [pod for pod in self.pods.values() if pod.process.poll() is None and not pod.cut_off]

    # The registry, looked at past the proxy.

    def query(self, sql: str, *values: Any) -> list[dict[str, Any]]:
        """Ask the registry."""
        with psycopg.connect(self.postgres.url, autocommit=True, row_factory=dict_row) as connection:
            cursor = connection.execute(sql.encode(), values)
            return cursor.fetchall() if cursor.description else []

    def apply(self, count: int, prefix: str, **config: Any) -> None:
        """Add connections, and wait until they are recorded; every other one reads its streams in parts."""
        spec = {
            "connector": {"name": "faker", "method": "generate"},
            "config": {"partitions": 4, **config},
            "streams": [{"name": "people", "mode": "incremental"}, {"name": "events", "mode": "full"}],
            "schedule": NEVER,
            "retry": {"limit": 100, "backoff": {"initial": "100ms", "factor": 1, "max": "100ms"}},
        }
        documents = [
            {
                "apiVersion": "penstock.io/v1alpha1",
                "kind": "TenantConnection",
                "metadata": {"name": f"{prefix}-{number}", "namespace": "team"},
                "spec": {**spec, "parallelism": 3 if number % 2 else 1},
            }
            for number in range(count)
        ]
        (self.directory / "resources" / f"{prefix}.yaml").write_text(yaml.safe_dump_all(documents))
        for name in [part for part in self.processes if part.startswith("operate")]:
            self.kill_process(name)
        ready = "SELECT count(*) AS n FROM penstock.tenant_connections WHERE ready AND next_run_at IS NOT NULL AND name LIKE %s"
        self.wait(lambda: self.query(ready, f"{prefix}-%")[0]["n"] == count, "the connections are recorded")

    def make_due(self, prefix: str) -> None:
        """Make every connection due at this moment."""
        self.query("UPDATE penstock.tenant_connections SET next_run_at = now() WHERE name LIKE %s", f"{prefix}-%")

    def runs(self, prefix: str) -> list[dict[str, Any]]:
        """The runs of these connections."""
        return self.query(
            "SELECT r.*, c.name FROM penstock.connector_runs r JOIN penstock.tenant_connections c"
            " ON c.uid = r.connection_uid WHERE c.name LIKE %s",
            f"{prefix}-%",
        )

    def ended(self, prefix: str) -> int:
        """Return how many runs of these connections have ended."""
        return sum(1 for run in self.runs(prefix) if run["finished_at"])

    def all_ended(self, prefix: str, count: int) -> bool:
        """Say whether each connection has a run and all have ended."""
        found = self.runs(prefix)
        return len(found) >= count and all(run["finished_at"] for run in found)

    def wait(self, condition: Any, what: str, seconds: float = PATIENCE) -> None:
        """Wait until the condition holds."""
        end = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > end:
                raise AssertionError(f"not within {seconds:.0f} s: {what}\n{self.tails()}")
            time.sleep(0.1)

    def tails(self) -> str:
        """The last lines of every part's log."""
        logs = [*self.directory.glob("*.log"), *sorted((self.directory / "logs").glob("*.log"))[-3:]]
        return "\n".join(f"== {path.name}\n{path.read_text(errors='replace')[-1500:]}" for path in logs)

    def close(self) -> None:
        """End everything that was started."""
        self.closing.set()
        with self._lock, self._processes_lock:
            for process in [*self.processes.values(), *(pod.process for pod in self.pods.values())]:
                with contextlib.suppress(ProcessLookupError):
                    process.send_signal(signal.SIGCONT)
                    process.kill()
                process.wait()


@contextlib.contextmanager
def cluster(directory: Path, seed: int) -> Iterator[Cluster]:
    """Bring a miniature cluster up: two operators, two servers."""
    for name in ("resources", "jobs", "logs", "tokens"):
        (directory / name).mkdir(parents=True)
    with contextlib.ExitStack() as stack:
        postgres = stack.enter_context(EmbeddedPostgres(directory / "postgres"))
        s3 = stack.enter_context(EmbeddedS3(directory / "s3"))
        environment = {**os.environ, "PENSTOCK_DATABASE_URL": postgres.url}
        subprocess.run([sys.executable, "-m", "penstock_operator.cli", "migrate"], env=environment, check=True)
        database = stack.enter_context(PostgresProxy([_port(postgres.url)], seed))
        bucket = stack.enter_context(S3Proxy([_port(s3.settings.endpoint or "")], seed))
        servers = [free_port("127.0.0.1"), free_port("127.0.0.1")]
        service = stack.enter_context(Proxy(servers, seed))
        made = Cluster(directory, postgres, s3, database, bucket, service, servers)
        stack.callback(made.close)
        (directory / "resources" / "definition.yaml").write_text(yaml.safe_dump(DEFINITION))
        for name in ("operate-0", "operate-1", "serve-0", "serve-1"):
            made.start_process(name)
        kubelet = threading.Thread(target=made.carry_jobs, daemon=True)
        kubelet.start()
        stack.callback(kubelet.join, 30)
        stack.callback(made.closing.set)
        yield made


def _port(url: str) -> int:
    return int(url.rsplit(":", 1)[1].split("/", maxsplit=1)[0])
