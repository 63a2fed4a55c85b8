"""The egress check of the conformance suite, on what a process was seen to do."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
from penstock_sdk.testing.checks.sandbox import egress
from penstock_sdk.testing.harness import Failed, Harness, NotRun

from tests.fakes.egress import manifest_document


def harness(manifest: dict[str, Any], config: dict[str, Any], *events: dict[str, Any]) -> Harness:
    """Return a harness whose only run was seen to do this."""
    observations = [SimpleNamespace(**event) for event in events]
    trial = SimpleNamespace(last=SimpleNamespace(observations=observations), api=SimpleNamespace(port=1))
    made = SimpleNamespace(
        manifest=manifest, target=SimpleNamespace(config=config), modes=["full"], baseline=lambda _mode: trial
    )
    return cast("Harness", made)


def looked_up(host: str) -> dict[str, Any]:
    return {"event": "lookup", "host": host}


def connected(host: str, port: int) -> dict[str, Any]:
    return {"event": "connect", "host": host, "port": port, "kind": "tcp", "program": ""}


@pytest.mark.parametrize("name", ["DB.Sales.example", "db.sales.example.", "db.sales.example"])
def test_a_name_is_declared_however_it_is_written(name: str) -> None:
    resolved = {"event": "resolved", "host": name, "addresses": ["192.0.2.7"]}
    manifest = manifest_document([{"host": "{{config.host}}", "port": "5432"}])
    found = harness(manifest, {"host": "DB.sales.example"}, looked_up(name), resolved, connected("192.0.2.7", 5432))
    assert egress(found) == "connected to 192.0.2.7:5432"


def test_another_name_and_another_port_are_not() -> None:
    manifest = manifest_document([{"host": "192.0.2.7", "port": "5432"}])
    with pytest.raises(Failed, match=r"looked up other\.example"):
        egress(harness(manifest, {}, looked_up("other.example")))
    with pytest.raises(Failed, match=r"connected to 192\.0\.2\.7:22"):
        egress(harness(manifest, {}, connected("192.0.2.7", 22)))


def test_an_invalid_manifest_is_named_by_its_own_check() -> None:
    with pytest.raises(NotRun, match="manifest"):
        egress(harness({}, {}))
