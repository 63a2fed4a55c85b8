"""Kubernetes refuses a run's pod, or cannot place it: the status says so in its words, and waits or fails accordingly."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from tests.cluster.installation import Installation, document
from tests.cluster.kubernetes import Cluster
from tests.cluster.runs import FAKER, Records, connection, faker

POLICIES = "admissionregistration.k8s.io/v1"


@pytest.fixture
def tenant(cluster: Cluster, operator: Installation, request: pytest.FixtureRequest) -> Iterator[str]:
    """A namespace for the test alone."""
    name = f"refused-{zlib.crc32(request.node.name.encode())}"
    cluster.apply(document("Namespace", name))
    yield name
    cluster.kubectl("delete", "namespace", name, "--wait=false")


def in_(namespace: str, name: str, **spec: Any) -> dict[str, Any]:
    made = faker(name, 10, **spec)
    return {**made, "metadata": {**made["metadata"], "namespace": namespace}}


def message(found: dict[str, Any]) -> str:
    return str(
        next(condition["message"] for condition in found["status"]["conditions"] if condition["type"] == "Ready")
    )


def kinds(found: dict[str, Any]) -> list[str]:
    return [condition["type"] for condition in found["status"]["conditions"]]


@pytest.mark.parametrize("hard", [{"pods": "0"}, {"limits.memory": "16Mi"}])
def test_a_quota_of_pods_is_waited_for(cluster: Cluster, records: Records, tenant: str, hard: dict[str, str]) -> None:
    name = f"quota-{next(iter(hard)).replace('.', '-')}"
    cluster.apply(document("ResourceQuota", "few", tenant, spec={"hard": hard}))
    cluster.apply(in_(tenant, name))
    found = cluster.condition(name, tenant, "QuotaExceeded")
    assert "exceeded quota: few" in message(found)
    assert "Reconciling" in kinds(found)
    assert "exceeded quota: few" in found["status"]["lastRun"]["message"]
    cluster.kubectl("delete", "resourcequota", "few", "-n", tenant)
    assert records.ended(name, seconds=180)[0]["phase"] == "succeeded"


def test_a_limit_range_fails_the_run_in_its_words(cluster: Cluster, tenant: str) -> None:
    limits = [{"type": "Container", "max": {"memory": "64Mi"}}]
    cluster.apply(document("LimitRange", "small", tenant, spec={"limits": limits}))
    cluster.apply(in_(tenant, "limited"))
    found = cluster.condition("limited", tenant, "LaunchRefused")
    assert "maximum memory usage per Container is 64Mi" in message(found)
    assert "Stalled" in kinds(found)
    assert found["status"]["lastRun"]["phase"] == "failed"


def test_a_policy_fails_the_run_in_its_words(cluster: Cluster, tenant: str) -> None:
    rule = {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}
    spec = {
        "failurePolicy": "Fail",
        "matchConstraints": {"resourceRules": [rule]},
        "validations": [{"expression": "false", "message": "no pods on Saturdays"}],
    }
    where = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": tenant}}}
    binding = {"policyName": f"no-pods-{tenant}", "validationActions": ["Deny"], "matchResources": where}
    policy = {**document("ValidatingAdmissionPolicy", f"no-pods-{tenant}", spec=spec), "apiVersion": POLICIES}
    bound = {**document("ValidatingAdmissionPolicyBinding", f"no-pods-{tenant}", spec=binding), "apiVersion": POLICIES}
    cluster.apply(policy, bound)
    probe = json.dumps(document("Pod", "probe", tenant, spec={"containers": [{"name": "a", "image": "a"}]}))
    tried = ("create", "--dry-run=server", "-f", "-")
    cluster.until("it holds", lambda: "Saturdays" in cluster.kubectl(*tried, stdin=probe, check=False).stderr)
    try:
        cluster.apply(in_(tenant, "denied"))
        assert "no pods on Saturdays" in message(cluster.condition("denied", tenant, "LaunchRefused"))
    finally:
        cluster.kubectl("delete", "validatingadmissionpolicybinding,validatingadmissionpolicy", f"no-pods-{tenant}")


def test_a_pod_that_no_node_takes_is_waited_for_in_the_schedulers_words(
    cluster: Cluster, records: Records, tenant: str
) -> None:
    (node,) = cluster.list("nodes")
    name = node["metadata"]["name"]
    cluster.kubectl("taint", "node", name, "only=others:NoSchedule")
    try:
        cluster.apply(in_(tenant, "tainted"))
        found = cluster.condition("tainted", tenant, "Unschedulable")
        assert "untolerated taint" in message(found)
        listed = records.runs("tainted")[0]
        assert "untolerated taint" in listed["waits"]
    finally:
        cluster.kubectl("taint", "node", name, "only-")
    assert records.ended("tainted")[0]["phase"] == "succeeded"
    shown = cluster.kubectl("get", "tc", "tainted", "-n", tenant).stdout
    assert "<invalid>" not in shown


def test_an_image_that_cannot_be_pulled_is_told_in_the_kubelets_words(
    cluster: Cluster, operator: Installation, images: dict[str, str], tenant: str
) -> None:
    document_ = cluster.get("cdef", "faker-generate-0.1.0", "")
    missing = images["faker-generate"].partition("@")[0] + "@sha256:" + "0" * 64
    manifest = {**document_["spec"]["manifest"], "version": "0.0.1"}
    made = {
        "apiVersion": document_["apiVersion"],
        "kind": document_["kind"],
        "metadata": {"name": "faker-generate-0.0.1"},
        "spec": {**document_["spec"], "image": missing, "manifest": manifest},
    }
    cluster.apply(made)
    spec: dict[str, Any] = {"connector": {**FAKER, "version": "0.0.1"}, "config": {"records": 10}}
    cluster.apply(connection("unpulled", namespace=tenant, **spec))
    found = cluster.condition("unpulled", tenant, "ImagePullFailed")
    assert "0" * 64 in message(found)
    assert "not found" in message(found)
    cluster.kubectl("delete", "tc", "unpulled", "-n", tenant)
    cluster.kubectl("delete", "cdef", "faker-generate-0.0.1")


def test_a_secret_that_comes_later_ends_the_failure_that_it_caused(cluster: Cluster, tenant: str) -> None:
    """The attempt waits for it, as whoever makes it may come after the connection."""
    config = {"host": "127.0.0.1", "database": "d"}
    spec: dict[str, Any] = {
        "connector": {"name": "postgres", "method": "sql"},
        "config": config,
        "secretRef": {"name": "later"},
    }
    cluster.apply(connection("early", namespace=tenant, **spec))
    found = cluster.condition("early", tenant, "SecretNotFound")
    assert "Stalled" in kinds(found)
    assert 'secret "later" not found' in message(found)
    cluster.apply({**document("Secret", "later", tenant), "stringData": {"username": "u", "password": "p"}})

    def over() -> bool:
        ready = next(
            condition
            for condition in cluster.get("tc", "early", tenant)["status"]["conditions"]
            if condition["type"] == "Ready"
        )
        return bool(ready["reason"] != "SecretNotFound")

    cluster.until("the pod has its Secret", over, seconds=180)


def test_a_status_follows_its_run_and_a_finished_job_is_gone(
    cluster: Cluster, records: Records, operator: Installation, namespace: str
) -> None:
    cluster.apply(faker("followed", 16000, delay=1, batch=500, schedule="0 0 1 1 *"))

    def reading() -> bool:
        last = cluster.get("tc", "followed", namespace).get("status", {}).get("lastRun", {})
        return bool(last.get("phase") == "running" and last.get("attempt") == 1)

    cluster.until("the status says that it runs", reading)
    assert records.running("followed") or records.runs("followed")[0]["finished_at"] is None
    cluster.condition("followed", namespace, "RunSucceeded")
    found = cluster.get("tc", "followed", namespace)
    assert "<invalid>" not in cluster.kubectl("get", "tc", "-A").stdout
    assert found["status"]["nextScheduleTime"] in cluster.kubectl("get", "tc", "followed", "-n", namespace).stdout
    cluster.until("its Job is gone", lambda: not cluster.list("jobs", namespace, "penstock.io/connection=followed"))


def test_a_rotated_secret_ends_the_failure_that_it_caused_without_a_request(
    cluster: Cluster, operator: Installation, records: Records, tenant: str
) -> None:
    """Penstock sees no Secret, so that a run of its own looks again."""
    found = conninfo_to_dict(records.url)
    with psycopg.connect(records.url, autocommit=True) as source:
        source.execute("CREATE TABLE public.rotated AS SELECT n FROM generate_series(1, 10) n")
        source.execute("ALTER TABLE public.rotated ADD PRIMARY KEY (n)")
    secret = document("Secret", "rotated", tenant)
    cluster.apply({**secret, "stringData": {"username": "penstock", "password": "the old one"}})
    operator.upgrade(operate={"recheckMinutes": 1})
    config = {"host": found["host"], "port": int(str(found["port"])), "database": "penstock", "schemas": ["public"]}
    spec: dict[str, Any] = {
        "connector": {"name": "postgres", "method": "sql"},
        "config": config,
        "secretRef": {"name": "rotated"},
    }
    cluster.apply(connection("rotated", namespace=tenant, **spec, streams=[{"name": "public.rotated", "mode": "full"}]))
    stalled = cluster.condition("rotated", tenant, "AuthenticationError")
    assert "Stalled" in kinds(stalled)
    cluster.apply({**secret, "stringData": {"password": str(found["password"])}})
    ended = cluster.condition("rotated", tenant, "RunSucceeded", seconds=240)
    assert "Stalled" not in kinds(ended)
    assert [row["trigger"] for row in records.runs("rotated")] == ["request", "recheck"]
    operator.upgrade()
