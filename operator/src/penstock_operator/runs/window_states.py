"""window_states: the states of runs that read a window of their source again.

Their objects belong to the generation that the connection's state names.
"""

from __future__ import annotations

from psycopg.types.json import Jsonb

from penstock_operator.registry.database import DatabaseConnection, execute, fetch_all, fetch_one
from penstock_operator.runs.state_store import NewState, ReadState

COLUMNS = "stream, cursor, state_version, checkpoint, run_id, attempt, done"


async def states_of_run(db: DatabaseConnection, run_id: str) -> dict[str, ReadState]:
    """Return a run's own states by stream."""
    sql = f"SELECT {COLUMNS} FROM penstock.window_states WHERE run_id = %(run)s"  # noqa: S608 - a constant
    return {state.stream: state for state in await fetch_all(db, ReadState, sql, run=run_id)}


async def lock_state(db: DatabaseConnection, run_id: str, stream: str) -> ReadState | None:
    """Lock and return a run's own state of one stream."""
    return await fetch_one(
        db,
        ReadState,
        f"SELECT {COLUMNS} FROM penstock.window_states"  # noqa: S608 - a constant
        " WHERE run_id = %(run)s AND stream = %(stream)s FOR UPDATE",
        run=run_id,
        stream=stream,
    )


async def begin_state(db: DatabaseConnection, state: NewState, before: int) -> None:
    """Make the row of a stream's first checkpoint, so that it can be locked. The row may exist already."""
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
    """Write a run's own state of one stream, which is locked. It has no history, because it is never rewound."""
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
