"""`penstock operate` as processes of this machine, in place of the release's own, on an address of the test's choice."""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Self

import yaml
from penstock_operator.embedded.private_files import free_port

from tests.cluster.installation import NAMESPACE, Installation
from tests.cluster.kubernetes import Cluster

DEPLOYMENT = "deployment/penstock-operate"
END_SECONDS = 30
SWEEP_SECONDS = "10"
# `penstock`, with the names of the cluster's Services.
OPERATE = """
import json, os, socket
from penstock_operator.cli import main
names, resolve = json.loads(os.environ["NAMES"]), socket.getaddrinfo
socket.getaddrinfo = lambda host, *rest, **options: resolve(names.get(host, host), *rest, **options)
main()
"""


class Operators:
    """Two of them, as the release would run them; one that ends is started anew."""

    def __init__(self, installation: Installation, address: str, directory: Path, count: int = 2) -> None:
        self._installation, self._count = installation, count
        self._cluster = installation.cluster
        self._directory = directory
        tls = directory / "tls"
        tls.mkdir()
        for name, text in installation.certificates().items():
            (tls / name).write_text(text)
        self._environment = {
            **os.environ,
            **environment(self._cluster),
            "PENSTOCK_TLS_DIRECTORY": str(tls),
            "NAMES": json.dumps(addresses(self._cluster)),
            "KUBECONFIG": str(kubeconfig(self._cluster, address, directory)),
            "PENSTOCK_SWEEP_SECONDS": SWEEP_SECONDS,
        }
        self._ended = threading.Event()
        self._threads: list[threading.Thread] = []
        self._processes: dict[int, subprocess.Popen[bytes]] = {}
        self.starts = 0

    def __enter__(self) -> Self:
        self._scale(0)
        self._threads = [threading.Thread(target=self._keep, args=(number,)) for number in range(self._count)]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        for process in self._processes.values():
            process.send_signal(signal.SIGTERM)
        for thread in self._threads:
            thread.join(2 * END_SECONDS)
        self._scale(self._count)
        self._installation.ready()

    def said(self) -> str:
        """Return the end of what each process wrote."""
        logs = sorted(self._directory.glob("operate-*.log"))
        return "\n".join(f"--- {log.name}\n{log.read_text()[-4000:]}" for log in logs)

    def _scale(self, count: int) -> None:
        self._cluster.kubectl("scale", DEPLOYMENT, "-n", NAMESPACE, f"--replicas={count}")
        self._cluster.until("the release's operators are as many", lambda: self._there() == count)

    def _there(self) -> int:
        return len(self._cluster.list("pods", NAMESPACE, "app.kubernetes.io/component=operate"))

    def _keep(self, number: int) -> None:
        command = [sys.executable, "-c", OPERATE, "operate", "--health-port"]
        while not self._ended.is_set():
            with (self._directory / f"operate-{number}.log").open("ab") as log:
                process = subprocess.Popen(
                    [*command, str(free_port("127.0.0.1"))], env=self._environment, stdout=log, stderr=log
                )
            self._processes[number] = process
            self.starts += 1
            if self._ended.is_set():
                process.terminate()
            process.wait()


def environment(cluster: Cluster) -> dict[str, str]:
    """Return what the release tells its operators, Secrets read, as Kubernetes would put it into the pod."""
    (container,) = cluster.get("deployment", "penstock-operate", NAMESPACE)["spec"]["template"]["spec"]["containers"]
    found = {variable["name"]: variable["value"] for variable in container["env"] if "value" in variable}
    for item in container["env"]:
        reference = item.get("valueFrom", {}).get("secretKeyRef")
        if reference:
            data = cluster.get("secret", reference["name"], NAMESPACE)["data"]
            found[item["name"]] = base64.b64decode(data[reference["key"]]).decode()
    return {**found, "PENSTOCK_NAMESPACE": NAMESPACE}


def addresses(cluster: Cluster) -> dict[str, str]:
    """Return the addresses of the release's Services, by name: this machine does not resolve names of the cluster."""
    services = cluster.list("services", NAMESPACE)
    return {f"{service['metadata']['name']}.{NAMESPACE}.svc": service["spec"]["clusterIP"] for service in services}


def kubeconfig(cluster: Cluster, address: str, directory: Path) -> Path:
    """Write one that names the address, with the rights of the release's operators and no others."""
    token = cluster.kubectl("create", "token", "penstock-operate", "-n", NAMESPACE, "--duration=2h").stdout.strip()
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "proxy",
        "clusters": [{"name": "proxy", "cluster": {"server": address}}],
        "users": [{"name": "operate", "user": {"token": token}}],
        "contexts": [{"name": "proxy", "context": {"cluster": "proxy", "user": "operate"}}],
    }
    path = directory / "kubeconfig"
    path.write_text(yaml.safe_dump(document))
    path.chmod(0o600)
    return path
