"""Which version a connection uses: what its range selects, what it has everything for, and what is left when one goes."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from penstock_operator import definitions
from penstock_operator.connections import connection_records
from penstock_operator.controller.retirement import LiveResources, retire_all_but
from penstock_operator.ids import ConnectionUid
from penstock_operator.registry.database import Pool

from tests.integration.scheduling.tenant import Tenant
from tests.integration.world import MANIFEST
from tests.reconciling import reconcile

FAKER = {"name": "faker", "method": "generate"}


@pytest.fixture
def tenant(pool: Pool) -> Tenant:
    return Tenant(pool)


def version(number: str, stage: str = "certified", *, requires: str = "", secret: bool = False) -> dict[str, Any]:
    manifest = copy.deepcopy(MANIFEST)
    manifest["version"] = number
    if requires:
        manifest["configSchema"]["properties"][requires] = {"type": "string"}
        manifest["configSchema"]["required"] = [requires]
    if secret:
        manifest["authentication"] = {"methods": [{"type": "apiKey", "credentials": [{"name": "key"}]}]}
    name = f"faker-generate-{number}"
    spec = {"image": f"i@sha256:{'0' * 64}", "stage": stage, "manifest": manifest}
    return {
        "apiVersion": "penstock.io/v1alpha1",
        "kind": "ConnectorDefinition",
        "metadata": {"name": name, "uid": name},
        "spec": spec,
    }


async def publish(tenant: Tenant, *documents: dict[str, Any]) -> None:
    for document in documents:
        status = await reconcile(tenant.pool, document)
        assert status["conditions"][0]["status"] == "True", status


def told(status: dict[str, Any], sort: str) -> str:
    return next((condition["message"] for condition in status["conditions"] if condition["type"] == sort), "")


async def test_a_range_never_selects_a_preview_and_a_pin_does(tenant: Tenant) -> None:
    await publish(tenant, version("1.0.0", "preview"))
    status = await tenant.apply("orders")
    assert "no version matches '*'; there are: 1.0.0 (preview); a range selects certified" in told(status, "Stalled")
    assert (await tenant.apply("orders", connector={**FAKER, "version": "1.0.0"}))[
        "definition"
    ] == "faker-generate-1.0.0"
    await publish(tenant, version("0.9.0"))
    assert (await tenant.apply("orders"))["definition"] == "faker-generate-0.9.0"


@pytest.mark.parametrize(
    ("needs", "words"),
    [
        ({"requires": "region"}, "add 'region': the connector requires it"),
        ({"secret": True}, "name a Secret with the keys key"),
    ],
)
async def test_a_version_that_needs_what_a_connection_lacks_is_not_selected(
    tenant: Tenant, needs: dict[str, Any], words: str
) -> None:
    await publish(tenant, version("1.0.0"))
    await tenant.apply("orders")
    await publish(tenant, version("1.1.0"), version("1.2.0", **needs))
    status = await tenant.status("orders")
    assert status["definition"] == "faker-generate-1.1.0"
    assert told(status, "Ready")
    assert words in told(status, "VersionNotSelected")
    assert "faker-generate-1.2.0 is newer than faker-generate-1.1.0" in told(status, "VersionNotSelected")
    has = {"config": {"region": "eu"}} if "requires" in needs else {"secretRef": {"name": "s"}}
    status = await tenant.apply("orders", **has)
    assert status["definition"] == ("faker-generate-1.2.0" if "secret" in needs else status["definition"])
    assert (await tenant.status("orders"))["definition"] == "faker-generate-1.2.0"
    assert told(await tenant.status("orders"), "VersionNotSelected") == ""


async def test_a_wrong_config_does_not_lead_back_to_an_older_version(tenant: Tenant) -> None:
    lenient = version("1.0.0")
    lenient["spec"]["manifest"]["configSchema"]["additionalProperties"] = True
    await publish(tenant, lenient, version("1.1.0"))
    assert (await tenant.apply("orders"))["definition"] == "faker-generate-1.1.0"
    status = await tenant.apply("orders", config={"recrods": 5})
    assert "recrods" in told(status, "Stalled")


async def test_the_registry_says_why_a_connection_is_stalled_until_it_is_not(tenant: Tenant) -> None:
    await publish(tenant, version("1.0.0"))
    await tenant.apply("orders")
    assert (await tenant.row("orders")).stalled_message is None
    status = await tenant.apply("orders", config={"rec\0rds": 5})
    row = await tenant.row("orders")
    assert (row.ready, row.stalled_message[:15]) == (False, "InvalidSpec: sp"), row.stalled_message
    assert told(status, "Stalled")
    await tenant.apply("orders")
    assert (await tenant.row("orders")).stalled_message is None


async def test_a_definition_that_is_deleted_while_it_is_used_stalls_nobody(tenant: Tenant) -> None:
    await publish(tenant, version("1.0.0"), version("1.1.0"))
    await tenant.apply("orders", schedule="@hourly")
    async with tenant.pool.connection() as db:
        await definitions.retire_definition(db, "faker-generate-1.1.0")
        await definitions.retire_definition(db, "faker-generate-1.0.0")
    status = await tenant.status("orders")
    assert status["definition"] == "faker-generate-1.1.0"
    assert "was deleted, and runs go on with it" in told(status, "DefinitionDeleted")
    assert (await tenant.row("orders")).ready
    assert "there is no connector faker/generate" in told(await tenant.apply("new"), "Stalled")
    wrong = await tenant.apply("orders", config={"recrods": 5})
    assert "recrods" in told(wrong, "Stalled")
    assert (await tenant.apply("orders"))["definition"] == "faker-generate-1.1.0", "it is still known"
    await publish(tenant, version("1.1.0", "certified"))
    assert told(await tenant.status("orders"), "DefinitionDeleted") == ""
    await publish(tenant, version("1.1.0", "withdrawn"))
    assert "there are: 1.1.0 (withdrawn)" in told(await tenant.status("orders"), "Stalled")


async def test_a_sweep_that_misses_every_definition_stalls_nobody(tenant: Tenant) -> None:
    await publish(tenant, version("1.0.0"))
    await tenant.apply("orders")
    async with tenant.pool.connection() as db:
        now = await connection_records.moment_of(db)
    live = LiveResources(connections=[ConnectionUid("uid-orders")])
    await retire_all_but(tenant.pool, live, {"ConnectorDefinition": now, "TenantConnection": now})
    status = await tenant.status("orders")
    assert (status["definition"], told(status, "Stalled")) == ("faker-generate-1.0.0", "")
