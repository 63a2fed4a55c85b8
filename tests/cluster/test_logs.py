"""`penstock runs` against the cluster, as docs/access.md says: a port-forward, and the token of an account with `view`."""

from __future__ import annotations

import json
import os
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from penstock_operator.embedded.private_files import free_port
from penstock_operator.launchers.jobs import LABEL_CONNECTION

from tests.cluster.installation import NAMESPACE, Installation, document
from tests.cluster.kubernetes import Cluster, tool
from tests.cluster.runs import Records, faker
from tests.patience import PATIENCE

PENSTOCK = [sys.executable, "-m", "penstock_operator.cli"]
Environment = dict[str, str]


@pytest.fixture(scope="module")
def reader(
    cluster: Cluster, operator: Installation, namespace: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Environment]:
    """What a person who may look at the tenant has set."""
    subject = {"kind": "ServiceAccount", "name": "reader", "namespace": namespace}
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"}
    binding = document("RoleBinding", "reader", namespace, roleRef=role, subjects=[subject])
    cluster.apply(
        document("ServiceAccount", "reader", namespace), {**binding, "apiVersion": "rbac.authorization.k8s.io/v1"}
    )
    token = cluster.kubectl("create", "token", "reader", "-n", namespace, "--audience=penstock-read").stdout.strip()
    port = free_port("127.0.0.1")
    command = [tool("kubectl"), "--kubeconfig", str(cluster.kubeconfig), "port-forward", "-n", NAMESPACE]
    forward = subprocess.Popen([*command, "service/penstock-read", f"{port}:443"], stdout=subprocess.PIPE, text=True)
    try:
        assert forward.stdout
        assert "Forwarding" in forward.stdout.readline()
        (ca_file := tmp_path_factory.mktemp("reader") / "ca.crt").write_text(operator.certificates()["ca.crt"])
        server = {"PENSTOCK_SERVER": f"https://localhost:{port}", "PENSTOCK_CA_FILE": str(ca_file)}
        yield {**os.environ, **server, "PENSTOCK_TOKEN": token}
    finally:
        forward.terminate()
        forward.wait(10)


def penstock(reader: Environment, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*PENSTOCK, *arguments], check=False, capture_output=True, text=True, env=reader, timeout=PATIENCE
    )


def lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_a_log_is_followed_live_and_is_there_when_its_pod_is_gone(
    cluster: Cluster, operator: Installation, namespace: str, records: Records, reader: Environment, tmp_path: Path
) -> None:
    cluster.apply(faker("told", 8000, delay=1, batch=500))
    cluster.until("its pod reads", lambda: records.running("told"))
    run = records.runs("told")[0]["id"]
    said = tmp_path / "said"
    with (
        said.open("wb") as output,
        subprocess.Popen(
            [*PENSTOCK, "runs", "logs", run, "-f"], stdout=output, stderr=subprocess.STDOUT, env=reader
        ) as followed,
    ):
        cluster.until("its first line is followed", lambda: b"\n" in said.read_bytes())
        assert records.running("told"), "the first line came when the run had ended"
        assert followed.wait(90) == 0, said.read_text()
    live = lines(said.read_text())
    assert {(item["run"], item["attempt"], item["tenant"], item["connection"]) for item in live} == {
        (run, 1, namespace, "told")
    }
    assert records.ended("told")[0]["phase"] == "succeeded"
    cluster.until("its log is kept", lambda: records.attempts("told")[0]["log_key"])
    selector = f"{LABEL_CONNECTION}=told"
    cluster.until("its Job is gone", lambda: not cluster.list("jobs", namespace, selector))
    cluster.until("its pod is gone", lambda: not cluster.list("pods", namespace, selector))
    kept = penstock(reader, "runs", "logs", run)
    assert kept.returncode == 0, kept.stderr
    assert lines(kept.stdout) == live


def test_who_may_only_view_a_tenant_is_refused_the_rest_in_the_api_servers_words(
    cluster: Cluster, namespace: str, reader: Environment
) -> None:
    cluster.apply(faker("seen", 10, token=None))
    listed = penstock(reader, "runs", "list", "-n", namespace)
    assert listed.returncode == 0, listed.stderr
    authorization = {"Authorization": f"Bearer {reader['PENSTOCK_TOKEN']}"}
    trust = ssl.create_default_context(cafile=reader["PENSTOCK_CA_FILE"])
    url = f"{reader['PENSTOCK_SERVER']}/v1/definitions"
    offered = httpx.get(url, headers=authorization, timeout=PATIENCE, verify=trust)
    assert [item["connector"] for item in offered.raise_for_status().json()]
    everywhere = penstock(reader, "runs", "list")
    who = f"system:serviceaccount:{namespace}:reader"
    assert everywhere.returncode != 0
    assert f"{who} may not list tenantconnections.penstock.io in all namespaces" in everywhere.stderr
    started = penstock(reader, "runs", "start", f"{namespace}/seen")
    assert started.returncode != 0
    assert f"{who} may not patch tenantconnections.penstock.io in namespace {namespace}" in started.stderr
