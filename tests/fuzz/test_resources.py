"""Resources made up from the CRDs' schema: no crash, no wedge, and every refusal names a field. `make fuzz N=50000`."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from penstock_operator.registry.database import Pool, create_pool, one
from penstock_operator.registry.migrate import migrate
from penstock_operator.scheduling.due import schedule_due

from tests.fuzz.resources import DOCUMENTS
from tests.integration.world import MANIFEST
from tests.patience import PATIENCE
from tests.reconciling import reconcile

DOCUMENTS_TRIED = int(os.environ.get("PENSTOCK_FUZZ_DOCUMENTS", "300"))
DEFINITION = {
    "apiVersion": "penstock.io/v1alpha1",
    "kind": "ConnectorDefinition",
    "metadata": {"name": "faker-generate-0.1.0", "uid": "d1"},
    "spec": {"image": f"i@sha256:{'0' * 64}", "stage": "certified", "manifest": MANIFEST},
}
GOOD = {
    "apiVersion": "penstock.io/v1alpha1",
    "kind": "TenantConnection",
    "metadata": {"name": "good", "namespace": "fuzz", "uid": "good"},
    "spec": {"connector": {"name": "faker", "method": "generate"}, "schedule": "* * * * *"},
}
FIELD = ("spec", "metadata", "unknown field", "<nil>")


@pytest.fixture
def registry(database_url: str) -> Iterator[tuple[asyncio.Runner, Pool]]:
    with asyncio.Runner() as runner:
        runner.run(migrate(database_url))
        pool = create_pool(f"{database_url}?options=-csynchronous_commit%3Doff", size=4)
        runner.run(pool.open(wait=True))
        yield runner, pool
        runner.run(pool.close())


def test_no_document_crashes_a_reconcile_or_holds_up_a_good_one(registry: tuple[asyncio.Runner, Pool]) -> None:
    runner, pool = registry
    for document in (DEFINITION, GOOD):
        assert runner.run(reconcile(pool, document))["conditions"][0]["status"] == "True"
    later = datetime.now(UTC)

    @settings(
        max_examples=DOCUMENTS_TRIED,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        phases=(Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink),
        print_blob=True,
    )
    @given(DOCUMENTS)
    def no_crash(document: dict[str, Any]) -> None:
        status = runner.run(asyncio.wait_for(reconcile(pool, document), PATIENCE))
        for condition in status["conditions"]:
            condition["message"].encode()
            if condition["type"] == "Stalled" and condition["reason"].startswith("Invalid"):
                assert condition["message"].startswith(FIELD), condition["message"]

    no_crash()
    later += timedelta(hours=30)
    for _ in range(3):
        runner.run(schedule_due(pool, later))
    made = runner.run(_runs_of(pool, "good"))
    assert made == 1, "the good connection is due, whatever stands beside it"


async def _runs_of(pool: Pool, uid: str) -> int:
    async with pool.connection() as db:
        row = await one(db, "SELECT count(*) AS n FROM penstock.connector_runs WHERE connection_uid = %(uid)s", uid=uid)
    assert row is not None
    return int(row["n"])
