"""When an empty read is unusual, and when too many records were rejected."""

from __future__ import annotations

from typing import Any

import pytest
from penstock_operator.runs.read_anomalies import CommittedCounts, empty_read, over_threshold, reject_rules

from tests.unit.operator.conftest import run_spec


@pytest.mark.parametrize(
    ("mode", "recent", "records", "unusual"),
    [
        ("full", [], 0, False),
        ("full", [1204], 0, True),
        ("full", [1204], 1, False),
        ("full", [1204, 0], 0, False),
        ("incremental", [5] * 9, 0, False),
        ("incremental", [5] * 10, 0, True),
        ("incremental", [5] * 10, 1, False),
        ("incremental", [0, *[5] * 50], 0, False),
    ],
)
def test_an_empty_read_is_judged_by_the_ones_before(mode: str, recent: list[int], records: int, unusual: bool) -> None:  # noqa: FBT001
    assert bool(empty_read(mode, recent, records)) == unusual


@pytest.mark.parametrize(
    ("spec", "counts", "words"),
    [
        ({}, CommittedCounts(0, 1000), ""),
        (
            {"rejects": {"maxRecords": 0}},
            CommittedCounts(9, 1),
            "1 of 10 records were rejected, more than spec.rejects.maxRecords (0)",
        ),
        ({"rejects": {"maxRecords": 1}}, CommittedCounts(9, 1), ""),
        ({"rejects": {"maxShare": 0.1}}, CommittedCounts(9, 1), ""),
        (
            {"rejects": {"maxShare": 0.1}},
            CommittedCounts(8, 2),
            "2 of 10 records were rejected, more than spec.rejects.maxShare (0.1)",
        ),
        ({"rejects": {"maxShare": 0}}, CommittedCounts(0, 0), ""),
    ],
)
def test_a_threshold_is_of_one_stream(spec: dict[str, Any], counts: CommittedCounts, words: str) -> None:
    found = over_threshold(reject_rules(run_spec(**spec)), {"people": counts, "events": CommittedCounts(5)})
    assert (words in found) if words else not found
