"""What a cluster does to pods: eviction, drain, deletion, SIGKILL, memory. A disruption is no failure, and its reason is kept."""

from __future__ import annotations

import json
from typing import Any

from tests.cluster.faults import Faults
from tests.cluster.installation import Installation
from tests.cluster.kubernetes import Cluster
from tests.cluster.runs import Records, faker

RUN_PODS = "app.kubernetes.io/managed-by=penstock,app.kubernetes.io/component=run"


def test_evicted_runs_go_on_where_they_stood(cluster: Cluster, namespace: str, faults: Faults) -> None:
    def evict(pods: list[str]) -> None:
        for pod in pods:
            body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod, "namespace": namespace}}
            path = f"/api/v1/namespaces/{namespace}/pods/{pod}/eviction"
            cluster.kubectl("create", "--raw", path, "-f", "-", stdin=json.dumps(body))

    faults.disrupt("eviction", evict)


def test_a_drained_nodes_runs_go_on_elsewhere(cluster: Cluster, namespace: str, faults: Faults) -> None:
    """There is one node: what is drained waits until it may be used again. Penstock's own pods stay, as a budget holds them."""

    def drain(pods: list[str]) -> None:
        node = cluster.get("pod", pods[0], namespace)["spec"]["nodeName"]
        flags = (f"--pod-selector={RUN_PODS}", "--force", "--delete-emptydir-data", "--timeout=60s")
        names = [f"drain-{number}" for number in range(len(pods))]
        try:
            cluster.kubectl("drain", node, *flags)
            faults.attempted(2, names)
        finally:
            cluster.kubectl("uncordon", node)

    faults.disrupt("drain", drain)


def test_deleted_pods_end_at_a_batch_boundary(cluster: Cluster, namespace: str, faults: Faults) -> None:
    first = faults.disrupt("sigterm", lambda pods: cluster.kubectl("delete", "pod", *pods, "-n", namespace))
    assert {attempt["phase"] for attempt in first} == {"interrupted"}


def test_killed_connectors_lose_nothing(operator: Installation, namespace: str, faults: Faults) -> None:
    first = faults.disrupt("sigkill", lambda pods: [operator.signal(pod, "KILL", namespace) for pod in pods])
    assert {attempt["exit_code"] for attempt in first} == {137}


def test_a_deleted_job_is_a_disruption(cluster: Cluster, namespace: str, faults: Faults) -> None:
    def delete(pods: list[str]) -> None:
        jobs = [cluster.get("pod", pod, namespace)["metadata"]["labels"]["job-name"] for pod in pods]
        cluster.kubectl("delete", "job", *jobs, "-n", namespace)

    faults.disrupt("job-deleted", delete)


def test_a_run_out_of_memory_succeeds_once_it_has_more(
    cluster: Cluster, operator: Installation, namespace: str, records: Records
) -> None:
    few, many = ({"limits": {"memory": memory, "cpu": "1"}} for memory in ("44Mi", "512Mi"))
    hungry: dict[str, Any] = {"records": 100_000, "batch": 100_000, "retry": {"limit": 0}}
    cluster.apply(faker("hungry", **hungry, resources=few))
    cluster.condition("hungry", namespace, "OutOfMemory")
    assert records.attempts("hungry")[0]["exit_code"] == 137
    cluster.apply(faker("hungry", **hungry, token="t2", resources=many))
    runs = records.ended("hungry", runs=2)
    assert [run["phase"] for run in runs] == ["failed", "succeeded"]
    records.whole("hungry", 100_000)
