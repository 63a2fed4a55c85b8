"""The servers of the integration tests, the `attack` fixture, and the table at the end."""

from __future__ import annotations

import pytest

from tests.adversarial.attacks import Attack, StartAttack, opened_attack, property_of, results_of, table
from tests.integration.conftest import database_url, pool, postgres_url, s3_server, store, world
from tests.integration.test_run_api import platform
from tests.run_api.contract import pod

__all__ = ["database_url", "platform", "pod", "pool", "postgres_url", "s3_server", "store", "world"]


@pytest.fixture
def attack(request: pytest.FixtureRequest) -> StartAttack:
    """Open an attack, as docs/testing.md shows."""
    properties = request.node.user_properties
    return lambda name, *, actor, invariant: opened_attack(
        Attack(name, actor, invariant), lambda result: properties.append(property_of(result))
    )


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the table of attacks."""
    reports = [
        report
        for outcome in ("passed", "failed")
        for report in terminalreporter.getreports(outcome)
        if isinstance(report, pytest.TestReport) and report.when == "call"
    ]
    results = [result for report in reports for result in results_of(report.user_properties)]
    if not results:
        return
    terminalreporter.section("attacks")
    for line in table(results):
        terminalreporter.write_line(line)
    tried, succeeded = (sum(getattr(result, name) for result in results) for name in ("tried", "succeeded"))
    terminalreporter.write_line(f"{tried} tries, {succeeded} succeeded")
