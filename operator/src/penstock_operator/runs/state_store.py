"""connector_run_state: the committed state of each stream of a connection, and its history (stream_checkpoints)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from penstock_sdk.json_types import JsonValue
from psycopg.types.json import Jsonb

from penstock_operator.ids import AttemptNumber, ConnectionUid, RunId, StreamName
from penstock_operator.registry.database import DatabaseConnection, execute, fetch_all, fetch_one, fetch_value

COLUMNS = "stream, cursor, state_version, checkpoint, generation, run_id, attempt, done, updated_at"


@dataclass(frozen=True, kw_only=True)
class ReadState:
    """How far a stream is read: the cursor after the last checkpoint, and the attempt that committed the checkpoint."""

    stream: StreamName
    cursor: JsonValue
    state_version: int
    checkpoint: int
    run_id: RunId | None
    """None, as `attempt`, after a person changed the state."""
    attempt: AttemptNumber | None
    done: bool
    """Whether the attempt's run has read the stream to its end."""


@dataclass(frozen=True, kw_only=True)
class State(ReadState):
    """The state of one stream of a connection, and the generation of its objects."""

    generation: int
    updated_at: datetime | None = None


async def states_of(db: DatabaseConnection, connection_uid: ConnectionUid) -> dict[str, State]:
    """Return the connection's states by stream."""
    sql = f"SELECT {COLUMNS} FROM penstock.connector_run_state WHERE connection_uid = %(uid)s"  # noqa: S608
    return {state.stream: state for state in await fetch_all(db, State, sql, uid=connection_uid)}


async def generation_of(db: DatabaseConnection, connection_uid: ConnectionUid, stream: str) -> int:
    """Return the generation that a stream's next objects belong to: the connection's first where nothing was committed."""
    generation = await fetch_value(
        db,
        int,
        "SELECT coalesce((SELECT generation FROM penstock.connector_run_state"
        " WHERE connection_uid = %(uid)s AND stream = %(stream)s), first_generation) AS generation"
        " FROM penstock.tenant_connections WHERE uid = %(uid)s",
        uid=connection_uid,
        stream=stream,
    )
    return generation or 1


async def lock_state(db: DatabaseConnection, connection_uid: ConnectionUid, stream: str) -> State | None:
    """Lock and return one stream's state."""
    return await fetch_one(
        db,
        State,
        f"SELECT {COLUMNS} FROM penstock.connector_run_state"  # noqa: S608 - a constant
        " WHERE connection_uid = %(uid)s AND stream = %(stream)s FOR UPDATE",
        uid=connection_uid,
        stream=stream,
    )


async def begin_state(db: DatabaseConnection, state: NewState) -> None:
    """Make the row of a stream's first checkpoint, so that it can be locked. The row may exist already."""
    await execute(
        db,
        "INSERT INTO penstock.connector_run_state"
        " (connection_uid, stream, state_version, checkpoint, run_id, attempt, done, generation)"
        " SELECT %(uid)s, %(stream)s, %(version)s, 0, %(run)s, %(attempt)s, false, first_generation"
        " FROM penstock.tenant_connections WHERE uid = %(uid)s ON CONFLICT DO NOTHING",
        uid=state.connection_uid,
        stream=state.stream,
        version=state.state_version,
        run=state.run_id,
        attempt=state.attempt,
    )


@dataclass(frozen=True)
class NewState:
    """A stream's state after a checkpoint."""

    connection_uid: ConnectionUid
    stream: str
    cursor: JsonValue
    state_version: int
    checkpoint: int
    run_id: RunId
    attempt: AttemptNumber
    done: bool


async def put_state(db: DatabaseConnection, state: NewState) -> None:
    """Write a stream's state, which is locked, and the same to its history."""
    await execute(
        db,
        """
        WITH written AS (
            UPDATE penstock.connector_run_state SET cursor = %(cursor)s, state_version = %(version)s,
                checkpoint = %(checkpoint)s, run_id = %(run)s, attempt = %(attempt)s, done = %(done)s, updated_at = now()
            WHERE connection_uid = %(uid)s AND stream = %(stream)s
            RETURNING connection_uid, stream, checkpoint, generation, cursor, state_version, run_id, attempt, done)
        INSERT INTO penstock.stream_checkpoints
            (connection_uid, stream, checkpoint, generation, cursor, state_version, run_id, attempt, done)
        SELECT connection_uid, stream, checkpoint, generation, cursor, state_version, run_id, attempt, done FROM written
        """,
        uid=state.connection_uid,
        stream=state.stream,
        cursor=Jsonb(state.cursor),
        version=state.state_version,
        checkpoint=state.checkpoint,
        run=state.run_id,
        attempt=state.attempt,
        done=state.done,
    )
