"""A real Kubernetes, with the operator and the server beside it as processes of this machine.

The cluster is the one built from packages (tests/cluster/machine); it needs Debian and root.
Postgres, S3 and the run API listen on the cluster's link to the host only.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from penstock_operator.embedded.files import free_port
from penstock_operator.embedded.postgres import EmbeddedPostgres
from penstock_operator.embedded.s3 import EmbeddedS3
from penstock_operator.settings import S3Settings

ROOT = Path(__file__).resolve().parents[2]
MACHINE = ROOT / "tests/cluster/machine"
STATE = ROOT / ".state/cluster"
HOST, REGISTRY, PULL = "10.250.7.1", "10.250.7.2:5000", "localhost:5000"
BINARIES = Path(
    os.environ.get("CLUSTER_BIN") or Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "penstock/cluster"
)


class Cluster:
    """kubectl, and what a test asks of it."""

    def __init__(self, kubeconfig: Path) -> None:
        self.kubeconfig = kubeconfig

    def kubectl(
        self, *arguments: str, stdin: str | None = None, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        command = [str(BINARIES / "kubectl"), "--kubeconfig", str(self.kubeconfig), *arguments]
        return subprocess.run(command, input=stdin, check=check, capture_output=True, text=True, timeout=60)

    def apply(self, *documents: dict[str, Any]) -> None:
        self.kubectl("apply", "-f", "-", stdin=yaml.safe_dump_all(documents))

    def refuse(self, document: dict[str, Any]) -> str:
        done = self.kubectl("apply", "-f", "-", stdin=yaml.safe_dump(document), check=False)
        assert done.returncode != 0, "the API server took it"
        return done.stderr

    def get(self, kind: str, name: str, namespace: str) -> dict[str, Any]:
        done = self.kubectl("get", kind, name, "-n", namespace, "-o", "json", check=False)
        return json.loads(done.stdout) if done.returncode == 0 else {}

    def until(self, what: str, find: Callable[[], Any], seconds: float = 90) -> Any:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            found = find()
            if found:
                return found
            time.sleep(0.5)
        raise AssertionError(f"not within {seconds} s: {what}")

    def condition(self, name: str, namespace: str, reason: str, seconds: float = 90) -> dict[str, Any]:
        """Wait until the connection's Ready condition has the reason, and return the connection."""

        def found() -> dict[str, Any] | None:
            document = self.get("tc", name, namespace)
            reasons = [
                each["reason"] for each in document.get("status", {}).get("conditions", []) if each["type"] == "Ready"
            ]
            return document if reasons == [reason] else None

        try:
            return self.until(f"{name} is {reason}", found, seconds)
        except AssertionError:
            raise AssertionError(json.dumps(self.get("tc", name, namespace).get("status"), indent=1)) from None


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """A Kubernetes with our CRDs."""
    subprocess.run([MACHINE / "down", STATE, "--wipe"], check=True, capture_output=True)
    up = subprocess.run([MACHINE / "up", STATE], check=False, capture_output=True, text=True)
    assert up.returncode == 0, up.stdout + up.stderr
    found = Cluster(STATE / "kc/admin.conf")
    found.kubectl("apply", "-f", str(ROOT / "crds"))
    for plural in ("connectordefinitions", "tenantconnections"):
        found.kubectl("wait", "--for=condition=Established", f"crd/{plural}.penstock.io", "--timeout=30s")
    yield found
    subprocess.run([MACHINE / "down", STATE, "--wipe"], check=True, capture_output=True)


@pytest.fixture(scope="session")
def images(cluster: Cluster) -> dict[str, str]:
    """The connectors' images by digest, as pods pull them."""
    names = ["faker-generate", "postgres-sql"]
    environment = {**os.environ, "BASE": f"{REGISTRY}/python:1", "PYTHON": sys.executable}
    built = subprocess.run(
        [ROOT / "images/build", REGISTRY, *names], check=False, capture_output=True, text=True, env=environment
    )
    assert built.returncode == 0, built.stdout + built.stderr
    return {
        name: f"{PULL}/penstock-{name}@{(ROOT / f'.state/images/{name}.digest').read_text().strip()}" for name in names
    }


@pytest.fixture(scope="session")
def source_url(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Postgres that pods reach: the registry is in it, and a source."""
    with EmbeddedPostgres(tmp_path_factory.mktemp("postgres") / "server", host=HOST) as server:
        yield server.url


@pytest.fixture(scope="session")
def bucket(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Settings]:
    """An S3 that pods reach."""
    with EmbeddedS3(tmp_path_factory.mktemp("s3") / "server", host=HOST) as server:
        yield server.settings


class Platform:
    """The two processes; a test may kill and start them."""

    def __init__(self, environment: dict[str, str], port: int, logs: Path) -> None:
        self.environment = environment
        self.port = port
        self.logs = logs
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, role: str) -> None:
        extra = (
            ["--host", HOST, "--port", str(self.port)]
            if role == "serve"
            else ["--health-port", str(free_port("127.0.0.1"))]
        )
        with (self.logs / f"{role}.log").open("ab") as log:
            command = [sys.executable, "-m", "penstock_operator.cli", role, *extra]
            self.processes[role] = subprocess.Popen(command, env=self.environment, stdout=log, stderr=log)

    def kill(self, role: str) -> None:
        self.processes[role].kill()
        self.processes[role].wait()

    def stop(self) -> None:
        for process in self.processes.values():
            process.terminate()
        for process in self.processes.values():
            try:
                process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@pytest.fixture(scope="session")
def operator(
    cluster: Cluster,
    images: dict[str, str],
    source_url: str,
    bucket: S3Settings,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Platform]:
    """The operator and the server, and the definitions of both connectors."""
    port, logs = free_port(HOST), tmp_path_factory.mktemp("logs")
    environment = {
        **os.environ,
        "KUBECONFIG": str(cluster.kubeconfig),
        "PENSTOCK_DATABASE_URL": source_url,
        "PENSTOCK_S3_ENDPOINT": bucket.endpoint or "",
        "PENSTOCK_S3_BUCKET": bucket.bucket,
        "AWS_ACCESS_KEY_ID": bucket.access_key or "",
        "AWS_SECRET_ACCESS_KEY": bucket.secret_key or "",
        "PENSTOCK_API_URL": f"http://{HOST}:{port}",
        "PENSTOCK_NAMESPACE": "default",
    }
    cli = [sys.executable, "-m", "penstock_operator.cli"]
    subprocess.run([*cli, "migrate"], check=True, env=environment, capture_output=True)
    for name, image in images.items():
        text = subprocess.run(
            [*cli, "definition", name, "--image", image], check=True, capture_output=True, text=True
        ).stdout
        cluster.kubectl("apply", "-f", "-", stdin=text)
    platform = Platform(environment, port, logs)
    for role in ("serve", "operate"):
        platform.start(role)
    yield platform
    platform.stop()
    for log in logs.iterdir():
        print(f"--- {log.name}\n{log.read_text()[-6000:]}")


@pytest.fixture(scope="session")
def namespace(cluster: Cluster) -> str:
    """A tenant, whose namespace enforces the restricted Pod Security Standard."""
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "team", "labels": labels}})
    return "team"
