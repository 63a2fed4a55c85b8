"""20: two releases in one cluster, with scopes apart and with scopes that overlap, share no connection."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest
from penstock_operator.launchers.jobs import LABEL_INSTALLATION
from penstock_operator.settings import S3Settings

from tests.cluster.installation import Installation, document
from tests.cluster.kubernetes import Cluster
from tests.cluster.runs import Records, faker

SHARED, ITS_OWN = "shared", "only-two"
LABELLED = {"side": "two"}


@pytest.fixture(scope="module")
def second(
    cluster: Cluster, operator: Installation, images: dict[str, str], source_url: str, bucket: S3Settings
) -> Iterator[Installation]:
    """A second release, with a registry and a prefix of its own, in a namespace of its own, for a scope of its own."""
    with psycopg.connect(source_url, autocommit=True) as server:
        server.execute("CREATE DATABASE second")
    cluster.apply(document("Namespace", SHARED), document("Namespace", ITS_OWN))
    operator.upgrade(watch={"selector": "side!=two"})
    address = urlsplit(source_url)._replace(path="/second").geturl()
    made = Installation(
        cluster, images["operator"], address, replace(bucket, prefix="second"), namespace="penstock-second"
    )
    made.install(
        agent=False,
        crds={"enabled": False},
        watch={"namespaces": [SHARED, ITS_OWN], "selector": "side=two"},
        operate={"sweepSeconds": 10},
    )
    yield made
    cluster.kubectl("delete", "tc", "--all", "-n", SHARED, "--timeout=60s")
    made.uninstall()
    operator.upgrade()
    for namespace in (SHARED, ITS_OWN):
        cluster.kubectl("delete", "namespace", namespace, "--wait=false")


def of(name: str, labels: dict[str, str], **spec: Any) -> dict[str, Any]:
    made = faker(name, 4000, delay=1, batch=500, **spec)
    return {**made, "metadata": {**made["metadata"], "namespace": SHARED, "labels": labels}}


def owner(cluster: Cluster, name: str) -> str:
    return str(cluster.get("tc", name, SHARED)["status"]["installation"])


def test_20_each_release_runs_what_is_in_its_scope_and_nothing_else(
    cluster: Cluster, operator: Installation, second: Installation, records: Records, bucket: S3Settings
) -> None:
    others = Records(second.database_url, replace(bucket, prefix="second"))
    cluster.apply(of("first-one", {}), of("second-one", LABELLED))
    for name in ("first-one", "second-one"):
        cluster.condition(name, SHARED, "RunSucceeded")
    assert owner(cluster, "first-one") != owner(cluster, "second-one")
    assert [row["name"] for row in records.runs("first-one", "second-one")] == ["first-one"]
    assert [row["name"] for row in others.runs("first-one", "second-one")] == ["second-one"]
    records.whole("first-one", 4000)
    others.whole("second-one", 4000)


def test_20_a_release_whose_scope_overlaps_leaves_alone_what_is_marked(
    cluster: Cluster, operator: Installation, second: Installation, records: Records
) -> None:
    cluster.apply(of("marked", LABELLED))
    cluster.condition("marked", SHARED, "RunSucceeded")
    mark = owner(cluster, "marked")
    operator.upgrade(operate={"sweepSeconds": 10})
    leader = operator.settled_leader()

    def log() -> str:
        return cluster.kubectl("logs", leader, "-n", operator.namespace, check=False).stdout

    cluster.until(
        "the first says that it leaves it alone",
        lambda: "belongs to another installation" in log() and "marked" in log(),
    )
    cluster.kubectl("annotate", "tc", "marked", "-n", SHARED, "penstock.io/requestedAt=t2", "--overwrite")
    cluster.until(
        "a Job", lambda: cluster.list("jobs", SHARED, f"penstock.io/connection=marked,{LABEL_INSTALLATION}={mark}")
    )
    again = Records(second.database_url, replace(second.s3, prefix="second"))
    assert len(again.ended("marked", runs=2)) == 2
    assert records.runs("marked") == []
    assert owner(cluster, "marked") == mark


def test_a_release_on_anothers_prefix_does_not_lead_and_says_why(
    cluster: Cluster, operator: Installation, second: Installation, bucket: S3Settings
) -> None:
    """Two registries below one prefix would take each other's objects for leftovers."""
    values = {**second.values(), "crds": {"enabled": False}, "watch": {"namespaces": [ITS_OWN]}}
    values["s3"] = {**values["s3"], "prefix": bucket.prefix}
    try:
        second.helm("upgrade", "penstock", second.chart, values=values, wait=False)

        def said() -> str:
            pods = second.pods("operate")
            names = [pod["metadata"]["name"] for pod in pods]
            logs = [cluster.kubectl("logs", name, "-n", second.namespace, check=False).stdout for name in names]
            before = [cluster.kubectl("logs", name, "-p", "-n", second.namespace, check=False).stdout for name in names]
            return next((log for log in (*logs, *before) if "the prefix belongs to installation" in log), "")

        assert "installation.id" in cluster.until("it says whose the prefix is", said, seconds=120)
    finally:
        second.upgrade(crds={"enabled": False}, watch={"namespaces": [SHARED, ITS_OWN], "selector": "side=two"})
