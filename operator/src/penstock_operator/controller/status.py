"""The status of a connection: its newest run, its schedule and its alerts. Pure."""

from __future__ import annotations

import contextlib
from datetime import datetime

from penstock_operator.alerts import StreamAlert
from penstock_operator.connections.connection_store import ConnectionSummary
from penstock_operator.ids import DefinitionName
from penstock_operator.resources.conditions import (
    AlertCondition,
    Condition,
    Finding,
    FindingState,
    OpenAlert,
    Reason,
    UndatedCondition,
    moment,
)
from penstock_operator.resources.models import ConnectionStatus, LastRun
from penstock_operator.resources.schedules import ScheduleError
from penstock_operator.runs.circuit_breaker import paused
from penstock_operator.runs.run_store import RunDetail
from penstock_operator.scheduling.due import next_time

SUSPENDED = "no run is started by the clock while spec.suspend is true"
BEFORE_THE_START = ("SecretNotFound", "ImagePullFailed", "LaunchRefused")
"""Failures that are over once the pod of a later attempt has started."""
WAITS_FOR_ITS_OWNER = ("SecretNotFound", "ImagePullFailed")


def finding_for(row: ConnectionSummary, newest: RunDetail | None, failure: RunDetail | None = None) -> Finding:
    """Return the finding about a valid connection, from its newest run. Pure.

    `failure` is the newest failed run of a connection that fails. It is reported until a run succeeds, the spec or the
    definition changes, or a run is requested. A run that could not start is reported until another one has started.
    """
    if newest is None or newest.phase == "succeeded":
        return _idle(row, newest)
    if newest.is_active:
        found = _under_way(row, newest)
        stands = failure if failure and row.failures and not _is_past(failure, newest) else None
        return _still_failing(stands, found) if stands and found.state != "stalled" else found
    reason: Reason = newest.reason or "DefectError"
    if newest.phase == "failed" and not row.failures:
        message = f"the spec or the definition changed after run {newest.id} had failed ({reason}: {newest.message})"
        return Finding("ready", "AwaitingRun", f"{message}; the next run tells whether that mended it")
    return Finding("stalled", reason, newest.message)


def _is_past(failure: RunDetail, newest: RunDetail) -> bool:
    return failure.reason in BEFORE_THE_START and newest.attempt_started_at is not None


def _still_failing(failure: RunDetail, found: Finding) -> Finding:
    return Finding("stalled", failure.reason or "DefectError", f"{failure.message} ({found.message})")


def _under_way(row: ConnectionSummary, newest: RunDetail) -> Finding:
    phase, run, message, attempt = newest.phase, newest.id, newest.message, newest.attempt
    settled: FindingState = "ready" if row.last_success_at else "reconciling"
    if phase == "pending" and attempt:
        at = moment(newest.next_attempt_at)
        if newest.reason == "QuotaExceeded":
            return Finding("reconciling", "QuotaExceeded", f"run {run} waits: {message} (asked again at {at})")
        return Finding("failing", "AwaitingRetry", f"{message} (attempt {attempt} failed, the next is due {at})")
    if newest.waits and phase == "running":
        reason: Reason = newest.waits_reason or "PodPending"
        state: FindingState = "stalled" if reason in WAITS_FOR_ITS_OWNER else "reconciling"
        return Finding(state, reason, f"run {run}, attempt {attempt} waits: {newest.waits}")
    if newest.waits:
        return Finding(settled, "RunInProgress", f"run {run} waits: {newest.waits}")
    again = f"; the attempt before failed: {message}" if message else ""
    return Finding(settled, "RunInProgress", f"run {run}, attempt {attempt}{again}")


def _idle(row: ConnectionSummary, newest: RunDetail | None) -> Finding:
    if row.suspended:
        return Finding("ready", "Suspended", SUSPENDED)
    if newest is None:
        return Finding("ready", "AwaitingRun", "valid; no run has been due yet")
    told = f"; {newest.message}" if newest.message else ""
    return Finding("ready", "RunSucceeded", f"run {newest.id} committed {newest.records} records{told}")


def status_of(
    generation: int,
    conditions: list[Condition],
    recorded: ConnectionStatus,
    newest: RunDetail | None,
    alerts: int,
    waiting_runs: int,
) -> ConnectionStatus:
    """Return the status of a connection, whose row gives the fields of `recorded`."""
    return recorded.model_copy(
        update={
            "observed_generation": generation,
            "conditions": conditions,
            "last_run": _last_run(newest) if newest else None,
            "alerts": alerts,
            "waiting_runs": waiting_runs or None,
        }
    )


def recorded_fields(row: ConnectionSummary, definition: DefinitionName | None, now: datetime) -> ConnectionStatus:
    """Return the fields of a status that the connection's row and the name of its definition give."""
    return ConnectionStatus(
        definition=definition,
        last_schedule_time=moment(row.last_scheduled_at),
        last_successful_time=moment(row.last_success_at),
        next_schedule_time=moment(_next_time(row, now)),
        last_handled_request=row.handled_request,
        consecutive_failures=row.failures or None,
        last_state_change=row.state_answer,
    )


def _next_time(row: ConnectionSummary, now: datetime) -> datetime | None:
    """Return when the next run is made: not before the pause after failures ends, and never a time in the past.

    A due time stays due while a run is under way; the status shows the one after it.
    """
    at: datetime | None = row.next_run_at
    if at is None or not row.ready or row.suspended:
        return None
    at = max(at, row.paused_until or at)
    if at > now:
        return at
    with contextlib.suppress(ScheduleError, ArithmeticError, ValueError):  # `schedule_due` postpones such a row
        return next_time(row.schedule, row.time_zone, row.jitter_seconds, now)
    return None


def _last_run(run: RunDetail) -> LastRun:
    return LastRun(
        id=run.id,
        phase=run.phase,
        attempt=run.attempt,
        records=run.committed_records,
        rejected=run.rejected,
        failed_streams=run.failed_streams or None,
        started_at=moment(run.started_at),
        finished_at=moment(run.finished_at),
        message=run.waits or ("" if run.phase == "running" else run.message),
    )


def open_alert(alert: StreamAlert) -> OpenAlert:
    """Return an alert as conditions report it."""
    sorts: dict[str, AlertCondition] = {
        "EmptyRead": "EmptyRead",
        "RecordsRejected": "RecordsRejected",
        "EgressDenied": "EgressDenied",
    }
    return OpenAlert(sorts.get(alert.kind, "SchemaDrift"), alert.stream, alert.kind, alert.message)


def pauses(row: ConnectionSummary, now: datetime) -> list[UndatedCondition]:
    """Return the conditions of a connection that no tick makes run: paused after failures, or suspended by its owner."""
    failing = paused(row.failures, row.paused_until, now)
    found = [] if failing is None else [UndatedCondition("Paused", failing.reason, failing.message)]
    if row.suspended:
        found.append(UndatedCondition("Suspended", "Suspended", SUSPENDED))
    return found
