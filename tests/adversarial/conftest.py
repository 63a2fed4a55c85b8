"""The servers of the integration tests, the `attack` fixture, and the table at the end."""

from __future__ import annotations

import pytest

from tests.adversarial.attacks import StartAttack, attack_starter, write_table
from tests.integration.conftest import database_url, pool, postgres_url, s3_server, store, template_database, world
from tests.integration.test_run_api import platform
from tests.run_api.contract import pod

__all__ = [
    "database_url",
    "platform",
    "pod",
    "pool",
    "postgres_url",
    "s3_server",
    "store",
    "template_database",
    "world",
]


@pytest.fixture
def attack(request: pytest.FixtureRequest) -> StartAttack:
    """Open an attack, as docs/testing.md shows."""
    return attack_starter(request)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the table of attacks."""
    write_table(terminalreporter)
