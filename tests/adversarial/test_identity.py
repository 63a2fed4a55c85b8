"""Who may start an attempt in a cluster: the pod of its own Job, and no pod that a tenant has made.

The API server is played. What it answers is what it would answer to the attack: a tenant can write every field of a pod or a
Job in a namespace of its own, but not its uid, nor what a token says.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from typing import Any

import httpx
import pytest
from kubernetes.aio.client import ApiClient, Configuration
from penstock_operator.api.token_review import KubernetesAuthenticator
from penstock_operator.bronze.store import BronzeStore
from penstock_operator.connections import connection_records
from penstock_operator.connections.connection_records import ConnectionRecord
from penstock_operator.launchers.jobs import LABEL_ATTEMPT, LABEL_RUN
from penstock_operator.registry.database import Pool
from penstock_operator.resources.models import ConnectionSpec
from penstock_operator.runs import attempt_store
from penstock_sdk import protocol as wire
from pytest_httpserver import HTTPServer

from tests.adversarial.attacks import Attack, StartAttack
from tests.fakes.api_server import FakeApiServer, FakeToken
from tests.integration.test_api import client
from tests.integration.world import IDENTITY, World, new_world
from tests.run_api.pods import START_KEY

JOB_UID = "job-uid"


def reference(name: str, uid: str, kind: str = "Job", **other: Any) -> dict[str, Any]:
    """Return an ownerReference."""
    api = "batch/v1" if kind == "Job" else "penstock.io/v1alpha1"
    return {"apiVersion": api, "kind": kind, "name": name, "uid": uid, "controller": True, **other}


@dataclass
class Cluster:
    """A cluster in which run1's first attempt of team/orders has its Job and its pod; and the server."""

    world: World
    api: FakeApiServer
    http: httpx.AsyncClient
    job: str
    run: str = "run1"

    def put_job(self, namespace: str = "team", name: str = "", uid: str = JOB_UID, **other: Any) -> None:
        """Create a Job as the controller does, with some fields of its metadata changed."""
        labels = {LABEL_RUN: self.run, LABEL_ATTEMPT: "1"}
        owners = [reference("orders", "c1", "TenantConnection")]
        metadata = {"labels": labels, "ownerReferences": owners, **other}
        self.api.put(namespace, "jobs", name or self.job, uid=uid, metadata=metadata)

    def put_pod(self, namespace: str = "team", name: str = "pod", uid: str = "pod-uid", **other: Any) -> str:
        """Create a pod with the ownerReference of the Job, and return its token."""
        metadata = {"ownerReferences": [reference(self.job, JOB_UID)], **other}
        self.api.put(namespace, "pods", name, uid=uid, metadata=metadata)
        token = f"token-of-{namespace}-{name}-{uid}"
        self.api.tokens[token] = FakeToken(namespace, name, uid)
        return token

    async def start(self, token: str, **other: Any) -> int:
        """Start the attempt, and return the status of the answer."""
        request = wire.StartRequest(run=self.run, attempt=1, connector=IDENTITY, sdk_version="0", key=START_KEY)
        headers = {"Authorization": f"Bearer {token}"}
        answer = await self.http.post("/v1/attempts/start", json={**request.model_dump(), **other}, headers=headers)
        assert answer.status_code < 500, answer.text
        return answer.status_code

    async def attempt(self, tries: Attack, token: str, detail: object = "", **other: Any) -> None:
        """Try to start with a token that gives no right to it."""
        tries.record(succeeded=await self.start(token, **other) == 200, detail=detail or token)


@pytest.fixture
async def cluster(pool: Pool, store: BronzeStore, httpserver: HTTPServer) -> AsyncIterator[Cluster]:
    world = await new_world(pool, store)
    spec = ConnectionSpec.parse(world.spec)
    async with pool.connection() as db:
        record = ConnectionRecord("c1", "team", "orders", 1, spec, "d1", ready=True, namespace_uid="team-uid")
        await connection_records.upsert_connection(db, record)
    await world.new_run()
    await world.claim(JOB_UID)
    async with pool.connection() as db:
        launch = await attempt_store.attempt_to_launch(db, "run1", 1)
    assert launch is not None
    api = FakeApiServer()
    for namespace in ("team", "tenant-b"):
        api.put(namespace, uid=f"{namespace}-uid")
    host = api.serve(httpserver)
    async with (
        ApiClient(Configuration(host=host)) as kubernetes,
        client(pool, store, KubernetesAuthenticator(kubernetes), None) as http,
    ):
        made = Cluster(world, api, http, launch.job_name)
        made.put_job()
        yield made


async def test_the_pod_of_the_job_starts(cluster: Cluster) -> None:
    assert await cluster.start(cluster.put_pod()) == 200


async def test_a_pod_elsewhere_with_a_copied_owner(cluster: Cluster, attack: StartAttack) -> None:
    with attack("start with a pod of another namespace", actor="tenant editor", invariant=2) as tries:
        await cluster.attempt(tries, cluster.put_pod("tenant-b"), "the Job does not exist there")
        cluster.put_job("tenant-b", uid="their-job")
        await cluster.attempt(tries, cluster.put_pod("tenant-b"), "their Job has another uid")
        for uid in ("their-job", JOB_UID):  # the second one as if a uid could be chosen
            owner = reference(cluster.job, uid)
            cluster.put_job("tenant-b", uid=uid)
            token = cluster.put_pod("tenant-b", ownerReferences=[owner])
            await cluster.attempt(tries, token, f"their Job with the uid {uid}")
    assert await cluster.start(cluster.put_pod()) == 200


async def test_a_namespace_that_was_made_again(cluster: Cluster, attack: StartAttack) -> None:
    with attack("start from a later namespace of the same name", actor="tenant editor", invariant=2) as tries:
        cluster.api.put("team", uid="another-uid")
        await cluster.attempt(tries, cluster.put_pod())
    with attack("start from a namespace that is gone", actor="tenant editor", invariant=2) as tries:
        del cluster.api.objects["team",]
        await cluster.attempt(tries, cluster.put_pod())


async def test_another_job(cluster: Cluster, attack: StartAttack) -> None:
    theirs = reference("theirs", "their-job")
    with attack("start with the pod of another Job", actor="tenant editor", invariant=2) as tries:
        cluster.put_job(name="theirs", uid="their-job")
        await cluster.attempt(tries, cluster.put_pod(ownerReferences=[theirs]), "its own Job")
        await cluster.attempt(tries, cluster.put_pod(ownerReferences=[{**theirs, "uid": JOB_UID}]), "a Job's uid")
        await cluster.attempt(tries, cluster.put_pod(ownerReferences=[{**theirs, "name": cluster.job}]), "a Job's name")
        both = [theirs, reference(cluster.job, JOB_UID, controller=False)]
        await cluster.attempt(tries, cluster.put_pod(ownerReferences=both), "an owner that does not control it")
        await cluster.attempt(tries, cluster.put_pod(ownerReferences=[]), "no owner")
        foreign = reference(cluster.job, JOB_UID, apiVersion="example.com/v1")
        await cluster.attempt(tries, cluster.put_pod(ownerReferences=[foreign]), "a Job of another API")
    with attack("start with a Job that was made before the controller's", actor="tenant editor", invariant=2) as tries:
        cluster.put_job(uid="made-before")
        await cluster.attempt(tries, cluster.put_pod(), "the recorded Job is not there any more")
        token = cluster.put_pod(ownerReferences=[reference(cluster.job, "made-before")])
        await cluster.attempt(tries, token, "a pod of that Job")
    with attack("start with a Job whose labels or owner were changed", actor="tenant editor", invariant=2) as tries:
        connection = reference("orders", "c1", "TenantConnection")
        for changed in (
            {"labels": {}},
            {"labels": {LABEL_RUN: "run2", LABEL_ATTEMPT: "1"}},
            {"labels": {LABEL_RUN: "run1", LABEL_ATTEMPT: "2"}},
            {"labels": {LABEL_RUN: "run1", LABEL_ATTEMPT: "x"}},
            {"ownerReferences": []},
            {"ownerReferences": [{**connection, "uid": "c2"}]},
            {"ownerReferences": [{**connection, "controller": False}]},
            {"ownerReferences": [{**connection, "apiVersion": "example.com/v1"}]},
        ):
            cluster.put_job(**changed)
            await cluster.attempt(tries, cluster.put_pod(), changed)


async def test_another_run_or_attempt(cluster: Cluster, attack: StartAttack) -> None:
    await cluster.world.new_connection("c2")
    await cluster.world.new_run("run2", "c2")
    await cluster.world.claim("job-of-run2")
    token = cluster.put_pod()
    with attack("start another run, or another attempt", actor="hostile image", invariant=2) as tries:
        for other in ({"run": "run2"}, {"attempt": 2}, {"run": "run3"}, {"run": "run2", "attempt": 2}):
            await cluster.attempt(tries, token, other, **other)
    assert await cluster.start(token) == 200


async def test_other_tokens(cluster: Cluster, attack: StartAttack) -> None:
    token = cluster.put_pod()
    good = cluster.api.tokens[token]
    with attack("start with a token that is not of this pod and audience", actor="tenant editor", invariant=7) as tries:
        for number, other in enumerate(
            (
                replace(good, audiences=("https://kubernetes.default.svc",)),
                replace(good, audiences=("penstock-admin", "penstock ")),
                replace(good, audiences=("vault",), knows_audiences=False),
                replace(good, pod_uid="another-uid"),
                replace(good, pod_uid=""),
                replace(good, pod="another-pod"),
                replace(good, pod=""),
                replace(good, username="system:serviceaccount:tenant-b:default"),
                replace(good, username="somebody:else:team:default"),
                replace(good, username="system:serviceaccount:team"),
                replace(good, username="system:serviceaccount:team:default:x"),
                replace(good, username="system:node:team"),
            )
        ):
            cluster.api.tokens[f"other-{number}"] = other
            await cluster.attempt(tries, f"other-{number}", other)
        await cluster.attempt(tries, "unknown")
    with attack("start with a pod that was made again under its name", actor="tenant editor", invariant=2) as tries:
        cluster.put_pod(uid="later-uid")
        await cluster.attempt(tries, token, "the token of the earlier pod")
