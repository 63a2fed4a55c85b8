"""A connection that keeps failing is left alone for longer and longer."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from penstock_operator.runs.circuit_breaker import pause_after, paused

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)


def test_two_failures_are_tolerated_and_the_pauses_grow_to_six_hours() -> None:
    minutes = [pause_after(failures) / 60 for failures in range(12)]
    assert minutes == [0, 0, 0, 5, 10, 20, 40, 80, 160, 320, 360, 360]
    assert pause_after(10**6) == 6 * 3600


def test_a_pause_is_told_with_its_end_and_what_ends_it_sooner() -> None:
    found = paused(4, NOW + timedelta(minutes=10), NOW)
    assert found is not None
    assert found.reason == "CircuitOpen"
    assert "4 runs failed in a row: the next is made at 2026-01-01T12:10:00Z" in found.message
    assert "penstock.io/requestedAt" in found.message


def test_a_pause_that_is_over_is_not_told() -> None:
    assert paused(4, NOW, NOW) is None
    assert paused(0, None, NOW) is None
