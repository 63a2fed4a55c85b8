"""What a cluster does to pods: eviction, drain, deletion, SIGKILL, memory. A disruption is no failure, and its reason is kept."""

from __future__ import annotations

import json
from typing import Any

from penstock_operator.launchers.jobs import LABEL_CONNECTION

from tests.cluster.installation import Installation
from tests.cluster.kubernetes import Cluster
from tests.cluster.runs import Records, faker

RECORDS = 4000
RUN_PODS = "app.kubernetes.io/managed-by=penstock,app.kubernetes.io/component=run"


def reading(cluster: Cluster, records: Records, name: str, namespace: str) -> str:
    """Apply a connection, wait until it has committed something, and return its pod."""
    cluster.apply(faker(name, RECORDS, delay=1))
    cluster.until("its pod reads", lambda: records.running(name))
    pods = cluster.list("pods", namespace, f"{LABEL_CONNECTION}={name}")
    assert len(pods) == 1
    return str(pods[0]["metadata"]["name"])


def disrupted(records: Records, name: str) -> list[dict[str, Any]]:
    """The run has succeeded in a second attempt, no failure counted, no gap, no double; return the attempts."""
    run = records.ended(name)[0]
    attempts = records.attempts(name)
    shown = [(each["attempt"], each["phase"], each["reason"], each["message"]) for each in attempts]
    print(shown)
    assert (run["phase"], run["attempt"], run["streak"]) == ("succeeded", 2, 0), shown
    assert attempts[0]["reason"], shown
    records.whole(name, RECORDS)
    return attempts


def test_an_evicted_run_goes_on_where_it_stood(
    cluster: Cluster, operator: Installation, namespace: str, records: Records
) -> None:
    pod = reading(cluster, records, "evicted", namespace)
    eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod, "namespace": namespace}}
    path = f"/api/v1/namespaces/{namespace}/pods/{pod}/eviction"
    cluster.kubectl("create", "--raw", path, "-f", "-", stdin=json.dumps(eviction))
    disrupted(records, "evicted")


def test_a_drained_nodes_run_goes_on_elsewhere(
    cluster: Cluster, operator: Installation, namespace: str, records: Records
) -> None:
    """There is one node: what is drained waits until it may be used again. Penstock's own pods stay, as a budget holds them."""
    pod = reading(cluster, records, "drained", namespace)
    node = cluster.get("pod", pod, namespace)["spec"]["nodeName"]
    flags = (f"--pod-selector={RUN_PODS}", "--force", "--delete-emptydir-data", "--timeout=60s")
    try:
        cluster.kubectl("drain", node, *flags)
        cluster.until("its next attempt waits", lambda: len(records.attempts("drained")) == 2, seconds=60)
    finally:
        cluster.kubectl("uncordon", node)
    disrupted(records, "drained")


def test_a_deleted_pod_ends_at_a_batchs_border(
    cluster: Cluster, operator: Installation, namespace: str, records: Records
) -> None:
    pod = reading(cluster, records, "terminated", namespace)
    cluster.kubectl("delete", "pod", pod, "-n", namespace)
    disrupted(records, "terminated")


def test_a_killed_connector_loses_nothing(
    cluster: Cluster, operator: Installation, namespace: str, records: Records
) -> None:
    pod = reading(cluster, records, "shot", namespace)
    operator.signal(pod, "KILL", namespace)
    first = disrupted(records, "shot")[0]
    assert (first["exit_code"], first["reason"]) == (137, "AttemptLost")


def test_a_deleted_job_is_a_disruption(
    cluster: Cluster, operator: Installation, namespace: str, records: Records
) -> None:
    pod = reading(cluster, records, "jobless", namespace)
    job = cluster.get("pod", pod, namespace)["metadata"]["labels"]["job-name"]
    cluster.kubectl("delete", "job", job, "-n", namespace)
    disrupted(records, "jobless")


def test_a_run_out_of_memory_succeeds_once_it_has_more(
    cluster: Cluster, operator: Installation, namespace: str, records: Records
) -> None:
    few, many = ({"limits": {"memory": memory, "cpu": "1"}} for memory in ("44Mi", "512Mi"))
    hungry = {"records": 100_000, "batch": 100_000, "retry": {"limit": 0}}
    cluster.apply(faker("hungry", **hungry, resources=few))
    cluster.condition("hungry", namespace, "OutOfMemory")
    assert records.attempts("hungry")[0]["exit_code"] == 137
    cluster.apply(faker("hungry", **hungry, token="t2", resources=many))
    runs = records.ended("hungry", runs=2)
    assert [run["phase"] for run in runs] == ["failed", "succeeded"]
    records.whole("hungry", 100_000)
