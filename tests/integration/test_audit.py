"""The audit: a row for every call that changes something and for every refusal, in the transaction of what it records."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
from fastapi import FastAPI
from penstock_operator import limits
from penstock_operator.alerts import NewAlert, open_alerts, open_alerts_of
from penstock_operator.api.app import create_app
from penstock_operator.api.refusal_audit import CALLS, NOT_RECORDED_IF_ALLOWED
from penstock_operator.api.services import Services
from penstock_operator.audit import audit_store
from penstock_operator.audit.events import Action, Actor, AuditedObject, AuditEvent
from penstock_operator.audit.refusal_recorder import RefusalBudget, RefusalRecorder
from penstock_operator.bronze.store import BronzeStore
from penstock_operator.connections import connection_records
from penstock_operator.credentials.vault import Vault
from penstock_operator.ids import ConnectionUid, RunId
from penstock_operator.launchers.logs import FileLogs
from penstock_operator.logs.reader import RunLogs
from penstock_operator.registry.database import Pool
from penstock_operator.retention.batches import CollectionContext, collect_audit_events
from penstock_operator.runs.protocol import PodIdentity, RunProtocol
from penstock_operator.settings import Retention

from tests.fakes.authenticator import FakeAuthenticator, Person
from tests.integration.test_run_api import Server, opened
from tests.integration.world import World, connection_record
from tests.run_api.contract import CALLS as CONTRACT_CALLS
from tests.run_api.pods import CREDENTIAL, Pod

ADDRESS = "192.0.2.7"
STATE = "/v1/connections/team/orders/state"
PERSON_CALLS: dict[str, dict[str, Any]] = {
    "/v1/runs": {"namespace": "team", "name": "orders"},
    "/v1/runs/backfill": {"namespace": "team", "name": "orders", "from": "2026-01-01T00:00:00Z"},
    "/v1/runs/reread": {"namespace": "team", "name": "orders", "from": "2026-01-01T00:00:00Z"},
    "/v1/runs/run1/cancel": {},
    f"{STATE}/reset": {"reason": "anew"},
    f"{STATE}/rewind": {"streams": ["people"], "cursor": 5},
    f"{STATE}/import": {
        "document": {"connector": "faker-generate", "streams": [{"name": "people", "cursor": 1, "stateVersion": 1}]}
    },
    "/v1/alerts/1/acknowledge": {"note": "seen"},
}
"""A request of each call of a person that changes something."""


LEASE = CONTRACT_CALLS["credentials/lease"]
POD_CALLS = {**CONTRACT_CALLS, "credentials/release": {name: LEASE[name] for name in ("name", "seed", "lease")}}
"""A request of each call that carries a run token."""


@dataclass(frozen=True)
class Audited:
    """A server whose callers have names, and its audit."""

    http: httpx.AsyncClient
    pool: Pool
    pod: Pod
    app: FastAPI

    async def events(self, **columns: str) -> list[dict[str, Any]]:
        """Return the events that have these values, oldest first."""
        given = " AND ".join(f"{column} = %({column})s" for column in columns) or "true"
        async with self.pool.connection() as db:
            found = await db.execute(f"SELECT * FROM penstock.audit_events WHERE {given} ORDER BY id".encode(), columns)
            return await found.fetchall()

    async def call(self, path: str, body: dict[str, Any], token: str = "of-ada") -> int:
        """Send a call of a person, and return its status."""
        answer = await self.http.post(f"http://penstock{path}", json=body, headers={"Authorization": f"Bearer {token}"})
        return answer.status_code


@asynccontextmanager
async def served(pool: Pool, store: BronzeStore) -> AsyncIterator[Audited]:
    """Open a server over the registry of the run API's tests."""
    async with opened(pool, store) as platform:
        assert isinstance(platform, Server)
        attempt, _ = await platform.next_attempt()
        people = {"of-ada": Person("ada"), "of-eve": Person("eve", reads="other")}
        authenticator = FakeAuthenticator({"of-pod": PodIdentity("pod-uid", f"job{attempt}")}, people)
        protocol = RunProtocol(pool, store, vault=Vault(("key",)))
        logs = RunLogs(pool, FileLogs(Path("/nonexistent")), store)
        app = create_app(Services(protocol, pool, authenticator, logs))
        transport = httpx.ASGITransport(app, client=(ADDRESS, 5))
        async with httpx.AsyncClient(transport=transport, base_url="http://penstock/v1/attempts/") as http:
            platform.http = http
            yield Audited(http, pool, Pod(platform, attempt, "of-pod"), app)


@pytest.fixture
async def audited(pool: Pool, store: BronzeStore) -> AsyncIterator[Audited]:
    async with served(pool, store) as server:
        yield server


def posts(app: FastAPI) -> set[str]:
    """Return the paths of the routes that change something."""
    return {path for path, calls in app.openapi()["paths"].items() if calls.keys() - {"get"}}


async def test_every_route_that_changes_something_has_an_action(audited: Audited) -> None:
    assert posts(audited.app) == CALLS.keys()
    tried = {f"/v1/attempts/{call}" for call in ("start", *POD_CALLS, "egress", "egress/report")}
    assert len(tried) + len(PERSON_CALLS) == len(CALLS), "add the new call to this test"


async def test_every_call_of_a_pod_is_audited_in_its_own_transaction(audited: Audited) -> None:
    pod = audited.pod
    await pod.start()
    first = ("streams", "estimate", "uploads", "checkpoints", "credentials/lease", "credentials/release")
    for call in (*first, *(POD_CALLS.keys() - {*first, "finish"}), "finish"):
        answer = await pod.call(call, POD_CALLS[call])
        assert answer.status == 200, answer
    events = await audited.events(actor_kind="pod", result="allowed")
    expected = {CALLS[f"/v1/attempts/{call}"].action for call in ("start", *POD_CALLS)} - NOT_RECORDED_IF_ALLOWED
    assert {event["action"] for event in events} >= expected
    for event in events:
        assert (event["namespace"], event["name"], event["address"]) == ("team", "orders", ADDRESS)
        assert event["actor_uid"] == "pod-uid"


async def test_a_call_that_is_rolled_back_leaves_no_row_that_it_was_allowed(audited: Audited) -> None:
    await audited.pod.start()
    await audited.pod.call("streams", POD_CALLS["streams"])
    assert (await audited.pod.call("checkpoints", {"stream": "people", "checkpoint": 9, "cursor": 1})).status == 409
    assert await audited.events(action="attempt.checkpoint", result="allowed") == []
    (refused,) = await audited.events(action="attempt.checkpoint", result="refused")
    assert refused["object_id"] == f"run1/{audited.pod.attempt}"


async def test_every_call_of_a_pod_that_is_fenced_or_malformed_or_without_a_token_is_audited(audited: Audited) -> None:
    pod = audited.pod
    await pod.start()
    for call, body in POD_CALLS.items():
        await pod.call(
            call, {**body, "metrics": "none", "outcome": "odd", "streams": 5, "stream": 5, "name": 5, "host": 5}
        )
        await pod.call(call, body, token="nobody's")
    await pod.call("finish", {"outcome": "cancelled"})
    for call, body in POD_CALLS.items():
        if call not in ("finish", "credentials/release"):  # a lease may be released at any time
            assert (await pod.call(call, body)).code == "fenced", call
    refused = await audited.events(result="refused")
    for call in POD_CALLS:
        action = CALLS[f"/v1/attempts/{call}"].action
        reasons = [event["reason"] for event in refused if event["action"] == action]
        assert any(reason.startswith("invalid request: ") for reason in reasons), call
        assert any("token" in reason for reason in reasons), call
        assert call in ("finish", "credentials/release") or any("current one" in reason for reason in reasons), call


async def test_every_call_of_a_person_is_audited_if_it_is_allowed_and_if_it_is_refused(audited: Audited) -> None:
    async with audited.pool.connection() as db:
        await open_alerts(db, ConnectionUid("c1"), RunId("run1"), [NewAlert("people", "FieldRemoved", "", "m")])
        assert [alert.id for alert in await open_alerts_of(db, ConnectionUid("c1"))] == [1]
        await db.execute(b"UPDATE penstock.tenant_connections SET schedule = '@daily', time_zone = 'Etc/UTC'")
    for path, body in PERSON_CALLS.items():
        assert await audited.call(path, body, "of-eve") == 403
        assert await audited.call(path, body, "nobody's") == 401
        status = await audited.call(path, body)
        assert status in (200, 422), path
    events = await audited.events()
    for call in (CALLS[template] for template in CALLS if "/attempts/" not in template):
        found = [event for event in events if event["action"] == call.action]
        assert {event["actor"] for event in found if event["result"] == "refused"} >= {"eve", ""}, call
        assert any(event["actor"] == "ada" for event in found), call
        assert all(event["namespace"] == "team" for event in found if event["actor"] in ("eve", "ada")), call
    allowed = {event["action"] for event in events if event["actor"] == "ada" and event["result"] == "allowed"}
    assert allowed >= {"run.cancel", "state.reset", "state.rewind", "alert.acknowledge"}


async def test_no_row_holds_a_secret_of_a_request(audited: Audited) -> None:
    secret = "canary-5f3a9c"
    pod = audited.pod
    await pod.start(token=secret)
    await pod.start()
    seed = hashlib.sha256(b"x").hexdigest()
    await pod.call("credentials", {"name": CREDENTIAL, "value": secret, "seed": seed})
    await pod.call("credentials", {"name": secret, "value": "x", "seed": seed})
    await pod.call("credentials", {"name": CREDENTIAL, "value": secret, "seed": secret})
    await pod.call("heartbeat", {"metrics": {"records": secret}})
    await pod.call("heartbeat", {"metrics": {}, secret: secret})
    await pod.call("finish", {"outcome": "failed", "error": {"error_class": "ConfigError", "message": secret}})
    await audited.call("/v1/runs?password=" + secret, {"namespace": secret * 20})
    await audited.call(f"{STATE}/rewind", {"streams": ["people"], "cursor": secret})
    assert secret not in str(await audited.events())


async def test_a_flood_without_a_token_is_counted(audited: Audited) -> None:
    tries = limits.MAX_ANONYMOUS_REFUSALS_PER_ADDRESS + 5
    for _ in range(tries):
        await audited.call("/v1/runs", {}, "nobody's")
    assert len(await audited.events(actor_kind="anonymous")) == limits.MAX_ANONYMOUS_REFUSALS_PER_ADDRESS


async def test_what_was_left_out_is_said(pool: Pool) -> None:
    recorder = RefusalRecorder(pool, RefusalBudget(lambda: 0.0))
    anonymous = Actor(kind="anonymous", name="", address=ADDRESS)
    event = AuditEvent(Action.run_create, AuditedObject("connection"), "refused", "no token", anonymous)
    for _ in range(limits.MAX_ANONYMOUS_REFUSALS_PER_ADDRESS + 5):
        await recorder.record(event, "Unauthorized")
    await recorder.summarize()
    async with pool.connection() as db:
        rows = await (await db.execute(b"SELECT * FROM penstock.audit_events ORDER BY id")).fetchall()
    assert len(rows) == limits.MAX_ANONYMOUS_REFUSALS_PER_ADDRESS + 1
    assert (rows[-1]["events"], rows[-1]["action"]) == (5, "run.create")
    assert rows[-1]["reason"] == "Unauthorized: 5 more like this, beyond the limit of a minute"


def test_a_caller_does_not_use_up_the_limit_of_another() -> None:
    budget = RefusalBudget(lambda: 0.0)
    pods = [Actor(kind="pod", name=f"team-a/job-{number}") for number in range(limits.MAX_REFUSALS_PER_CALLER + 1)]
    assert [budget.allows(pod) for pod in pods].count(False) == 1
    assert budget.allows(Actor(kind="pod", name="team-b/job"))
    assert budget.allows(Actor(kind="person", name="ada"))
    addresses = [Actor(kind="anonymous", name="", address=str(number)) for number in range(1000)]
    assert sum(budget.allows(address) for address in addresses) == limits.MAX_ANONYMOUS_REFUSALS
    assert budget.allows(Actor(kind="person", name="eve"))


def test_the_limit_is_of_a_minute() -> None:
    now = 0.0
    budget = RefusalBudget(lambda: now)
    ada = Actor(kind="person", name="ada")
    assert sum(budget.allows(ada) for _ in range(100)) == limits.MAX_REFUSALS_PER_CALLER
    now = limits.AUDIT_WINDOW_SECONDS
    assert budget.allows(ada)


@pytest.mark.parametrize(
    "statement",
    [
        b"UPDATE penstock.audit_events SET actor = 'nobody'",
        b"DELETE FROM penstock.audit_events",
        b"TRUNCATE penstock.audit_events",
    ],
)
async def test_rows_are_neither_changed_nor_deleted(world: World, statement: bytes) -> None:
    async with world.pool.connection() as db:
        before = await (await db.execute(b"SELECT count(*) AS rows FROM penstock.audit_events")).fetchone()
        with pytest.raises(psycopg.Error, match="append-only"):
            await db.execute(statement)
        after = await (await db.execute(b"SELECT count(*) AS rows FROM penstock.audit_events")).fetchone()
    assert before == after
    assert before != {"rows": 0}


@pytest.mark.parametrize("before", ["now() + interval '1 year'", "NULL"])
async def test_events_of_the_last_day_stay(world: World, before: str) -> None:
    async with world.pool.connection() as db:
        found = await db.execute(f"SELECT penstock.expire_audit_events({before}, 100) AS gone".encode())
        assert await found.fetchone() == {"gone": 0}


async def test_retention_deletes_old_events_and_says_how_many(world: World) -> None:
    old = b"INSERT INTO penstock.audit_events (occurred_at, actor_kind, actor, action, object_kind, result)"
    async with world.pool.connection() as db:
        await db.execute(old + b" SELECT now() - interval '91 days', 'person', 'ada', 'run.create', 'run', 'allowed'"
                         b" FROM generate_series(1, 3)")  # fmt: skip
    context = CollectionContext(world.pool, world.store, Retention(), datetime.now(UTC))
    assert await collect_audit_events(replace(context, retention=Retention(audit_days=0))) == 0
    assert await collect_audit_events(replace(context, retention=Retention(audit_days=100))) == 0
    assert await collect_audit_events(context) == 3
    assert await collect_audit_events(context) == 0
    async with world.pool.connection() as db:
        found = await db.execute(b"SELECT events FROM penstock.audit_events WHERE action = 'audit.expire'")
        assert await found.fetchall() == [{"events": 3}]


async def test_the_controllers_changes_are_audited(world: World) -> None:
    await world.new_run(token="t1")
    run_id, number, _ = await world.attempt()
    await world.fail(run_id, number)
    async with world.pool.connection() as db:
        await connection_records.record_admission(db, connection_record("c1", "orders", world.spec), "faker-1", None)
        assert await connection_records.retire_connection(db, "team", "orders")
        found = await db.execute(b"SELECT * FROM penstock.audit_events WHERE actor_kind = 'controller' ORDER BY id")
        rows = await found.fetchall()
    assert [(row["action"], row["result"]) for row in rows] == [
        ("definition.admit", "allowed"),
        ("run.create", "allowed"),
        ("attempt.start", "allowed"),
        ("attempt.streams", "allowed"),
        ("attempt.end", "failed"),
        ("connection.admit", "allowed"),
        ("connection.delete", "allowed"),
    ]


async def test_a_tenant_sees_the_events_of_its_namespace_without_uids(audited: Audited) -> None:
    await audited.pod.start()
    await audited.call("/v1/runs", {"namespace": "team", "name": "orders"}, "nobody's")
    headers = {"Authorization": "Bearer of-eve"}
    assert (await audited.http.get("http://penstock/v1/audit", headers=headers)).status_code == 403
    assert (await audited.http.get("http://penstock/v1/audit?namespace=team", headers=headers)).status_code == 403
    assert (await audited.http.get("http://penstock/v1/audit?namespace=other", headers=headers)).json() == []
    headers = {"Authorization": "Bearer of-ada"}
    everything = (await audited.http.get("http://penstock/v1/audit", headers=headers)).json()
    ours = (await audited.http.get("http://penstock/v1/audit?namespace=team", headers=headers)).json()
    assert {event["namespace"] for event in ours} == {"team"}
    assert not any(event["actor_uid"] or event["actor_groups"] for event in ours)
    assert any(event["actor_uid"] for event in everything)
    assert any(event["namespace"] is None for event in everything)
    later = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    for query, count in (
        ({"action": "attempt.start"}, 1),
        ({"result": "failed"}, 0),
        ({"actor": "eve", "result": "refused"}, 2),
        ({"since": later}, 0),
        ({"until": later, "action": "attempt.start"}, 1),
    ):
        answer = await audited.http.get("http://penstock/v1/audit", params=query, headers=headers)
        assert len(answer.json()) == count, query


async def test_a_long_name_and_text_that_cannot_be_stored_do_not_lose_the_event(world: World) -> None:
    actor = Actor(kind="person", name="\0\ud800" * 900, groups=("\0" * 900,) * 90)
    event = AuditEvent(
        Action.run_create, AuditedObject("run", "\0" * 900, None, "x" * 900), "refused", "y" * 900, actor
    )
    async with world.pool.connection() as db:
        await audit_store.record_all(db, [event])
