"""Whether a run may begin, by what it is expected to cost."""

from __future__ import annotations

from typing import Any

import pytest
from penstock_operator.resources.models import Budget
from penstock_operator.runs.budget import as_document, over_budget
from penstock_sdk.protocol import StreamEstimate

STREAMS = {
    "people": StreamEstimate(records=1_000_000, bytes=5),
    "events": StreamEstimate(records=200_000, api_calls=7),
    "notes": StreamEstimate(),
}


@pytest.mark.parametrize(
    ("budget", "words"),
    [
        ({}, ""),
        ({"records": None}, ""),
        ({"records": 1_200_000, "bytes": 5, "apiCalls": 7}, ""),
        (
            {"records": 1_199_999},
            "expected to take 1,200,000 records (people 1,000,000, events 200,000), and 1,199,999 are allowed: raise it,",
        ),
        ({"apiCalls": 0}, "7 API calls (events 7), and 0 are allowed"),
        ({"records": 1, "bytes": 1}, "and 1 are allowed; spec.budget.bytes: the run is expected to take 5 bytes"),
    ],
)
def test_what_is_over_the_budget_is_said_with_its_numbers(budget: dict[str, Any], words: str) -> None:
    found = over_budget(Budget.model_validate(budget), STREAMS)
    assert (words in found) if words else found == ""


def test_what_no_stream_knows_is_not_over_any_budget() -> None:
    assert over_budget(Budget(records=0), {"notes": StreamEstimate()}) == ""


def test_a_run_keeps_sums_and_streams() -> None:
    assert as_document(STREAMS) == {
        "records": 1_200_000,
        "bytes": 5,
        "apiCalls": 7,
        "streams": {
            "people": {"records": 1_000_000, "bytes": 5},
            "events": {"records": 200_000, "api_calls": 7},
            "notes": {},
        },
    }
