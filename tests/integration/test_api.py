"""The read API, as a tool that speaks HTTP sees it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from kubernetes.aio.client import ApiClient, Configuration
from penstock_operator import alerts, definitions
from penstock_operator.api.app import create_app
from penstock_operator.api.authentication import Authenticator
from penstock_operator.api.services import Services
from penstock_operator.api.token_review import KubernetesAuthenticator
from penstock_operator.bronze.store import BronzeStore
from penstock_operator.connections import connection_records
from penstock_operator.connections.connection_records import ConnectionRecord, Timing
from penstock_operator.embedded.private_files import free_port
from penstock_operator.logs.reader import RunLogs
from penstock_operator.registry.database import Pool
from penstock_operator.resources.models import ConnectionSpec, DefinitionSpec
from penstock_operator.resources.schedules import UTC_ZONE, CronSchedule
from penstock_operator.runs.protocol import RunProtocol
from penstock_operator.scheduling import fairness
from pytest_httpserver import HTTPServer

from tests.fakes.authenticator import FakeAuthenticator, Person
from tests.fakes.logs import FakeLogs
from tests.integration.world import MANIFEST

SPEC = {"connector": {"name": "faker", "method": "generate"}, "streams": []}
WINDOWS = {**MANIFEST, "capabilities": {**MANIFEST["capabilities"], "windows": True}}


NO_DIRECTORY = Path("/nonexistent")


@dataclass
class Api:
    """Two ways to call the same registry."""

    owner: httpx.AsyncClient
    tenant: httpx.AsyncClient
    anybody: httpx.AsyncClient


def client(pool: Pool, store: BronzeStore, authenticator: Authenticator, token: str | None) -> httpx.AsyncClient:
    logs = RunLogs(pool, FakeLogs(NO_DIRECTORY), store)
    app = create_app(Services(RunProtocol(pool, store), pool, authenticator, logs))
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://penstock", headers=headers)


@pytest.fixture
async def api(pool: Pool, store: BronzeStore) -> AsyncIterator[Api]:
    async with pool.connection() as db:
        spec = {"image": "i@sha256:0", "stage": "certified", "manifest": WINDOWS}
        await definitions.upsert_definition(db, "d1", "faker-generate-0.1.0", 1, DefinitionSpec.model_validate(spec))
        for uid, namespace, ready in (("c1", "team", True), ("c2", "other", True), ("c3", "team-broken", False)):
            record = ConnectionRecord(uid, namespace, "orders", 1, ConnectionSpec.parse(SPEC), "d1", ready=ready)
            await connection_records.upsert_connection(db, record)
    people = {"owner-token": Person("owner"), "tenant-token": Person("tenant", reads="team")}
    authenticator = FakeAuthenticator(people=people)
    async with (
        client(pool, store, authenticator, "owner-token") as owner,
        client(pool, store, authenticator, "tenant-token") as tenant,
        client(pool, store, authenticator, None) as anybody,
    ):
        yield Api(owner, tenant, anybody)


async def get(caller: httpx.AsyncClient, path: str) -> Any:
    answer = await caller.get(path)
    assert answer.status_code == 200, answer.text
    return answer.json()


@pytest.mark.parametrize("answers", ["with 503", "not at all"])
async def test_a_call_is_to_be_repeated_while_the_api_server_is_away(
    pool: Pool, store: BronzeStore, httpserver: HTTPServer, answers: str
) -> None:
    httpserver.expect_request("/apis/authentication.k8s.io/v1/tokenreviews").respond_with_data("starting", 503)
    host = httpserver.url_for("").rstrip("/") if answers == "with 503" else f"http://127.0.0.1:{free_port('127.0.0.1')}"
    async with (
        ApiClient(Configuration(host=host)) as kubernetes,
        client(pool, store, KubernetesAuthenticator(kubernetes), "a token") as caller,
    ):
        answer = await caller.get("/v1/connections")
    assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")


async def test_openapi_names_every_call_and_its_refusals(api: Api) -> None:
    document = await get(api.anybody, "/openapi.json")
    assert {
        "/v1/attempts/start",
        "/v1/attempts/checkpoints",
        "/v1/definitions",
        "/v1/connections",
        "/v1/connections/{namespace}/{name}/streams",
        "/v1/alerts",
        "/v1/alerts/{alert}/acknowledge",
        "/v1/attempts/estimate",
        "/v1/objects",
        "/v1/runs",
        "/v1/runs/{run_id}",
        "/v1/runs/{run_id}/logs",
        "/v1/runs/{run_id}/cancel",
        "/v1/runs/backfill",
        "/v1/runs/reread",
    } <= set(document["paths"])
    assert "ApiError" in document["components"]["schemas"]
    assert "403" in document["paths"]["/v1/attempts/checkpoints"]["post"]["responses"]


@pytest.mark.parametrize("path", ["/v1/definitions", "/v1/connections", "/v1/alerts", "/v1/objects", "/v1/runs"])
async def test_nobody_reads_without_a_token(api: Api, path: str) -> None:
    assert (await api.anybody.get(path)).status_code == 401
    assert (await api.anybody.get(path, headers={"Authorization": "Bearer wrong"})).status_code == 401


async def test_a_tenant_reads_its_own_namespace_and_no_other(api: Api) -> None:
    found = await get(api.tenant, "/v1/connections?namespace=team")
    assert [(item["namespace"], item["definition"]) for item in found] == [("team", "faker-generate-0.1.0")]
    for path in ("/v1/connections", "/v1/connections?namespace=other", "/v1/connections/other/orders/streams"):
        answer = await api.tenant.get(path)
        assert answer.status_code == 403
        assert "tenant may not" in answer.json()["message"]
    assert [item["name"] for item in await get(api.tenant, "/v1/definitions")] == ["faker-generate-0.1.0"]
    refused = await api.tenant.post("/v1/runs", json={"namespace": "team", "name": "orders"})
    assert refused.status_code == 403, "reading is not starting"


async def test_a_run_is_started_read_and_cancelled(api: Api) -> None:
    started = (await api.owner.post("/v1/runs", json={"namespace": "team", "name": "orders"})).json()
    again = await api.owner.post("/v1/runs", json={"namespace": "team", "name": "orders"})
    assert again.status_code == 422
    assert "under way" in again.json()["message"]
    shown = await get(api.tenant, f"/v1/runs/{started['id']}")
    assert (shown["phase"], shown["trigger"], shown["attempts"]) == ("pending", "request", [])
    cancelled = await api.owner.post(f"/v1/runs/{started['id']}/cancel")
    assert cancelled.json() == {"phase": "cancelled"}
    assert (await get(api.owner, "/v1/runs"))[0]["phase"] == "cancelled"


async def test_a_run_of_another_namespace_tells_a_tenant_nothing(api: Api) -> None:
    started = (await api.owner.post("/v1/runs", json={"namespace": "other", "name": "orders"})).json()
    for path in (f"/v1/runs/{started['id']}", f"/v1/runs/{started['id']}/logs"):
        assert (await api.tenant.get(path)).status_code == 403


async def test_a_refusal_names_what_is_wrong(api: Api) -> None:
    missing = await api.owner.get("/v1/runs/nope")
    assert (missing.status_code, missing.json()["message"]) == (404, "there is no run nope")
    unknown = await api.owner.post("/v1/runs", json={"namespace": "team", "name": "nope"})
    assert unknown.json()["message"] == "there is no connection team/nope"
    invalid = await api.owner.post("/v1/runs", json={"namespace": "team-broken", "name": "orders"})
    assert "Stalled condition" in invalid.json()["message"]
    assert (await api.owner.get("/v1/runs?limit=0")).status_code == 422


async def test_no_answer_shows_a_run_token(api: Api, pool: Pool) -> None:
    started = (await api.owner.post("/v1/runs", json={"namespace": "team", "name": "orders"})).json()
    async with pool.connection() as db:
        await fairness.claim_runs(db, datetime.now(UTC) + timedelta(hours=1), 1)
    shown = await get(api.owner, f"/v1/runs/{started['id']}")
    assert "token_sha256" not in shown["attempts"][0]


async def test_a_window_is_filled_by_whoever_may_change_the_connection(api: Api, pool: Pool) -> None:
    async with pool.connection() as db:
        await connection_records.set_timing(db, "c1", Timing(CronSchedule("@daily"), UTC_ZONE))
    body = {"namespace": "team", "name": "orders", "from": "2026-01-01T00:00:00Z", "to": "2026-01-03T00:00:00Z"}
    assert (await api.tenant.post("/v1/runs/backfill", json=body)).status_code == 403
    filled = (await api.owner.post("/v1/runs/backfill", json=body)).json()
    assert [run["scheduled_at"] for run in filled] == ["2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"]
    assert (await api.owner.post("/v1/runs/backfill", json=body)).json() == []
    refused = await api.owner.post("/v1/runs/backfill", json={**body, "from": "2026-01-01T00:00:00"})
    assert refused.status_code == 422
    assert "timezone" in refused.text
    listed = await get(api.owner, "/v1/runs?namespace=team")
    assert {row["trigger"] for row in listed} == {"backfill"}


async def test_a_window_is_read_again_by_whoever_may_change_the_connection(api: Api) -> None:
    body = {"namespace": "team", "name": "orders", "from": "2026-01-01T00:00:00Z", "to": "2026-01-03T00:00:00Z"}
    assert (await api.tenant.post("/v1/runs/reread", json=body)).status_code == 403
    made = (await api.owner.post("/v1/runs/reread", json=body)).json()
    shown = await get(api.owner, f"/v1/runs/{made['id']}")
    assert (shown["trigger"], shown["phase"]) == ("backfill", "pending")
    again = await api.owner.post("/v1/runs/reread", json=body)
    assert (again.status_code, made["id"] in again.json()["message"]) == (422, True)


async def test_an_alert_is_acknowledged_by_who_may_change_the_connection_once(api: Api, pool: Pool) -> None:
    async with pool.connection() as db:
        told = [alerts.NewAlert("people", "FieldRemoved", "city", "field 'city' is gone", 1)]
        await alerts.open_alerts(db, "c1", "r1", told)
        await alerts.open_alerts(db, "c2", "r2", told)
    (mine,) = await get(api.tenant, "/v1/alerts?namespace=team")
    path = f"/v1/alerts/{mine['id']}/acknowledge"
    assert (await api.anybody.post(path, json={})).status_code == 401
    assert (await api.tenant.post(path, json={})).status_code == 403
    answer = await api.owner.post(path, json={"note": "agreed"})
    assert (answer.json()["note"], bool(answer.json()["acknowledged_by"])) == ("agreed", True)
    again = await api.owner.post(path, json={})
    assert (again.status_code, "resolved already" in again.text) == (422, True)
    assert (await api.owner.post("/v1/alerts/999/acknowledge", json={})).status_code == 404
    assert [item["namespace"] for item in await get(api.owner, "/v1/alerts")] == ["other"]
    assert [item["namespace"] for item in await get(api.owner, "/v1/alerts?resolved=true")] == ["team"]
