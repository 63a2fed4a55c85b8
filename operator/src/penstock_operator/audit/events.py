"""What an event of the audit says: an action, its object, and its result. Actions are a closed list."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal

from penstock_operator.ids import ActorUid, ConnectionUid, Namespace, ObjectId

ActorKind = Literal["person", "pod", "controller", "command", "anonymous"]
Result = Literal["allowed", "refused", "failed"]
ObjectKind = Literal["connection", "definition", "run", "attempt", "credential", "alert", "audit", "api", "registry"]


class Action(StrEnum):
    """Everything that the audit records. Remove no member: the table keeps its value."""

    attempt_start = "attempt.start"
    attempt_streams = "attempt.streams"
    attempt_estimate = "attempt.estimate"
    attempt_uploads = "attempt.uploads"
    attempt_checkpoint = "attempt.checkpoint"
    attempt_heartbeat = "attempt.heartbeat"
    attempt_finish = "attempt.finish"
    attempt_launch = "attempt.launch"
    attempt_end = "attempt.end"
    egress_read = "egress.read"
    egress_report = "egress.report"
    rate_limit_lease = "rate-limit.lease"
    credential_lease = "credential.lease"
    credential_release = "credential.release"
    credential_write = "credential.write"
    credential_rotate = "credential.rotate"
    credential_delete = "credential.delete"
    run_create = "run.create"
    run_backfill = "run.backfill"
    run_reread = "run.reread"
    run_cancel = "run.cancel"
    run_end = "run.end"
    state_reset = "state.reset"
    state_rewind = "state.rewind"
    state_import = "state.import"
    alert_acknowledge = "alert.acknowledge"
    connection_admit = "connection.admit"
    connection_delete = "connection.delete"
    connection_release = "connection.release"
    definition_admit = "definition.admit"
    definition_delete = "definition.delete"
    data_purge = "data.purge"
    registry_reconcile = "registry.reconcile"
    api_read = "api.read"
    audit_expire = "audit.expire"


@dataclass(frozen=True, slots=True, kw_only=True)
class Actor:
    """Who does something. `uid` is a pod's; a person has groups; `address` is the client's of a request."""

    kind: ActorKind
    name: str
    uid: ActorUid | None = None
    groups: tuple[str, ...] = ()
    address: str | None = None


CONTROLLER = Actor(kind="controller", name="controller")


@dataclass(frozen=True, slots=True)
class AuditedObject:
    """What an action is done to: `name` is the connection's or definition's, `id` that of a run, an alert or a credential."""

    kind: ObjectKind
    namespace: Namespace | None = None
    name: str | None = None
    id: ObjectId | None = None
    connection_uid: ConnectionUid | None = None
    """The connection, where its namespace and name are not at hand: the statement looks them up."""


@dataclass(frozen=True, slots=True)
class AuditEvent:
    """One event. `reason` never holds a value of a request's body; `events` counts the events that it stands for."""

    action: Action
    object: AuditedObject
    result: Result = "allowed"
    reason: str = ""
    actor: Actor = field(default=CONTROLLER)
    events: int = 1
