"""The two kinds, as `kubectl apply` takes them; the CRDs are generated from these models."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from penstock_sdk.manifest import Declared, Manifest, rules
from pydantic import Field

GROUP, API_VERSION = "penstock.io", "v1alpha1"
REQUESTED_AT = f"{GROUP}/requestedAt"
Kind = Literal["ConnectorDefinition", "TenantConnection"]
Stage = Literal["preview", "certified", "deprecated", "withdrawn"]

DURATION = "^([0-9]{1,6}(ms|s|m)|[0-9]{1,4}h)+$"  # no sum of these within 30 characters is too long for Kubernetes
DURATION_RULE = (
    f"self.matches('{DURATION}')",
    "must be a duration such as '30s', '10m' or '1h30m', with at most four digits of hours and six of anything else",
)
Duration = Annotated[str, Field(max_length=30, json_schema_extra=rules(DURATION_RULE))]
Jitter = Annotated[
    str,
    Field(
        max_length=30,
        json_schema_extra=rules(
            DURATION_RULE,
            (
                f"self.matches('{DURATION}') ? duration(self) <= duration('24h') : true",
                "must be at most 24h: it puts each tick off by a part of it",
            ),
        ),
    ),
]
Memory = Annotated[
    str,
    Field(
        max_length=20,
        json_schema_extra=rules(
            (
                "self.matches('^[0-9]+([.][0-9]+)?(Ki|Mi|Gi|Ti|k|M|G|T)?$')",
                "must be an amount of memory such as '512Mi' or '2Gi'",
            )
        ),
    ),
]
Instant = Annotated[
    str,
    Field(
        max_length=40,
        json_schema_extra=rules(
            (
                "self.matches('^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}([.][0-9]+)?(Z|[+-][0-9]{2}:[0-9]{2})$')",
                "must be a moment with a zone such as '2026-01-01T00:00:00Z'",
            )
        ),
    ),
]
Name = Annotated[str, Field(max_length=63, min_length=1)]
StreamName = Annotated[str, Field(max_length=253, min_length=1)]
FreeForm = Annotated[dict[str, Any], Field(json_schema_extra={"x-kubernetes-preserve-unknown-fields": True})]


class DefinitionSpec(Declared):
    """One immutable version of one connector method."""

    image: Annotated[
        str,
        Field(
            max_length=500,
            json_schema_extra=rules(
                (
                    "self.matches('^[^@ ]+@sha256:[0-9a-f]{64}$')",
                    "must name the image by digest, such as 'registry.example/postgres-sql@sha256:<64 hex digits>'",
                )
            ),
        ),
    ]
    stage: Stage = "preview"
    manifest: Manifest


class ConnectorReference(Declared):
    """Which connector a connection uses."""

    name: Annotated[str, Field(max_length=40, min_length=1)]
    method: Annotated[str, Field(max_length=20, min_length=1)]
    version: Annotated[
        str,
        Field(
            max_length=60,
            json_schema_extra=rules(
                (
                    "self.matches('^([\\\\^~]|>=)?[0-9]+([.][0-9]+){0,2}(-[0-9a-z.-]+)?$') || self == '*'",
                    "must be an exact version ('1.2.0') or a range ('^1.2', '~1.2.0', '>=1.2', '*')",
                )
            ),
        ),
    ] = "*"


class SecretReference(Declared):
    """The Secret in the connection's namespace that holds the credentials."""

    name: Annotated[str, Field(max_length=253, min_length=1)]


SchemaPolicy = Literal["evolve", "freeze", "discard-new", "block-pii"]


class StreamSelection(Declared):
    """One stream to read, and how. Its schemaPolicy goes before the connection's."""

    name: StreamName
    mode: Literal["full", "incremental"] = "full"
    schema_policy: SchemaPolicy | None = None


class Backoff(Declared):
    """How long to wait before each retry: initial, times factor each time, at most max."""

    initial: Duration = "10s"
    factor: Annotated[int, Field(ge=1, le=10)] = 3
    max: Duration = "30m"


class Retry(Declared):
    """How often a transient failure is tried again."""

    limit: Annotated[int, Field(ge=0, le=100)] = 5
    backoff: Backoff = Backoff()


class ResourceLimits(Declared):
    """Upper bounds of the run's container."""

    memory: Memory = "512Mi"
    cpu: Annotated[str, Field(max_length=20, pattern=r"^[0-9]+(\.[0-9]+)?m?$")] = "1"


class OnOutOfMemory(Declared):
    """Give the next attempt of a run that ran out of memory more of it: times factor each time, at most max."""

    factor: Annotated[int, Field(ge=2, le=10)] = 2
    max: Memory


class Resources(Declared):
    """What the run's container may use."""

    limits: ResourceLimits = ResourceLimits()
    on_out_of_memory: OnOutOfMemory | None = None


class Upstream(Declared):
    """A connection of the same namespace that another one follows."""

    name: Name


class Rejects(Declared):
    """How many records of one stream may be put aside because they do not fit; past it the run fails. None: any number."""

    max_records: Annotated[int, Field(ge=0)] | None = None
    max_share: Annotated[float, Field(ge=0, le=1)] | None = None


class Budget(Declared):
    """What one run may cost, by the connector's own estimate; a run that is expected to cost more is not begun."""

    records: Annotated[int, Field(ge=0)] | None = None
    bytes: Annotated[int, Field(ge=0)] | None = None
    api_calls: Annotated[int, Field(ge=0)] | None = None


class Bronze(Declared):
    """How records are stored, and what becomes of them when the connection goes."""

    format: Literal["jsonl"] = "jsonl"
    deletion_policy: Literal["Retain", "Delete"] = "Retain"


class ConnectionSpec(Declared):
    """A tenant's use of a connector. Without `streams`, all that the source offers are read in full."""

    connector: ConnectorReference
    config: FreeForm = {}
    secret_ref: SecretReference | None = None
    streams: Annotated[
        list[StreamSelection],
        Field(
            max_length=500,
            json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
        ),
    ] = []
    since: Instant | None = None
    schedule: Annotated[str, Field(max_length=100, min_length=1)] | None = None
    time_zone: Annotated[str, Field(max_length=60, min_length=1)] = "Etc/UTC"
    jitter: Jitter = "0s"
    after: Annotated[
        list[Upstream],
        Field(
            max_length=20,
            json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
        ),
    ] = []
    suspend: bool = False
    concurrency_policy: Literal["Forbid", "Replace", "Allow"] = "Forbid"
    starting_deadline_seconds: Annotated[int, Field(ge=10)] | None = None
    retry: Retry = Retry()
    timeout: Duration = "2h"
    resources: Resources = Resources()
    schema_policy: SchemaPolicy = "evolve"
    validation: Literal["standard", "strict"] = "standard"
    rejects: Rejects | None = None
    budget: Budget | None = None
    bronze: Bronze = Bronze()
    history_limit: Annotated[int, Field(ge=0, le=1000)] = 10


class Condition(Declared):
    """One kstatus condition."""

    type: Literal[
        "Ready", "Reconciling", "Stalled", "Admitted", "Paused", "SchemaDrift", "EmptyRead", "RecordsRejected"
    ]
    status: Literal["True", "False", "Unknown"]
    reason: str
    message: str = ""
    observed_generation: int
    last_transition_time: str


class LastRun(Declared):
    """The newest run, in short; the whole is in the registry."""

    id: str
    phase: str
    attempt: int = 0
    records: int = 0
    rejected: int = 0
    started_at: str | None = None
    finished_at: str | None = None
    message: str = ""


class StateAnswer(Declared):
    """What became of the newest state change that an annotation asked for."""

    action: Literal["reset", "rewind"]
    token: str
    outcome: Literal["applied", "refused"]
    message: str = ""
    time: str


class ConnectionStatus(Declared):
    """What the operator found."""

    observed_generation: int | None = None
    conditions: list[Condition] = []
    definition: str | None = None
    last_run: LastRun | None = None
    last_schedule_time: str | None = None
    last_successful_time: str | None = None
    next_schedule_time: str | None = None
    last_handled_request: str | None = None
    waiting_runs: int | None = None
    consecutive_failures: int | None = None
    last_state_change: StateAnswer | None = None
    alerts: int = 0


class DefinitionStatus(Declared):
    """What the operator found."""

    observed_generation: int | None = None
    conditions: list[Condition] = []
    connections: int = 0


def parse_duration(text: str) -> float:
    """Return the seconds in a duration such as '1h30m'. The CRD has checked the form."""
    units = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
    seconds, number, unit = 0.0, "", ""
    for char in f"{text}0":
        if char.isdigit() and unit:
            seconds, number, unit = seconds + float(number) * units[unit], char, ""
        elif char.isdigit():
            number += char
        else:
            unit += char
    return seconds


def parse_instant(text: str | None) -> datetime | None:
    """Return the aware moment, None for None."""
    return datetime.fromisoformat(text) if text else None
