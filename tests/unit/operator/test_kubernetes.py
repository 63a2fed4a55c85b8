"""What the operator makes of the API server's answers, against an HTTP server that gives the odd ones."""

from __future__ import annotations

import asyncio
import json
import re
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from kubernetes.aio import client
from kubernetes.aio.client.exceptions import ApiException
from penstock_operator.controller.kubernetes_resources import KubernetesResources
from penstock_operator.controller.lease import Lease
from penstock_operator.controller.watch import watch
from penstock_operator.ids import AttemptNumber, ConnectionName, ConnectionUid, DefinitionName, Namespace, RunId
from penstock_operator.launchers import AttemptLaunch, LaunchPostponed, LaunchRefused
from penstock_operator.launchers.jobs import JobSettings
from penstock_operator.launchers.kubernetes import KubernetesLauncher
from penstock_operator.resources.documents import Connection
from penstock_operator.settings import EgressSettings
from penstock_sdk.json_types import JsonObject
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from tests.fakes.changes import FakeChangeHandler
from tests.patience import PATIENCE
from tests.unit.operator.conftest import answered, manifest, run_spec

JOBS = "/apis/batch/v1/namespaces/team/jobs"
CONNECTION = "/apis/penstock.io/v1alpha1/namespaces/team/tenantconnections/orders"
LEASE = "/apis/coordination.k8s.io/v1/namespaces/penstock/leases/penstock-operate"
MANIFEST = manifest("faker", "generate")
LAUNCH = AttemptLaunch(
    RunId("r1"),
    AttemptNumber(1),
    "orders-r1-1",
    None,
    Namespace("team"),
    ConnectionName("orders"),
    ConnectionUid("u1"),
    DefinitionName("d1"),
    "registry.example/x@sha256:0",
    run_spec(),
    "512Mi",
    MANIFEST,
)


def refusal(code: int, reason: str, **details: str) -> dict[str, Any]:
    """Return what an API server says when it refuses."""
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "status": "Failure",
        "code": code,
        "reason": reason,
        "details": details,
    }


def job(owner: str) -> dict[str, Any]:
    """Return a Job that has an owner."""
    return {"metadata": {"name": LAUNCH.job_name, "uid": "j1", "ownerReferences": [{"uid": owner}]}}


def lease(holder: str) -> dict[str, Any]:
    """Return the Lease as somebody holds it."""
    return {"metadata": {"name": "penstock-operate", "resourceVersion": "7"}, "spec": {"holderIdentity": holder}}


@pytest.fixture
def launcher(api: client.ApiClient) -> KubernetesLauncher:
    """The launcher under test."""
    return KubernetesLauncher(api, JobSettings("http://penstock"))


def made(document: dict[str, Any], uid: str, **pod: Any) -> dict[str, Any]:
    """Return the Job that the API server makes of a document: with its defaults, a selector, and labels of its own."""
    own = {"batch.kubernetes.io/controller-uid": uid, "batch.kubernetes.io/job-name": document["metadata"]["name"]}
    template = document["spec"]["template"]
    labels = {**template["metadata"]["labels"], **own}
    spec = {
        **document["spec"],
        "completionMode": "NonIndexed",
        "selector": {"matchLabels": own},
        "template": {
            "metadata": {"creationTimestamp": None, "labels": labels},
            "spec": {**template["spec"], "dnsPolicy": "ClusterFirst", **pod},
        },
    }
    return {**document, "metadata": {**document["metadata"], "uid": uid, "resourceVersion": "7"}, "spec": spec}


def exists(httpserver: HTTPServer, found: Callable[[dict[str, Any]], dict[str, Any]]) -> list[str]:
    """Have a Job of the launch's name exist: `found` makes it of the document. Return the methods of changing calls."""
    changes = list[str]()
    documents = list[dict[str, Any]]()

    def create(request: Request) -> Response:
        document = request.get_json()
        if request.args.get("dryRun") == "All":
            return answered(made(document, "rehearsed"), 201)
        documents.append(document)
        changes.append("POST")
        return answered(refusal(409, "AlreadyExists"), 409)

    def delete(request: Request) -> Response:
        assert request.get_json()["preconditions"] == {"resourceVersion": "7"}
        changes.append("DELETE")
        return answered({})

    place = f"{JOBS}/{LAUNCH.job_name}"
    httpserver.expect_request(JOBS, "POST").respond_with_handler(create)
    httpserver.expect_request(place, "GET").respond_with_handler(lambda _: answered(found(documents[-1])))
    httpserver.expect_request(place, "DELETE").respond_with_handler(delete)
    return changes


async def test_a_job_that_an_earlier_call_created_is_adopted(
    launcher: KubernetesLauncher, httpserver: HTTPServer
) -> None:
    changes = exists(httpserver, lambda document: made(document, "j1"))
    assert await launcher.launch(LAUNCH) == "j1"
    assert changes == ["POST"]


@pytest.mark.parametrize(
    "other",
    [
        {"initContainers": [{"name": "x", "image": "x"}]},
        {"containers": []},
        {"hostNetwork": True},
        {"serviceAccountName": "admin"},
        {"automountServiceAccountToken": True},
        {"volumes": []},
    ],
    ids=str,
)
async def test_a_job_that_differs_is_deleted_and_not_adopted(
    launcher: KubernetesLauncher, httpserver: HTTPServer, other: dict[str, Any]
) -> None:
    """A tenant may copy labels and owner of a Job; the Job must be the one that the launch would create."""
    changes = exists(httpserver, lambda document: made(document, "j1", **other))
    with pytest.raises(LaunchPostponed, match="it was deleted"):
        await launcher.launch(LAUNCH)
    assert changes == ["POST", "DELETE"]


@pytest.mark.parametrize(
    "metadata",
    [
        {"ownerReferences": []},
        {"ownerReferences": [{"kind": "TenantConnection", "uid": "another", "controller": True}]},
        {"ownerReferences": [{"kind": "TenantConnection", "uid": "u1", "controller": False}]},
        {"ownerReferences": [{"kind": "ConfigMap", "uid": "u1", "controller": True}]},
        {"labels": {}},
    ],
    ids=str,
)
async def test_somebody_elses_job_of_that_name_is_refused(
    launcher: KubernetesLauncher, httpserver: HTTPServer, metadata: dict[str, Any]
) -> None:
    def found(document: dict[str, Any]) -> dict[str, Any]:
        job = made(document, "j1")
        return {**job, "metadata": {**job["metadata"], **metadata}}

    changes = exists(httpserver, found)
    with pytest.raises(LaunchRefused, match="delete it"):
        await launcher.launch(LAUNCH)
    assert changes == ["POST"]


async def test_a_conflict_that_left_no_job_is_tried_again(launcher: KubernetesLauncher, httpserver: HTTPServer) -> None:
    """A namespace's quota that changed at the same moment is a conflict too."""
    httpserver.expect_request(JOBS, "POST").respond_with_json(refusal(409, "Conflict"), 409)
    httpserver.expect_request(f"{JOBS}/{LAUNCH.job_name}", "GET").respond_with_json(refusal(404, "NotFound"), 404)
    with pytest.raises(ApiException, match="409"):
        await launcher.launch(LAUNCH)


async def test_of_two_pods_of_an_attempt_the_one_that_failed_tells_why(
    launcher: KubernetesLauncher, httpserver: HTTPServer
) -> None:
    failed = {"conditions": [{"type": "Failed", "status": "True", "reason": "BackoffLimitExceeded"}]}
    refused = {"containerStatuses": [{"state": {"terminated": {"exitCode": 32}}}]}
    pods = [{"status": {"phase": "Running"}}, {"status": {"phase": "Failed", **refused}}]
    httpserver.expect_request(f"{JOBS}/{LAUNCH.job_name}").respond_with_json({**job("u1"), "status": failed})
    httpserver.expect_request("/api/v1/namespaces/team/pods").respond_with_json({"items": pods})
    observation = await launcher.observe(LAUNCH)
    assert (observation.reason, observation.exit_code, observation.disrupted) == ("AttemptLost", 32, True)


@pytest.mark.parametrize(
    ("words", "error_class", "reaction"),
    [
        (
            'jobs.batch is forbidden: User "operate" cannot create resource "jobs" in API group "batch"',
            "TransientError",
            "passing",
        ),
        ('jobs.batch "orders-r1-1" is forbidden: exceeded quota: few', "TransientError", "no_room"),
        ('jobs.batch "orders-r1-1" is forbidden: status unknown for quota: few', "TransientError", "no_room"),
        (
            'jobs.batch "orders-r1-1" is forbidden: unable to create new content in namespace team because it is being terminated',
            "TransientError",
            "passing",
        ),
        (
            "jobs.batch \"orders-r1-1\" is forbidden: ValidatingAdmissionPolicy 'p' with binding 'b' denied request: no",
            "ConfigError",
            None,
        ),
        (
            "jobs.batch \"orders-r1-1\" is forbidden: ValidatingAdmissionPolicy 'runs.penstock.io' with binding 'b' denied request: no",
            "TransientError",
            "passing",
        ),
        ('jobs.batch "orders-r1-1" is forbidden: violates PodSecurity "restricted:latest"', "ConfigError", None),
    ],
)
async def test_what_is_forbidden_for_a_while_only_is_asked_for_again(
    launcher: KubernetesLauncher, httpserver: HTTPServer, words: str, error_class: str, reaction: str | None
) -> None:
    """An API server forbids everything for a moment as it starts, and a quota what has no room now."""
    httpserver.expect_request(JOBS, "POST").respond_with_json({**refusal(403, "Forbidden"), "message": words}, 403)
    with pytest.raises(LaunchRefused) as refused:
        await launcher.launch(LAUNCH)
    assert refused.value.error_class == error_class
    assert (refused.value.passing, refused.value.no_room) == (reaction == "passing", reaction == "no_room")
    assert words in refused.value.message


async def test_an_api_server_that_cannot_answer_refuses_nothing(
    launcher: KubernetesLauncher, httpserver: HTTPServer
) -> None:
    """A webhook that is away is an internal error: the launch is asked for again, and the status has the words."""
    words = 'Internal error occurred: failed calling webhook "policy.example": connection refused'
    httpserver.expect_request(JOBS, "POST").respond_with_json({**refusal(500, "InternalError"), "message": words}, 500)
    with pytest.raises(LaunchPostponed, match="failed calling webhook"):
        await launcher.launch(LAUNCH)


EVENTS = "/api/v1/namespaces/team/events"


def warning(message: str, at: str) -> dict[str, Any]:
    """Return an event, as the Job controller or a kubelet leaves it."""
    return {"message": message, "type": "Warning", "lastTimestamp": at}


async def test_the_newest_warning_of_a_job_without_a_pod_says_why(
    launcher: KubernetesLauncher, httpserver: HTTPServer
) -> None:
    words = (
        'Error creating: pods "orders-r1-1-abcde" is forbidden: exceeded quota: small, requested: limits.memory=512Mi'
    )
    listed = [warning("older", "2026-05-01T00:00:00Z"), warning(words, "2026-05-01T00:00:09Z")]
    httpserver.expect_request(f"{JOBS}/{LAUNCH.job_name}").respond_with_json({**job("u1"), "spec": {}, "status": {}})
    httpserver.expect_request("/api/v1/namespaces/team/pods").respond_with_json({"items": []})
    query = {"fieldSelector": "involvedObject.uid=j1,type=Warning"}
    httpserver.expect_request(EVENTS, query_string=query).respond_with_json({"items": listed})
    seen = await launcher.observe(LAUNCH)
    assert (seen.state, seen.reason, seen.message, seen.final) == ("waiting", "QuotaExceeded", words, False)


async def test_without_the_right_to_read_events_the_pod_waits_all_the_same(
    launcher: KubernetesLauncher, httpserver: HTTPServer
) -> None:
    httpserver.expect_request(f"{JOBS}/{LAUNCH.job_name}").respond_with_json({**job("u1"), "spec": {}, "status": {}})
    httpserver.expect_request("/api/v1/namespaces/team/pods").respond_with_json({"items": []})
    httpserver.expect_request(EVENTS).respond_with_json(refusal(403, "Forbidden"), 403)
    for _ in range(2):
        assert (await launcher.observe(LAUNCH)).state == "waiting"
    assert [item[0].path for item in httpserver.log].count(EVENTS) == 1, "who may not read events asks once"


async def test_a_finished_job_is_deleted_with_its_pod(launcher: KubernetesLauncher, httpserver: HTTPServer) -> None:
    """A body replaces the query's options, and without one a Job leaves its pod behind: so the option is in the body."""
    options = {"propagationPolicy": "Background"}
    httpserver.expect_oneshot_request(f"{JOBS}/{LAUNCH.job_name}", "DELETE", json=options).respond_with_json({})
    await launcher.retire(LAUNCH)
    httpserver.expect_request(f"{JOBS}/{LAUNCH.job_name}", "DELETE").respond_with_json(refusal(404, "NotFound"), 404)
    await launcher.retire(LAUNCH)


POLICIES = "/apis/networking.k8s.io/v1/namespaces/team/networkpolicies"
RULES: tuple[JsonObject, ...] = (
    {"to": [{"podSelector": {"matchLabels": {"app": "gateway"}}}], "ports": [{"port": 8082}]},
)


@pytest.fixture
def confined(api: client.ApiClient) -> KubernetesLauncher:
    """A launcher whose pods reach the egress gateway alone."""
    egress = EgressSettings("http://127.0.0.1:8082", RULES, ("127.0.0.1", "localhost"))
    return KubernetesLauncher(api, JobSettings("http://127.0.0.1", egress=egress))


async def test_a_network_policy_comes_before_its_pod(confined: KubernetesLauncher, httpserver: HTTPServer) -> None:
    httpserver.expect_ordered_request(POLICIES, "POST").respond_with_json({})
    httpserver.expect_ordered_request(JOBS, "POST").respond_with_json(job("u1"), 201)
    assert await confined.launch(LAUNCH) == "j1"
    policy, made = (json.loads(request.data) for request, _ in httpserver.log)
    labels = made["spec"]["template"]["metadata"]["labels"]
    assert policy["metadata"]["name"] == made["metadata"]["name"]
    assert policy["spec"]["podSelector"]["matchLabels"].items() <= labels.items()
    assert policy["spec"]["egress"] == list(RULES)
    assert policy["spec"]["policyTypes"] == ["Ingress", "Egress"]
    assert "ingress" not in policy["spec"], "nothing reaches the pod"
    pod = made["spec"]["template"]["spec"]
    assert (pod["dnsPolicy"], pod["dnsConfig"]) == ("None", {"nameservers": ["127.0.0.1"]})
    assert [alias["hostnames"] for alias in pod["hostAliases"]] == [["localhost"]]


async def test_a_network_policy_that_is_there_is_replaced(confined: KubernetesLauncher, httpserver: HTTPServer) -> None:
    """Somebody else may have made it, with rules of their own."""
    httpserver.expect_ordered_request(POLICIES, "POST").respond_with_json(refusal(409, "AlreadyExists"), 409)
    httpserver.expect_ordered_request(f"{POLICIES}/{LAUNCH.job_name}", "PUT").respond_with_json({})
    httpserver.expect_ordered_request(JOBS, "POST").respond_with_json(job("u1"), 201)
    await confined.launch(LAUNCH)
    assert json.loads(httpserver.log[1][0].data)["spec"]["egress"] == list(RULES)


async def test_a_conflict_without_a_network_policy_postpones_the_launch(
    confined: KubernetesLauncher, httpserver: HTTPServer
) -> None:
    """The conflict was that of a quota, or the policy was deleted in between: a failed run would help nobody."""
    httpserver.expect_ordered_request(POLICIES, "POST").respond_with_json(refusal(409, "Conflict"), 409)
    httpserver.expect_ordered_request(f"{POLICIES}/{LAUNCH.job_name}", "PUT").respond_with_json(
        refusal(404, "NotFound"), 404
    )
    with pytest.raises(LaunchPostponed, match="NetworkPolicy"):
        await confined.launch(LAUNCH)


async def test_no_pod_is_made_without_its_network_policy(confined: KubernetesLauncher, httpserver: HTTPServer) -> None:
    httpserver.expect_request(POLICIES, "POST").respond_with_json(refusal(500, "InternalError"), 500)
    with pytest.raises(LaunchPostponed, match="NetworkPolicy"):
        await confined.launch(LAUNCH)


async def test_a_network_policy_goes_once_its_pod_is_gone(confined: KubernetesLauncher, httpserver: HTTPServer) -> None:
    def made(run: str, created: str, **rest: Any) -> dict[str, Any]:
        labels = {"penstock.io/run": run, "penstock.io/attempt": "1"}
        metadata = {"name": run, "namespace": "team", "labels": labels, "resourceVersion": "7"}
        return {"metadata": {**metadata, "creationTimestamp": created}, **rest}

    old, new = "2026-01-01T00:00:00Z", datetime.now(UTC).isoformat()
    policies = [made("has-job", old), made("has-pod", old), made("new", new), made("unused", old)]
    lists = {
        "/apis/batch/v1/jobs": [made("has-job", old, status={})],
        "/apis/networking.k8s.io/v1/networkpolicies": policies,
        "/api/v1/pods": [made("has-pod", old)],
    }
    for path, items in lists.items():
        httpserver.expect_request(path).respond_with_json({"metadata": {}, "items": items})
    options = {"propagationPolicy": "Background", "preconditions": {"resourceVersion": "7"}}
    httpserver.expect_oneshot_request(f"{POLICIES}/unused", "DELETE", json=options).respond_with_json({})
    assert [len(page) async for page in confined.leftovers()] == [1]
    assert [request.path for request, _ in httpserver.log if request.method == "DELETE"] == [f"{POLICIES}/unused"]


async def test_a_resource_that_the_api_server_does_not_know_is_gone(
    api: client.ApiClient, httpserver: HTTPServer
) -> None:
    answer = refusal(404, "NotFound", name="orders", group="penstock.io", kind="tenantconnections")
    httpserver.expect_request(CONNECTION).respond_with_json(answer, 404)
    assert await KubernetesResources(api).get(Connection, "team", "orders") is None


@pytest.mark.parametrize(
    "body", ["404 page not found", '{"kind": "Status", "reason": "NotFound", "details": {}}', "[]"]
)
async def test_an_api_server_that_does_not_know_the_kind_tells_nothing_of_a_resource(
    api: client.ApiClient, httpserver: HTTPServer, body: str
) -> None:
    """It may be starting, or something else answers in its place: to take the resource as deleted would cancel its runs."""
    httpserver.expect_request(CONNECTION).respond_with_data(body, 404)
    with pytest.raises(ApiException, match="404"):
        await KubernetesResources(api).get(Connection, "team", "orders")


async def test_a_watch_that_an_error_ends_begins_anew(
    httpserver: HTTPServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    named = {"name": "x", "context": {"cluster": "x", "user": "x"}}
    users = [{"name": "x", "user": {"token": "t"}}]
    clusters = [{"name": "x", "cluster": {"server": httpserver.url_for("").rstrip("/")}}]
    config = {"current-context": "x", "contexts": [named], "users": users, "clusters": clusters}
    (tmp_path / "config").write_text(json.dumps(config))
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "config"))
    asked, again, stop = list[str](), asyncio.Event(), asyncio.Event()
    call = asyncio.get_running_loop().call_soon_threadsafe

    def fail(request: Request) -> Response:
        asked.append(request.path)
        if asked.count("/apis") == 2:
            call(again.set)
        return answered(refusal(415, "UnsupportedMediaType"), 415)

    httpserver.expect_request(re.compile(".*")).respond_with_handler(fail)
    watching = asyncio.create_task(watch(FakeChangeHandler(), stop))
    await asyncio.wait_for(again.wait(), PATIENCE)
    assert not watching.done()
    stop.set()
    await asyncio.wait_for(watching, PATIENCE)


async def test_a_lease_whose_renewal_conflicts_is_renewed_at_the_next_try(
    api: client.ApiClient, httpserver: HTTPServer
) -> None:
    """A renewal that was carried out late, after it was given up, is our own."""
    elections = Lease(api, "penstock", seconds=3)
    identity = elections.identity
    httpserver.expect_request(LEASE, "GET").respond_with_json(lease(identity))
    httpserver.expect_oneshot_request(LEASE, "PUT").respond_with_json(refusal(409, "Conflict"), 409)
    renewed = asyncio.Event()
    asked = asyncio.get_running_loop().call_soon_threadsafe

    def renew(_: Request) -> Response:
        asked(renewed.set)
        return answered(lease(identity))

    httpserver.expect_request(LEASE, "PUT").respond_with_handler(renew)
    keeping = asyncio.create_task(elections.keep())
    await asyncio.wait_for(renewed.wait(), PATIENCE)
    assert not keeping.done()
    keeping.cancel()


async def test_a_lease_that_another_holds_is_lost(api: client.ApiClient, httpserver: HTTPServer) -> None:
    httpserver.expect_request(LEASE, "GET").respond_with_json(lease("another"))
    await asyncio.wait_for(Lease(api, "penstock", seconds=3).keep(), PATIENCE)


async def test_leading_ends_before_the_lease_does_whatever_the_api_server_takes(
    api: client.ApiClient, httpserver: HTTPServer
) -> None:
    """An answer that hangs is not waited for: `keep` returns while the API server still has not answered."""
    over, asked = threading.Event(), threading.Event()

    def hang(_: Request) -> Response:
        asked.set()
        over.wait(PATIENCE)
        return answered(refusal(503, "ServiceUnavailable"), 503)

    httpserver.expect_request(LEASE).respond_with_handler(hang)
    await asyncio.wait_for(Lease(api, "penstock", seconds=3).keep(), PATIENCE)
    assert asked.is_set()
    over.set()


async def test_a_lease_is_given_back_at_the_second_try(api: client.ApiClient, httpserver: HTTPServer) -> None:
    elections = Lease(api, "penstock", seconds=30)
    httpserver.expect_request(LEASE, "GET").respond_with_json(lease(elections.identity))
    httpserver.expect_oneshot_request(LEASE, "PUT").respond_with_json(refusal(429, "TooManyRequests"), 429)
    given = list[Any]()

    def give(request: Request) -> Response:
        given.append(request.get_json()["spec"]["holderIdentity"])
        return answered(lease(""))

    httpserver.expect_request(LEASE, "PUT").respond_with_handler(give)
    await elections.release()
    assert given == [""]


async def test_a_lease_that_cannot_be_given_back_expires_by_itself(
    api: client.ApiClient, httpserver: HTTPServer
) -> None:
    httpserver.expect_request(LEASE).respond_with_json(refusal(503, "ServiceUnavailable"), 503)
    await Lease(api, "penstock", seconds=3).release()
    assert httpserver.log
