"""connector_run_state, changed by hand; stream_checkpoints and state_changes, what it was before and who changed it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from psycopg.types.json import Jsonb

from penstock_operator.registry.database import DatabaseConnection, Row, execute, many, one


async def lock_connection(db: DatabaseConnection, uid: str) -> Row | None:
    """Lock the connection, so that no run of it can be made meanwhile, and return it with its definition's manifest."""
    return await one(
        db,
        """
        SELECT c.*, d.manifest, d.name AS definition FROM penstock.tenant_connections c
        LEFT JOIN penstock.connector_definitions d ON d.uid = c.definition_uid
        WHERE c.uid = %(uid)s FOR UPDATE OF c
        """,
        uid=uid,
    )


@dataclass(frozen=True)
class TargetState:
    """Where a stream is to go on: nothing read yet where the cursor is None."""

    stream: str
    cursor: Any
    state_version: int
    generation: int


async def move_state(db: DatabaseConnection, uid: str, position: TargetState) -> Row:
    """Put a stream somewhere else, and return the row.

    The checkpoint's number goes on by one and belongs to no run, so that whatever was prepared before is refused.
    """
    row = await one(
        db,
        """
        INSERT INTO penstock.connector_run_state
            (connection_uid, stream, cursor, state_version, checkpoint, generation, run_id, attempt, done)
        VALUES (%(uid)s, %(stream)s, %(cursor)s, %(version)s, 1, %(generation)s, NULL, NULL, false)
        ON CONFLICT (connection_uid, stream) DO UPDATE SET cursor = excluded.cursor, generation = excluded.generation,
            state_version = excluded.state_version, checkpoint = connector_run_state.checkpoint + 1,
            run_id = NULL, attempt = NULL, done = false, updated_at = now()
        RETURNING *
        """,
        uid=uid,
        stream=position.stream,
        cursor=Jsonb(position.cursor),
        version=position.state_version,
        generation=position.generation,
    )
    assert row is not None  # noqa: S101 - INSERT … RETURNING always returns
    return row


@dataclass(frozen=True)
class StateChangeEntry:
    """One entry of the audit."""

    stream: str
    action: str
    changed_by: str
    reason: str
    before: dict[str, Any]
    after: dict[str, Any]
    fenced_runs: list[str]


async def record_change(db: DatabaseConnection, uid: str, change: StateChangeEntry) -> None:
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
        before=Jsonb(change.before),
        after=Jsonb(change.after),
        fenced=Jsonb(change.fenced_runs),
    )


async def checkpoint_of(db: DatabaseConnection, uid: str, stream: str, checkpoint: int) -> Row | None:
    """Return one checkpoint of a stream."""
    return await one(
        db,
        "SELECT * FROM penstock.stream_checkpoints"
        " WHERE connection_uid = %(uid)s AND stream = %(stream)s AND checkpoint = %(checkpoint)s",
        uid=uid,
        stream=stream,
        checkpoint=checkpoint,
    )


async def last_checkpoints_of_run(db: DatabaseConnection, uid: str, run_id: str) -> dict[str, Row]:
    """Return the last checkpoint of each stream that a run committed, by stream."""
    rows = await many(
        db,
        "SELECT DISTINCT ON (stream) * FROM penstock.stream_checkpoints"
        " WHERE connection_uid = %(uid)s AND run_id = %(run)s ORDER BY stream, checkpoint DESC",
        uid=uid,
        run=run_id,
    )
    return {row["stream"]: row for row in rows}


async def answer_request(db: DatabaseConnection, uid: str, action: str, token: str, answer: dict[str, Any]) -> None:
    """Remember that an annotation's token was handled, and what became of it."""
    column = {"reset": "handled_reset", "rewind": "handled_rewind"}[action]
    await execute(
        db,
        f"UPDATE penstock.tenant_connections SET {column} = %(token)s, state_answer = %(answer)s WHERE uid = %(uid)s",  # noqa: S608
        uid=uid,
        token=token,
        answer=Jsonb(answer),
    )
