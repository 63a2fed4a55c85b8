"""What a connection's status says: its newest run, its clock, its alerts. Pure."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from penstock_operator.controller.resources import Document
from penstock_operator.registry.database import Row
from penstock_operator.resources.conditions import AlertCondition, Finding, OpenAlert, moment
from penstock_operator.runs.breaker import paused

OWNERS_TO_FIX = (
    "ConfigError",
    "AuthenticationError",
    "SourceContractError",
    "SecretNotFound",
    "LaunchRefused",
    "ImagePullFailed",
)


def finding_for(row: Row, newest: Row | None) -> Finding:
    """Return what a valid connection's newest run says of it. Pure."""
    if newest is None or newest["phase"] == "succeeded":
        return _idle(row, newest)
    phase, message = newest["phase"], newest["message"]
    if phase == "pending" and newest["attempt"]:
        at = moment(newest["next_attempt_at"])
        return Finding(
            "failing", "AwaitingRetry", f"{message} (attempt {newest['attempt']} failed, the next is due {at})"
        )
    if phase == "pending" and newest["waits"]:
        state = "ready" if row["last_success_at"] else "reconciling"
        return Finding(state, "RunInProgress", f"run {newest['id']} waits: {newest['waits']}")  # type: ignore[arg-type]
    if phase in ("pending", "running"):
        state = "ready" if row["last_success_at"] else "reconciling"
        return Finding(state, "RunInProgress", f"run {newest['id']}, attempt {newest['attempt']}")  # type: ignore[arg-type]
    reason: Any = newest["reason"] or "DefectError"
    return Finding("stalled" if reason in OWNERS_TO_FIX else "failing", reason, message)


def _idle(row: Row, newest: Row | None) -> Finding:
    if row["suspended"]:
        return Finding("ready", "Suspended", "no run is started while spec.suspend is true")
    if newest is None:
        return Finding("ready", "AwaitingRun", "valid; no run has been due yet")
    told = f"; {newest['message']}" if newest["message"] else ""
    return Finding("ready", "RunSucceeded", f"run {newest['id']} committed {newest['records']} records{told}")


def status_of(
    generation: int, listed: list[Document], row: Row, newest: Row | None, definition: Row | None
) -> Document:
    """Return the status of a connection that was found as `listed` conditions tell."""
    status = {
        "observedGeneration": generation,
        "conditions": listed,
        "definition": definition["name"] if definition else None,
        "lastRun": _last_run(newest) if newest else None,
        **told_of(row),
    }
    return {key: value for key, value in status.items() if value is not None}


def told_of(row: Row) -> Document:
    """Return the fields of a status that the connection's row alone decides; None is a field that is not there."""
    return {
        "lastScheduleTime": moment(row["last_scheduled_at"]),
        "lastSuccessfulTime": moment(row["last_success_at"]),
        "nextScheduleTime": moment(_next_time(row)),
        "lastHandledRequest": row["handled_request"],
        "consecutiveFailures": row["failures"] or None,
        "lastStateChange": row["state_answer"],
    }


def _next_time(row: Row) -> datetime | None:
    """Return when the next run is made: not before the pause after failures ends."""
    at: datetime | None = row["next_run_at"]
    if at is None or not row["ready"] or row["suspended"]:
        return None
    return max(at, row["paused_until"] or at)


def _last_run(run: Row) -> Document:
    shown = {
        "id": run["id"],
        "phase": run["phase"],
        "attempt": run["attempt"],
        "records": run["committed_records"],
        "rejected": run["rejected"],
        "startedAt": moment(run["started_at"]),
        "finishedAt": moment(run["finished_at"]),
        "message": run["message"],
    }
    return {key: value for key, value in shown.items() if value is not None}


def open_alert(row: Row) -> OpenAlert:
    """Return an alert's row as conditions tell it."""
    sorts: dict[str, AlertCondition] = {"EmptyRead": "EmptyRead", "RecordsRejected": "RecordsRejected"}
    return OpenAlert(sorts.get(row["kind"], "SchemaDrift"), row["stream"], row["kind"], row["message"])


def pauses(row: Row, now: datetime) -> list[dict[str, str]]:
    """Return the condition of a connection that is paused after failures, if it is."""
    found = paused(row, now)
    return [{"type": "Paused", "status": "True", "reason": found.reason, "message": found.message}] if found else []
