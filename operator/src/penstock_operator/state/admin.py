"""Changes of a stream's state by a person: back to the start, to an earlier checkpoint, or to a given cursor.

A change takes effect at once, also while a run is under way. It locks every run of the connection that has not ended, as an
attempt's own checkpoints do, so that the two exclude each other. An attempt that had begun is fenced, and its run goes on
with a new attempt that reads the changed state. Streams that were not named keep their state, also within the run.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import psycopg
from penstock_sdk.manifest import Manifest

from penstock_operator.audit import audit_store
from penstock_operator.audit import events as audit_events
from penstock_operator.audit.events import AuditedObject
from penstock_operator.connections.connection_store import ConnectionRow
from penstock_operator.errors import Invalid, NotFound, NotReady
from penstock_operator.ids import ConnectionUid, RunId, StreamName
from penstock_operator.registry.database import DatabaseConnection
from penstock_operator.runs import run_store, state_store
from penstock_operator.runs.attempt_store import AttemptOutcome
from penstock_operator.runs.run_store import Run
from penstock_operator.runs.state_store import State
from penstock_operator.schemas import schema_store
from penstock_operator.state import history
from penstock_operator.state.document import ExportedState, StateDocument
from penstock_operator.state.history import (
    Action,
    AuditedState,
    CommittedCursor,
    ConnectionForChange,
    StateChangeEntry,
    TargetState,
)

HOLD_TRIES = 5
ACTIONS: dict[Action, audit_events.Action] = {
    "reset": audit_events.Action.state_reset,
    "rewind": audit_events.Action.state_rewind,
    "import": audit_events.Action.state_import,
}


@dataclass(frozen=True)
class Author:
    """Who changes a state, as far as is known, and why."""

    name: str
    reason: str = ""


@dataclass(frozen=True)
class Reset:
    """Read the streams (none named: all) anew, into a new generation of their Bronze objects."""

    streams: tuple[str, ...] = ()


@dataclass(frozen=True)
class RewindToRun:
    """Give the streams (none named: all that the run read by cursor) the state in which the run left them."""

    run_id: RunId
    streams: tuple[str, ...] = ()


@dataclass(frozen=True)
class RewindToCheckpoint:
    """Give one stream the state that a checkpoint of its history committed."""

    stream: str
    checkpoint: int


@dataclass(frozen=True)
class RewindToCursor:
    """Give one stream a cursor, in the connector's own form."""

    stream: str
    cursor: Any


@dataclass(frozen=True)
class Import:
    """Give streams the states of a document, such as an export writes."""

    document: StateDocument


Order = Reset | RewindToRun | RewindToCheckpoint | RewindToCursor | Import


@dataclass(frozen=True)
class LockedConnection:
    """A connection whose state nobody else can change until the transaction ends."""

    row: ConnectionForChange
    active: list[Run]
    states: dict[str, State]
    known: set[str]
    """The streams that the connection selects, has discovered, or has a state of."""

    @property
    def state_version(self) -> int:
        """The version of state that the connection's definition reads and writes."""
        return self.row.manifest.state_version if self.row.manifest else 1

    def is_incremental(self, stream: str) -> bool:
        """Return True if the connection reads the stream by cursor; without a selection, everything is read in full."""
        return any(selected.name == stream and selected.mode == "incremental" for selected in self.row.spec.streams)


async def change_state(db: DatabaseConnection, uid: ConnectionUid, order: Order, author: Author) -> list[State]:
    """Carry out an order, audit it, and return the changed states. Raises Invalid when it cannot be carried out."""
    async with db.transaction():
        return await carry_out(db, await hold(db, uid), order, author)


async def hold(db: DatabaseConnection, uid: ConnectionUid) -> LockedConnection:
    """Lock the connection's runs that are under way, then the connection, in the order in which a run's end does.

    If a run began in between, the locks are released and taken again with that run.
    """
    for _ in range(HOLD_TRIES):
        async with db.transaction() as savepoint:
            ids = sorted(run.id for run in await run_store.active_runs(db, uid))
            locked = [await run_store.lock_run(db, run_id) for run_id in ids]
            row = await history.lock_connection(db, uid)
            if row is None:
                raise NotFound("there is no such connection")
            if {run.id for run in await run_store.active_runs(db, uid)} <= set(ids):
                return await _held(db, row, [run for run in locked if run])
            raise psycopg.Rollback(savepoint)
    raise NotReady("runs of this connection begin faster than its state can be held; try again")


async def _held(db: DatabaseConnection, row: ConnectionForChange, locked: list[Run]) -> LockedConnection:
    states = await state_store.states_of(db, row.uid)
    selected = {stream.name for stream in row.spec.streams}
    discovered = await schema_store.stream_heads(db, row.uid)
    active = [run for run in locked if run.is_active]
    return LockedConnection(row, active, states, selected | discovered.keys() | states.keys())


async def carry_out(db: DatabaseConnection, held: LockedConnection, order: Order, author: Author) -> list[State]:
    """Carry out an order on a connection that is held, and return the changed states."""
    uid, action = held.row.uid, _action(order)
    targets = await _targets(db, held, order)
    fenced = [await _fence(db, run, action) for run in held.active if run.phase == "running"]
    moved = []
    for target in targets:
        before = held.states.get(target.stream)
        after = await history.move_state(db, uid, target)
        change = StateChangeEntry(
            target.stream,
            action,
            author.name,
            author.reason,
            AuditedState.of(before) if before else None,
            AuditedState.of(after),
            fenced,
        )
        await history.record_change(db, uid, change)
        moved.append(after)
    reason = f"streams {', '.join(state.stream for state in moved)}, for {author.name}"
    changed = AuditedObject("connection", connection_uid=uid)
    await audit_store.record(db, ACTIONS[action], changed, reason=reason)
    return moved


def _action(order: Order) -> Action:
    if isinstance(order, Reset):
        return "reset"
    return "import" if isinstance(order, Import) else "rewind"


async def _targets(db: DatabaseConnection, held: LockedConnection, order: Order) -> list[TargetState]:
    match order:
        case Reset(names):
            return reset_targets(held, names)
        case RewindToRun(run_id, names):
            found = await history.last_checkpoints_of_run(db, held.row.uid, run_id)
            return run_targets(held, run_id, names, found)
        case RewindToCheckpoint(stream, number):
            committed = await history.checkpoint_of(db, held.row.uid, stream, number)
            return [checkpoint_target(held, stream, number, committed)]
        case RewindToCursor(stream, cursor):
            return [_rewound(held, stream, cursor, _readable(held))]
        case Import(document):
            return import_targets(held, document)


def reset_targets(held: LockedConnection, names: tuple[str, ...]) -> list[TargetState]:
    """Return the start of each stream, in its next generation."""
    _check_known(held, names)
    chosen = names or tuple(sorted(held.known))
    if not chosen:
        raise Invalid("the connection has no streams yet, so there is nothing to reset")
    return [TargetState(name, None, held.state_version, _generation(held, name) + 1) for name in chosen]


def run_targets(
    held: LockedConnection, run_id: RunId, names: tuple[str, ...], found: Mapping[StreamName, CommittedCursor]
) -> list[TargetState]:
    """Return the state in which a run left each of the streams."""
    _check_known(held, names)
    if not found:
        raise Invalid(
            f"the history of the state holds no checkpoint of run {run_id}; `penstock state history` lists it"
        )
    missing = [name for name in names if name not in found]
    if missing:
        raise Invalid(f"run {run_id} committed no checkpoint of {', '.join(missing)}; it did of {_list(found)}")
    chosen = [found[StreamName(name)] for name in names]
    chosen = chosen or [committed for committed in found.values() if held.is_incremental(committed.stream)]
    if not chosen:
        raise Invalid(f"run {run_id} read {_list(found)} in full: such a stream starts over with each run by itself")
    return [checkpoint_target(held, committed.stream, committed.checkpoint, committed) for committed in chosen]


def checkpoint_target(
    held: LockedConnection, stream: str, number: int, committed: CommittedCursor | None
) -> TargetState:
    """Return the state that a checkpoint committed."""
    _check_known(held, (stream,))
    if committed is None:
        raise Invalid(f"the history holds no checkpoint {number} of {stream}; `penstock state history` lists it")
    if committed.state_version != _readable(held):
        raise Invalid(
            f"checkpoint {number} of {stream} was written by state version {committed.state_version}, and"
            f" {held.row.definition} reads {held.state_version}: pin the earlier connector version, or reset the state"
        )
    return _rewound(held, stream, committed.cursor, committed.state_version)


def import_targets(held: LockedConnection, document: StateDocument) -> list[TargetState]:
    """Return the states that the document gives its streams."""
    _readable(held)
    artifact = held.row.manifest.artifact if held.row.manifest else ""
    if document.connector != artifact:
        raise Invalid(f"connector: the document is of {document.connector}, and the connection uses {artifact}")
    _check_known(held, [stream.name for stream in document.streams])
    for index, stream in enumerate(document.streams):
        if stream.state_version != held.state_version:
            raise Invalid(
                f"streams[{index}].stateVersion: {stream.name} is in version {stream.state_version}, and"
                f" {held.row.definition} reads {held.state_version}: import it under the earlier connector version"
            )
    return [
        TargetState(stream.name, stream.cursor, stream.state_version, _generation(held, stream.name))
        for stream in document.streams
    ]


def _readable(held: LockedConnection) -> int:
    if held.row.manifest is None:
        raise Invalid("the connection is not valid, so its state version is not known; correct it, or reset the state")
    return held.state_version


def _rewound(held: LockedConnection, stream: str, cursor: Any, state_version: int) -> TargetState:
    _check_known(held, (stream,))
    if not held.is_incremental(stream):
        raise Invalid(
            f"{stream} is read in full: it starts over with each run by itself; reset it for a new generation"
        )
    return TargetState(stream, cursor, state_version, _generation(held, stream))


def _generation(held: LockedConnection, stream: str) -> int:
    state = held.states.get(stream)
    return state.generation if state else held.row.first_generation


def _check_known(held: LockedConnection, names: Iterable[str]) -> None:
    unknown = [name for name in names if name not in held.known]
    if unknown:
        raise Invalid(f"streams: the connection has no stream {', '.join(unknown)}; it has: {_list(held.known)}")


def _list(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)[:20]) or "none"


async def _fence(db: DatabaseConnection, run: Run, action: Action) -> RunId:
    """Take the run from its attempt, which the supervisor then stops; the next attempt starts at once."""
    ending = AttemptOutcome("cancelled", "StateChanged", message=f"the state was changed while it ran ({action})")
    await run_store.postpone_run(db, run.id, datetime.now(UTC), run.streak, ending)
    return run.id


async def document_of(db: DatabaseConnection, connection: ConnectionRow, manifest: Manifest | None) -> StateDocument:
    """Return the connection's state as an export writes it."""
    states = await state_store.states_of(db, connection.uid)
    found = [
        ExportedState(
            name=name,
            cursor=state.cursor,
            state_version=state.state_version,
            generation=state.generation,
            checkpoint=state.checkpoint,
            run=state.run_id,
            updated_at=state.updated_at,
        )
        for name, state in sorted(states.items())
    ]
    artifact = manifest.artifact if manifest else ""
    return StateDocument(connection=f"{connection.namespace}/{connection.name}", connector=artifact, streams=found)
