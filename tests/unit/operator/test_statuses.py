"""What a status says of a run, and the patch that writes it."""

from __future__ import annotations

import copy
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from penstock_operator.connections.connection_store import ConnectionSummary
from penstock_operator.controller.status import finding_for, pauses, recorded_fields
from penstock_operator.resources.conditions import Reason, conditions_for
from penstock_operator.resources.crds import crds
from penstock_operator.resources.documents import merge_patch
from penstock_operator.resources.schedules import CronSchedule
from penstock_operator.runs.attempt_store import RunPhase
from penstock_operator.runs.run_store import RunDetail

from tests.rows import CONNECTION, RUN

NOW = datetime(2026, 5, 1, tzinfo=UTC)
Json = dict[str, Any]
VALUES = st.recursive(
    st.one_of(
        st.integers(0, 3), st.sampled_from(["", "a", "b"]), st.booleans(), st.lists(st.integers(0, 2), max_size=2)
    ),
    lambda inner: st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=8,
)
STATUSES = st.dictionaries(st.sampled_from("abcd"), VALUES, max_size=4)


def merged(target: Any, patch: Any) -> Any:
    """Apply a patch as RFC 7396 says, and every API server does."""
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merged(result.get(key), value)
    return result


@given(STATUSES, STATUSES)
def test_a_patch_leaves_nothing_of_the_status_before(before: Json, after: Json) -> None:
    known = copy.deepcopy(before)
    assert merged(before, merge_patch(before, after)) == after
    assert before == known


def test_a_run_that_begins_shows_nothing_of_the_one_that_ended() -> None:
    ended = {"lastRun": {"id": "r1", "phase": "failed", "finishedAt": "then", "message": "no such host"}}
    begun = {"lastRun": {"id": "r2", "phase": "pending", "message": ""}}
    assert merged(ended, merge_patch(ended, begun)) == begun


def row(**changed: Any) -> ConnectionSummary:
    return replace(CONNECTION, **changed)


def run(phase: RunPhase, **changed: Any) -> RunDetail:
    return replace(RUN, phase=phase, **changed)


FAILED = run("failed", id="r1", reason="AuthenticationError", message="password refused")


@pytest.mark.parametrize(
    "reason", ["DefectError", "OutOfMemory", "DeadlineExceeded", "AttemptLost", "ConfigError", None]
)
def test_a_final_failure_is_stalled_whatever_its_reason(reason: str | None) -> None:
    found = finding_for(row(failures=1), run("failed", reason=reason, message="why"))
    kinds = [condition.type for condition in conditions_for(found, 1, [], NOW)]
    assert (found.state, found.message, kinds) == ("stalled", "why", ["Ready", "Stalled"])


@pytest.mark.parametrize("phase", ["pending", "running"])
def test_a_failure_stands_while_the_next_run_is_under_way(phase: RunPhase) -> None:
    found = finding_for(row(failures=2), run(phase, attempt=0 if phase == "pending" else 1), FAILED)
    assert (found.state, found.reason) == ("stalled", "AuthenticationError")
    assert found.message.startswith("password refused (run r2")


def test_a_success_a_request_or_a_changed_spec_ends_it() -> None:
    assert finding_for(row(), run("succeeded")).state == "ready"
    assert finding_for(row(failures=0), run("pending", attempt=0), FAILED).state == "reconciling"
    changed = finding_for(row(failures=0), FAILED)
    assert (changed.state, changed.reason) == ("ready", "AwaitingRun")
    assert "password refused" in changed.message


@pytest.mark.parametrize("reason", ["SecretNotFound", "ImagePullFailed", "LaunchRefused"])
def test_what_kept_a_pod_from_its_start_is_over_once_another_has_started(reason: Reason) -> None:
    failed = replace(FAILED, reason=reason)
    assert finding_for(row(failures=1), run("running"), failed).state == "stalled"
    assert finding_for(row(failures=1), run("running", attempt_started_at=NOW), failed).state == "reconciling"


def test_a_pod_that_waits_is_told_in_the_words_of_kubernetes() -> None:
    words = "0/1 nodes are available: 1 node(s) had untolerated taint {gpu: true}"
    found = finding_for(row(last_success_at=NOW), run("running", waits=words, waits_reason="Unschedulable"))
    assert (found.state, found.reason) == ("reconciling", "Unschedulable")
    assert words in found.message
    assert finding_for(row(), run("running", waits="no secret", waits_reason="SecretNotFound")).state == "stalled"


def test_a_connection_that_is_suspended_says_so_beside_its_failure() -> None:
    (condition,) = pauses(row(suspended=True, failures=1), NOW)
    assert (condition.type, condition.holds, condition.reason) == ("Suspended", True, "Suspended")
    assert finding_for(row(suspended=True, failures=1), FAILED).state == "stalled"


def test_no_column_shows_a_time_to_come_as_an_age() -> None:
    """Kubectl prints `<invalid>` for a `date` that is not past."""
    past = {".metadata.creationTimestamp"}
    for crd in crds().values():
        for column in crd["spec"]["versions"][0]["additionalPrinterColumns"]:
            assert column["type"] != "date" or column["jsonPath"] in past, column


@given(
    st.integers(-100, 100),
    st.none() | st.integers(-100, 100),
    st.sampled_from(["0 * * * *", "30 2 * * *", "@hourly", "0 0 29 2 *", "0 0 31 2 *", None]),
    st.integers(0, 3600),
)
def test_the_next_run_is_never_in_the_past(at: int, paused: int | None, schedule: str | None, jitter: int) -> None:
    """A due time that waits for the run under way, or for the operator, stays due: told is the one after it."""
    due = NOW + timedelta(minutes=at)
    until = None if paused is None else NOW + timedelta(minutes=paused)
    connection = row(
        next_run_at=due,
        paused_until=until,
        schedule=CronSchedule(schedule) if schedule else None,
        jitter_seconds=jitter,
    )
    told = recorded_fields(connection, None, NOW).next_schedule_time
    if told is None:
        assert max(due, until or due) <= NOW
        assert schedule in (None, "0 0 31 2 *")
    else:
        assert datetime.fromisoformat(told) > NOW
