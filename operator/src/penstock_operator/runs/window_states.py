"""window_states: where a run stands that reads a window of its source again."""

from __future__ import annotations

from psycopg.types.json import Jsonb

from penstock_operator.registry.database import DatabaseConnection, Row, many, one, run
from penstock_operator.runs.state_store import NewState


async def states_of_run(db: DatabaseConnection, run_id: str) -> dict[str, Row]:
    """Return a run's own states by stream."""
    rows = await many(db, "SELECT * FROM penstock.window_states WHERE run_id = %(run)s", run=run_id)
    return {row["stream"]: row for row in rows}


async def lock_state(db: DatabaseConnection, run_id: str, stream: str) -> Row | None:
    """Lock and return a run's own state of one stream."""
    return await one(
        db,
        "SELECT * FROM penstock.window_states WHERE run_id = %(run)s AND stream = %(stream)s FOR UPDATE",
        run=run_id,
        stream=stream,
    )


async def begin_state(db: DatabaseConnection, state: NewState, before: int) -> None:
    """Make the row of a stream's first checkpoint, so that there is something to lock; somebody may have made it already."""
    await run(
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
    await run(
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
