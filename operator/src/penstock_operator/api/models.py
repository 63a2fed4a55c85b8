"""The answers of the read API, one class for each kind of thing that it shows.

They are not the registry's rows: a field is here because a tenant may see it. What only the platform's operator may see
(operator messages, uids of Jobs and pods, hashes of tokens, schemas and objects) has no field, so no answer can hold it.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from penstock_sdk.protocol import ObjectKind
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, JsonValue, RootModel, SkipValidation

from penstock_operator.audit.events import ActorKind, Result
from penstock_operator.ids import (
    ActorUid,
    AlertId,
    AttemptNumber,
    AuditEventId,
    ConnectionName,
    ConnectionUid,
    DefinitionName,
    Namespace,
    ObjectId,
    RunId,
    StateChangeId,
    StreamName,
)
from penstock_operator.resources.conditions import Reason
from penstock_operator.resources.models import Stage
from penstock_operator.runs.attempt_store import AttemptPhase, RunPhase
from penstock_operator.runs.run_store import Trigger
from penstock_operator.runs.stream_outcomes import Outcome
from penstock_operator.state.history import Action


class JsonDocument(RootModel[dict[str, JsonValue]]):
    """A JSON object that is shown as it is in the registry."""

    model_config = ConfigDict(frozen=True)


RunReason = Annotated[Reason, SkipValidation]
"""A reason of the closed list. It is not validated, so that an older `penstock` command reads the answers of a newer server."""


class ReadModel(BaseModel):
    """Base of the answers: frozen, and a field's docstring is its description in the OpenAPI document."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)


class DefinitionView(ReadModel):
    """A version of a connector method that connections can use."""

    name: DefinitionName
    connector: str
    method: str
    version: str
    image: str
    """The image with its digest."""
    stage: Stage
    manifest: JsonDocument
    """The whole connector.yaml."""
    generation: int
    created_at: datetime


class ConnectionView(ReadModel):
    """A connection that is not deleted."""

    uid: ConnectionUid
    """`metadata.uid` of the TenantConnection."""
    namespace: Namespace
    name: ConnectionName
    generation: int
    definition: DefinitionName | None
    """The definition that the connection uses; null if there is none for it."""
    spec: JsonDocument
    ready: bool
    """False while the connection cannot be used."""
    suspended: bool
    schedule: str | None
    time_zone: str
    jitter_seconds: int
    next_run_at: datetime | None
    last_scheduled_at: datetime | None
    last_success_at: datetime | None
    last_success_run: RunId | None
    failures: int
    """How many runs failed since the last success."""
    paused_until: datetime | None
    """No tick makes a run before this time, because runs failed."""
    upstreams: tuple[str, ...]
    """Connections whose successes start a run of this one."""
    upstream_reason: RunReason | None
    upstream_message: str
    stalled_message: str | None
    """Why the connection cannot be used."""
    created_at: datetime
    updated_at: datetime


class StreamView(ReadModel):
    """The newest version of a stream of a connection, and its state."""

    stream: StreamName
    display_name: str
    """The source's name for the stream today."""
    mode: str | None
    """How spec.streams reads the stream; null if it does not name the stream."""
    version: int
    """Version of the schema."""
    schema_: Annotated[JsonDocument, Field(alias="schema")]
    primary_key: tuple[str, ...]
    cursor_field: str | None
    modes: tuple[str, ...]
    pii: JsonValue
    """Tags of personal data, from the connector."""
    pii_suggested: dict[str, str]
    """Fields whose names or values look like personal data, and the suggested tag."""
    first_seen_at: datetime
    cursor: JsonValue
    checkpoint: int | None
    generation: int | None
    run_id: RunId | None
    """The run that committed the state; null if nobody read the stream yet, or a person changed its state."""
    updated_at: datetime | None
    records: int
    """Committed records of the live generation."""


class ObjectView(ReadModel):
    """A committed object of a live generation."""

    key: str
    namespace: Namespace
    name: ConnectionName
    stream: StreamName
    generation: int
    run_id: RunId
    attempt: AttemptNumber
    sequence: int
    checkpoint: int | None
    records: int | None
    bytes: int | None
    schema_version: int | None
    kind: ObjectKind
    committed_at: datetime


class RunView(ReadModel):
    """A run."""

    id: RunId
    namespace: Namespace
    name: ConnectionName
    definition: DefinitionName
    spec: JsonDocument
    """The connection's spec when the run was made."""
    trigger: Trigger
    token: str | None
    """The request token of a run that somebody asked for."""
    scheduled_at: datetime | None
    phase: RunPhase
    attempt: AttemptNumber
    """Number of the newest attempt; 0 before the first."""
    attempt_started_at: datetime | None
    next_attempt_at: datetime
    cancel_requested: bool
    waits: str
    """Why the run or its pod has not started."""
    waits_reason: RunReason | None
    reason: RunReason | None
    error_class: str | None
    message: str
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    committed_records: int
    records: int
    """Committed records, counted when the run ended."""
    deletes: int
    """How many of `records` say that a record is gone."""
    rejected: int
    """Records that did not fit the schema."""
    bytes: int
    objects: int
    failed_streams: tuple[StreamName, ...]
    """The first 20 streams that failed."""
    memory: str | None
    """The memory limit that replaces the spec's, after an attempt ran out of memory."""
    estimate: JsonDocument | None
    """What the first attempt expected the run to cost."""
    metrics: JsonDocument
    """Figures of cost, by attempt."""


class RunStreamView(ReadModel):
    """The outcome of one stream of a run."""

    stream: StreamName
    attempt: AttemptNumber
    outcome: Outcome
    error_class: str | None
    message: str
    records: int
    deletes: int
    rejected: int


class AttemptView(ReadModel):
    """An attempt of a run."""

    run_id: RunId
    attempt: AttemptNumber
    phase: AttemptPhase
    job_name: str
    streams: tuple[StreamName, ...]
    """Streams that the attempt reads."""
    incremental: tuple[StreamName, ...]
    """Those of them that it reads from a cursor."""
    refused: dict[StreamName, str]
    """Streams that it may not read, and why."""
    launched_at: datetime
    started_at: datetime | None
    heartbeat_at: datetime | None
    finished_at: datetime | None
    exit_code: int | None
    reason: RunReason | None
    error_class: str | None
    message: str
    metrics: JsonDocument
    log_key: str | None
    """Key of the stored log in the bucket."""
    log_bytes: int | None
    log_note: str | None
    """Why there is no log, or a part of it is missing."""


class RunDetailView(RunView):
    """A run with its streams and attempts."""

    streams: tuple[RunStreamView, ...]
    """The streams, those that failed first; at most 1,000, and 1 MiB."""
    more_streams: bool
    """True if the run has streams that are left out."""
    attempts: tuple[AttemptView, ...]
    """The newest attempts in order; at most 1,000, and 1 MiB."""
    more_attempts: bool
    """True if the run has older attempts, which are left out."""


class AlertView(ReadModel):
    """An alert about a stream of a connection."""

    id: AlertId
    namespace: Namespace
    name: ConnectionName
    stream: StreamName
    kind: str
    path: str
    """The field that the alert is about."""
    message: str
    baseline: int | None
    """The schema version that the stream is compared with."""
    run_id: RunId
    opened_at: datetime
    resolved_at: datetime | None
    acknowledged_at: datetime | None
    acknowledged_by: str | None
    note: str


class StateView(ReadModel):
    """The state of a stream after it was changed."""

    stream: StreamName
    cursor: JsonValue
    state_version: int
    checkpoint: int
    generation: int
    updated_at: datetime


class CheckpointView(ReadModel):
    """A committed checkpoint of a stream."""

    stream: StreamName
    checkpoint: int
    generation: int
    cursor: JsonValue
    state_version: int
    run_id: RunId
    attempt: AttemptNumber
    done: bool
    """True for the last checkpoint of a read."""
    committed_at: datetime


class StateSummary(ReadModel):
    """The state of a stream before or after a change."""

    cursor: JsonValue
    state_version: int
    generation: int
    checkpoint: int
    run_id: RunId | None


class StateChangeView(ReadModel):
    """An entry of the audit of state changes."""

    id: StateChangeId
    stream: StreamName
    action: Action
    changed_by: str
    reason: str
    before: Annotated[StateSummary | None, BeforeValidator(lambda summary: summary or None)]
    """Null if the stream had no state."""
    after: StateSummary
    fenced_runs: tuple[RunId, ...]
    """Runs whose attempt was stopped by the change."""
    changed_at: datetime


class AuditEventView(ReadModel):
    """An event of the audit."""

    id: AuditEventId
    occurred_at: datetime
    actor_kind: ActorKind
    actor: str
    """The name of the person, the pod or the process; empty without a valid token."""
    actor_uid: ActorUid | None
    """Null in the answer for one namespace."""
    actor_groups: tuple[str, ...]
    """Empty in the answer for one namespace."""
    address: str | None
    """The address that the request came from."""
    action: str
    object_kind: str
    namespace: Namespace | None
    name: str | None
    object_id: ObjectId | None
    """The id of a run, `run/attempt` of an attempt, or the number of an alert."""
    result: Result
    reason: str
    events: int
    """How many events this one stands for; more than 1 for refusals beyond a limit, which are only counted."""

    @property
    def object(self) -> str:
        """The object in one text."""
        named = "/".join(filter(None, (self.namespace, self.name)))
        return " ".join(filter(None, (self.object_kind, named, self.object_id)))


class StartedRun(ReadModel):
    """A run that was made."""

    id: RunId


class BackfilledRun(StartedRun):
    """A run that was made for a tick."""

    scheduled_at: datetime


class CancelledRun(ReadModel):
    """The phase of a run whose end was asked for."""

    phase: RunPhase
