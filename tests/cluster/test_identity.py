"""A tenant's pod cannot start a run by naming the run's Job as its owner."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from penstock_operator.launchers.jobs import LABEL_CONNECTION

from tests.cluster.installation import NAMESPACE, Installation, document
from tests.cluster.kubernetes import Cluster
from tests.cluster.runs import Records, faker

STRANGERS = "strangers"
# Calls the health check, to show that it reaches the server, and `start` with the pod's own token; prints both statuses.
START = """
import json, os, pathlib, ssl, urllib.error, urllib.request
url, run = json.loads(os.environ["TRIED"])
def ask(path, body=None, token=None):
    headers = {"Content-Type": "application/json", **({"Authorization": f"Bearer {token}"} if token else {})}
    request = urllib.request.Request(url + path, body, headers)
    try:
        return urllib.request.urlopen(request, timeout=20, context=ssl._create_unverified_context()).status
    except urllib.error.HTTPError as error:
        return error.code
token = pathlib.Path("/var/run/secrets/penstock/token").read_text()
start = {"run": run, "attempt": 1, "protocol": 2, "sdk_version": "0", "key": "k" * 43}
start["connector"] = {"name": "faker", "method": "generate", "version": "0.1.0"}
print(json.dumps([ask("/healthz"), ask("/v1/attempts/start", json.dumps(start).encode(), token)]))
"""


@pytest.fixture
def strangers(cluster: Cluster) -> Iterator[str]:
    """The namespace of another tenant."""
    cluster.apply(document("Namespace", STRANGERS))
    yield STRANGERS
    cluster.kubectl("delete", "namespace", STRANGERS, "--wait=false")


def owner_of(job: dict[str, Any]) -> dict[str, Any]:
    """Return an ownerReference to a Job, as its own pod has it."""
    names = {"apiVersion": "batch/v1", "kind": "Job", "name": job["metadata"]["name"], "uid": job["metadata"]["uid"]}
    return {**names, "controller": True, "blockOwnerDeletion": False}


def names_run_job(job: dict[str, Any], owners: list[dict[str, Any]]) -> bool:
    """Return True if one of the owners has the name of a run's Job: the admission policy refuses such a pod."""
    return any(owner["name"] == job["metadata"]["name"] for owner in owners)


def hostile_pod(job: dict[str, Any], namespace: str, run: str, owners: list[dict[str, Any]]) -> dict[str, Any]:
    """Return a pod like the Job's own, which only tries to start the run."""
    spec = {**job["spec"]["template"]["spec"], "dnsPolicy": "ClusterFirst", "hostAliases": []}
    container = {key: spec["containers"][0][key] for key in ("name", "image", "securityContext", "volumeMounts")}
    tried = json.dumps([f"https://penstock.{NAMESPACE}.svc", run])
    container |= {"command": ["python3", "-c", START], "env": [{"name": "TRIED", "value": tried}]}
    volumes = [volume for volume in spec["volumes"] if volume["name"] in ("tmp", "token")]
    mounts = [mount for mount in container["volumeMounts"] if mount["name"] in ("tmp", "token")]
    pod = document("Pod", "hostile", namespace, spec={**spec, "volumes": volumes})
    pod["spec"]["containers"] = [{**container, "volumeMounts": mounts}]
    pod["metadata"]["ownerReferences"] = owners
    return pod


def statuses(cluster: Cluster, namespace: str) -> list[int] | None:
    """Return what the hostile pod was answered; None where Kubernetes collected it, as its owner is not there."""

    def ended() -> bool:
        found = cluster.kubectl("get", "pod", "hostile", "-n", namespace, "-o", "json", check=False)
        return found.returncode != 0 or json.loads(found.stdout)["status"]["phase"] in ("Succeeded", "Failed")

    cluster.until("the pod has tried, or is gone", ended)
    logs = cluster.kubectl("logs", "hostile", "-n", namespace, check=False)
    cluster.kubectl("delete", "pod", "hostile", "-n", namespace, "--ignore-not-found")
    answered: list[int] | None = json.loads(logs.stdout) if logs.returncode == 0 and logs.stdout else None
    return answered


def test_2_an_owner_reference_gives_no_right_to_start(
    cluster: Cluster, operator: Installation, namespace: str, records: Records, strangers: str
) -> None:
    cluster.apply(faker("wanted", 8000, delay=1))
    cluster.until("its pod reads", lambda: records.running("wanted"))
    (job,) = cluster.list("jobs", namespace, f"{LABEL_CONNECTION}=wanted")
    (run,) = records.runs("wanted")
    for place, owners in (
        (strangers, []),
        (strangers, [owner_of(job)]),
        (namespace, []),
        (namespace, [{**owner_of(job), "controller": False}]),
        (namespace, [{**owner_of(job), "uid": run["connection_uid"]}]),
        (namespace, [{**owner_of(job), "name": "another"}]),
    ):
        hostile = json.dumps(hostile_pod(job, place, run["id"], owners))
        made = cluster.kubectl("create", "-f", "-", stdin=hostile, check=False)
        if names_run_job(job, owners):
            assert "ValidatingAdmissionPolicy 'runs.penstock.io'" in made.stderr, (place, owners, made.stderr)
            continue
        assert made.returncode == 0, made.stderr
        answered = statuses(cluster, place)
        assert answered in (None, [200, 401]), (place, owners, answered)
        if not owners:
            assert answered == [200, 401], "nothing shows that the pod reaches the server"
    records.ended("wanted")
    records.whole("wanted", 8000)
    assert len(records.attempts("wanted")) == 1
