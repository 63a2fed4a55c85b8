"""What all tests share."""

from __future__ import annotations

import psycopg
import pytest
from hypothesis import settings

pytest.register_assert_rewrite("tests.run_api.contract")

# How long an example takes says more about the machine's other work than about the code.
settings.register_profile("penstock", deadline=None)
settings.load_profile("penstock")


@pytest.fixture
def psycopg_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    """Put psycopg's functions back after a test that has them use tunnels."""
    for owner in (psycopg, psycopg.Connection, psycopg.AsyncConnection):
        monkeypatch.setattr(owner, "connect", owner.connect)
