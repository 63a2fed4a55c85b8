"""window_states: the states of runs that read a window of their source again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from psycopg.types.json import Jsonb

from penstock_operator.ids import AttemptNumber, RunId, StreamName
from penstock_operator.registry.database import DatabaseConnection, execute, fetch_all, fetch_one
from penstock_operator.runs.state_store import NewState

COLUMNS = "stream, cursor, state_version, checkpoint, run_id, attempt, done"


@dataclass(frozen=True, kw_only=True)
class WindowState:
    """The state of one stream of such a run. Its objects belong to the generation that the connection's state names."""

    stream: StreamName
    cursor: Any
    state_version: int
    checkpoint: int
    run_id: RunId
    attempt: AttemptNumber
    done: bool


async def states_of_run(db: DatabaseConnection, run_id: str) -> dict[str, WindowState]:
    """Return a run's own states by stream."""
    sql = f"SELECT {COLUMNS} FROM penstock.window_states WHERE run_id = %(run)s"  # noqa: S608 - a constant
    return {state.stream: state for state in await fetch_all(db, WindowState, sql, run=run_id)}


async def lock_state(db: DatabaseConnection, run_id: str, stream: str) -> WindowState | None:
    """Lock and return a run's own state of one stream."""
    return await fetch_one(
        db,
        WindowState,
        f"SELECT {COLUMNS} FROM penstock.window_states"  # noqa: S608 - a constant
        " WHERE run_id = %(run)s AND stream = %(stream)s FOR UPDATE",
        run=run_id,
        stream=stream,
    )


async def begin_state(db: DatabaseConnection, state: NewState, before: int) -> None:
    """Make the row of a stream's first checkpoint, so that there is something to lock; somebody may have made it already."""
    await execute(
        db,
        "INSERT INTO penstock.window_states (run_id, stream, state_version, checkpoint, attempt, done)"
        " VALUES (%(run)s, %(stream)s, %(version)s, %(before)s, %(attempt)s, false) ON CONFLICT DO NOTHING",
        run=state.run_id,
        stream=state.stream,
        version=state.state_version,
        before=before,
        attempt=state.attempt,
    )


async def put_state(db: DatabaseConnection, state: NewState) -> None:
    """Write a run's own state of one stream, which is locked; it has no history, as nothing is ever put back to it."""
    await execute(
        db,
        "UPDATE penstock.window_states SET cursor = %(cursor)s, state_version = %(version)s, checkpoint = %(checkpoint)s,"
        " attempt = %(attempt)s, done = %(done)s, updated_at = now() WHERE run_id = %(run)s AND stream = %(stream)s",
        run=state.run_id,
        stream=state.stream,
        cursor=Jsonb(state.cursor),
        version=state.state_version,
        checkpoint=state.checkpoint,
        attempt=state.attempt,
        done=state.done,
    )
