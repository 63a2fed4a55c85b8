"""The hooks around a read: what it is expected to cost, and what the source announces."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from penstock_sdk import Batch, ConfigError, Drift, Estimate, Stream
from penstock_sdk import protocol as wire


def estimates(platform: Any) -> list[dict[str, Any]]:
    return [body for path, body in platform.calls if path == "estimate"]


def test_an_estimate_is_told_before_the_first_record_is_read(attempt: Any, platform: Any) -> None:
    attempt.streams = ("people", "orders")
    platform.selected = [
        wire.SelectedStream(name="people", mode="full", done=True, checkpoint=1),
        wire.SelectedStream(name="orders", mode="incremental", cursor=41),
    ]
    asked: list[Any] = []

    def estimate(stream: Stream, cursor: Any) -> Estimate:
        asked.append((stream.name, cursor))
        return Estimate(records=5, api_calls=2)

    def read(*_: Any) -> Iterator[Batch]:
        assert len(estimates(platform)) == 1
        yield Batch([{"n": 1}], cursor=1)

    assert attempt(read, estimate=estimate) == 0
    assert asked == [("orders", 41)]
    assert estimates(platform) == [{"streams": {"orders": {"records": 5, "bytes": None, "api_calls": 2}}}]


def test_a_connector_that_knows_nothing_of_its_cost_asks_nobody(attempt: Any, platform: Any) -> None:
    assert attempt(lambda *_: iter([])) == 0
    assert estimates(platform) == []


def test_a_run_over_its_budget_reads_nothing(attempt: Any, platform: Any) -> None:
    platform.refuse = {"estimate": [(422, {"code": "invalid", "message": "spec.budget.records: 5, and 1 are allowed"})]}
    read: list[Any] = []
    assert attempt(lambda *_: iter(read), estimate=lambda *_: Estimate(records=5)) == ConfigError.exit_code
    assert platform.finished[0].error.message == "spec.budget.records: 5, and 1 are allowed"
    assert platform.commits == []


def test_a_server_that_has_no_budgets_yet_is_no_obstacle(attempt: Any, platform: Any) -> None:
    platform.refuse = {"estimate": [(404, {"detail": "Not Found"})]}
    assert attempt(lambda *_: iter([]), estimate=lambda *_: Estimate(records=5)) == 0


@pytest.mark.parametrize("form", [list, lambda rows: json.dumps(rows).encode()])
def test_values_that_look_personal_are_reported_by_class_and_looked_at_once(
    attempt: Any, platform: Any, form: Any
) -> None:
    attempt.shape = {"schema": {"type": "object", "properties": {"c1": {"type": "string"}, "c2": {"type": "string"}}}}
    pages = [[{"c1": f"user{n}@example.com", "c2": "x"} for n in range(9)], [{"c1": "x", "c2": "+49301234567"}] * 9]
    assert attempt(lambda *_: iter([Batch(form(page), cursor=at) for at, page in enumerate(pages)])) == 0
    assert platform.finished[0].pii_suggested == {"people": {"c1": "email"}}
    assert "@example.com" not in platform.finished[0].model_dump_json()


def test_what_the_source_announces_is_told_with_the_streams_and_without_secrets(attempt: Any, platform: Any) -> None:
    def drift(streams: list[Stream]) -> list[Drift]:
        return [Drift(stream=stream.identity, field="a", message="ends in May, says hunter2000") for stream in streams]

    assert attempt(lambda *_: iter([]), drift=drift) == 0
    (body,) = [body for path, body in platform.calls if path == "streams"]
    assert body["drift"] == [{"stream": "people", "field": "a", "message": "ends in May, says ***"}]
