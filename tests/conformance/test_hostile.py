"""Each check is proven by a connector that only that check catches."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from penstock_sdk.manifest import cursor_safety
from penstock_sdk.testing import CHECKS

from tests.conformance import table

Suite = Callable[..., dict[str, Any]]

CAUGHT_BY = {
    "FailsOnAPage": "reads",
    "SaysLessThanItDoes": "manifest",
    "ReadsAnotherConfig": "manifest",
    "DatesItsCatalog": "catalog",
    "ShufflesItsCatalog": "catalog",
    "WritesNumbersAsText": "schema",
    "AddsAField": "schema",
    "SaysItTwice": "keys",
    "PromisesAhead": "resume",
    "RepeatsTheLastMoment": "boundary",
    "LeavesTheFirstMomentOut": "boundary",
    "FollowsWhatNobodyDeclared": "cursor-safety",
    "FollowsWhatMayBeNull": "cursor-safety",
    "FollowsWhatMayBeMissing": "cursor-safety",
    "FollowsAnything": "cursor-safety",
    "FollowsAFloat": "cursor-safety",
    "FollowsText": "cursor-safety",
    "FollowsAFlag": "cursor-safety",
    "FollowsADate": "cursor-safety",
    "FollowsWithoutAKey": "cursor-safety",
    "SaysNothingOfTies": "cursor-safety",
    "SaysNothingOfWholeSeconds": "cursor-safety",
    "ReadsPastTheWindow": "boundary",
    "SaysNothingOfWindows": "manifest",
    "StampsRecords": "reread",
    "NeedsAFirstPage": "empty",
    "LeavesAGap": "partitions",
    "Overlaps": "partitions",
    "NamesItsRangesAnew": "partitions",
    "BlamesTheConfig": "wrong-credentials",
    "TakesRevocationForTheEnd": "revoked-credentials",
    "LosesTheWish": "throttling",
    "TakesThrottlingForTheEnd": "throttling",
    "AsksAgainAtOnce": "throttling",
    "BlamesTheSource": "slow-source",
    "WaitsForEver": "slow-source",
    "KeepsADirectory": "local-writes",
    "KeepsAFile": "local-writes",
    "CallsHome": "egress",
    "AsksForAName": "egress",
    "LeaksIntoRecords": "secrets",
    "PrintsItsHeader": "secrets",
    "CollectsPages": "memory",
    "IgnoresSignals": "sigterm",
    "MissesLateTies": "tie",
}
NEVER_READS = ("FailsOnAPage", "KeepsAFile")
"""Those that no plain run survives: what compares with one is not run, and says so."""
SPLITS = {"manifest": ("discovery: static", "discovery: static, partitions: true")}
NO_KEY = {"FollowsWithoutAKey": {"keys"}}
"""What does not apply to a stream without a primary key."""
RULES = {
    "FollowsWhatNobodyDeclared": cursor_safety.NOT_IN_SCHEMA,
    "FollowsWhatMayBeNull": cursor_safety.MAY_BE_NULL,
    "FollowsWhatMayBeMissing": cursor_safety.MAY_BE_NULL,
    "FollowsAnything": cursor_safety.UNKNOWN_ORDER,
    "FollowsAFloat": cursor_safety.FLOAT,
    "FollowsText": cursor_safety.TEXT,
    "FollowsAFlag": cursor_safety.NO_ORDER,
    "FollowsADate": cursor_safety.DATE,
    "FollowsWithoutAKey": cursor_safety.NO_KEY,
    "SaysNothingOfTies": cursor_safety.TIES,
    "SaysNothingOfWholeSeconds": cursor_safety.COARSE,
}


def followed(field: str) -> dict[str, Any]:
    return {"manifest": ("cursorField: updated_at", f"cursorField: {field}")}


SETTINGS: dict[str, dict[str, Any]] = {
    **dict.fromkeys(("LeavesAGap", "Overlaps", "NamesItsRangesAnew"), SPLITS),
    "SaysLessThanItDoes": {"manifest": ("modes: [full, incremental], discovery", "modes: [full], discovery")},
    "WaitsForEver": {"patienceSeconds": 20},
    "ReadsPastTheWindow": {"manifest": ("discovery: static", "discovery: static, windows: true")},
    "FollowsWhatNobodyDeclared": followed("changed_at"),
    "FollowsAFloat": followed("price"),
    "FollowsText": followed("name"),
    "FollowsAFlag": followed("done"),
    "FollowsADate": followed("day"),
    "FollowsWithoutAKey": {"manifest": ("primaryKey: [id], ", "")},
}


def outcomes(report: dict[str, Any]) -> dict[str, str]:
    return {check["name"]: check["outcome"] for check in report["checks"]}


def told(connector: str, report: dict[str, Any]) -> None:
    """Compare the connector's row with the page's, or keep it for the page that is being written."""
    row = table.row(connector, outcomes(report))
    rows = os.environ.get("PENSTOCK_HOSTILE_ROWS")
    if rows:
        (Path(rows) / f"{connector.strip('*')}.json").write_text(json.dumps([connector, row]))
    else:
        assert row in table.PAGE.read_text().splitlines(), "make conformance-table writes the page anew"


def test_the_page_names_every_check_and_connector() -> None:
    page = table.PAGE.read_text()
    assert table.columns() in page, "a check came or went: make conformance-table"
    assert [name for name in CAUGHT_BY if f"| {name} | {table.wrongs()[name]} |" not in page] == []


def without_parts(report: dict[str, Any]) -> dict[str, Any]:
    """A new project's stream is read in one: only this check does not apply to it."""
    (parts,) = [check for check in report["checks"] if check["name"] == "partitions"]
    assert parts["outcome"] in ("not applicable", "not run")
    return {**report, "checks": [check for check in report["checks"] if check is not parts]}


def test_a_connector_that_partitions_well_is_conformant(suite: Suite) -> None:
    report = suite("Splits", **SPLITS)
    assert set(outcomes(report).values()) == {"passed"}, report["said"]


def test_every_check_has_a_connector_that_it_catches() -> None:
    assert {check.name for check in CHECKS} == set(CAUGHT_BY.values())


def test_a_new_project_is_conformant(suite: Suite) -> None:
    report = suite()
    assert set(outcomes(without_parts(report)).values()) == {"passed"}, report["said"]
    assert report["conformant"]
    assert report["exit"] == 0
    assert report["artifact"]["digest"].startswith("sha256:")
    told(table.ORDINARY, report)


@pytest.mark.parametrize(("hostile", "check"), CAUGHT_BY.items(), ids=list(CAUGHT_BY))
def test_only_one_check_catches(hostile: str, check: str, suite: Suite) -> None:
    report = suite(hostile, **SETTINGS.get(hostile, {}))
    found = outcomes(report if hostile in SETTINGS and SETTINGS[hostile] is SPLITS else without_parts(report))
    assert [name for name, outcome in found.items() if outcome == "failed"] == [check], report["said"]
    assert {name for name, outcome in found.items() if outcome == "not applicable"} == NO_KEY.get(hostile, set())
    assert ("not run" in found.values()) == (hostile in NEVER_READS), report["said"]
    assert not report["conformant"]
    assert report["exit"] == 1
    assert hostile not in RULES or RULES[hostile].why in report["said"]
    told(hostile, report)


def test_each_rule_of_a_safe_cursor_has_a_connector_that_breaks_it() -> None:
    assert set(RULES.values()) == set(cursor_safety.RULES)
    assert {name for name, check in CAUGHT_BY.items() if check == "cursor-safety"} == set(RULES)
