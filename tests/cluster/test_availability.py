"""High availability of the installed chart: leaders killed, paused and doubled, and an upgrade under load."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from penstock_operator.launchers.jobs import LABEL_CONNECTION

from tests.cluster.installation import LEASE, NAMESPACE, ROOT, Installation, document
from tests.cluster.kubernetes import Cluster
from tests.cluster.provider import Access
from tests.cluster.runs import Records, faker
from tests.patience import PATIENCE

HAND_OVER_SECONDS = 60  # four times the Lease's length, so that a slow machine has time to launch as well
ACTIVE = int(os.environ.get("N") or "20")
LASTING = 1200 + 20 * max(
    0, ACTIVE - 20
)  # records, 20 in 3 seconds: the first to begin must outlast the last and the upgrade
FITTING = 30  # as each reserves 50m of a node's two cores, unless it is limited to less
RBAC = "rbac.authorization.k8s.io"

# A released migration, as far as replicas can tell: it locks the busiest tables, and old replicas know nothing of it.
MIGRATION = """
ALTER TABLE penstock.connector_runs ADD COLUMN IF NOT EXISTS upgraded text;
ALTER TABLE penstock.run_attempts ADD COLUMN IF NOT EXISTS upgraded text;
CREATE INDEX IF NOT EXISTS connector_runs_upgraded ON penstock.connector_runs (upgraded);
"""


def started_once(cluster: Cluster, records: Records, namespace: str, names: list[str]) -> None:
    """Each connection has one run and one attempt, and no Job but that attempt's."""
    for name in names:
        assert len(records.runs(name)) == 1, name
        assert [row["attempt"] for row in records.attempts(name)] == [1], name
        (attempt,) = records.attempts(name)
        jobs = [job["metadata"]["name"] for job in cluster.list("jobs", namespace, f"{LABEL_CONNECTION}={name}")]
        assert set(jobs) <= {attempt["job_name"]}, name


def test_a_killed_leader_is_followed_once_its_lease_is_over(
    cluster: Cluster, operator: Installation, namespace: str, records: Records
) -> None:
    leader = operator.settled_leader()
    before = operator.holder()
    killed = operator.signal(leader, "KILL")
    cluster.apply(faker("handed", 10))
    run = records.ended("handed")[0]
    assert operator.holder() != before
    first = records.attempts("handed")[0]["launched_at"].timestamp() - killed
    print(f"hand-over: {first:.1f} s from kill -9 to the new leader's first launch")
    assert first < HAND_OVER_SECONDS
    assert run["phase"] == "succeeded"
    operator.ready()


def test_a_leader_that_is_told_to_stop_hands_over_at_once(
    cluster: Cluster, operator: Installation, namespace: str, records: Records
) -> None:
    leader = operator.settled_leader()
    cluster.kubectl("delete", "pod", leader, "-n", NAMESPACE, "--wait=false")
    cluster.apply(faker("released", 10))
    records.ended("released")
    operator.ready()


def test_2_a_leader_that_was_paused_and_wakes_beside_its_successor_starts_nothing_twice(
    cluster: Cluster, operator: Installation, namespace: str, records: Records
) -> None:
    paused = operator.settled_leader()
    operator.signal(paused, "STOP")
    cluster.kubectl("delete", "lease", LEASE, "-n", NAMESPACE)
    cluster.until("the other leads", lambda: operator.leader() not in ("", paused))
    names = [f"awoken-{number}" for number in range(20)]
    cluster.apply(*(faker(name, 200) for name in names[:10]))
    cluster.until("the other launches", lambda: records.attempts(*names))
    operator.signal(paused, "CONT")
    cluster.apply(*(faker(name, 200) for name in names[10:]))
    runs = records.ended(*names)
    assert {run["phase"] for run in runs} == {"succeeded"}
    started_once(cluster, records, namespace, names)
    for name in names:
        records.whole(name, 200)
    operator.ready()


@contextmanager
def without_policy_of_the_release(cluster: Cluster) -> Iterator[None]:
    """Let the release's accounts write what their rights allow: the policy lets a controller write its own Lease only."""
    binding = ("validatingadmissionpolicybinding", f"penstock.{NAMESPACE}.penstock.io", "--type=merge", "-p")
    cluster.kubectl("patch", *binding, '{"spec": {"validationActions": ["Audit"]}}')
    try:
        yield
    finally:
        cluster.kubectl("patch", *binding, '{"spec": {"validationActions": ["Deny"]}}')


@pytest.fixture
def rogue(cluster: Cluster, operator: Installation, namespace: str) -> Any:
    """A second leader for as long as it lives: its Lease is another one, in the tenant's namespace."""
    template = cluster.get("deployment", "penstock-operate", NAMESPACE)["spec"]["template"]["spec"]
    environment = template["containers"][0]["env"]
    environment[:] = [variable for variable in environment if variable["name"] != "PENSTOCK_NAMESPACE"]
    environment.append({"name": "PENSTOCK_NAMESPACE", "value": "rogue"})
    rules = cluster.get("role", "penstock-lease", NAMESPACE)["rules"]
    subject = {"kind": "ServiceAccount", "name": "penstock-operate", "namespace": NAMESPACE}
    reference = {"apiGroup": RBAC, "kind": "Role", "name": "lease"}
    cluster.apply(
        document("Namespace", "rogue"),
        {**document("Role", "lease", "rogue", rules=rules), "apiVersion": f"{RBAC}/v1"},
        {
            **document("RoleBinding", "lease", "rogue", roleRef=reference, subjects=[subject]),
            "apiVersion": f"{RBAC}/v1",
        },
        document("Pod", "rogue", NAMESPACE, spec=template),
    )
    with without_policy_of_the_release(cluster):
        cluster.until("it leads too", lambda: cluster.get("lease", LEASE, "rogue"))
        yield
        cluster.kubectl("delete", "pod", "rogue", "-n", NAMESPACE, "--wait=false")
    cluster.kubectl("delete", "rolebinding", "lease", "-n", "rogue")  # the namespace takes its time
    cluster.kubectl("delete", "namespace", "rogue", "--wait=false")


def test_2_two_leaders_at_once_start_nothing_twice(
    cluster: Cluster, operator: Installation, namespace: str, records: Records, rogue: None
) -> None:
    operator.settled_leader()
    names = [f"twice-{number}" for number in range(30)]
    cluster.apply(*(faker(name, 200) for name in names))
    runs = records.ended(*names)
    assert {run["phase"] for run in runs} == {"succeeded"}
    started_once(cluster, records, namespace, names)
    for name in names:
        records.whole(name, 200)


@pytest.fixture(scope="session")
def next_image(access: Access, operator: Installation, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The operator's image with one migration more, as the next release is."""
    context = tmp_path_factory.mktemp("next")
    (context / "9999_next.sql").write_text(MIGRATION)
    target = "/opt/penstock/penstock_operator/registry/migrations/9999_next.sql"
    (context / "Dockerfile").write_text(
        f"FROM {operator.image.replace(access.pull, access.push)}\nCOPY 9999_next.sql {target}\n"
    )
    script = '. images/lib.sh; make_image penstock-next:1 "$1/Dockerfile" "$1" && push_image penstock-next:1 "$2" "$1/digest"'
    subprocess.run(
        ["/bin/bash", "-euc", script, "bash", str(context), f"{access.push}/penstock-next:1"],
        check=True,
        cwd=ROOT,
        env={**os.environ, "BUILDER": access.builder},
    )
    return f"{access.pull}/penstock-next@{Path(context / 'digest').read_text().strip()}"


def test_a_rolling_upgrade_with_a_migration_ends_no_run(
    cluster: Cluster, operator: Installation, namespace: str, records: Records, next_image: str
) -> None:
    names = [f"rolled-{number}" for number in range(ACTIVE)]
    cpu = "1" if ACTIVE <= FITTING else f"{FITTING * 50 // ACTIVE}m"
    limits = {"limits": {"memory": "96Mi", "cpu": cpu}}
    cluster.apply(*(faker(name, LASTING, delay=3, batch=20, resources=limits) for name in names))
    cluster.until("all are active", lambda: len(records.running(*names)) == ACTIVE, seconds=PATIENCE + 3 * ACTIVE)
    operator.upgrade(image={"reference": next_image})
    assert len(records.running(*names)) == ACTIVE, "the runs were to outlast the upgrade"
    applied = records.query("SELECT name FROM penstock.schema_migrations WHERE name = '9999_next.sql'")
    assert applied
    operator.rollback()
    runs = records.ended(*names, seconds=PATIENCE + 6 * ACTIVE)
    assert {(run["phase"], run["attempt"]) for run in runs} == {("succeeded", 1)}
    for name in names:
        records.whole(name, LASTING)
