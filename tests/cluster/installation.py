"""Penstock as Helm installs it, and what a test does to its pods."""

from __future__ import annotations

import base64
import subprocess
import tempfile
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import yaml
from penstock_operator.settings import S3Settings

from tests.cluster.kubernetes import Cluster, tool
from tests.patience import PATIENCE

ROOT = Path(__file__).resolve().parents[2]
NAMESPACE = "penstock-system"
AGENT_NAMESPACE = "kube-system"
LEASE = "penstock-operate"
Role = Literal["operate", "serve", "egress"]
Signal = Literal["KILL", "STOP", "CONT"]

# Runs in the agent's pod, which sees the node's processes: signals those of one pod, its sandbox aside.
SEND = """
import os, pathlib, signal, sys, time
uid, number = sys.argv[1], getattr(signal, "SIG" + sys.argv[2])
found = []
for each in pathlib.Path("/proc").glob("[0-9]*"):
    try:
        inside = any(form in (each / "cgroup").read_text() for form in (uid, uid.replace("-", "_")))
        if inside and b"penstock" in (each / "cmdline").read_bytes():
            found.append(int(each.name))
    except OSError:
        pass
print(time.time(), flush=True)
for pid in found:
    os.kill(pid, number)
sys.exit(not found)
"""


def document(kind: str, name: str, namespace: str | None = None, **rest: Any) -> dict[str, Any]:
    """Return a resource of the core group."""
    metadata = {"name": name} | ({"namespace": namespace} if namespace else {})
    return {"apiVersion": "v1", "kind": kind, "metadata": metadata, **rest}


class Installation:
    """One release: two of each role, on a Postgres and an S3 that existing Secrets name."""

    def __init__(
        self, cluster: Cluster, image: str, database_url: str, s3: S3Settings, namespace: str = NAMESPACE
    ) -> None:
        self.cluster = cluster
        self.namespace = namespace
        self.image = image
        self.database_url = database_url
        self.s3 = s3

    def install(self, *, agent: bool = True, **changes: Any) -> None:
        """Make the Secrets as the chart's page says, and install."""
        keys = {"AWS_ACCESS_KEY_ID": self.s3.access_key, "AWS_SECRET_ACCESS_KEY": self.s3.secret_key}
        restricted = {"pod-security.kubernetes.io/enforce": "restricted"}
        self.cluster.apply(
            {**document("Namespace", self.namespace), "metadata": {"name": self.namespace, "labels": restricted}},
            document(
                "Secret",
                "penstock-postgres",
                self.namespace,
                stringData={"url": f"{self.database_url}?sslmode=disable"},
            ),
            document("Secret", "penstock-s3", self.namespace, stringData=keys),
        )
        self.upgrade(**changes)
        if agent:
            self._start_agent()

    def values(self) -> dict[str, Any]:
        """Return what the chart is told."""
        ports = [urlsplit(address).port for address in (self.database_url, str(self.s3.endpoint))]
        return {
            "image": {"reference": self.image},
            "postgres": {"existingSecret": {"name": "penstock-postgres"}},
            "s3": {
                "endpoint": self.s3.endpoint,
                "bucket": self.s3.bucket,
                "prefix": self.s3.prefix,
                "existingSecret": "penstock-s3",
            },
            "networkPolicy": {"egressPorts": [443, 6443, *ports]},
            "egress": {"privateRanges": ["10.0.0.0/8"]},
            "admission": {"controllers": ["penstock-second/penstock-operate"]},
        }

    def upgrade(self, **changes: Any) -> None:
        """Install or upgrade the release, and wait until every pod is ready."""
        self.helm("upgrade", "--install", "penstock", self.chart, values={**self.values(), **changes})

    def rollback(self) -> None:
        """Go back to the release before."""
        self.helm("rollback", "penstock")

    @property
    def chart(self) -> str:
        """Return where the chart is."""
        return str(ROOT / "charts/penstock")

    def helm(self, *arguments: str, values: dict[str, Any] | None = None, wait: bool = True) -> None:
        """Run Helm on the release, and wait until every pod is ready."""
        with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
            yaml.safe_dump(values or {}, file)
            file.flush()
            flags = ["-f", file.name] if values else []
            waiting = ["--wait", "--timeout", "5m"] if wait else []
            command = [tool("helm"), *arguments, "-n", self.namespace, *waiting, *flags]
            command += ["--kubeconfig", str(self.cluster.kubeconfig)]
            done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=360)
        assert done.returncode == 0, done.stderr + self.cluster.kubectl("get", "pods", "-A", "-o", "wide").stdout

    def certificates(self) -> dict[str, str]:
        """Return the certificates and keys of the release, by the name of their file."""
        data = self.cluster.get("secret", "penstock-tls", self.namespace).get("data", {})
        return {name: base64.b64decode(value).decode() for name, value in data.items()}

    def pods(self, role: Role) -> list[dict[str, Any]]:
        """Return the role's pods that are not ending."""
        found = self.cluster.list("pods", self.namespace, f"app.kubernetes.io/component={role}")
        return [item for item in found if "deletionTimestamp" not in item["metadata"]]

    def holder(self) -> str:
        """Return who holds the Lease, as POD_UNIQUE, or nothing."""
        return str(self.cluster.get("lease", LEASE, self.namespace).get("spec", {}).get("holderIdentity") or "")

    def leader(self) -> str:
        """Return the name of the pod that leads, or nothing."""
        return self.holder().rpartition("_")[0]

    def settled_leader(self) -> str:
        """Wait until a pod that lives leads, and return its name."""

        def found() -> str:
            leader = self.leader()
            return leader if leader in {pod["metadata"]["name"] for pod in self.pods("operate")} else ""

        return str(self.cluster.until("a leader", found))

    def signal(self, pod: str, number: Signal, namespace: str = NAMESPACE) -> float:
        """Signal a pod's processes as the kernel would, and return the moment just before."""
        uid = self.cluster.get("pod", pod, namespace)["metadata"]["uid"]
        command = ["exec", "penstock-agent", "-n", AGENT_NAMESPACE, "--", "python3", "-c", SEND, uid, number]
        return float(self.cluster.kubectl(*command).stdout)

    def ready(self) -> None:
        """Wait until every pod of the release is ready."""
        for role in ("operate", "serve", "egress"):
            flags = ("-n", NAMESPACE, f"--timeout={PATIENCE:.0f}s")
            self.cluster.kubectl("rollout", "status", f"deployment/penstock-{role}", *flags, seconds=PATIENCE + 10)

    def _start_agent(self) -> None:
        """Start a pod that may signal the node's processes: from inside a container, its pid 1 cannot be killed."""
        container = {
            "name": "agent",
            "image": self.image,
            "command": ["python3", "-c", "import signal; signal.pause()"],
            "securityContext": {"privileged": True, "runAsUser": 0},
        }
        spec = {
            "hostPID": True,
            "terminationGracePeriodSeconds": 0,
            "automountServiceAccountToken": False,
            "containers": [container],
        }
        self.cluster.apply(document("Pod", "penstock-agent", AGENT_NAMESPACE, spec=spec))
        wait = ("--for=condition=Ready", "pod/penstock-agent", "-n", AGENT_NAMESPACE, f"--timeout={PATIENCE:.0f}s")
        self.cluster.kubectl("wait", *wait)

    def uninstall(self) -> None:
        """Take everything away that the release, and this class, brought."""
        command = [tool("helm"), "uninstall", "penstock", "-n", self.namespace]
        command += ["--kubeconfig", str(self.cluster.kubeconfig)]
        subprocess.run(command, check=True, capture_output=True, timeout=PATIENCE)
        if self.namespace == NAMESPACE:
            self.cluster.kubectl("delete", "pod", "penstock-agent", "-n", AGENT_NAMESPACE, "--ignore-not-found")
        self.cluster.kubectl("delete", "namespace", self.namespace, "--ignore-not-found", "--wait=false")

    def logs(self) -> str:
        """Return the end of what each pod wrote."""
        said = [self.cluster.kubectl("get", "pods", "-A", "-o", "wide", check=False).stdout]
        for role in ("operate", "serve", "egress"):
            for pod in self.cluster.list("pods", NAMESPACE, f"app.kubernetes.io/component={role}"):
                name = pod["metadata"]["name"]
                done = self.cluster.kubectl("logs", name, "-n", NAMESPACE, "--tail=40", check=False)
                said.append(f"--- {name}\n{done.stdout}{done.stderr}")
        return "\n".join(said)
