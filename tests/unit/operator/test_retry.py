"""When a failed attempt is followed by another."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from penstock_operator.runs.retry import Failure, decide_retry

POLICY = {"limit": 3, "backoff": {"initial": "10s", "factor": 3, "max": "60s"}}


def test_the_delay_grows_to_its_bound() -> None:
    delays = [decide_retry(POLICY, streak, Failure("TransientError")) for streak in range(4)]
    assert [each.delay if each else None for each in delays] == [10, 30, 60, None]


def test_progress_resets_the_streak() -> None:
    again = decide_retry(POLICY, 3, Failure("TransientError", progressed=True))
    assert again is not None
    assert again.streak == 1


def test_the_sources_own_wish_goes_first() -> None:
    again = decide_retry(POLICY, 0, Failure("TransientError", retry_after=7))
    assert again is not None
    assert again.delay == 7


@pytest.mark.parametrize(
    "error", ["ConfigError", "AuthenticationError", "SourceContractError", "LocalPersistenceError"]
)
def test_what_only_an_owner_can_mend_is_not_tried_again(error: str) -> None:
    assert decide_retry(POLICY, 0, Failure(error)) is None


def test_a_defect_is_tried_once_more() -> None:
    assert decide_retry(POLICY, 0, Failure("DefectError")) is not None
    assert decide_retry(POLICY, 1, Failure("DefectError")) is None


@given(streak=st.integers(0, 1000))
def test_a_disruption_does_not_count(streak: int) -> None:
    again = decide_retry(POLICY, streak, Failure("TransientError", disrupted=True))
    assert again is not None
    assert again.streak == streak
