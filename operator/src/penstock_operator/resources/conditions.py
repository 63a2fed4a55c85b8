"""Conditions: one function turns what a reconcile found into kstatus conditions."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

Reason = Literal[
    "Reconciled",
    "Admitted",
    "Withdrawn",
    "RunInProgress",
    "RunSucceeded",
    "Suspended",
    "AwaitingRetry",
    "AwaitingRun",
    "InvalidSpec",
    "DefinitionNotFound",
    "NoVersionInRange",
    "InvalidConfig",
    "InvalidSchedule",
    "SecretRequired",
    "SecretNotFound",
    "ConfigError",
    "AuthenticationError",
    "SourceContractError",
    "LocalPersistenceError",
    "TransientError",
    "DefectError",
    "ImagePullFailed",
    "OutOfMemory",
    "DeadlineExceeded",
    "AttemptLost",
    "LaunchRefused",
    "TokenRefused",
    "RunCancelled",
    "StateChanged",
    "AlertsOpen",
    "RunReplaced",
    "UpstreamNotFound",
    "UpstreamCycle",
    "CircuitOpen",
]
AlertCondition = Literal["SchemaDrift", "EmptyRead", "RecordsRejected"]
SHOWN_ALERTS = 3


@dataclass(frozen=True)
class Finding:
    """What a reconcile found: whether the resource is ready, works towards it, or waits for its owner."""

    state: Literal["ready", "reconciling", "failing", "stalled"]
    reason: Reason
    message: str


def moment(value: datetime | None) -> str | None:
    """Return the moment as Kubernetes writes it, in UTC, to the second."""
    return value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ") if value else None


def conditions_for(
    finding: Finding, generation: int, previous: list[dict[str, Any]], now: datetime, *extra: dict[str, str]
) -> list[dict[str, Any]]:
    """Return the conditions; one whose status did not change keeps its transition time."""
    wanted = [
        {"type": "Ready", "status": str(finding.state == "ready"), "reason": finding.reason, "message": finding.message}
    ]
    if finding.state in ("reconciling", "stalled"):
        kind = finding.state.capitalize()
        wanted.append({"type": kind, "status": "True", "reason": finding.reason, "message": finding.message})
    since = {(each["type"], each["status"]): each["lastTransitionTime"] for each in previous}
    return [
        {
            **each,
            "observedGeneration": generation,
            "lastTransitionTime": since.get((each["type"], each["status"]), moment(now)),
        }
        for each in (*wanted, *extra)
    ]


@dataclass(frozen=True)
class OpenAlert:
    """An alert as a condition tells it."""

    condition: AlertCondition
    stream: str
    kind: str
    message: str


def alert_conditions(alerts: list[OpenAlert]) -> list[dict[str, str]]:
    """Return one condition for each sort of open alert, newest alerts first; without alerts there is none."""
    sorts = sorted({alert.condition for alert in alerts})
    return [
        {
            "type": sort,
            "status": "True",
            "reason": "AlertsOpen",
            "message": _told([alert for alert in alerts if alert.condition == sort]),
        }
        for sort in sorts
    ]


def _told(alerts: list[OpenAlert]) -> str:
    shown = "; ".join(f"{each.stream}: {each.kind}: {each.message}" for each in alerts[:SHOWN_ALERTS])
    more = f"; and {len(alerts) - SHOWN_ALERTS} more" if len(alerts) > SHOWN_ALERTS else ""
    return f"{shown}{more} (`penstock alerts list`)"
