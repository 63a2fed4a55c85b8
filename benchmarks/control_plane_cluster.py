"""The benchmark's cluster: a real API server, controller manager and scheduler, and nodes that only say they run pods."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import ssl
import subprocess
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import aiohttp
import yaml

ROOT = Path(__file__).resolve().parents[1]
MACHINE = ROOT / "tests/cluster/machine"
STATE = ROOT / ".state/bench"
BINARIES = Path(
    os.environ.get("CLUSTER_BIN") or Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "penstock/cluster"
)
NODES, FAST = 12, "--kube-api-qps=400 --kube-api-burst=800"
PARTS = ("apiserver", "etcd", "kcm", "scheduler", "kwok")
IDLE = ("kubelet", "proxy", "netpol", "containerd", "registry")
LOGS = """
kind: ClusterLogs
apiVersion: kwok.x-k8s.io/v1alpha1
metadata: {name: all}
spec: {logs: [{logsFile: LOG, follow: false}]}
"""


def environment() -> dict[str, str]:
    """Return the environment of the machine's scripts."""
    number = os.environ.get("CLUSTER_N", "9")
    return {
        **os.environ,
        "CLUSTER_N": number,
        "CLUSTER_NO_DNS": "1",
        "CLUSTER_KCM_FLAGS": f"{FAST} --concurrent-job-syncs=20",
        "KWOK_CONFIG": str(STATE / "kwok.yaml"),
        "KWOK_FLAGS": f"--server-address 0.0.0.0:10250 --tls-cert-file {STATE}/pki/kubelet-server.crt"
        f" --tls-private-key-file {STATE}/pki/kubelet-server.key",
    }


def machine(*command: str | Path) -> None:
    """Run one of the machine's scripts."""
    done = subprocess.run(
        [MACHINE / command[0], STATE, *command[1:]], check=False, capture_output=True, text=True, env=environment()
    )
    if done.returncode:
        raise SystemExit(f"{command[0]}: {done.stdout[-2000:]}{done.stderr[-2000:]}")


def kubectl(*arguments: str) -> str:
    """Run kubectl."""
    command: list[str | Path] = [BINARIES / "kubectl", "--kubeconfig", STATE / "kc/admin.conf", *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=120).stdout


def bring_up() -> None:
    """Bring the cluster up, without what runs real pods, and with nodes on which pods stay as they are told."""
    machine("down", "--wipe")
    machine("up")
    machine("comp", "restart", "scheduler", *FAST.split())
    for name in IDLE:
        machine("comp", "stop", name)
    _write_stages()
    machine("fakenodes", str(NODES))
    kubectl("taint", "nodes", "-l", "type=kwok", "kwok.x-k8s.io/node-")
    kubectl("cordon", "node0")
    kubectl("apply", "-f", str(ROOT / "crds"))
    for plural in ("connectordefinitions", "tenantconnections"):
        kubectl("wait", "--for=condition=Established", f"crd/{plural}.penstock.io", "--timeout=30s")


def _write_stages() -> None:
    """Leave out the stage that ends a pod at once: the player ends it, as its connector would."""
    stages = yaml.safe_load_all((BINARIES / "kwok-stages.yaml").read_text())
    kept = [each for each in stages if each and each["metadata"]["name"] not in ("pod-complete", "pod-completed")]
    log = STATE / "pod.log"
    log.write_text("2026-01-01T00:00:00.000000000Z stdout F a line of the connector's log\n")
    kept.append(yaml.safe_load(LOGS.replace("LOG", str(log))))
    (STATE / "kwok.yaml").write_text(yaml.safe_dump_all(kept))


def take_down() -> None:
    """Leave nothing behind."""
    machine("down", "--wipe")


def pids() -> dict[str, int]:
    """Return the control plane's processes."""
    return {name: int((STATE / "pid" / name).read_text()) for name in PARTS}


class Api:
    """The API server, spoken to without a client's costs."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self._session, self._url = session, url

    async def call(self, method: str, path: str, body: Any = None, content: str = "application/json") -> dict[str, Any]:
        """Send a request and return its answer; what exists already, or is gone already, is as it should be."""
        data = json.dumps(body).encode() if body is not None else None
        async with self._session.request(
            method, self._url + path, data=data, headers={"Content-Type": content}
        ) as answer:
            text = await answer.text()
            if answer.status >= 300 and answer.status not in (404, 409):
                raise RuntimeError(f"{method} {path}: {answer.status} {text[:300]}")
            return dict(json.loads(text))

    async def watch(self, path: str) -> AsyncIterator[dict[str, Any]]:
        """Yield what there is and what changes; after an end of the stream, all over again."""
        while True:
            listed = await self.call("GET", path)
            for each in listed["items"]:
                yield {"type": "ADDED", "object": each}
            async for event in self._stream(f"{path}&watch=1&resourceVersion={listed['metadata']['resourceVersion']}"):
                if event["type"] == "ERROR":
                    break
                yield event

    async def _stream(self, path: str) -> AsyncIterator[dict[str, Any]]:
        rest = b""
        with suppress(aiohttp.ClientError, TimeoutError):
            async with self._session.get(self._url + path, timeout=aiohttp.ClientTimeout(total=None)) as stream:
                async for chunk in stream.content.iter_any():
                    *lines, rest = (rest + chunk).split(b"\n")
                    for line in lines:
                        yield json.loads(line)

    async def writes(self) -> Counter[str]:
        """Return how many writes the API server has carried out, by verb and resource."""
        async with self._session.get(self._url + "/metrics") as answer:
            text = await answer.text()
        found: Counter[str] = Counter()
        for line in text.splitlines():
            if line.startswith("apiserver_request_total{"):
                labels = dict(
                    part.split("=", 1)
                    for part in line[line.index("{") + 1 : line.index("}")].replace('"', "").split(",")
                )
                if labels["verb"] in ("POST", "PUT", "PATCH", "APPLY", "DELETE"):
                    what = "/".join(filter(None, (labels["resource"], labels["subresource"])))
                    found[f"{labels['verb']} {what}"] += int(float(line.rsplit(" ", 1)[1]))
        return found


@asynccontextmanager
async def api() -> AsyncIterator[Api]:
    """Open the API server with the administrator's certificate."""
    config = yaml.safe_load((STATE / "kc/admin.conf").read_text())
    cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
    decoded = {key: base64.b64decode(text) for key, text in {**cluster, **user}.items() if key.endswith("-data")}
    context = ssl.create_default_context(cadata=decoded["certificate-authority-data"].decode())
    with tempfile.TemporaryDirectory() as directory:
        certificate, private_key = Path(directory) / "certificate", Path(directory) / "key"
        certificate.write_bytes(decoded["client-certificate-data"])
        private_key.write_bytes(decoded["client-key-data"])
        context.load_cert_chain(certificate, private_key)
    connector = aiohttp.TCPConnector(ssl=context, limit=64)
    async with aiohttp.ClientSession(connector=connector) as session:
        yield Api(session, cluster["server"])


async def side_by_side(count: int, work: Iterable[Callable[[], Awaitable[Any]]]) -> None:
    """Do the work, so many pieces at the same time."""
    pieces = iter(work)

    async def worker() -> None:
        for piece in pieces:
            await piece()

    await asyncio.gather(*(worker() for _ in range(count)))
