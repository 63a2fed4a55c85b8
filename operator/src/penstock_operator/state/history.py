"""connector_run_state, changed by a person; stream_checkpoints and state_changes, its history and its audit."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from penstock_sdk.manifest import Manifest
from psycopg.types.json import Jsonb

from penstock_operator.definitions import parse_manifest
from penstock_operator.ids import ConnectionUid, DefinitionName, RunId, StreamName
from penstock_operator.registry.database import DatabaseConnection, ParsedRow, execute, fetch_all, fetch_one
from penstock_operator.resources.models import ConnectionSpec, StateAnswer
from penstock_operator.runs import state_store
from penstock_operator.runs.state_store import State

Action = Literal["reset", "rewind", "import"]
RequestedAction = Literal["reset", "rewind"]
"""The actions that an annotation can ask for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionForChange(ParsedRow):
    """A connection, locked so that its state can be changed, with its definition."""

    PARSERS = {"spec": ConnectionSpec.parse, "manifest": parse_manifest}
    uid: ConnectionUid
    first_generation: int
    spec: ConnectionSpec
    handled_reset: str | None
    handled_rewind: str | None
    manifest: Manifest | None
    """None while no definition is known, as for a connection that was never valid."""
    definition: DefinitionName | None

    def handled(self, action: RequestedAction) -> str | None:
        """Return the token of the newest annotation of that action which was handled."""
        return self.handled_reset if action == "reset" else self.handled_rewind


async def lock_connection(db: DatabaseConnection, uid: ConnectionUid) -> ConnectionForChange | None:
    """Lock the connection, so that no run of it can be made meanwhile, and return it."""
    return await fetch_one(
        db,
        ConnectionForChange.parse,
        """
        SELECT c.uid, c.first_generation, c.spec, c.handled_reset, c.handled_rewind, d.manifest, d.name AS definition
        FROM penstock.tenant_connections c
        LEFT JOIN penstock.connector_definitions d ON d.uid = c.definition_uid
        WHERE c.uid = %(uid)s FOR UPDATE OF c
        """,
        uid=uid,
    )


@dataclass(frozen=True, slots=True)
class TargetState:
    """The state that a stream is to have; a cursor of None means that nothing has been read yet."""

    stream: str
    cursor: Any
    state_version: int
    generation: int


async def move_state(db: DatabaseConnection, uid: ConnectionUid, target: TargetState) -> State:
    """Give a stream another state, and return it.

    The checkpoint's number goes on by one and belongs to no run, so that every checkpoint prepared before is refused.
    """
    state = await fetch_one(
        db,
        State,
        f"""
        INSERT INTO penstock.connector_run_state
            (connection_uid, stream, cursor, state_version, checkpoint, generation, run_id, attempt, done)
        VALUES (%(uid)s, %(stream)s, %(cursor)s, %(version)s, 1, %(generation)s, NULL, NULL, false)
        ON CONFLICT (connection_uid, stream) DO UPDATE SET cursor = excluded.cursor, generation = excluded.generation,
            state_version = excluded.state_version, checkpoint = connector_run_state.checkpoint + 1,
            run_id = NULL, attempt = NULL, done = false, updated_at = now()
        RETURNING {state_store.COLUMNS}
        """,  # noqa: S608 - a constant
        uid=uid,
        stream=target.stream,
        cursor=Jsonb(target.cursor),
        version=target.state_version,
        generation=target.generation,
    )
    assert state is not None  # noqa: S101 - INSERT … RETURNING always returns
    return state


@dataclass(frozen=True, slots=True)
class AuditedState:
    """The part of a state that the audit keeps."""

    cursor: Any
    state_version: int
    generation: int
    checkpoint: int
    run_id: RunId | None

    @classmethod
    def of(cls, state: State) -> AuditedState:
        """Return what the audit keeps of a state."""
        return cls(state.cursor, state.state_version, state.generation, state.checkpoint, state.run_id)


@dataclass(frozen=True, slots=True)
class StateChangeEntry:
    """One entry of the audit. `before` is None where the stream had no state."""

    stream: str
    action: Action
    changed_by: str
    reason: str
    before: AuditedState | None
    after: AuditedState
    fenced_runs: list[RunId]


async def record_change(db: DatabaseConnection, uid: ConnectionUid, change: StateChangeEntry) -> None:
    """Add an entry to the audit."""
    await execute(
        db,
        """
        INSERT INTO penstock.state_changes
            (connection_uid, stream, action, changed_by, reason, before, after, fenced_runs)
        VALUES (%(uid)s, %(stream)s, %(action)s, %(by)s, %(reason)s, %(before)s, %(after)s, %(fenced)s)
        """,
        uid=uid,
        stream=change.stream,
        action=change.action,
        by=change.changed_by,
        reason=change.reason,
        before=Jsonb(asdict(change.before) if change.before else {}),
        after=Jsonb(asdict(change.after)),
        fenced=Jsonb(change.fenced_runs),
    )


@dataclass(frozen=True, slots=True)
class CommittedCursor:
    """The cursor that a checkpoint committed."""

    stream: StreamName
    checkpoint: int
    cursor: Any
    state_version: int


async def checkpoint_of(
    db: DatabaseConnection, uid: ConnectionUid, stream: str, checkpoint: int
) -> CommittedCursor | None:
    """Return one checkpoint of a stream."""
    return await fetch_one(
        db,
        CommittedCursor,
        "SELECT stream, checkpoint, cursor, state_version FROM penstock.stream_checkpoints"
        " WHERE connection_uid = %(uid)s AND stream = %(stream)s AND checkpoint = %(checkpoint)s",
        uid=uid,
        stream=stream,
        checkpoint=checkpoint,
    )


async def last_checkpoints_of_run(
    db: DatabaseConnection, uid: ConnectionUid, run_id: RunId
) -> dict[StreamName, CommittedCursor]:
    """Return the last checkpoint of each stream that a run committed, by stream."""
    found = await fetch_all(
        db,
        CommittedCursor,
        "SELECT DISTINCT ON (stream) stream, checkpoint, cursor, state_version FROM penstock.stream_checkpoints"
        " WHERE connection_uid = %(uid)s AND run_id = %(run)s ORDER BY stream, checkpoint DESC",
        uid=uid,
        run=run_id,
    )
    return {committed.stream: committed for committed in found}


async def answer_request(db: DatabaseConnection, uid: ConnectionUid, answer: StateAnswer) -> None:
    """Remember that an annotation's token was handled, and how."""
    column = {"reset": "handled_reset", "rewind": "handled_rewind"}[answer.action]
    await execute(
        db,
        f"UPDATE penstock.tenant_connections SET {column} = %(token)s, state_answer = %(answer)s WHERE uid = %(uid)s",  # noqa: S608
        uid=uid,
        token=answer.token,
        answer=Jsonb(answer.model_dump(by_alias=True)),
    )
