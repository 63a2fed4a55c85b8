"""When a failed attempt is followed by another."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from penstock_operator.runs.oom_policy import out_of_memory_message, raised_memory, ran_out
from penstock_operator.runs.retry import AttemptFailure, RetryHistory, RetryPlan, decide_retry
from penstock_operator.runs.run_spec import RunSpec

from tests.unit.operator.conftest import run_spec

RETRY = {"limit": 3, "backoff": {"initial": "10s", "factor": 3, "max": "60s"}}
SPEC = run_spec(retry=RETRY)
ROOMY = run_spec(
    retry=RETRY, resources={"limits": {"memory": "512Mi"}, "onOutOfMemory": {"factor": 2, "max": "1536Mi"}}
)
OOM = AttemptFailure("DefectError", out_of_memory=True)
LOST = AttemptFailure("TransientError", disrupted=True)
DAY = 24 * 3600


def again(spec: RunSpec, standing: RetryHistory, failure: AttemptFailure) -> RetryPlan:
    found = decide_retry(spec, standing, failure)
    assert found is not None
    return found


def test_the_delay_grows_to_its_bound() -> None:
    delays = [decide_retry(SPEC, RetryHistory(streak), AttemptFailure("TransientError")) for streak in range(4)]
    assert [item.delay if item else None for item in delays] == [10, 30, 60, None]


def test_progress_resets_the_streak() -> None:
    assert again(SPEC, RetryHistory(3), AttemptFailure("TransientError", progressed=True)).streak == 1


@pytest.mark.parametrize(
    ("wish", "delay"),
    [(7, 7), (90.5, 90.5), (0, 1), (-5, 1), (10 * 365 * DAY, DAY), (math.inf, DAY), (-math.inf, 1), (math.nan, 1)],
)
def test_the_sources_own_wish_goes_first_within_a_day(wish: float, delay: float) -> None:
    assert again(SPEC, RetryHistory(), AttemptFailure("TransientError", retry_after=wish)).delay == delay


def test_no_backoff_is_longer_than_a_day() -> None:
    endless = run_spec(
        retry={"limit": 100, "backoff": {"initial": "9" * 28 + "h", "factor": 10, "max": "9" * 28 + "h"}}
    )
    assert again(endless, RetryHistory(99), AttemptFailure("TransientError")).delay == DAY


@pytest.mark.parametrize(
    "error", ["ConfigError", "AuthenticationError", "SourceContractError", "LocalPersistenceError"]
)
def test_what_only_an_owner_can_mend_is_not_tried_again(error: str) -> None:
    assert decide_retry(SPEC, RetryHistory(), AttemptFailure(error)) is None


def test_a_defect_is_tried_once_more() -> None:
    assert decide_retry(SPEC, RetryHistory(0), AttemptFailure("DefectError")) is not None
    assert decide_retry(SPEC, RetryHistory(1), AttemptFailure("DefectError")) is None


@given(streak=st.integers(0, 1000), disruptions=st.integers(0, 9))
def test_a_disruption_does_not_count_and_comes_back_later_and_later(streak: int, disruptions: int) -> None:
    found = again(SPEC, RetryHistory(streak, disruptions), LOST)
    assert (found.streak, found.disruptions) == (streak, disruptions + 1)
    assert found.delay == min(2**disruptions, 300)


def test_disruptions_without_end_are_failures_in_the_end() -> None:
    standing, tries, waited = RetryHistory(), 0, 0.0
    while (found := decide_retry(SPEC, standing, LOST)) is not None:
        standing, tries, waited = RetryHistory(found.streak, found.disruptions), tries + 1, waited + found.delay
    assert tries == 10 + 3, "ten are free, and then the limit of the policy holds"
    assert 15 * 60 < waited < 45 * 60


def test_a_disruption_after_progress_begins_anew() -> None:
    found = again(SPEC, RetryHistory(0, 10), AttemptFailure("TransientError", progressed=True, disrupted=True))
    assert (found.delay, found.disruptions) == (1, 1)


def test_memory_grows_to_its_ceiling_and_does_not_count_as_a_failure() -> None:
    first = again(ROOMY, RetryHistory(1, memory="512Mi"), OOM)
    assert (first.memory, first.streak) == ("1024Mi", 1)
    assert again(ROOMY, RetryHistory(1, memory="1024Mi"), OOM).memory == "1536Mi"
    assert decide_retry(ROOMY, RetryHistory(1, memory="1536Mi"), OOM) is None
    assert again(SPEC, RetryHistory(0, memory="512Mi"), OOM).memory is None, (
        "without a policy it is a defect like another"
    )


@given(
    limit=st.sampled_from(["1", "999k", "64Mi", "1.5Gi", "512M"]),
    most=st.sampled_from(["1k", "100Mi", "2Gi", "3.7G", "1Ti"]),
    factor=st.integers(2, 10),
)
def test_memory_is_raised_a_few_times_at_most(limit: str, most: str, factor: int) -> None:
    spec, current, times = run_spec(resources={"onOutOfMemory": {"factor": factor, "max": most}}), limit, 0
    while (raised := raised_memory(spec, current)) is not None:
        current, times = raised, times + 1
    assert times <= 41
    assert not times or current == most


def test_running_out_of_memory_is_told_with_peak_and_limit_and_what_follows() -> None:
    metrics = {"rss_peak_bytes": 498.2 * 2**20}
    plain = out_of_memory_message(SPEC, "512Mi", metrics)
    assert plain.startswith(
        "the connector used more memory than its limit of 512Mi (its last heartbeat reported a peak"
    )
    assert "a peak of 498Mi" in plain
    assert "raise spec.resources.limits.memory, or set spec.resources.onOutOfMemory" in plain
    assert "the next attempt gets 1024Mi" in out_of_memory_message(ROOMY, "512Mi", metrics)
    assert "onOutOfMemory.max allows no more" in out_of_memory_message(ROOMY, "1536Mi", metrics)
    assert "no heartbeat came" in out_of_memory_message(SPEC, "512Mi", {})


def test_a_kill_near_the_limit_was_for_memory() -> None:
    assert ran_out("512Mi", {"rss_peak_bytes": 500 * 2**20})
    assert not ran_out("512Mi", {"rss_peak_bytes": 200 * 2**20})
    assert not ran_out("512Mi", {})
