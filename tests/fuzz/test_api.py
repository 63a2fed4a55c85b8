"""The run API and the read API against their own OpenAPI document, by schemathesis: no 5xx, no crash."""

from __future__ import annotations

import asyncio
import json
import os
import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import schemathesis
import uvicorn
from hypothesis import HealthCheck, Phase, given, settings
from penstock_operator.api.app import create_app
from penstock_operator.api.authentication import EmbeddedAuthenticator
from penstock_operator.api.services import Services
from penstock_operator.bronze.store import BronzeStore
from penstock_operator.embedded.private_files import free_port
from penstock_operator.logs.reader import RunLogs
from penstock_operator.registry.database import create_pool
from penstock_operator.registry.migrate import migrate
from penstock_operator.runs.protocol import RunProtocol
from schemathesis.core.result import Ok

from tests.integration.world import World, new_world
from tests.model.reality import NO_LOGS, NOWHERE
from tests.patience import PATIENCE

CALLS = int(os.environ.get("PENSTOCK_FUZZ_CALLS", "20"))
AUTHORITY = EmbeddedAuthenticator(b"fuzz")
HOSTILE = ["\0", "a\0b", "\ud800", "x" * 100_000, 2**64, -(2**70), 10**400, float("nan"), [], {}, None, "%00", "é"]


class Server:
    """The API on a port, in a thread with a loop of its own, over a registry with a run under way."""

    def __init__(self, database_url: str) -> None:
        self.port = free_port("127.0.0.1")
        self.url = f"http://127.0.0.1:{self.port}"
        self.token = ""
        self.ready = threading.Event()
        self._url = database_url
        self.thread = threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True)
        self.server: uvicorn.Server | None = None

    async def _serve(self) -> None:
        await migrate(self._url)
        pool = create_pool(self._url, size=8)
        await pool.open(wait=True)
        store = BronzeStore(NOWHERE)
        world: World = await new_world(pool, store)
        await world.new_run()
        _, _, self.token = await world.attempt()
        logs = RunLogs(pool, NO_LOGS, store)
        app = create_app(Services(RunProtocol(pool, store), pool, AUTHORITY, logs))
        config = uvicorn.Config(app, host="127.0.0.1", port=self.port, log_level="critical", lifespan="off")
        self.server = uvicorn.Server(config)
        self.ready.set()
        await self.server.serve()
        await pool.close()


@pytest.fixture
def server(database_url: str) -> Iterator[Server]:
    made = Server(database_url)
    made.thread.start()
    assert made.ready.wait(PATIENCE)
    end = time.monotonic() + PATIENCE
    while made.server is None or not made.server.started:
        assert time.monotonic() < end
        time.sleep(0.02)
    yield made
    made.server.should_exit = True
    made.thread.join(PATIENCE)


def test_no_call_that_the_openapi_document_allows_is_answered_with_5xx(server: Server) -> None:
    schema = schemathesis.openapi.from_url(f"{server.url}/openapi.json")
    operations = [found.ok() for found in schema.get_all_operations() if isinstance(found, Ok)]
    assert len(operations) > 20
    for operation in operations:
        if not operation.path.endswith("/logs"):  # a followed one has no end of its own
            _try(operation, server.token if operation.path.startswith("/v1/attempts") else AUTHORITY.mint_person())


def _try(operation: Any, token: str) -> None:
    @settings(max_examples=CALLS, deadline=None, suppress_health_check=list(HealthCheck), phases=(Phase.generate,))
    @given(case=operation.as_strategy())
    def call(case: Any) -> None:
        answer = case.call(headers={"Authorization": f"Bearer {token}"})
        assert answer.status_code < 500, (case.method, case.path, answer.status_code, answer.text[:300])

    call()


BODIES: dict[str, dict[str, Any]] = {
    "streams": {"streams": [{"name": "people", "schema": {}, "primary_key": ["n"], "cursor_field": "n"}]},
    "uploads": {"stream": "people", "objects": [{"sequence": 1, "bytes": 1, "sha256": "0" * 64}]},
    "checkpoints": {"stream": "people", "checkpoint": 1, "cursor": {"n": 1}, "objects": [], "schema_version": 1},
    "heartbeat": {"metrics": {"records": 1.0}, "stream": "people"},
    "finish": {
        "outcome": "failed",
        "error": {"error_class": "TransientError", "message": "m"},
        "records": {"people": 1},
    },
}


def _spoiled(body: Any) -> Iterator[Any]:
    """Yield the body with each of its values made hostile in turn, in each way."""
    keys = list(body) if isinstance(body, dict) else range(len(body)) if isinstance(body, list) else ()
    for key in keys:
        for item in [*HOSTILE, *_spoiled(body[key])]:
            copy = dict(body) if isinstance(body, dict) else list(body)
            copy[key] = item
            yield copy
    if isinstance(body, dict):
        yield {**body, "a\0": 1}


@pytest.mark.parametrize("call", BODIES)
def test_no_hostile_value_in_a_pods_call_is_answered_with_5xx(server: Server, call: str) -> None:
    headers = {"Authorization": f"Bearer {server.token}", "Content-Type": "application/json"}
    with httpx.Client(base_url=f"{server.url}/v1/attempts/", headers=headers, timeout=PATIENCE) as http:
        for body in _spoiled(BODIES[call]):
            answer = http.post(call, content=json.dumps(body))
            assert answer.status_code < 500, (body, answer.text[:300])


def test_neither_depth_nor_size_nor_a_strange_token_is_answered_with_5xx(server: Server) -> None:
    deep = '{"stream":"people","checkpoint":1,"cursor":' + "[" * 100_000 + "]" * 100_000 + "}"
    large = json.dumps({**BODIES["checkpoints"], "cursor": "x" * 10_000_000})
    with httpx.Client(base_url=server.url, timeout=PATIENCE) as http:
        for body in (deep, large, "", "\0", "[]", "{"):
            headers = {"Authorization": f"Bearer {server.token}", "Content-Type": "application/json"}
            assert http.post("/v1/attempts/checkpoints", content=body, headers=headers).status_code < 500
        for token in ("é", "a.b", ".", "x" * 9000, "\x7f"):
            strange = {b"Authorization": b"Bearer " + token.encode("latin-1")}
            assert http.get("/v1/runs", headers=strange).status_code < 500
            assert http.post("/v1/attempts/start", headers=strange, json={}).status_code < 500
        person = {"Authorization": f"Bearer {AUTHORITY.mint_person()}"}
        for path in (
            "/v1/runs/%00",
            "/v1/connections/a%00/b/streams",
            "/v1/objects?run=%00",
            f"/v1/runs?limit={10**30}",
        ):
            assert 400 <= http.get(path, headers=person).status_code < 500, path
