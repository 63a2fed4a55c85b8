"""The design's invariants, by number, tried on the installed chart: by impersonation, and from inside a run's own pod."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
import yaml
from penstock_operator.launchers.jobs import LABEL_CONNECTION
from penstock_operator.settings import S3Settings

from tests.cluster.installation import NAMESPACE, Installation, document
from tests.cluster.kubernetes import Cluster
from tests.cluster.runs import FAKER, Records, connection, faker

ROLES = ("operate", "serve")
ENDED = ("Succeeded", "Failed")
RELEASE = "app.kubernetes.io/instance=penstock"

# What a hostile connector would try, with all that its pod has; prints what it got as JSON.
TRY = """
import json, os, pathlib, socket, ssl, struct, urllib.error, urllib.request
api, s3, bucket, key, run_api, read_api, postgres_host, postgres_port = json.loads(os.environ["TRIED"])
got = {}
def ask(name, url, method="GET", body=None, token=None):
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    request = urllib.request.Request(url, body, {"Content-Type": "application/json", **headers}, method=method)
    try:
        got[name] = urllib.request.urlopen(request, timeout=10, context=ssl._create_unverified_context()).status
    except urllib.error.HTTPError as error:
        got[name] = error.code
    except OSError:
        got[name] = "no connection"
token = pathlib.Path("/var/run/secrets/penstock/token").read_text()
got["service account token"] = os.path.exists("/var/run/secrets/kubernetes.io")
for name, bearer in (("nobody", None), ("the run's token", token)):
    ask(f"secrets as {name}", f"{api}/api/v1/secrets", token=bearer)
    ask(f"jobs as {name}", f"{api}/apis/batch/v1/jobs", token=bearer)
    ask(f"connections as {name}", f"{api}/apis/penstock.io/v1alpha1/tenantconnections", token=bearer)
ask("list the bucket", f"{s3}/{bucket}?list-type=2")
ask("read an object", f"{s3}/{bucket}/{key}")
ask("write an object", f"{s3}/{bucket}/{key}", "PUT", b"x")
ask("delete an object", f"{s3}/{bucket}/{key}", "DELETE")
ask("read runs", f"{read_api}/v1/runs", token=token)
ask("read runs at the run API", f"{run_api}/v1/runs", token=token)
start = {"run": os.environ["PENSTOCK_RUN_ID"], "attempt": 1, "sdk_version": "0.1.0"}
start["connector"] = {"name": "faker", "method": "generate", "version": "0.1.0"}
ask("claim an attempt", f"{run_api}/v1/attempts/start", "POST", json.dumps(start).encode(), token)
packet = struct.pack("!I", 196608) + b"user\\0penstock\\0database\\0penstock\\0\\0"
with socket.create_connection((postgres_host, postgres_port), 10) as connection:
    connection.sendall(struct.pack("!I", len(packet) + 4) + packet)
    answer = connection.recv(64)
got["postgres without a password"] = answer[:1] == b"R" and struct.unpack("!I", answer[5:9])[0] == 0
print(json.dumps({"got": got, "environment": sorted(os.environ)}))
"""


def may(cluster: Cluster, role: str, verb: str, resource: str, *where: str) -> bool:
    who = f"--as=system:serviceaccount:{NAMESPACE}:penstock-{role}"
    groups = ("--as-group=system:serviceaccounts", f"--as-group=system:serviceaccounts:{NAMESPACE}")
    return cluster.kubectl("auth", "can-i", verb, resource, *where, who, *groups, check=False).stdout.strip() == "yes"


@pytest.mark.parametrize("role", ROLES)
def test_8_nobody_of_penstock_may_read_a_secret_anywhere(
    cluster: Cluster, operator: Installation, namespace: str, role: str
) -> None:
    assert may(cluster, role, "list", "pods", "-A"), "the impersonation shows nothing: the role may do nothing at all"
    everywhere = [namespace["metadata"]["name"] for namespace in cluster.list("namespaces")]
    assert {NAMESPACE, namespace} <= set(everywhere)
    for verb in ("get", "list", "watch"):
        assert not may(cluster, role, verb, "secrets", "-A")
        for item in everywhere:
            assert not may(cluster, role, verb, "secrets", "-n", item), item


def test_8_no_role_of_the_release_has_a_wildcard_or_may_raise_itself(cluster: Cluster, operator: Installation) -> None:
    roles = [*cluster.list("clusterroles", selector=RELEASE), *cluster.list("roles", NAMESPACE, RELEASE)]
    assert len(roles) == 7
    rules = [rule for role in roles for rule in role["rules"]]
    own_certificates = {
        "apiGroups": [""],
        "resources": ["secrets"],
        "resourceNames": ["penstock-tls"],
        "verbs": ["get", "update"],
    }
    rules.remove(own_certificates)  # of the account that makes certificates, and of no pod that runs all the time
    words = {word for rule in rules for key in ("apiGroups", "resources", "verbs") for word in rule[key]}
    assert not words & {"*", "secrets", "impersonate", "escalate", "bind", "pods/exec", "serviceaccounts/token"}
    bindings = cluster.list("clusterrolebindings") + cluster.list("rolebindings")
    ours = {
        binding["roleRef"]["name"]
        for binding in bindings
        for subject in binding.get("subjects", [])
        if subject["kind"] == "ServiceAccount" and subject.get("namespace") == NAMESPACE
    }
    # Those of people are no account's of the release: Kubernetes' own take two in, and everybody may see what there is.
    people = {f"penstock-{item}-{NAMESPACE}" for item in ("view", "edit", "catalog")}
    assert ours == {role["metadata"]["name"] for role in roles} - people
    for role in (role for role in roles if role["metadata"]["name"] in people):
        assert {word for rule in role["rules"] for word in rule["resources"]} <= {
            "tenantconnections",
            "connectordefinitions",
        }


def test_7_a_runs_pod_gets_nowhere_with_all_that_it_has(
    cluster: Cluster, operator: Installation, namespace: str, records: Records, bucket: S3Settings
) -> None:
    cluster.apply(faker("tried", 8000, delay=1))
    cluster.until("its pod reads", lambda: records.running("tried"))
    job = cluster.list("jobs", namespace, f"{LABEL_CONNECTION}=tried")[0]
    records.ended("tried")
    spec = {
        **job["spec"]["template"]["spec"],
        "dnsPolicy": "ClusterFirst",
    }  # and no NetworkPolicy: what is left is rights
    host, _, port = records.url.rpartition("@")[2].partition("/")[0].partition(":")
    key = records.query("SELECT key FROM penstock.bronze_objects WHERE committed_at IS NOT NULL LIMIT 1")[0]["key"]
    apis = (f"https://penstock.{NAMESPACE}.svc", f"https://penstock-read.{NAMESPACE}.svc")
    tried = ["https://kubernetes.default.svc", bucket.endpoint, bucket.bucket, key, *apis, host, int(port)]
    container = spec["containers"][0]
    container["command"] = ["python3", "-c", TRY]
    container["env"].append({"name": "TRIED", "value": json.dumps(tried)})
    cluster.apply(document("Pod", "hostile", namespace, spec=spec))
    cluster.until("it has tried", lambda: cluster.get("pod", "hostile", namespace)["status"]["phase"] in ENDED)
    said = cluster.kubectl("logs", "hostile", "-n", namespace).stdout
    cluster.kubectl("delete", "pod", "hostile", "-n", namespace, "--wait=false")
    found = json.loads(said)
    assert found["got"].pop("service account token") is False
    assert found["got"].pop("postgres without a password") is False
    assert found["got"].pop("read runs at the run API") == 404
    assert found["got"].pop("read runs") in (401, "no connection"), (
        "a NetworkPolicy may keep pods away from the read API"
    )
    assert {name: status for name, status in found["got"].items() if status not in (401, 403)} == {}
    assert len(found["got"]) == 11
    assert not [name for name in found["environment"] if name.startswith("AWS_") or "DATABASE" in name]


@pytest.mark.parametrize("role", ROLES)
def test_a_role_reaches_what_the_chart_allows_and_nothing_else(
    cluster: Cluster, operator: Installation, records: Records, bucket: S3Settings, role: Any
) -> None:
    pod = operator.pods(role)[0]["metadata"]["name"]
    host = records.url.rpartition("@")[2].partition(":")[0]
    code = (
        "import socket, sys\n"
        "for port in sys.argv[2:]:\n"
        "    try: socket.create_connection((sys.argv[1], int(port)), 3); print('open')\n"
        "    except ConnectionRefusedError: print('refused')\n"
        "    except TimeoutError: print('dropped')\n"
    )
    s3 = str(bucket.endpoint).rpartition(":")[2]
    command = ("exec", pod, "-n", NAMESPACE, "--", "python3", "-c", code, host, s3, "9")
    assert cluster.kubectl(*command).stdout.split() == ["open", "dropped"]
    outside = ("exec", "penstock-agent", "-n", "kube-system", "--", "python3", "-c", code, host, "9")
    assert cluster.kubectl(*outside).stdout.split() == ["refused"], "nothing shows that it is the policy which drops"


def test_12_what_is_poisoned_delays_nobody(
    cluster: Cluster, operator: Installation, namespace: str, records: Records
) -> None:
    cluster.apply(
        document("Namespace", "poor"),
        document("ResourceQuota", "nothing", "poor", spec={"hard": {"pods": "0"}}),
        document("Namespace", "shut"),
        document("ResourceQuota", "nothing", "shut", spec={"hard": {"count/jobs.batch": "0"}}),
    )
    good = cluster.get("cdef", "faker-generate-0.1.0", namespace)["spec"]
    bad = {**good, "image": good["image"].rpartition("@")[0] + "@sha256:" + "0" * 64}
    bad["manifest"] = {**good["manifest"], "name": "poisoned"}
    definition = {"apiVersion": "penstock.io/v1alpha1", "kind": "ConnectorDefinition"}
    cluster.apply({**definition, "metadata": {"name": "poisoned-generate-0.1.0"}, "spec": bad})
    secret: dict[str, Any] = {"connector": {"name": "postgres", "method": "sql"}, "secretRef": {"name": "nope"}}
    for number in range(5):
        cluster.apply(
            connection(f"bad-image-{number}", connector={"name": "poisoned", "method": "generate"}),
            connection(f"bad-secret-{number}", config={"host": "db", "database": "d"}, **secret),
            connection(f"bad-name-{number}", connector={"name": "nobody", "method": "knows"}),
            connection(f"no-pods-{number}", namespace="poor", connector=FAKER),
            connection(f"no-jobs-{number}", namespace="shut", connector=FAKER),
        )
    cluster.apply(faker("punctual", 50, token=None, schedule="* * * * *"))
    first = time.time()
    for number in range(3):
        names = [f"good-{number}-{item}" for item in range(5)]
        cluster.apply(*(faker(name, 50) for name in names))
        records.ended(*names)
    runs = cluster.until("it has run by the clock", lambda: records.runs("punctual"))
    late = [(run["created_at"] - run["scheduled_at"]).total_seconds() for run in runs]
    assert max(late) < 60, late  # before its next due time
    run = records.ended("punctual")[0]
    assert run["phase"] == "succeeded"
    assert all(
        row["phase"] == "succeeded"
        for row in records.runs(*(f"good-{n}-{number}" for n in range(3) for number in range(5)))
    )
    attempts = records.attempts("punctual", *(f"good-{n}-{number}" for n in range(3) for number in range(5)))
    slow = [(row["started_at"] - row["launched_at"]).total_seconds() for row in attempts]
    print(
        f"poisoned 25; good starts at most {max(slow):.1f} s after launch; by the clock {late}; {time.time() - first:.0f} s"
    )
    for name, where, reason in (
        ("bad-secret-0", namespace, "SecretNotFound"),
        ("bad-name-0", namespace, "DefinitionNotFound"),
        ("no-jobs-0", "shut", "QuotaExceeded"),
        ("no-pods-0", "poor", "QuotaExceeded"),
    ):
        cluster.condition(name, where, reason)
    cluster.kubectl("delete", "tc", "punctual", "-n", namespace)
    cluster.kubectl("delete", "namespace", "poor", "shut", "--wait=false")


def test_13_nothing_is_kept_in_configmaps(cluster: Cluster, operator: Installation, namespace: str) -> None:
    cluster.apply(faker("plain", 10))
    cluster.condition("plain", namespace, "RunSucceeded")
    for item in (NAMESPACE, namespace):
        names = [found["metadata"]["name"] for found in cluster.list("configmaps", item)]
        assert names == ["kube-root-ca.crt"], yaml.safe_dump(names)
    for role in ROLES:
        assert not may(cluster, role, "create", "configmaps", "-n", NAMESPACE)
        assert not may(cluster, role, "create", "configmaps", "-n", namespace)
