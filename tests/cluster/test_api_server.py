"""The API server dies again and again, and lies: every due run starts once, ends, and is whole."""

from __future__ import annotations

import base64
import json
import os
import ssl
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from penstock_operator.launchers.jobs import LABEL_CONNECTION

from tests.cluster.api_proxy import ApiProxy
from tests.cluster.faults import Faults, shown
from tests.cluster.installation import Installation
from tests.cluster.kubernetes import Cluster
from tests.cluster.operators import Operators
from tests.cluster.provider import Provider
from tests.cluster.runs import Records, faker
from tests.patience import PATIENCE

COUNT = int(os.environ.get("N") or "20")
OUTAGES = (0.0, 4.0, 0.0, 25.0)  # seconds, beside what a start takes; the last one is longer than the Lease
RECORDS, BATCH, DELAY = 400, 20, 0.3  # six seconds of reading, so that runs of each wave meet the next outage
YEARLY = "0 0 1 1 *"
SEED = int(os.environ.get("SEED") or "4")


def settled(records: Records, names: list[str]) -> bool:
    """Say whether each connection has been reconciled."""
    sql = "SELECT count(*) FROM penstock.tenant_connections WHERE name = ANY(%(names)s) AND ready"
    return bool(records.query(sql, names=names)[0]["count"] == len(names))


def succeeded(cluster: Cluster, namespace: str, names: list[str]) -> bool:
    """Say whether each connection's status is of its present spec, and tells of a run that succeeded."""
    found = {item["metadata"]["name"]: item for item in cluster.list("tc", namespace)}
    return all(_succeeded(found[name]) for name in names)


def _succeeded(document: dict[str, object]) -> bool:
    status, generation = document.get("status", {}), document["metadata"]["generation"]  # type: ignore[index]
    ready = [condition for condition in status.get("conditions", []) if condition["type"] == "Ready"]  # type: ignore[attr-defined]
    return [(item["reason"], item["observedGeneration"]) for item in ready] == [("RunSucceeded", generation)]


def once_each(cluster: Cluster, records: Records, namespace: str, names: list[str]) -> None:
    """Each connection has one run that succeeded, without a failure, and no Job but those of its attempts.

    A second attempt is no fault of Penstock's: a Job controller that lost the answer to a pod's creation makes another pod,
    which is refused, and ends the Job for it.
    """
    runs, attempts = records.runs(*names), records.attempts(*names)
    assert sorted(run["name"] for run in runs) == sorted(names)
    lost = [attempt for attempt in attempts if attempt["phase"] != "succeeded"]
    assert {(run["phase"], run["streak"]) for run in runs} == {("succeeded", 0)}, shown(lost)
    assert {item["reason"] for item in lost} <= {"AttemptLost"}, shown(lost)
    assert len(lost) <= len(names) / 10, shown(lost)
    jobs = [job["metadata"]["name"] for job in cluster.list("jobs", namespace, selector(names))]
    assert set(jobs) <= {attempt["job_name"] for attempt in attempts}


def selector(names: list[str]) -> str:
    """Return what selects the connections' Jobs."""
    return f"{LABEL_CONNECTION} in ({','.join(names)})"


def test_9_an_api_server_that_is_killed_again_and_again_costs_no_run(
    provider: Provider, cluster: Cluster, operator: Installation, namespace: str, records: Records, faults: Faults
) -> None:
    if provider.choice.provider == "given":
        pytest.skip("THE API SERVER OF A NAMED CLUSTER IS NOT KILLED: run this test on kind or on packages")
    names = [f"restarted-{number}" for number in range(COUNT)]
    cluster.apply(*(faker(name, RECORDS, DELAY, BATCH, token=None, schedule=YEARLY) for name in names))
    cluster.until("all are reconciled", lambda: settled(records, names))
    back = []
    for number, seconds in enumerate(OUTAGES):
        records.make_due(*names[number :: len(OUTAGES)])
        back.append(outage(provider, cluster, seconds))
    runs = records.ended(*names, seconds=PATIENCE + 3 * COUNT)
    assert {run["phase"] for run in runs} == {"succeeded"}
    once_each(cluster, records, namespace, names)
    faults.notes.append(f"API server killed, back after {', '.join(f'{seconds:.1f}' for seconds in back)} s")
    faults.whole("api-killed", names, RECORDS, records.waits(*names))
    cluster.until("each says so", lambda: succeeded(cluster, namespace, names))
    operator.ready()


def is_ready(cluster: Cluster) -> bool:
    """Return True if the API server answers."""
    return cluster.kubectl("get", "--raw", "/readyz", check=False).returncode == 0


def outage(provider: Provider, cluster: Cluster, seconds: float) -> float:
    """Kill the API server, see that it is away for so many seconds, start it, and return when it was back."""
    began = time.monotonic()
    provider.kill_api_server()
    while time.monotonic() < began + seconds:
        assert not is_ready(cluster)
        time.sleep(0.1)
    provider.start_api_server()
    cluster.until("it answers", lambda: is_ready(cluster))
    return time.monotonic() - began


@pytest.fixture
def proxy(cluster: Cluster) -> Iterator[ApiProxy]:
    """A way to the API server that spoils requests and watches."""
    seen = cluster.kubectl("config", "view", "--raw", "--minify", "--flatten", "-o", "json").stdout
    known = json.loads(seen)["clusters"][0]["cluster"]
    trust = ssl.create_default_context(cadata=base64.b64decode(known["certificate-authority-data"]).decode())
    with ApiProxy(known["server"], trust, SEED) as proxy:
        proxy.faults.set()
        yield proxy


@pytest.fixture
def operators(operator: Installation, proxy: ApiProxy, tmp_path: Path) -> Iterator[Operators]:
    """Two operators behind it, and none beside it."""
    with Operators(operator, f"http://127.0.0.1:{proxy.port}", tmp_path) as running:
        yield running
    print(running.said())


def test_9_an_api_server_that_refuses_forgets_and_lies_costs_no_run(
    cluster: Cluster, namespace: str, records: Records, faults: Faults, proxy: ApiProxy, operators: Operators
) -> None:
    due = [f"lied-{number}" for number in range(COUNT // 2)]
    asked = [f"lied-{number}" for number in range(COUNT // 2, COUNT)]
    names, changed, gone = due + asked, "lied-changed", "lied-gone"
    cluster.apply(
        *(faker(name, RECORDS, DELAY, BATCH, token=None, schedule=YEARLY) for name in due),
        *(faker(name, RECORDS, DELAY, BATCH) for name in asked),
        faker(changed, RECORDS, token=None),
        faker(gone, RECORDS, batch=BATCH, pause=BATCH),
    )
    cluster.until("all are reconciled", lambda: settled(records, [*names, changed, gone]))
    records.make_due(*due)
    cluster.until("one stands still", lambda: records.running(gone))
    proxy.deaf |= {changed, gone}
    cluster.apply(faker(changed, RECORDS, batch=2 * BATCH, token="t2"))
    cluster.kubectl("delete", "tc", gone, "-n", namespace)
    runs = records.ended(*names, changed, gone, seconds=PATIENCE + 3 * COUNT)
    inflicted = ", ".join(f"{kind} {count}" for kind, count in sorted(proxy.counted.items()))
    faults.notes.append(f"API server that lies (SEED={SEED}), {operators.starts} starts of operators: {inflicted}")
    # Its Job goes with it; before the sweep has told of the deletion, another attempt may have come to its end.
    assert {run["phase"] for run in runs if run["name"] == gone} <= {"cancelled", "succeeded"}
    once_each(cluster, records, namespace, [*names, changed])
    assert set(proxy.jobs.values()) == {1}
    faults.whole("api-lies", [*names, changed], RECORDS, records.waits(*names, changed))
    cluster.until("each says so", lambda: succeeded(cluster, namespace, [*names, changed]))
    assert proxy.counted["event: dropped as told"] >= 2
    assert proxy.expected() <= set(proxy.counted)
