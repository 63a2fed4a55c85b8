"""A connection applied to a real Kubernetes becomes Bronze data; what is wrong is said in plain words."""

from __future__ import annotations

import io
import json
from typing import Any

import psycopg
import zstandard
from penstock_operator.bronze.store import BronzeStore
from penstock_operator.launchers.jobs import LABEL_CONNECTION
from penstock_operator.resources.crds import resource_problems
from penstock_operator.resources.models import REQUESTED_AT
from penstock_operator.settings import S3Settings
from psycopg.conninfo import conninfo_to_dict
from psycopg.rows import dict_row

from tests.cluster.conftest import Cluster, Platform

FAKER = {"name": "faker", "method": "generate", "version": "^0.1"}


def connection(name: str, token: str | None = "t1", **spec: Any) -> dict[str, Any]:
    metadata: dict[str, Any] = {"name": name, "namespace": "team"}
    if token:
        metadata["annotations"] = {REQUESTED_AT: token}
    return {"apiVersion": "penstock.io/v1alpha1", "kind": "TenantConnection", "metadata": metadata, "spec": spec}


def committed(source_url: str, bucket: S3Settings, name: str) -> list[dict[str, Any]]:
    store, lines = BronzeStore(bucket), list[dict[str, Any]]()
    with psycopg.connect(source_url, row_factory=dict_row) as registry:
        rows = registry.execute(
            "SELECT o.key FROM penstock.bronze_objects o JOIN penstock.tenant_connections c ON c.uid = o.connection_uid"
            " WHERE c.name = %s AND o.committed_at IS NOT NULL",
            [name],
        ).fetchall()
    for row in rows:
        text = io.TextIOWrapper(zstandard.ZstdDecompressor().stream_reader(store.read(row["key"])), encoding="utf-8")
        lines += [json.loads(line) for line in text]
    return lines


def test_a_connection_becomes_bronze(
    cluster: Cluster, operator: Platform, namespace: str, source_url: str, bucket: S3Settings
) -> None:
    cluster.apply(
        connection(
            "fake", connector=FAKER, config={"records": 5000}, streams=[{"name": "people", "mode": "incremental"}]
        )
    )
    found = cluster.condition("fake", namespace, "RunSucceeded")
    assert found["status"]["lastRun"]["records"] == 5000
    assert found["status"]["lastHandledRequest"] == "t1"
    assert found["status"]["definition"] == "faker-generate-0.1.0"
    records = committed(source_url, bucket, "fake")
    assert sorted(each["data"]["n"] for each in records) == list(range(5000))


def test_7_a_runs_pod_holds_nothing_but_its_own(cluster: Cluster, operator: Platform, namespace: str) -> None:
    cluster.condition("fake", namespace, "RunSucceeded")
    jobs = json.loads(
        cluster.kubectl("get", "jobs", "-n", namespace, "-l", f"{LABEL_CONNECTION}=fake", "-o", "json").stdout
    )
    job = jobs["items"][0]
    pod = job["spec"]["template"]["spec"]
    text = json.dumps(job)
    assert operator.environment["PENSTOCK_DATABASE_URL"] not in text
    assert operator.environment["AWS_SECRET_ACCESS_KEY"] not in text
    assert pod["automountServiceAccountToken"] is False
    assert pod["containers"][0]["securityContext"]["readOnlyRootFilesystem"] is True
    assert job["metadata"]["ownerReferences"][0]["kind"] == "TenantConnection"
    assert "finalizers" not in cluster.get("tc", "fake", namespace)["metadata"]


def test_tables_become_bronze_with_the_secret_that_kubernetes_injects(
    cluster: Cluster, operator: Platform, namespace: str, source_url: str, bucket: S3Settings
) -> None:
    found = conninfo_to_dict(source_url)
    with psycopg.connect(source_url, autocommit=True) as source:
        source.execute(
            "CREATE TABLE public.orders AS SELECT n, n / 3.0 AS price, now() AS updated_at FROM generate_series(0, 999) n"
        )
        source.execute("ALTER TABLE public.orders ADD PRIMARY KEY (n), ALTER updated_at SET NOT NULL")
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "db", "namespace": namespace}}
    cluster.apply({**secret, "stringData": {"username": "penstock", "password": str(found["password"])}})
    config = {"host": found["host"], "port": int(str(found["port"])), "database": "penstock"}
    spec = {"connector": {"name": "postgres", "method": "sql"}, "config": config, "secretRef": {"name": "db"}}
    cluster.apply(connection("orders", **spec, streams=[{"name": "public.orders", "mode": "incremental"}]))
    cluster.condition("orders", namespace, "RunSucceeded")
    records = committed(source_url, bucket, "orders")
    assert sorted(each["data"]["n"] for each in records) == list(range(1000))


def test_8_a_missing_secret_is_named_by_kubernetes_itself(cluster: Cluster, operator: Platform, namespace: str) -> None:
    config = {"host": "db", "database": "d"}
    spec = {"connector": {"name": "postgres", "method": "sql"}, "config": config, "secretRef": {"name": "nope"}}
    cluster.apply(connection("nosecret", **spec))
    found = cluster.condition("nosecret", namespace, "SecretNotFound")
    assert 'secret "nope" not found' in found["status"]["lastRun"]["message"]


def test_running_out_of_memory_is_named_with_the_limit(cluster: Cluster, operator: Platform, namespace: str) -> None:
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
    assert "spec.resources.limits.memory (40Mi)" in found["status"]["lastRun"]["message"]


def test_a_deadline_is_named(cluster: Cluster, operator: Platform, namespace: str) -> None:
    config = {"records": 10**6, "delaySeconds": 1}
    cluster.apply(connection("late", connector=FAKER, config=config, timeout="8s", retry={"limit": 0}))
    found = cluster.condition("late", namespace, "DeadlineExceeded")
    assert "spec.timeout (8 s)" in found["status"]["lastRun"]["message"]


def test_9_a_killed_operator_and_server_lose_nothing_and_start_nothing_twice(
    cluster: Cluster, operator: Platform, namespace: str, source_url: str, bucket: S3Settings
) -> None:
    config = {"records": 8000, "delaySeconds": 0.5}
    cluster.apply(
        connection("killed", connector=FAKER, config=config, streams=[{"name": "people", "mode": "incremental"}])
    )
    cluster.until(
        "its run is under way", lambda: cluster.get("tc", "killed", namespace).get("status", {}).get("lastRun")
    )
    for role in ("operate", "serve"):
        operator.kill(role)
        operator.start(role)
    cluster.condition("killed", namespace, "RunSucceeded", seconds=120)
    records = committed(source_url, bucket, "killed")
    assert sorted(each["data"]["n"] for each in records) == list(range(8000))
    jobs = json.loads(
        cluster.kubectl("get", "jobs", "-n", namespace, "-l", f"{LABEL_CONNECTION}=killed", "-o", "json").stdout
    )
    assert len(jobs["items"]) == 1


def test_10_deleting_never_hangs(cluster: Cluster, operator: Platform, namespace: str) -> None:
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
