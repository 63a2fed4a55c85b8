"""What the gateway asks of the run API and reports to it: a denial fails the run by name, and opens an alert."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest
from penstock_operator import alerts
from penstock_operator.api.app import create_app
from penstock_operator.api.authentication import EmbeddedAuthenticator
from penstock_operator.api.services import Services
from penstock_operator.egress.authority import AuthorityUnavailable, RunApiAuthority, UnknownRun
from penstock_operator.logs.reader import RunLogs
from penstock_operator.registry.database import one
from penstock_operator.runs import egress_records
from penstock_sdk import protocol as wire
from penstock_sdk.manifest import EgressRule
from psycopg.types.json import Jsonb

from tests.fakes.logs import FakeLogs
from tests.integration.world import World, checkpoint

DENIAL = wire.EgressDenial(host="telemetry.example", port=443, reason="network.egress does not declare it")


@pytest.fixture
def authority(world: World, tmp_path: Path) -> RunApiAuthority:
    """What the gateway asks, with the real run API behind it."""
    logs = RunLogs(world.pool, FakeLogs(tmp_path), world.store)
    app = create_app(Services(world.protocol, world.pool, EmbeddedAuthenticator(b"secret"), logs))
    return RunApiAuthority(httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://penstock"))


async def declare(world: World, egress: list[dict[str, Any]]) -> None:
    async with world.pool.connection() as db:
        await db.execute(
            b"UPDATE penstock.connector_definitions SET manifest = jsonb_set(manifest, '{network}', %s)",
            [Jsonb({"egress": egress})],
        )


async def finished(
    world: World, token: str, outcome: wire.Outcome = "succeeded", number: int = 1, **error: Any
) -> dict[str, Any]:
    """Commit the stream's checkpoint of this number as its last, finish the attempt, and return the run's row."""
    await world.protocol.checkpoint(token, checkpoint(number, done=True))
    found = wire.RunError(**error) if error else None
    await world.protocol.finish(token, wire.FinishRequest(outcome=outcome, error=found))
    async with world.pool.connection() as db:
        return await one(db, "SELECT * FROM penstock.connector_runs ORDER BY id DESC LIMIT 1") or {}


async def test_the_rules_are_those_of_the_manifest_and_the_bucket(world: World, authority: RunApiAuthority) -> None:
    await declare(world, [{"host": "{{config.host}}"}, {"host": "api.example", "port": "8443", "private": True}])
    await world.new_run()
    run, attempt, token = await world.attempt()
    found = await authority.egress_of(token)
    assert (found.run, found.attempt) == (run, attempt)
    assert found.rules == (EgressRule("api.example", 8443, private=True),)
    host, port = world.store.address()
    assert found.is_platform(host, port)
    assert not found.is_platform(host, port + 1)


async def test_another_token_and_an_ended_attempt_have_no_egress(world: World, authority: RunApiAuthority) -> None:
    await world.new_run()
    _, _, token = await world.attempt()
    with pytest.raises(UnknownRun):
        await authority.egress_of("another")
    await finished(world, token)
    with pytest.raises(UnknownRun):
        await authority.egress_of(token)
    await authority.report(token, wire.EgressReport(sent=1))  # the last bytes come after the end


async def test_without_the_run_api_nothing_is_let_through() -> None:
    closed = httpx.AsyncClient(base_url="http://127.0.0.1:1")
    with pytest.raises(AuthorityUnavailable):
        await RunApiAuthority(closed).egress_of("token")


async def test_a_denial_fails_a_run_that_says_succeeded(world: World, authority: RunApiAuthority) -> None:
    await world.new_run()
    _, _, token = await world.attempt()
    await authority.report(token, wire.EgressReport(denials=[DENIAL, DENIAL], sent=10, received=20))
    run = await finished(world, token)
    assert (run["phase"], run["reason"], run["error_class"]) == ("failed", "EgressDenied", "ConfigError")
    assert "telemetry.example:443" in run["message"]
    assert egress_records.REMEDY in run["message"]
    async with world.pool.connection() as db:
        opened = await alerts.open_alerts_of(db, "c1")
        bytes_ = await one(db, "SELECT egress_sent, egress_received FROM penstock.run_attempts")
        times = await one(db, "SELECT times FROM penstock.egress_denials")
    assert [alert.kind for alert in opened] == ["EgressDenied"]
    assert bytes_ == {"egress_sent": 10, "egress_received": 20}
    assert times == {"times": 2}


async def test_a_denial_names_a_failure_that_the_connector_calls_another(
    world: World, authority: RunApiAuthority
) -> None:
    await world.new_run()
    _, _, token = await world.attempt()
    await authority.report(token, wire.EgressReport(denials=[DENIAL]))
    run = await finished(world, token, "failed", error_class="TransientError", message="proxy error")
    assert (run["phase"], run["reason"]) == ("failed", "EgressDenied")
    assert "proxy error" in run["operator_message"]


async def test_a_run_without_a_denial_resolves_the_alert(world: World, authority: RunApiAuthority) -> None:
    await world.new_run()
    _, _, token = await world.attempt()
    await authority.report(token, wire.EgressReport(denials=[DENIAL]))
    await finished(world, token)
    await world.new_run("run2")
    _, _, token = await world.attempt("pod2")
    run = await finished(world, token, number=2)
    assert run["phase"] == "succeeded"
    async with world.pool.connection() as db:
        assert await alerts.open_alerts_of(db, "c1") == []


async def test_denials_of_an_attempt_are_bounded(world: World, authority: RunApiAuthority) -> None:
    await world.new_run()
    run, attempt, token = await world.attempt()
    for port in range(1, 60):
        denial = DENIAL.model_copy(update={"port": port})
        await authority.report(token, wire.EgressReport(denials=[denial]))
    async with world.pool.connection() as db:
        assert len(await egress_records.denials_of(db, run, attempt)) == wire.MAX_DENIALS  # type: ignore[arg-type]
    message = (await finished(world, token))["message"]
    assert "17 more" in message
