"""Conditions: one function turns the finding of a reconcile into kstatus conditions."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Literal, overload

from penstock_sdk.manifest import Declared
from pydantic import WithJsonSchema

Reason = Literal[
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
    "EgressDenied",
    "RunCancelled",
    "StateChanged",
    "AlertsOpen",
    "RunReplaced",
    "UpstreamNotFound",
    "UpstreamCycle",
    "CircuitOpen",
    "PodPending",
    "Unschedulable",
    "QuotaExceeded",
    "RegistryRestored",
    "UnknownAnnotation",
    "VersionNotSelected",
    "DefinitionDeleted",
]
MEANINGS: dict[Reason, str] = {
    "Admitted": "The definition's manifest is valid; connections may use it.",
    "Withdrawn": "New runs do not use this version; those under way go on.",
    "RunInProgress": "A run is under way.",
    "RunSucceeded": "The newest run has committed everything that it was to read.",
    "Suspended": "`spec.suspend` is true: nothing runs by the clock.",
    "AwaitingRetry": "The newest attempt failed and the next one has its time; the message says why and when.",
    "AwaitingRun": "All is well and no run has been due yet.",
    "InvalidSpec": "The spec breaks a rule that the API server cannot check; the message names the field.",
    "DefinitionNotFound": "No definition of this connector and method: apply one, or correct `spec.connector`.",
    "NoVersionInRange": "There are definitions, and none of a version that `spec.connector.version` allows.",
    "InvalidConfig": "`spec.config` is not what the connector's configSchema asks for; the message names the field.",
    "InvalidSchedule": "`spec.schedule` or `spec.timeZone` cannot be understood, or never comes.",
    "SecretRequired": "The connector takes credentials: name the Secret in `spec.secretRef`.",
    "SecretNotFound": "The Secret, or a key of it, is missing: create it in the connection's namespace.",
    "ConfigError": "The connector says that the config cannot be right, or a run would exceed its budget.",
    "AuthenticationError": "The source refuses the credentials: correct the Secret; a run looks again by itself, or request one.",
    "SourceContractError": "The source is not what the connector expects, or a schema policy, or a threshold of rejected"
    " records, stopped the run.",
    "LocalPersistenceError": "The connector wrote to the local file system: a defect for its author.",
    "TransientError": "The source could not serve the run now, and the retries are used up.",
    "DefectError": "The connector failed unexpectedly: see `penstock runs logs`, and tell its author.",
    "ImagePullFailed": "The definition's image cannot be pulled: the registry, its name, or its credentials.",
    "OutOfMemory": "The run took more than `spec.resources.limits.memory`: raise it, or set `onOutOfMemory`.",
    "DeadlineExceeded": "An attempt took longer than `spec.timeout`; what it committed is kept.",
    "AttemptLost": "The attempt's pod went away or fell silent; another one goes on.",
    "LaunchRefused": "The API server refused the Job, or its pod did not start; the message has its words.",
    "TokenRefused": "The server does not know the pod's token: it is of another installation, or expired.",
    "EgressDenied": "The run tried to reach a host that it may not reach: declare it in the manifest's `network.egress`,"
    " or correct `spec.config`; a private address also needs the platform's `egress.privateRanges`.",
    "RunCancelled": "Somebody cancelled the run.",
    "StateChanged": "Somebody changed the state that the attempt was to go on from; the run begins anew from it.",
    "AlertsOpen": "Something needs a person's eye: `penstock alerts list`.",
    "RunReplaced": "A newer run took its place, as `spec.concurrencyPolicy: Replace` asks.",
    "UpstreamNotFound": "A connection that `spec.after` names is not there.",
    "UpstreamCycle": "Connections follow each other in a circle through `spec.after`.",
    "CircuitOpen": "Three runs in a row failed: no tick makes a run until the pause is over; a request does.",
    "PodPending": "Kubernetes has not started the run's pod yet; the message has its words.",
    "Unschedulable": "No node takes the run's pod now; it waits, and the message has the scheduler's words.",
    "QuotaExceeded": "The namespace's ResourceQuota has no room for the run, which waits until it has: raise it, or run less at once.",
    "RegistryRestored": "The registry was restored from a backup, and the run had gone on since; the next one reads on.",
    "UnknownAnnotation": "An annotation begins with `penstock.io/` and nobody reads it; the message names the nearest one.",
    "VersionNotSelected": "A newer version is in range and needs what the connection does not have; the message names the field.",
    "DefinitionDeleted": "The definition in use was deleted; runs go on with what the registry knows of it.",
}
"""What each reason means, and what its reader can do; the reference is written from it."""
AlertCondition = Literal["SchemaDrift", "EmptyRead", "RecordsRejected", "EgressDenied"]
FindingState = Literal["ready", "reconciling", "failing", "stalled"]
ConditionType = Literal[
    "Ready",
    "Reconciling",
    "Stalled",
    "Admitted",
    "Paused",
    "Suspended",
    "SchemaDrift",
    "EmptyRead",
    "RecordsRejected",
    "EgressDenied",
    "UnknownAnnotation",
    "VersionNotSelected",
    "DefinitionDeleted",
]
SHOWN_ALERTS = 3


class Condition(Declared):
    """One kstatus condition."""

    type: ConditionType
    """Ready, Reconciling and Stalled as kstatus has them; the rest says what needs attention."""
    status: Literal["True", "False", "Unknown"]
    """Whether the condition holds."""
    reason: Annotated[Reason, WithJsonSchema({"type": "string"})]
    """One of a closed list: docs/reference/reasons.md."""
    message: str = ""
    """In words, with the field and the remedy."""
    observed_generation: int
    """The spec's generation that it is about."""
    last_transition_time: str
    """When its status last changed."""


@dataclass(frozen=True, slots=True)
class UndatedCondition:
    """A condition as a reconcile found it, without the generation and the time that its status shows."""

    type: ConditionType
    reason: Reason
    message: str
    holds: bool = True


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of a reconcile: whether the resource is ready, works towards it, or waits for its owner."""

    state: FindingState
    reason: Reason
    message: str


@overload
def moment(value: datetime) -> str: ...


@overload
def moment(value: datetime | None) -> str | None: ...


def moment(value: datetime | None) -> str | None:
    """Return the moment as Kubernetes writes it, in UTC, to the second."""
    return value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ") if value else None


def conditions_for(
    finding: Finding, generation: int, previous: list[Condition], now: datetime, *extra: UndatedCondition
) -> list[Condition]:
    """Return the conditions; one whose status did not change keeps its transition time."""
    found = [UndatedCondition("Ready", finding.reason, finding.message, holds=finding.state == "ready")]
    if finding.state == "reconciling":
        found.append(UndatedCondition("Reconciling", finding.reason, finding.message))
    elif finding.state == "stalled":
        found.append(UndatedCondition("Stalled", finding.reason, finding.message))
    since = {(condition.type, condition.status): condition.last_transition_time for condition in previous}
    dated = list[Condition]()
    for condition in (*found, *extra):
        status: Literal["True", "False"] = "True" if condition.holds else "False"
        dated.append(
            Condition(
                type=condition.type,
                status=status,
                reason=condition.reason,
                message=condition.message,
                observed_generation=generation,
                last_transition_time=since.get((condition.type, status), moment(now)),
            )
        )
    return dated


def note(
    kind: Literal["UnknownAnnotation", "VersionNotSelected", "DefinitionDeleted"], message: str
) -> UndatedCondition:
    """Return a condition that keeps nothing from running; its reason is its type."""
    return UndatedCondition(kind, kind, message)


@dataclass(frozen=True, slots=True)
class OpenAlert:
    """An open alert as a condition reports it."""

    condition: AlertCondition
    stream: str
    kind: str
    message: str


def alert_conditions(alerts: list[OpenAlert]) -> list[UndatedCondition]:
    """Return one condition for each sort of open alert, newest alerts first; without alerts there is none."""
    sorts = sorted({alert.condition for alert in alerts})
    return [
        UndatedCondition(sort, "AlertsOpen", _summary([alert for alert in alerts if alert.condition == sort]))
        for sort in sorts
    ]


def _summary(alerts: list[OpenAlert]) -> str:
    shown = "; ".join(f"{alert.stream}: {alert.kind}: {alert.message}" for alert in alerts[:SHOWN_ALERTS])
    more = f"; and {len(alerts) - SHOWN_ALERTS} more" if len(alerts) > SHOWN_ALERTS else ""
    return f"{shown}{more} (`penstock alerts list`)"
