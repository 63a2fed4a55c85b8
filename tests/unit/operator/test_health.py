"""What the probes of the controller say, and when."""

from __future__ import annotations

import httpx
from penstock_operator.cli.cluster import health_app
from penstock_operator.controller.health import Health


class Time:
    """A clock that is turned by hand."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


async def ask(health: Health, path: str) -> httpx.Response:
    transport = httpx.ASGITransport(health_app(health))
    async with httpx.AsyncClient(transport=transport, base_url="http://operate") as client:
        return await client.get(path)


async def test_a_standby_is_alive_and_ready() -> None:
    health = Health()
    said = {"status": "ok", "role": "standby", "loops": {}, "warnings": {}}
    assert (await ask(health, "/healthz")).json() == said
    assert (await ask(health, "/readyz")).status_code == 200


async def test_a_leader_whose_rounds_fail_is_alive_but_not_ready_and_says_why() -> None:
    time = Time()
    health = Health(clock=time)
    health.lead()
    health.expect("schedule", 0.5)
    health.failed("schedule", "OperationalError: connection refused")
    assert (await ask(health, "/readyz")).status_code == 200, "a server may restart"
    time.now += 61
    health.failed("schedule", "OperationalError: connection refused")
    assert (await ask(health, "/readyz")).json()["loops"] == {"schedule": "OperationalError: connection refused"}
    assert (await ask(health, "/readyz")).status_code == 503
    assert (await ask(health, "/healthz")).status_code == 200, "a restart would not bring Postgres back"
    health.succeeded("schedule")
    assert (await ask(health, "/readyz")).status_code == 200


async def test_a_round_that_never_ends_asks_for_a_restart() -> None:
    time = Time()
    health = Health(clock=time)
    health.expect("launch", 0.5)
    time.now += 290
    assert not health.hanging()
    time.now += 20
    answer = await ask(health, "/healthz")
    assert answer.status_code == 503
    assert "no round has ended for 310 s" in answer.json()["loops"]["launch"]


async def test_metrics_tell_who_leads() -> None:
    Health().lead()
    assert "penstock_leading 1.0" in (await ask(Health(), "/metrics")).text


async def test_a_warning_is_told_and_does_not_fail_the_probes() -> None:
    health = Health()
    health.warn("admission policies", "one is missing")
    for path in ("/healthz", "/readyz"):
        answer = await ask(health, path)
        assert (answer.status_code, answer.json()["warnings"]) == (200, {"admission policies": "one is missing"})
    health.warn("admission policies", "")
    assert (await ask(health, "/readyz")).json()["warnings"] == {}
