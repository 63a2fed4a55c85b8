"""The release speaks TLS with certificates of its own, and replaces its CA while runs go on."""

from __future__ import annotations

import json

from penstock_operator.launchers.jobs import LABEL_CONNECTION

from tests.cluster.installation import NAMESPACE, Installation
from tests.cluster.kubernetes import Cluster
from tests.cluster.runs import Records, faker

# Runs in the pod of a run: what a neighbour without the CA gets from a server.
NEIGHBOUR = """
import json, os, socket, ssl, sys
address = (sys.argv[1], int(sys.argv[2]))
def plain():
    with socket.create_connection(address, 10) as opened:
        opened.sendall(b"GET /healthz HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n")
        return b"HTTP" in opened.recv(100)
def secured(context):
    with socket.create_connection(address, 10) as opened:
        with context.wrap_socket(opened, server_hostname=sys.argv[1]):
            return True
def old():
    context = ssl._create_unverified_context()
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    return secured(context)
def platform():
    context = ssl.create_default_context()
    context.load_verify_locations(cadata=os.environ["PENSTOCK_CA_CERTIFICATES"])
    return secured(context)
def tried(way):
    try:
        return way()
    except OSError:
        return False
ways = {"plain": plain, "system CAs": lambda: secured(ssl.create_default_context()), "TLS 1.1": old, "the platform's CA": platform}
print(json.dumps({name: tried(way) for name, way in ways.items()}))
"""


def certificates(operator: Installation, *arguments: str) -> None:
    """Run the command of the release's CronJob with more arguments, with the rights of its account."""
    cluster = operator.cluster
    job = cluster.get("cronjob", "penstock-certificates", NAMESPACE)["spec"]["jobTemplate"]
    name = f"certificates-{len(cluster.list('jobs', NAMESPACE))}"
    job["spec"]["template"]["spec"]["containers"][0]["args"] += arguments
    metadata = {"name": name, "namespace": NAMESPACE}
    cluster.apply({"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": job["spec"]})
    cluster.until("the certificates are made", lambda: cluster.get("job", name, NAMESPACE)["status"].get("succeeded"))


def test_a_neighbour_without_the_ca_gets_no_answer(
    cluster: Cluster, operator: Installation, namespace: str, records: Records
) -> None:
    cluster.apply(faker("neighbour", 100_000, delay=1, batch=100))
    cluster.until("its pod reads", lambda: records.running("neighbour"))
    (pod,) = cluster.list("pods", namespace, f"{LABEL_CONNECTION}=neighbour")
    for host, port in ((f"penstock.{NAMESPACE}.svc", "443"), (f"penstock-egress.{NAMESPACE}.svc", "8082")):
        command = ("exec", pod["metadata"]["name"], "-n", namespace, "--", "python3", "-c", NEIGHBOUR, host, port)
        found = json.loads(cluster.kubectl(*command).stdout)
        assert found == {"plain": False, "system CAs": False, "TLS 1.1": False, "the platform's CA": True}, host
    cluster.kubectl("delete", "tc", "neighbour", "-n", namespace)


def test_the_ca_is_replaced_while_a_run_goes_on(
    cluster: Cluster, operator: Installation, namespace: str, records: Records
) -> None:
    before = operator.certificates()
    certificates(operator, "--rotate")
    both = operator.certificates()
    assert both["ca.crt"].startswith(before["ca.crt"])
    assert both["tls.crt"] == before["tls.crt"]

    def pod_trusts_both(name: str) -> bool:
        pods = cluster.list("pods", namespace, f"{LABEL_CONNECTION}={name}")
        texts = [variable.get("value", "") for pod in pods for variable in pod["spec"]["containers"][0].get("env", [])]
        return both["ca.crt"] in texts

    def controller_trusts_both() -> bool:
        return mounted(operator, operator.leader(), "ca.crt") == both["ca.crt"]

    cluster.until("the controller has the new bundle", controller_trusts_both)
    cluster.apply(faker("ca-replaced", 60_000, delay=1, batch=500))
    cluster.until("it commits", lambda: records.committing("ca-replaced"))
    assert pod_trusts_both("ca-replaced")
    certificates(operator, "--overlap-days=0")
    signed = operator.certificates()
    assert signed["tls.crt"] != both["tls.crt"]
    assert signed["ca.key"] != both["ca.key"]
    cluster.until(
        "each server has the new certificate",
        lambda: all(
            mounted(operator, pod["metadata"]["name"], "tls.crt") == signed["tls.crt"] for pod in operator.pods("serve")
        ),
    )
    (run,) = records.ended("ca-replaced")
    assert (run["phase"], run["attempt"]) == ("succeeded", 1)
    records.whole("ca-replaced", 60_000)


def mounted(operator: Installation, pod: str, name: str) -> str:
    """Return a file of certificates as a pod of the release has it."""
    return operator.cluster.kubectl("exec", pod, "-n", NAMESPACE, "--", "cat", f"/etc/penstock/tls/{name}").stdout
