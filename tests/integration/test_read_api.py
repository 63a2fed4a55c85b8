"""The read API over a registry with a history: pages of every listing, and nothing that a tenant may not see."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from penstock_operator.api import models, queries
from penstock_operator.api.app import create_app
from penstock_operator.api.authentication import EmbeddedAuthenticator
from penstock_operator.api.services import Services
from penstock_operator.bronze.store import BronzeStore
from penstock_operator.launchers.logs import FileLogs
from penstock_operator.logs.reader import RunLogs
from penstock_operator.registry.database import Pool
from penstock_operator.runs.protocol import RunProtocol

from tests.integration.world import MANIFEST

HIDDEN = re.compile(
    r"operator_message|(job|pod)_?uid|token_sha256|sha256|.*hash.*|.*digest.*|.*fingerprint.*|ciphertext"
)
"""Names of fields that no answer has."""
SENTINEL = "hidden-from-tenants"
"""The value of every such column in the registry."""
MANIFEST_WITH_WINDOWS = {**MANIFEST, "capabilities": {**MANIFEST["capabilities"], "windows": True}}
WINDOWS = json.dumps(MANIFEST_WITH_WINDOWS).replace("'", "''")
HISTORY = f"""
INSERT INTO penstock.connector_definitions (uid, name, connector, method, version, image, stage, manifest, generation)
SELECT 'd' || n, 'faker-generate-0.1.' || n, 'faker', 'generate', '0.1.' || n, 'i', 'certified',
    '{WINDOWS}', 1 FROM generate_series(1, 3) n;
INSERT INTO penstock.tenant_connections (uid, namespace, name, generation, spec, definition_uid, ready, suspended,
    schedule, time_zone)
SELECT 'c' || n, 'team', 'connection-' || n, 1, '{{"streams": [{{"name": "stream-1", "mode": "incremental"}}]}}', 'd1',
    true, false, '@hourly', 'Etc/UTC' FROM generate_series(1, 3) n;
INSERT INTO penstock.connector_runs (id, connection_uid, definition_uid, spec, trigger, token, phase, attempt,
    operator_message)
SELECT 'run' || n, 'c1', 'd1', '{{}}', 'request', 't' || n, 'succeeded', 1, '{SENTINEL}' FROM generate_series(1, 3) n;
INSERT INTO penstock.run_attempts (run_id, attempt, job_name, job_uid, pod_uid, token_sha256, finished_at, phase, streams,
    operator_message)
SELECT id, 1, 'job-' || id, '{SENTINEL}', '{SENTINEL}', ('{SENTINEL}' || id)::bytea, now(), 'succeeded', '["stream-1"]',
    '{SENTINEL}' FROM penstock.connector_runs;
INSERT INTO penstock.run_streams (run_id, stream, attempt, outcome, operator_message)
SELECT id, 'stream-1', 1, 'succeeded', '{SENTINEL}' FROM penstock.connector_runs;
INSERT INTO penstock.connector_run_state (connection_uid, stream, cursor, state_version, checkpoint, run_id, attempt, done)
SELECT 'c1', 'stream-' || n, '{{"n": 1}}', 1, 1, 'run1', 1, true FROM generate_series(1, 3) n;
INSERT INTO penstock.stream_registry (connection_uid, stream, version, fingerprint, schema, primary_key, modes, pii)
SELECT 'c1', 'stream-' || n, version, '{SENTINEL}', '{{"type": "object"}}', '["id"]', '["full"]', '[]'
FROM generate_series(1, 3) n, generate_series(1, 2) version;
INSERT INTO penstock.bronze_objects (key, connection_uid, stream, generation, run_id, attempt, sequence, records, sha256,
    committed_at, kind)
SELECT kind || n, 'c1', 'stream-1', 1, 'run1', 1, n, 10, '{SENTINEL}', now(), kind
FROM generate_series(1, 3) n, unnest(ARRAY['data', 'rejected']) kind;
INSERT INTO penstock.compat_alerts (connection_uid, stream, kind, message, run_id, resolved_at)
SELECT 'c1', 'stream-' || n, 'FieldRemoved', 'm' || resolved, 'run1', CASE WHEN resolved THEN now() END
FROM generate_series(1, 3) n, unnest(ARRAY[true, false]) resolved;
INSERT INTO penstock.stream_checkpoints
    (connection_uid, stream, checkpoint, generation, state_version, run_id, attempt, done, committed_at)
SELECT 'c1', 'stream-' || n, 1, 1, 1, 'run1', 1, true, '2026-01-01T00:00:00.123456Z' FROM generate_series(1, 3) n;
INSERT INTO penstock.state_changes (connection_uid, stream, action, changed_by, before, after)
SELECT 'c1', 'stream-' || n, 'reset', 'anna', '{{}}',
    '{{"cursor": null, "state_version": 1, "generation": 2, "checkpoint": 2, "run_id": null}}' FROM generate_series(1, 3) n;
INSERT INTO penstock.audit_events (actor_kind, actor, action, object_kind, namespace, name, object_id, result)
SELECT 'controller', 'controller', 'run.create', 'run', 'team', 'connection-1', 'run' || n, 'allowed'
FROM generate_series(1, 3) n;
"""
LISTINGS = (
    "/v1/definitions",
    "/v1/connections",
    "/v1/connections?namespace=team",
    "/v1/connections/team/connection-1/streams",
    "/v1/objects",
    "/v1/objects?kind=rejected&name=connection-1&run=run1",
    "/v1/runs",
    "/v1/runs?namespace=team&name=connection-1",
    "/v1/alerts",
    "/v1/alerts?resolved=true&namespace=team",
    "/v1/connections/team/connection-1/state/history",
    "/v1/connections/team/connection-1/state/changes",
    "/v1/audit",
    "/v1/audit?namespace=team&action=run.create",
)


AUTHORITY = EmbeddedAuthenticator(b"secret")


@pytest.fixture
def app(pool: Pool, store: BronzeStore, tmp_path: Path) -> FastAPI:
    logs = RunLogs(pool, FileLogs(tmp_path), store)
    return create_app(Services(RunProtocol(pool, store), pool, AUTHORITY, logs))


@pytest.fixture
async def api(pool: Pool, app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    async with pool.connection() as db:
        await db.execute(HISTORY.encode())
    headers = {"Authorization": f"Bearer {AUTHORITY.mint_person()}"}
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://penstock", headers=headers) as client:
        yield client


async def pages(api: httpx.AsyncClient, path: str, limit: int) -> list[Any]:
    """Return all items of a listing, followed by its links."""
    url: httpx.URL | None = httpx.URL(path).copy_merge_params({"limit": limit})
    items = []
    while url is not None:
        answer = await api.get(url)
        assert answer.status_code == 200, answer.text
        assert 1 <= len(answer.json()) <= limit
        items += answer.json()
        following = answer.links.get("next")
        url = answer.url.join(following["url"]) if following else None
    return items


@pytest.mark.parametrize("path", LISTINGS)
async def test_the_pages_of_a_listing_are_the_whole_listing(api: httpx.AsyncClient, path: str) -> None:
    whole = (await api.get(path)).json()
    assert len(whole) == 3
    for limit in (1, 2, 3):
        assert await pages(api, path, limit) == whole


@pytest.mark.parametrize("path", LISTINGS)
async def test_a_page_has_a_number_of_bytes_and_one_item_at_least(
    api: httpx.AsyncClient, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = (await api.get(path)).json()
    monkeypatch.setattr(queries, "MAX_PAGE_BYTES", 1)
    answer = await api.get(path)
    assert (answer.json(), "next" in answer.links) == (whole[:1], True)
    assert await pages(api, path, 1000) == whole


async def test_definitions_of_the_largest_size_come_in_pages_of_a_megabyte(api: httpx.AsyncClient, pool: Pool) -> None:
    async with pool.connection() as db:
        await db.execute(
            b"UPDATE penstock.connector_definitions SET manifest = manifest || jsonb_build_object('configSchema',"
            b" jsonb_build_object('description', repeat('x', 600000)))"
        )
    first = await api.get("/v1/definitions")
    assert (len(first.json()), "next" in first.links) == (1, True)
    assert len(await pages(api, "/v1/definitions", 1000)) == 3


async def test_the_detail_of_a_run_says_what_it_leaves_out(
    api: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = next(item["id"] for item in (await api.get("/v1/runs")).json())
    whole = (await api.get(f"/v1/runs/{run}")).json()
    assert (whole["more_streams"], whole["more_attempts"]) == (False, False)
    assert whole["attempts"]
    monkeypatch.setattr(queries, "MAX_PAGE_ITEMS", 0)
    cut = (await api.get(f"/v1/runs/{run}")).json()
    assert (cut["attempts"], cut["more_attempts"]) == ([], True)


async def test_every_listing_is_paged_and_bounded(api: httpx.AsyncClient) -> None:
    listed = {path.partition("?")[0].replace("/team/connection-1/", "/{namespace}/{name}/") for path in LISTINGS}
    document = (await api.get("/openapi.json")).json()
    for path, methods in document["paths"].items():
        get = methods.get("get", {}) if "read API" in methods.get("get", {}).get("tags", ()) else {}
        answer = (
            get.get("responses", {}).get("200", {}).get("content", {}).get("application/json", {}).get("schema", {})
        )
        assert (answer.get("type") == "array") == (path in listed), path
        if path in listed:
            parameters = {parameter["name"]: parameter["schema"] for parameter in get["parameters"]}
            assert parameters["limit"]["maximum"] == 1000
            assert "cursor" in parameters


async def test_a_cursor_of_another_listing_is_refused(api: httpx.AsyncClient) -> None:
    for path in LISTINGS:
        for cursor in ("x", "AA==", "W10=", "WyIxIiwyLDMsNCw1XQ==", "é"):
            answer = await api.get(httpx.URL(path).copy_merge_params({"cursor": cursor}))
            assert (answer.status_code, "cursor" in answer.text) == (422, True), (path, cursor)


async def test_a_stream_has_its_mode_and_its_committed_records(api: httpx.AsyncClient) -> None:
    streams = (await api.get("/v1/connections/team/connection-1/streams")).json()
    assert [(stream["stream"], stream["mode"], stream["records"], stream["version"]) for stream in streams] == [
        ("stream-1", "incremental", 30, 2),
        ("stream-2", None, 0, 2),
        ("stream-3", None, 0, 2),
    ]
    assert streams[0]["schema"] == {"type": "object"}


def keys(document: Any) -> Iterator[str]:
    """Yield the keys of a document, at any depth."""
    if isinstance(document, dict):
        yield from document
    for value in document.values() if isinstance(document, dict) else document if isinstance(document, list) else ():
        yield from keys(value)


def test_no_model_has_a_field_that_a_tenant_may_not_see() -> None:
    classes = [
        value for value in vars(models).values() if inspect.isclass(value) and issubclass(value, models.ReadModel)
    ]
    assert len(classes) > 15
    fields = [f"{model.__name__}.{name}" for model in classes for name in model.model_fields if HIDDEN.fullmatch(name)]
    assert fields == []


async def test_every_route_answers_with_a_model(api: httpx.AsyncClient) -> None:
    document = (await api.get("/openapi.json")).json()
    answers = {
        f"{method} {path}": operation["responses"]["200"]["content"]
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
        if "read API" in operation["tags"]
    }
    assert len(answers) >= 18
    assert all(operation["description"] for operation in document["paths"]["/v1/runs"].values())
    assert list(answers.pop("get /v1/runs/{run_id}/logs")) == ["text/plain; charset=utf-8"]
    for route, content in answers.items():
        schema = content["application/json"]["schema"]
        assert "$ref" in schema or "$ref" in schema["items"], route


async def test_no_answer_shows_what_is_hidden(api: httpx.AsyncClient) -> None:
    answers = [await api.get(path) for path in (*LISTINGS, "/v1/runs/run1", "/v1/connections/team/connection-1/state")]
    document = (await api.get("/openapi.json")).json()
    alert = (await api.get("/v1/alerts")).json()[0]["id"]
    calls = {
        f"/v1/alerts/{alert}/acknowledge": {"note": "agreed"},
        "/v1/connections/team/connection-1/state/reset": {"streams": ["stream-1"]},
        "/v1/connections/team/connection-1/state/rewind": {"streams": ["stream-1"], "checkpoint": 1},
        "/v1/connections/team/connection-1/state/import": {"document": {"connector": "faker-generate", "streams": []}},
        "/v1/runs": {"namespace": "team", "name": "connection-1"},
        "/v1/runs/run1/cancel": {},
        "/v1/runs/backfill": {
            "namespace": "team",
            "name": "connection-2",
            "from": "2026-01-01T00:00:00Z",
            "to": "2026-01-01T03:00:00Z",
        },
        "/v1/runs/reread": {"namespace": "team", "name": "connection-3", "from": "2026-01-01T00:00:00Z"},
    }
    posts = {
        path for path, methods in document["paths"].items() if "read API" in methods.get("post", {}).get("tags", ())
    }
    shapes = {re.sub(r"/(team|connection-1|run1|[0-9]+)(?=/)", "/{}", path) for path in calls}
    assert shapes == {re.sub(r"{\w+}", "{}", path) for path in posts}, "every route is called"
    answers += [await api.post(path, json=body) for path, body in calls.items()]
    for answer in answers:
        assert SENTINEL not in answer.text, answer.url
        assert [key for key in keys(answer.json()) if HIDDEN.fullmatch(key)] == [], answer.url
    assert [(str(answer.url), answer.text) for answer in answers if answer.status_code != 200] == []
