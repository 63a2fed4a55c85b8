"""The admission policies of the chart, tried by impersonation: who writes the Jobs and pods of runs, and what the controller writes.

Almost all tries are dry runs: the API server admits or refuses them, and stores nothing.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest
from penstock_operator.ids import AttemptNumber, ConnectionName, ConnectionUid, DefinitionName, Namespace, RunId
from penstock_operator.launchers import AttemptLaunch
from penstock_operator.launchers.jobs import (
    LABEL_ATTEMPT,
    LABEL_CONNECTION,
    LABEL_RUN,
    JobSettings,
    desired_job,
    desired_network_policy,
    rehearsal_of,
)
from penstock_operator.settings import EgressSettings

from tests.adversarial.attacks import Attack, StartAttack
from tests.cluster.installation import NAMESPACE, Installation, document
from tests.cluster.kubernetes import Cluster
from tests.cluster.runs import Records, faker
from tests.unit.operator.conftest import manifest, run_spec

CONTROLLER = f"system:serviceaccount:{NAMESPACE}:penstock-operate"
SERVER = f"system:serviceaccount:{NAMESPACE}:penstock-serve"
JOB_CONTROLLER = "system:serviceaccount:kube-system:job-controller"
GARBAGE_COLLECTOR = "system:serviceaccount:kube-system:generic-garbage-collector"
RUN = "0123456789abcdef012345"
JOB_NAME = f"penstock-{RUN}-1"
CREDENTIALS = [{"name": "password"}]
LAUNCH = AttemptLaunch(
    RunId(RUN),
    AttemptNumber(1),
    JOB_NAME,
    None,
    Namespace("team"),
    ConnectionName("orders"),
    ConnectionUid("0f8fad5b-d9cb-469f-a165-70867728950e"),
    DefinitionName("d"),
    "registry.example/postgres@sha256:" + "0" * 64,
    run_spec(secretRef={"name": "db"}),
    "64Mi",
    manifest("postgres", "sql", {"type": "basic", "credentials": CREDENTIALS}),
)
PEER = {"to": [{"podSelector": {"matchLabels": {"app": "x"}}}], "ports": [{"port": 8082, "protocol": "TCP"}]}
SETTINGS = JobSettings("http://penstock", "installation", EgressSettings("http://egress:8082", (PEER,)))
POD = ("spec", "template", "spec")
CONTAINER = (*POD, "containers", 0)
SECURITY = (*CONTAINER, "securityContext")
ANOTHER = {"name": "another", "image": "x@sha256:" + "0" * 64}
FieldPath = tuple[str | int, ...]
REMOVED = object()


def changed(original: dict[str, Any], path: FieldPath, value: Any) -> dict[str, Any]:
    """Return a copy of a document with another value at a path."""
    made = copy.deepcopy(original)
    place: Any = made
    for step in path[:-1]:
        place = place.setdefault(step, {}) if isinstance(place, dict) else place[step]
    if value is REMOVED:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    return made


def plain_pod(name: str, namespace: str, **metadata: Any) -> dict[str, Any]:
    """Return a pod that the restricted Pod Security Standard allows."""
    security = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    spec = {
        "restartPolicy": "Never",
        "securityContext": {"runAsNonRoot": True, "runAsUser": 10001, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [{"name": "c", "image": "example.invalid/x", "securityContext": security}],
    }
    return {
        **document("Pod", name, namespace, spec=spec),
        "metadata": {"name": name, "namespace": namespace, **metadata},
    }


def plain_job(name: str, namespace: str, **metadata: Any) -> dict[str, Any]:
    """Return a Job of a tenant."""
    pod = plain_pod(name, namespace)
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name, "namespace": namespace, **metadata},
        "spec": {"template": {"metadata": {"labels": {}}, "spec": pod["spec"]}},
    }


def owned_by_job(name: str = JOB_NAME, uid: str = "j1", **other: Any) -> list[dict[str, Any]]:
    """Return the ownerReferences of a Job's pod."""
    return [{"apiVersion": "batch/v1", "kind": "Job", "name": name, "uid": uid, "controller": True, **other}]


CONNECTION_OWNER = desired_job(LAUNCH, SETTINGS)["metadata"]["ownerReferences"]
LABELS = desired_job(LAUNCH, SETTINGS)["metadata"]["labels"]


@dataclass(frozen=True)
class User:
    """Somebody who uses kubectl. The empty name is the cluster's administrator."""

    cluster: Cluster
    name: str = ""

    def _flags(self) -> list[str]:
        return [f"--as={self.name}", "--as-group=system:authenticated"] if self.name else []

    def run(self, *arguments: str, stdin: str | None = None) -> str:
        """Run kubectl, and return what it reports of a failure; nothing if it succeeded."""
        done = self.cluster.kubectl(*self._flags(), *arguments, stdin=stdin, check=False)
        return done.stderr if done.returncode else ""

    def create(self, wanted: dict[str, Any]) -> str:
        """Try to create an object."""
        return self.run("create", "--dry-run=server", "--validate=false", "-f", "-", stdin=json.dumps(wanted))

    def patch(self, kind: str, name: str, namespace: str, change: dict[str, Any], *flags: str) -> str:
        """Try to change an object."""
        where = (kind, name, "-n", namespace)
        return self.run("patch", *where, "--type=merge", "--dry-run=server", "-p", json.dumps(change), *flags)

    def delete(self, kind: str, name: str, namespace: str) -> str:
        """Try to delete an object."""
        return self.run("delete", kind, name, "-n", namespace, "--dry-run=server")


def refused(tries: Attack, answer: str, policy: str, detail: object) -> None:
    """Count a try. A refusal for another reason than the policy shows nothing, and fails the test."""
    tries.record(succeeded=not answer, detail=detail)
    assert not answer or f"ValidatingAdmissionPolicy '{policy}'" in answer, (detail, answer)


OF_RUNS, OF_PODS, OF_RELEASE = "runs.penstock.io", "run-pods.penstock.io", f"penstock.{NAMESPACE}.penstock.io"


@pytest.fixture(scope="module")
def administrator(cluster: Cluster, operator: Installation) -> User:
    """The cluster's administrator."""
    return User(cluster)


@pytest.fixture(scope="module")
def editor(cluster: Cluster, operator: Installation, namespace: str) -> Iterator[User]:
    """The owner of a tenant's namespace, who may also change statuses and add ephemeral containers there."""
    cluster.apply(document("ServiceAccount", "owner", namespace))
    subject = f"--serviceaccount={namespace}:owner"
    rules = "--resource=pods,pods/status,pods/ephemeralcontainers,jobs.batch,jobs.batch/status"
    cluster.kubectl("create", "role", "statuses", "-n", namespace, "--verb=update,patch", rules)
    cluster.kubectl("create", "rolebinding", "owner", "-n", namespace, "--clusterrole=admin", subject)
    cluster.kubectl("create", "rolebinding", "statuses", "-n", namespace, "--role=statuses", subject)
    yield User(cluster, f"system:serviceaccount:{namespace}:owner")
    cluster.kubectl("delete", "rolebinding/owner", "rolebinding/statuses", "role/statuses", "-n", namespace)


@pytest.fixture(scope="module")
def mighty(cluster: Cluster, operator: Installation) -> Iterator[dict[str, User]]:
    """The release's service accounts, to which somebody has given all rights in the cluster."""
    subjects = [f"--serviceaccount={NAMESPACE}:penstock-{role}" for role in ("operate", "serve")]
    cluster.kubectl("create", "clusterrolebinding", "mighty", "--clusterrole=cluster-admin", *subjects)
    yield {"operate": User(cluster, CONTROLLER), "serve": User(cluster, SERVER)}
    cluster.kubectl("delete", "clusterrolebinding", "mighty")


@pytest.fixture(scope="module")
def running(cluster: Cluster, operator: Installation, namespace: str, records: Records) -> Iterator[dict[str, Any]]:
    """The pod of a run that is under way."""
    cluster.apply(faker("admitted", 100_000, delay=1))
    cluster.until("its pod reads", lambda: records.running("admitted"))
    (pod,) = cluster.list("pods", namespace, f"{LABEL_CONNECTION}=admitted")
    yield pod
    cluster.kubectl("delete", "tc", "admitted", "-n", namespace, "--wait=false")


HOSTILE_JOBS: list[tuple[str, Any]] = [
    ("the whole Job of a run", lambda _: desired_job(LAUNCH, SETTINGS)),
    ("a label", lambda job: changed(job, ("metadata", "labels"), {LABEL_RUN: RUN})),
    ("another label of ours", lambda job: changed(job, ("metadata", "labels"), {"penstock.io/x": "y"})),
    ("the name of a run's Job", lambda job: changed(job, ("metadata", "name"), JOB_NAME)),
    ("a TenantConnection as owner", lambda job: changed(job, ("metadata", "ownerReferences"), CONNECTION_OWNER)),
    ("a run's Job as owner", lambda job: changed(job, ("metadata", "ownerReferences"), owned_by_job())),
    ("a label of its pods", lambda job: changed(job, ("spec", "template", "metadata", "labels"), {LABEL_RUN: RUN})),
]


def test_2_only_the_controller_creates_the_jobs_of_runs(
    administrator: User, editor: User, namespace: str, attack: StartAttack
) -> None:
    cluster, job = administrator.cluster, plain_job("ours", namespace)
    assert not editor.create(job), "a tenant's own Job"
    assert not User(cluster, CONTROLLER).create(desired_job(LAUNCH, SETTINGS)), "what the controller creates"
    assert not User(cluster, CONTROLLER).create(rehearsal_of(desired_job(LAUNCH, SETTINGS))), "its rehearsal"
    with attack("create a Job that looks like a run's", actor="tenant editor", invariant=2) as tries:
        for user in (editor, administrator):
            for detail, made in HOSTILE_JOBS:
                refused(tries, user.create(made(job)), OF_RUNS, (user.name, detail))


def test_2_only_the_job_controller_creates_the_pods_of_runs(
    administrator: User, editor: User, namespace: str, attack: StartAttack
) -> None:
    job_controller = User(administrator.cluster, JOB_CONTROLLER)
    right = plain_pod("pod", namespace, labels=LABELS, ownerReferences=owned_by_job())
    assert not editor.create(plain_pod("ours", namespace)), "a tenant's own pod"
    assert not job_controller.create(right), "the pod of a run's Job"
    hostile = [
        right,
        plain_pod("pod", namespace, labels={LABEL_RUN: RUN}),
        plain_pod("pod", namespace, labels={"penstock.io/x": "y"}),
        plain_pod("pod", namespace, ownerReferences=owned_by_job()),
        plain_pod("pod", namespace, ownerReferences=owned_by_job(controller=False)),
        plain_pod("pod", namespace, ownerReferences=CONNECTION_OWNER),
        plain_pod(JOB_NAME, namespace),
    ]
    with attack("create a pod that looks like a run's", actor="tenant editor", invariant=2) as tries:
        for user in (editor, administrator, User(administrator.cluster, CONTROLLER)):
            for number, pod in enumerate(hostile):
                answer = user.create(pod)
                if user.name == CONTROLLER:
                    tries.record(succeeded=not answer, detail=(user.name, number))
                else:
                    refused(tries, answer, OF_RUNS, (user.name, number))
    with attack(
        "have the Job controller make a run's pod for another Job", actor="tenant editor", invariant=2
    ) as tries:
        for number, pod in enumerate(
            [
                plain_pod("pod", namespace, labels=LABELS, ownerReferences=owned_by_job("theirs")),
                plain_pod("pod", namespace, labels=LABELS),
                plain_pod("pod", namespace, ownerReferences=owned_by_job()),
                plain_pod("pod", namespace, labels={**LABELS, LABEL_ATTEMPT: "2"}, ownerReferences=owned_by_job()),
            ]
        ):
            refused(tries, job_controller.create(pod), OF_RUNS, number)


def test_2_nobody_changes_what_belongs_to_a_run(
    administrator: User, editor: User, namespace: str, running: dict[str, Any], attack: StartAttack
) -> None:
    cluster, pod, job = administrator.cluster, running["metadata"]["name"], running["metadata"]["labels"]["job-name"]
    metadata: list[dict[str, Any]] = [
        {"labels": {LABEL_RUN: RUN}},
        {"labels": {LABEL_RUN: None}},
        {"labels": {"penstock.io/x": "y"}},
        {"labels": {"other": "label"}},
        {"annotations": {"other": "annotation"}},
        {"ownerReferences": None},
        {"ownerReferences": [*running["metadata"]["ownerReferences"], {**CONNECTION_OWNER[0], "controller": False}]},
        {"finalizers": ["example.com/stay"]},
    ]
    changes = [{"metadata": change} for change in metadata]
    with attack("change the Job or the pod of a run", actor="tenant editor", invariant=2) as tries:
        for user in (editor, administrator):
            for kind, name in (("pod", pod), ("job", job)):
                for change in changes:
                    refused(tries, user.patch(kind, name, namespace, change), OF_RUNS, (user.name, kind, change))
            suspended = {"spec": {"suspend": True}}
            refused(tries, user.patch("job", job, namespace, suspended), OF_RUNS, (user.name, suspended))
            finished = {"status": {"succeeded": 1}}
            flags = ("--subresource=status",)
            refused(tries, user.patch("job", job, namespace, finished, *flags), OF_RUNS, (user.name, finished))
            relabelled = {"metadata": {"labels": {LABEL_RUN: RUN}}}
            refused(tries, user.patch("pod", pod, namespace, relabelled, *flags), OF_RUNS, (user.name, "by its status"))
    collector = User(cluster, GARBAGE_COLLECTOR)
    assert not collector.patch("pod", pod, namespace, {"metadata": {"finalizers": []}}), "Kubernetes does its work"
    assert collector.patch("pod", pod, namespace, {"metadata": {"labels": {LABEL_RUN: RUN}}})


def test_2_nobody_gives_our_labels_to_an_object_that_exists(
    administrator: User, editor: User, namespace: str, attack: StartAttack
) -> None:
    cluster = administrator.cluster
    suspended = changed(plain_job("theirs", namespace), ("spec", "suspend"), value=True)
    cluster.apply(suspended, plain_pod("theirs", namespace))
    changes: list[dict[str, Any]] = [
        {"labels": {LABEL_RUN: RUN}},
        {"ownerReferences": owned_by_job()},
        {"ownerReferences": CONNECTION_OWNER},
    ]
    users = (editor, administrator, User(cluster, GARBAGE_COLLECTOR))
    with attack("give a run's labels or owner to another object", actor="tenant editor", invariant=2) as tries:
        for user in users:
            for change in changes:
                answer = user.patch("pod", "theirs", namespace, {"metadata": change})
                refused(tries, answer, OF_RUNS, (user.name, change))
        for change in changes:
            refused(tries, editor.patch("job", "theirs", namespace, {"metadata": change}), OF_RUNS, change)
        template = {"spec": {"template": {"metadata": {"labels": {LABEL_RUN: RUN}}}}}
        refused(tries, editor.patch("job", "theirs", namespace, template), OF_RUNS, template)
    assert not editor.patch("pod", "theirs", namespace, {"metadata": {"labels": {"their": "label"}}})
    cluster.kubectl("delete", "pod/theirs", "job/theirs", "-n", namespace, "--wait=false")


def test_16_only_the_controller_writes_the_network_policies_of_runs(
    administrator: User, editor: User, namespace: str, running: dict[str, Any], attack: StartAttack
) -> None:
    name = running["metadata"]["labels"]["job-name"]
    desired: Any = desired_network_policy(LAUNCH, SETTINGS)
    own = {**desired, "metadata": {"name": "own", "namespace": namespace}}
    assert not editor.create(own), "a tenant's own NetworkPolicy"
    assert not User(administrator.cluster, CONTROLLER).create(desired), "what the controller creates"
    with attack("change or remove the NetworkPolicy of a run", actor="tenant editor", invariant=16) as tries:
        for user in (editor, administrator):
            for number, answer in enumerate(
                [
                    user.create(desired),
                    user.patch("netpol", name, namespace, {"spec": {"egress": [{}]}}),
                    user.patch("netpol", name, namespace, {"metadata": {"labels": {LABEL_RUN: None}}}),
                    user.delete("netpol", name, namespace),
                ]
            ):
                refused(tries, answer, OF_RUNS, (user.name, number))


def test_7_a_tenant_gets_no_shell_in_the_pod_of_a_run(
    administrator: User, editor: User, namespace: str, running: dict[str, Any], attack: StartAttack
) -> None:
    pod = running["metadata"]["name"]
    assert not administrator.run("exec", pod, "-n", namespace, "--", "true"), "the platform's staff may"
    assert not editor.run("logs", pod, "-n", namespace, "--tail=1"), "a tenant may read the log"
    shell = {"name": "debugger", "image": "example.invalid/x", "targetContainerName": "connector"}
    debugged = {"spec": {"ephemeralContainers": [shell]}}
    with attack("get into the pod of a run", actor="tenant editor", invariant=7) as tries:
        for answer in (
            editor.run("exec", pod, "-n", namespace, "--", "true"),
            editor.run("attach", pod, "-n", namespace),
            editor.run("port-forward", pod, "-n", namespace, ":8080"),
            editor.run("get", "--raw", f"/api/v1/namespaces/{namespace}/pods/{pod}/proxy/"),
            editor.patch("pod", pod, namespace, debugged, "--subresource=ephemeralcontainers"),
        ):
            tries.record(succeeded=not answer, detail=answer)
            assert "right to debug runs.penstock.io" in answer or "forbidden" in answer.lower(), answer


SHAPES: list[tuple[FieldPath, Any]] = [
    (("metadata", "labels", LABEL_RUN), "f" * 22),
    (("metadata", "labels", LABEL_ATTEMPT), "2"),
    (("metadata", "labels", LABEL_CONNECTION), "another"),
    (("metadata", "labels", LABEL_RUN), REMOVED),
    (("metadata", "name"), "another"),
    (("metadata", "ownerReferences"), []),
    (("metadata", "ownerReferences"), owned_by_job()),
    (("metadata", "ownerReferences", 0, "controller"), False),
    (("spec", "backoffLimit"), 3),
    (("spec", "completions"), 2),
    (("spec", "parallelism"), 2),
    (("spec", "activeDeadlineSeconds"), REMOVED),
    (("spec", "template", "metadata", "labels"), {}),
    (("spec", "template", "metadata", "labels", LABEL_RUN), "f" * 22),
    ((*POD, "serviceAccountName"), "admin"),
    ((*POD, "serviceAccount"), "admin"),
    ((*POD, "automountServiceAccountToken"), True),
    ((*POD, "automountServiceAccountToken"), REMOVED),
    ((*POD, "hostNetwork"), True),
    ((*POD, "hostPID"), True),
    ((*POD, "hostIPC"), True),
    ((*POD, "shareProcessNamespace"), True),
    ((*POD, "nodeName"), "node0"),
    ((*POD, "nodeSelector"), {"a": "b"}),
    ((*POD, "tolerations"), [{"operator": "Exists"}]),
    ((*POD, "priorityClassName"), "system-node-critical"),
    ((*POD, "runtimeClassName"), "weak"),
    ((*POD, "imagePullSecrets"), [{"name": "x"}]),
    ((*POD, "initContainers"), [ANOTHER]),
    ((*POD, "containers"), [ANOTHER]),
    ((*POD, "securityContext", "runAsUser"), 0),
    ((*POD, "securityContext", "runAsNonRoot"), False),
    ((*POD, "securityContext", "fsGroup"), 0),
    ((*POD, "securityContext", "supplementalGroups"), [0]),
    ((*POD, "securityContext", "seccompProfile"), {"type": "Unconfined"}),
    ((*POD, "securityContext", "sysctls"), [{"name": "kernel.shm_rmid_forced", "value": "1"}]),
    ((*POD, "securityContext"), REMOVED),
    ((*CONTAINER, "name"), "another"),
    ((*CONTAINER, "image"), "registry.example/postgres:latest"),
    ((*CONTAINER, "image"), "registry.example/postgres:1@sha256:00"),
    ((*CONTAINER, "command"), ["sh"]),
    ((*CONTAINER, "args"), ["x"]),
    ((*CONTAINER, "lifecycle"), {"postStart": {"exec": {"command": ["sh"]}}}),
    ((*CONTAINER, "ports"), [{"containerPort": 80, "hostPort": 80}]),
    ((*CONTAINER, "livenessProbe"), {"exec": {"command": ["sh"]}}),
    ((*CONTAINER, "resources", "limits"), REMOVED),
    ((*CONTAINER, "resources", "limits", "memory"), REMOVED),
    ((*CONTAINER, "resources", "limits", "cpu"), REMOVED),
    ((*CONTAINER, "envFrom"), [{"secretRef": {"name": "x"}}]),
    ((*CONTAINER, "env"), [{"name": "LD_PRELOAD", "value": "x"}]),
    ((*CONTAINER, "env"), [{"name": "PENSTOCK_X", "valueFrom": {"secretKeyRef": {"name": "x", "key": "y"}}}]),
    (SECURITY, REMOVED),
    (SECURITY, {"privileged": True, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}),
    ((*SECURITY, "allowPrivilegeEscalation"), True),
    ((*SECURITY, "readOnlyRootFilesystem"), False),
    ((*SECURITY, "capabilities"), {"drop": ["ALL"], "add": ["NET_ADMIN"]}),
    ((*SECURITY, "capabilities"), {}),
    ((*SECURITY, "runAsUser"), 0),
    ((*SECURITY, "runAsNonRoot"), False),
    ((*SECURITY, "seccompProfile"), {"type": "Unconfined"}),
    ((*POD, "volumes", 0), {"name": "tmp", "hostPath": {"path": "/"}}),
    ((*POD, "volumes", 0), {"name": "tmp", "emptyDir": {}}),
    ((*POD, "volumes", 0, "name"), "another"),
    ((*POD, "volumes", 1, "projected", "sources", 0, "serviceAccountToken", "audience"), "vault"),
    ((*POD, "volumes", 1, "projected", "sources", 0, "serviceAccountToken", "audience"), REMOVED),
    ((*POD, "volumes", 1, "projected", "sources", 0, "serviceAccountToken", "expirationSeconds"), 86400),
    ((*POD, "volumes", 2), {"name": "credentials", "secret": {"secretName": "db"}}),
    ((*POD, "volumes", 2), {"name": "credentials", "configMap": {"name": "db"}}),
    ((*POD, "volumes", 2, "projected", "sources", 0, "secret", "items"), REMOVED),
    ((*POD, "volumes", 2, "projected", "sources"), [{"downwardAPI": {}}]),
]


def shaped(path: FieldPath, value: Any) -> dict[str, Any]:
    """Return the controller's Job with one change. The API server itself must not refuse it."""
    made = changed(desired_job(LAUNCH, SETTINGS), path, value)
    if made["spec"]["template"]["spec"]["containers"][0].get("name") != "connector" or path[-1] == "containers":
        made["spec"]["template"]["spec"]["containers"][0]["resources"] = {}
    if path[-2:] == (0, "name") and "volumes" in path:
        made["spec"]["template"]["spec"]["containers"][0]["volumeMounts"][0]["name"] = value
    return made


def test_16_the_controller_creates_jobs_of_one_shape_only(
    administrator: User, namespace: str, mighty: dict[str, User], attack: StartAttack
) -> None:
    with attack("create another Job with the controller's account", actor="platform account", invariant=7) as tries:
        for path, value in SHAPES:
            detail = (".".join(str(step) for step in path), "removed" if value is REMOVED else value)
            refused(tries, mighty["operate"].create(shaped(path, value)), OF_RELEASE, detail)
        another = replace(SETTINGS, egress=EgressSettings("http://egress:8082", ({},)))
        for policy in (
            desired_network_policy(LAUNCH, another),
            changed(dict(desired_network_policy(LAUNCH, SETTINGS) or {}), ("spec", "podSelector"), {}),
            changed(dict(desired_network_policy(LAUNCH, SETTINGS) or {}), ("spec", "ingress"), [{}]),
            changed(dict(desired_network_policy(LAUNCH, SETTINGS) or {}), ("spec", "policyTypes"), ["Egress"]),
            changed(dict(desired_network_policy(LAUNCH, SETTINGS) or {}), ("metadata", "labels"), {}),
        ):
            refused(tries, mighty["operate"].create(dict(policy or {})), OF_RELEASE, policy)


def test_the_accounts_of_the_release_write_nothing_else_with_any_rights(
    administrator: User, namespace: str, mighty: dict[str, User], attack: StartAttack
) -> None:
    cluster = administrator.cluster
    own = {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "deny", "namespace": namespace},
    }
    suspended = changed(plain_job("bystander", namespace), ("spec", "suspend"), value=True)
    cluster.apply({**own, "spec": {"podSelector": {}, "policyTypes": ["Egress"]}}, suspended)
    lease = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "spec": {}}
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"}
    binding = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": "x"}}
    with attack("use the accounts of the release for anything else", actor="platform account", invariant=7) as tries:
        for user in mighty.values():
            for answer in (
                user.create(document("Secret", "x", namespace)),
                user.create(document("ConfigMap", "x", namespace)),
                user.create(document("Namespace", "x")),
                user.create(plain_pod("x", namespace)),
                user.create(plain_job("x", namespace)),
                user.create({**binding, "roleRef": role}),
                user.run("create", "token", "default", "-n", namespace),
                user.delete("networkpolicy", "deny", namespace),
                user.delete("job", "bystander", namespace),
                user.delete("namespace", namespace, namespace),
                user.patch("networkpolicy", "deny", namespace, {"spec": {"egress": [{}]}}),
                user.patch("job", "bystander", namespace, {"spec": {"suspend": False}}),
                user.patch("serviceaccount", "default", namespace, {"metadata": {"labels": {"a": "b"}}}),
                user.create({**lease, "metadata": {"name": "kube-scheduler", "namespace": namespace}}),
                user.run("exec", "penstock-agent", "-n", "kube-system", "--", "true"),
            ):
                tries.record(succeeded=not answer, detail=answer)
                assert f"ValidatingAdmissionPolicy '{OF_RELEASE}'" in answer, (user.name, answer)
    cluster.kubectl("delete", "networkpolicy/deny", "job/bystander", "-n", namespace, "--wait=false")
