"""A tenant is a namespace by its uid: a later namespace of the same name sees and changes nothing of the earlier one."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from penstock_operator.api.app import create_app
from penstock_operator.api.authentication import NO_NAMESPACE
from penstock_operator.api.services import Services
from penstock_operator.bronze.store import BronzeStore
from penstock_operator.ids import NamespaceUid
from penstock_operator.launchers.logs import FileLogs
from penstock_operator.logs.reader import RunLogs
from penstock_operator.registry.database import Pool
from penstock_operator.runs.protocol import RunProtocol

from tests.fakes.authenticator import FakeAuthenticator, Person
from tests.integration.test_read_api import HISTORY

FIRST, SECOND = NamespaceUid("first"), NamespaceUid("second")
NAMES = {"namespace": "team", "name": "connection-1", "run_id": "run1"}
BODIES: dict[str, dict[str, Any]] = {
    "/v1/runs": {"namespace": "team", "name": "connection-1"},
    "/v1/runs/backfill": {"namespace": "team", "name": "connection-1", "from": "2026-01-01T00:00:00Z"},
    "/v1/runs/reread": {"namespace": "team", "name": "connection-1", "from": "2026-01-01T00:00:00Z"},
    "/v1/connections/{namespace}/{name}/state/rewind": {"streams": ["stream-1"], "checkpoint": 1},
}
STATE = "/v1/connections/{namespace}/{name}/state"
OF_THE_CLUSTER = {"/v1/definitions"}


@pytest.fixture
def authority() -> FakeAuthenticator:
    """Authentication in which `team` is the namespace that the test says, and one person may do everything in it."""
    return FakeAuthenticator(people={"token": Person("anna")}, namespaces={"team": FIRST})


@pytest.fixture
async def api(
    pool: Pool, store: BronzeStore, authority: FakeAuthenticator, tmp_path: Path
) -> AsyncIterator[httpx.AsyncClient]:
    """The read API over a history that is of the first namespace."""
    async with pool.connection() as db:
        for table in ("tenant_connections", "audit_events"):
            await db.execute(f"ALTER TABLE penstock.{table} ALTER COLUMN namespace_uid SET DEFAULT 'first'".encode())
        await db.execute(HISTORY.encode())
    app = create_app(Services(RunProtocol(pool, store), pool, authority, RunLogs(pool, FileLogs(tmp_path), store)))
    headers = {"Authorization": "Bearer token"}
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app), base_url="http://penstock", headers=headers
    ) as client:
        yield client


@dataclass(frozen=True)
class Known:
    """What somebody of the first namespace has noted: the id of an alert, and an export of the state."""

    alert: int
    state: dict[str, Any]


async def noted(api: httpx.AsyncClient) -> Known:
    """Note them, as the first namespace."""
    alerts, state = await api.get("/v1/alerts?namespace=team"), await api.get(STATE.format(**NAMES))
    return Known(alerts.json()[0]["id"], state.json())


async def call_each_route(api: httpx.AsyncClient, known: Known) -> dict[str, httpx.Response]:
    """Call every route of the read API for what the history has, and return the answers."""
    bodies = {**BODIES, f"{STATE}/import": {"document": known.state}}
    document = (await api.get("/openapi.json")).json()
    answers = dict[str, httpx.Response]()
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            if "read API" not in operation["tags"] or path in OF_THE_CLUSTER:
                continue
            url = path.format(**NAMES, alert=known.alert)
            query = {"namespace": "team"} if method == "get" and "{" not in path else {}
            body = bodies.get(path, {}) if method == "post" else None
            answers[f"{method} {path}"] = await api.request(method, url, params=query, json=body)
    return answers


@pytest.mark.parametrize("now", [SECOND, NO_NAMESPACE])
async def test_a_later_namespace_of_the_name_sees_and_changes_nothing(
    pool: Pool, api: httpx.AsyncClient, authority: FakeAuthenticator, now: NamespaceUid
) -> None:
    known = await noted(api)
    authority.namespaces["team"] = now
    answers = await call_each_route(api, known)
    assert len(answers) >= 17
    for route, answer in answers.items():
        nothing = answer.status_code == 404 or (answer.status_code == 200 and answer.json() == [])
        assert nothing, (route, answer.status_code, answer.text)
    async with pool.connection() as db:
        for table in ("state_changes", "connector_runs"):
            counted = await db.execute(f"SELECT count(*) AS rows FROM penstock.{table}".encode())
            assert await counted.fetchone() == {"rows": 3}, table


@pytest.mark.parametrize("recorded", ["first", None])
async def test_its_own_namespace_sees_it(
    pool: Pool, api: httpx.AsyncClient, authority: FakeAuthenticator, recorded: str | None
) -> None:
    """A connection without a recorded namespace is one that a controller without the right to read namespaces recorded."""
    async with pool.connection() as db:
        await db.execute("UPDATE penstock.tenant_connections SET namespace_uid = %s", [recorded])
    known = await noted(api)
    for route, answer in (await call_each_route(api, known)).items():
        unknown = "/logs" in route or "/import" in route or "/backfill" in route or "/reread" in route
        assert answer.status_code == 200 or unknown, (route, answer.status_code, answer.text)


async def test_a_list_of_all_namespaces_has_the_earlier_ones(
    api: httpx.AsyncClient, authority: FakeAuthenticator
) -> None:
    authority.namespaces["team"] = SECOND
    assert len((await api.get("/v1/runs")).json()) == 3
    assert len((await api.get("/v1/connections")).json()) == 3
