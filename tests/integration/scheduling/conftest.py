"""A tenant for each test."""

from __future__ import annotations

import pytest

from tests.integration.scheduling.tenant import Tenant
from tests.integration.world import World


@pytest.fixture
def tenant(world: World) -> Tenant:
    """A tenant on a registry that has the faker's definition."""
    return Tenant(world.pool)
