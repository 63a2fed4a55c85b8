"""Ways out of a run's pod on a real network: the run API and the gateway answer, and nothing else does."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import urlsplit

from penstock_operator.launchers.jobs import LABEL_CONNECTION, LABEL_RUN
from penstock_operator.settings import S3Settings

from tests.cluster.installation import NAMESPACE, Installation, document
from tests.cluster.kubernetes import Cluster
from tests.cluster.runs import Records, connection, faker

# Runs inside the pod, beside its connector: tries TCP and UDP to every place, and names, and prints what answered.
TRY = """
import concurrent.futures, json, os, socket, struct, sys
places, names = json.loads(sys.argv[1])
QUERY = struct.pack("!6H", 7, 256, 1, 0, 0, 0) + b"".join(bytes([len(part)]) + part for part in b"kubernetes.default.svc.cluster.local".split(b".")) + b"\\0" + struct.pack("!2H", 1, 1)
def tcp(host, port):
    with socket.create_connection((host, port), 3):
        return True
def udp(host, port):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.settimeout(3)
        sender.connect((host, port))
        sender.send(QUERY)
        return bool(sender.recv(512))
def named(name, _):
    return bool(socket.getaddrinfo(name, 80))
def spoken(host, port):
    with socket.create_connection((host, port), 3) as opened:
        opened.sendall(b"CONNECT 10.96.0.1:443 HTTP/1.1\\r\\nHost: a\\r\\nProxy-Authorization: Basic cnVuOng=\\r\\n\\r\\n")
        return b" 200 " in opened.recv(100)
def tried(way):
    kind, host, port = way
    try:
        return globals()[kind](host, port)
    except OSError:
        return False
ways = [(kind, host, port) for kind in ("tcp", "udp") for host, port in places]
ways += [("spoken", host, port) for host, port in places] + [("named", name, 0) for name in names]
with concurrent.futures.ThreadPoolExecutor(64) as pool:
    found = list(pool.map(tried, ways))
print(json.dumps({"ways": len(ways), "open": [list(way) for way, opened in zip(ways, found) if opened]}))
"""
PORTS = (
    22,
    53,
    80,
    443,
    2379,
    2380,
    5000,
    5353,
    5432,
    6443,
    7070,
    8080,
    8081,
    8082,
    8083,
    8084,
    9000,
    10250,
    10257,
    10259,
)


def test_16_no_way_out_of_a_runs_pod(
    cluster: Cluster, operator: Installation, namespace: str, records: Records, bucket: S3Settings
) -> None:
    cluster.apply(faker("confined", 100_000, delay=1, batch=100))
    cluster.until("its pod reads", lambda: records.running("confined"))
    (job,) = cluster.list("jobs", namespace, f"{LABEL_CONNECTION}=confined")
    name = job["metadata"]["name"]
    policy = cluster.get("networkpolicy", name, namespace)
    assert policy["spec"]["podSelector"]["matchLabels"][LABEL_RUN] == job["metadata"]["labels"][LABEL_RUN]
    (pod,) = cluster.list("pods", namespace, f"{LABEL_CONNECTION}=confined")
    services = [service["spec"]["clusterIP"] for service in cluster.list("services")]
    pods = [other["status"].get("podIP", "") for other in cluster.list("pods")]
    (node,) = cluster.list("nodes")
    node_ip = next(address["address"] for address in node["status"]["addresses"] if address["type"] == "InternalIP")
    registry, store = urlsplit(records.url), urlsplit(str(bucket.endpoint))
    hosts = {*services, *pods, node_ip, str(registry.hostname), pod["status"]["hostIP"]} - {"", "None"}
    places = [(host, port) for host in sorted(hosts) for port in PORTS]
    places += [(str(place.hostname), place.port or 0) for place in (registry, store)]
    names = [
        "kubernetes.default.svc",
        "example.invalid",
        f"penstock.{NAMESPACE}.svc",
        f"penstock-egress.{NAMESPACE}.svc",
    ]
    done = cluster.kubectl(
        "exec", pod["metadata"]["name"], "-n", namespace, "--", "python3", "-c", TRY, json.dumps([places, names])
    )
    found = json.loads(done.stdout)
    assert found["ways"] >= 200
    allowed = reachable(cluster)
    assert {(kind, host, port) for kind, host, port in found["open"]} == allowed, found["ways"]
    cluster.kubectl("delete", "tc", "confined", "-n", namespace)


def reachable(cluster: Cluster) -> set[tuple[str, str, int]]:
    """Return what a run's pod may reach: the run API and the gateway, by Service and by pod, and their names."""
    found = {("named", f"penstock.{NAMESPACE}.svc", 0), ("named", f"penstock-egress.{NAMESPACE}.svc", 0)}
    for service, port in (("penstock", 443), ("penstock-egress", 8082)):
        found.add(("tcp", cluster.get("service", service, NAMESPACE)["spec"]["clusterIP"], port))
    for role, port in (("serve", 8080), ("egress", 8082)):
        for pod in cluster.list("pods", NAMESPACE, f"app.kubernetes.io/component={role}"):
            found.add(("tcp", pod["status"]["podIP"], port))
    return found


def test_16_a_host_that_may_not_be_reached_is_named(
    cluster: Cluster, operator: Installation, namespace: str, records: Records
) -> None:
    secret = {**document("Secret", "nowhere", namespace), "stringData": {"username": "u", "password": "p"}}
    spec: dict[str, Any] = {
        "connector": {"name": "postgres", "method": "sql"},
        "config": {"host": "192.168.7.7", "database": "d"},
        "secretRef": {"name": "nowhere"},
    }
    cluster.apply(secret, connection("denied", **spec))
    found = cluster.condition("denied", namespace, "EgressDenied")
    message = found["status"]["lastRun"]["message"]
    assert "192.168.7.7:5432" in message
    assert "egress.privateRanges" in message
    assert [alert["kind"] for alert in records.query("SELECT kind FROM penstock.compat_alerts")] == ["EgressDenied"]


def test_16_the_controller_says_whether_policies_are_enforced(cluster: Cluster, operator: Installation) -> None:
    leader = operator.settled_leader()

    def told() -> bool:
        return "NetworkPolicies enforced" in cluster.kubectl("logs", leader, "-n", NAMESPACE).stdout

    cluster.until("the controller has tried", told)
