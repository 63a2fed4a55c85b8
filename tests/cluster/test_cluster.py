"""A connection applied to a real Kubernetes becomes Bronze data; what is wrong is said in plain words."""

from __future__ import annotations

import json
from typing import Any

import psycopg
from penstock_operator.launchers.jobs import LABEL_CONNECTION
from penstock_operator.resources.crds import resource_problems
from penstock_operator.settings import S3Settings
from psycopg.conninfo import conninfo_to_dict

from tests.cluster.installation import NAMESPACE, Installation, Role, document
from tests.cluster.kubernetes import Cluster
from tests.cluster.runs import FAKER, PEOPLE, Records, connection, faker


def test_a_connection_becomes_bronze(
    cluster: Cluster, operator: Installation, namespace: str, records: Records
) -> None:
    cluster.apply(connection("fake", connector=FAKER, config={"records": 5000}, streams=PEOPLE))
    found = cluster.condition("fake", namespace, "RunSucceeded")
    assert found["status"]["lastRun"]["records"] == 5000
    assert found["status"]["lastHandledRequest"] == "t1"
    assert found["status"]["definition"] == "faker-generate-0.1.0"
    records.whole("fake", 5000)


def test_7_a_runs_pod_holds_nothing_but_its_own(
    cluster: Cluster, operator: Installation, namespace: str, records: Records, bucket: S3Settings
) -> None:
    cluster.apply(faker("held", 8000, delay=1))
    cluster.until("its pod reads", lambda: records.running("held"))
    job = cluster.list("jobs", namespace, f"{LABEL_CONNECTION}=held")[0]
    pod = job["spec"]["template"]["spec"]
    text = json.dumps(job)
    assert records.url not in text
    assert str(bucket.secret_key) not in text
    assert pod["automountServiceAccountToken"] is False
    assert pod["containers"][0]["securityContext"]["readOnlyRootFilesystem"] is True
    assert job["metadata"]["ownerReferences"][0]["kind"] == "TenantConnection"
    assert "finalizers" not in cluster.get("tc", "held", namespace)["metadata"]


def test_tables_become_bronze_with_the_secret_that_kubernetes_injects(
    cluster: Cluster, operator: Installation, namespace: str, records: Records
) -> None:
    source_url = records.url
    found = conninfo_to_dict(source_url)
    with psycopg.connect(source_url, autocommit=True) as source:
        source.execute(
            "CREATE TABLE public.orders AS SELECT n, n / 3.0 AS price, now() AS updated_at FROM generate_series(0, 999) n"
        )
        source.execute("ALTER TABLE public.orders ADD PRIMARY KEY (n), ALTER updated_at SET NOT NULL")
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "db", "namespace": namespace}}
    cluster.apply({**secret, "stringData": {"username": "penstock", "password": str(found["password"])}})
    config = {"host": found["host"], "port": int(str(found["port"])), "database": "penstock"}
    spec: dict[str, Any] = {
        "connector": {"name": "postgres", "method": "sql"},
        "config": config,
        "secretRef": {"name": "db"},
    }
    cluster.apply(connection("orders", **spec, streams=[{"name": "public.orders", "mode": "incremental"}]))
    cluster.condition("orders", namespace, "RunSucceeded")
    records.whole("orders", 1000)


def test_8_a_missing_secret_is_named_by_kubernetes_itself(
    cluster: Cluster, operator: Installation, namespace: str
) -> None:
    config = {"host": "db", "database": "d"}
    spec: dict[str, Any] = {
        "connector": {"name": "postgres", "method": "sql"},
        "config": config,
        "secretRef": {"name": "nope"},
    }
    cluster.apply(connection("nosecret", **spec))
    found = cluster.condition("nosecret", namespace, "SecretNotFound")
    assert 'secret "nope" not found' in found["status"]["lastRun"]["message"]


def test_running_out_of_memory_is_named_with_the_limit(
    cluster: Cluster, operator: Installation, namespace: str
) -> None:
    limits = {"limits": {"memory": "40Mi", "cpu": "1"}}
    cluster.apply(
        connection(
            "oom",
            connector=FAKER,
            config={"records": 10**6, "batchSize": 100_000},
            resources=limits,
            retry={"limit": 0},
        )
    )
    found = cluster.condition("oom", namespace, "OutOfMemory")
    assert "more memory than its limit of 40Mi" in found["status"]["lastRun"]["message"]


def test_a_full_quota_is_waited_for_and_said_to_be_why(
    cluster: Cluster, operator: Installation, records: Records
) -> None:
    def quota(jobs: str) -> dict[str, Any]:
        return document("ResourceQuota", "few", "crowded", spec={"hard": {"count/jobs.batch": jobs}})

    cluster.apply(document("Namespace", "crowded"), quota("0"))
    cluster.apply(connection("patient", namespace="crowded", connector=FAKER, config={"records": 10}, streams=PEOPLE))
    found = cluster.condition("patient", "crowded", "QuotaExceeded")
    message = found["status"]["lastRun"]["message"]
    assert message.startswith("the namespace's ResourceQuota has no room for the run's Job"), message
    assert "count/jobs.batch=0" in message
    cluster.apply(quota("5"))
    assert records.ended("patient")[0]["phase"] == "succeeded"
    cluster.kubectl("delete", "namespace", "crowded", "--wait=false")


def test_a_deadline_is_named(cluster: Cluster, operator: Installation, namespace: str) -> None:
    config = {"records": 10**6, "delaySeconds": 1}
    cluster.apply(connection("late", connector=FAKER, config=config, timeout="8s", retry={"limit": 0}))
    found = cluster.condition("late", namespace, "DeadlineExceeded")
    assert "spec.timeout (8 s)" in found["status"]["lastRun"]["message"]


def test_9_killing_every_pod_of_both_roles_loses_nothing_and_starts_nothing_twice(
    cluster: Cluster, operator: Installation, namespace: str, records: Records
) -> None:
    cluster.apply(faker("killed", 8000, delay=0.5))
    cluster.until("its pod reads", lambda: records.running("killed"))
    roles: tuple[Role, ...] = ("operate", "serve")
    for role in roles:
        for pod in operator.pods(role):
            operator.signal(pod["metadata"]["name"], "KILL")
    for role in roles:
        names = [pod["metadata"]["name"] for pod in operator.pods(role)]
        cluster.kubectl("delete", "pod", *names, "-n", NAMESPACE, "--grace-period=0", "--force")
    cluster.condition("killed", namespace, "RunSucceeded")
    records.whole("killed", 8000)
    assert len(records.attempts("killed")) == 1
    operator.ready()


def test_10_deleting_never_hangs(cluster: Cluster, operator: Installation, namespace: str) -> None:
    config = {"records": 10**6, "delaySeconds": 1}
    cluster.apply(connection("gone", connector=FAKER, config=config))
    cluster.until(
        "its Job",
        lambda: (
            LABEL_CONNECTION
            in cluster.kubectl("get", "jobs", "-n", namespace, "-l", f"{LABEL_CONNECTION}=gone", "-o", "yaml").stdout
        ),
    )
    cluster.kubectl("delete", "tc", "gone", "-n", namespace, "--timeout=10s")
    cluster.until(
        "its Job is gone",
        lambda: (
            "No resources" in cluster.kubectl("get", "jobs", "-n", namespace, "-l", f"{LABEL_CONNECTION}=gone").stderr
        ),
    )


def test_a_null_config_is_refused_when_it_is_created(cluster: Cluster, operator: Installation, namespace: str) -> None:
    """A client-side `kubectl apply` leaves a null out before the API server sees it."""
    document = connection("wrong", None, connector=FAKER, config=None)
    done = cluster.kubectl("create", "-f", "-", stdin=json.dumps(document), check=False)
    assert done.returncode != 0
    for problem in resource_problems(document):
        assert problem in done.stderr


def test_the_api_server_and_validate_use_the_same_words(cluster: Cluster, namespace: str) -> None:
    for spec in (
        {"connector": {**FAKER, "version": "^^1"}},
        {"connector": FAKER, "streams": [{"name": "a"}, {"name": "a"}]},
        {"connector": FAKER, "shedule": "@daily"},
        {"connector": FAKER, "concurrencyPolicy": "Never"},
        {"connector": {"name": "faker"}},
        {"connector": FAKER, "timeout": "2 h"},
        {"connector": FAKER, "historyLimit": -1},
        {"connector": FAKER, "suspend": "yes"},
    ):
        document = connection("wrong", None, **spec)
        said = cluster.refuse(document)
        for problem in resource_problems(document):
            assert problem in said, said
