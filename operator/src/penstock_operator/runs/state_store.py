"""connector_run_state and stream_registry: where each stream stands and what it looks like."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from psycopg.types.json import Jsonb

from penstock_operator.registry.database import DatabaseConnection, Row, many, one, run


async def states_of(db: DatabaseConnection, connection_uid: str) -> dict[str, Row]:
    """Return the connection's states by stream."""
    rows = await many(
        db, "SELECT * FROM penstock.connector_run_state WHERE connection_uid = %(uid)s", uid=connection_uid
    )
    return {row["stream"]: row for row in rows}


async def generation_of(db: DatabaseConnection, connection_uid: str, stream: str) -> int:
    """Return the generation that a stream's next objects belong to: the connection's first where nothing was committed."""
    row = await one(
        db,
        "SELECT coalesce((SELECT generation FROM penstock.connector_run_state"
        " WHERE connection_uid = %(uid)s AND stream = %(stream)s), first_generation) AS generation"
        " FROM penstock.tenant_connections WHERE uid = %(uid)s",
        uid=connection_uid,
        stream=stream,
    )
    return int(row["generation"]) if row else 1


async def lock_state(db: DatabaseConnection, connection_uid: str, stream: str) -> Row | None:
    """Lock and return one stream's state."""
    return await one(
        db,
        "SELECT * FROM penstock.connector_run_state WHERE connection_uid = %(uid)s AND stream = %(stream)s FOR UPDATE",
        uid=connection_uid,
        stream=stream,
    )


async def begin_state(db: DatabaseConnection, state: NewState) -> None:
    """Make the row of a stream's first checkpoint, so that there is something to lock; somebody may have made it already."""
    await run(
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

    connection_uid: str
    stream: str
    cursor: Any
    state_version: int
    checkpoint: int
    run_id: str
    attempt: int
    done: bool


async def put_state(db: DatabaseConnection, state: NewState) -> None:
    """Write a stream's state, which is locked, and the same to its history."""
    await run(
        db,
        """
        WITH written AS (
            UPDATE penstock.connector_run_state SET cursor = %(cursor)s, state_version = %(version)s,
                checkpoint = %(checkpoint)s, run_id = %(run)s, attempt = %(attempt)s, done = %(done)s, updated_at = now()
            WHERE connection_uid = %(uid)s AND stream = %(stream)s
            RETURNING *)
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


async def stream_heads(db: DatabaseConnection, connection_uid: str) -> dict[str, Row]:
    """Return number, fingerprint and display name of the newest version of each stream; schemas stay where they are."""
    rows = await many(
        db,
        "SELECT DISTINCT ON (stream) stream, version, fingerprint, coalesce(display_name, stream) AS display_name, names, pii_suggested"
        " FROM penstock.stream_registry WHERE connection_uid = %(uid)s ORDER BY stream, version DESC",
        uid=connection_uid,
    )
    return {row["stream"]: row for row in rows}


async def stream_versions(
    db: DatabaseConnection, connection_uid: str, wanted: set[tuple[str, int]]
) -> dict[tuple[str, int], Row]:
    """Return whole versions by stream and number."""
    listed = sorted(wanted)
    rows = await many(
        db,
        """
        SELECT r.* FROM unnest(%(streams)s::text[], %(versions)s::int[]) AS w (stream, version)
        JOIN penstock.stream_registry r
          ON r.connection_uid = %(uid)s AND r.stream = w.stream AND r.version = w.version
        """,
        uid=connection_uid,
        streams=[stream for stream, _ in listed],
        versions=[version for _, version in listed],
    )
    return {(row["stream"], row["version"]): row for row in rows}


@dataclass(frozen=True)
class StreamVersion:
    """What a stream looks like; every field but the first four is JSON."""

    stream: str
    version: int
    fingerprint: str
    display_name: str
    cursor_field: str | None
    schema: str
    primary_key: str
    modes: str
    pii: str
    pii_suggested: str
    names: str


async def put_stream_versions(db: DatabaseConnection, connection_uid: str, versions: list[StreamVersion]) -> None:
    """Record versions, all in one statement; one that is there already takes the new wording, not another shape.

    The caller has found the two shapes to be the same: titles and descriptions may differ.
    """
    columns = {name: [getattr(each, name) for each in versions] for name in StreamVersion.__dataclass_fields__}
    await run(
        db,
        """
        INSERT INTO penstock.stream_registry (connection_uid, stream, version, fingerprint, display_name, cursor_field,
            schema, primary_key, modes, pii, pii_suggested, names)
        SELECT %(uid)s, stream, version, fingerprint, display_name, cursor_field, schema::jsonb, primary_key::jsonb,
            modes::jsonb, pii::jsonb, pii_suggested::jsonb, names::jsonb
        FROM unnest(%(stream)s::text[], %(version)s::int[], %(fingerprint)s::text[], %(display_name)s::text[],
            %(cursor_field)s::text[], %(schema)s::text[], %(primary_key)s::text[], %(modes)s::text[], %(pii)s::text[],
            %(pii_suggested)s::text[], %(names)s::text[])
            AS v (stream, version, fingerprint, display_name, cursor_field, schema, primary_key, modes, pii, pii_suggested,
                  names)
        ON CONFLICT (connection_uid, stream, version) DO UPDATE SET fingerprint = excluded.fingerprint,
            display_name = excluded.display_name, schema = excluded.schema, modes = excluded.modes,
            pii_suggested = excluded.pii_suggested, names = excluded.names
        """,
        uid=connection_uid,
        **columns,
    )


async def add_suggestions(db: DatabaseConnection, connection_uid: str, found: dict[str, dict[str, str]]) -> None:
    """Add what a read's values suggest to the newest version of each stream, all in one statement."""
    await run(
        db,
        """
        UPDATE penstock.stream_registry r SET pii_suggested = r.pii_suggested || f.suggested::jsonb
        FROM unnest(%(streams)s::text[], %(suggested)s::text[]) AS f (stream, suggested)
        WHERE r.connection_uid = %(uid)s AND r.stream = f.stream
          AND NOT r.pii_suggested @> f.suggested::jsonb
          AND r.version = (SELECT max(version) FROM penstock.stream_registry n
                           WHERE n.connection_uid = %(uid)s AND n.stream = f.stream)
        """,
        uid=connection_uid,
        streams=list(found),
        suggested=[json.dumps(each) for each in found.values()],
    )


async def list_streams(db: DatabaseConnection, connection_uid: str) -> list[Row]:
    """Return each stream's newest version with where it stands."""
    return await many(
        db,
        """
        SELECT DISTINCT ON (s.stream) s.stream, coalesce(s.display_name, s.stream) AS display_name, s.version, s.schema, s.primary_key, s.cursor_field, s.modes, s.pii,
            s.pii_suggested, s.first_seen_at, t.cursor, t.checkpoint, t.generation, t.run_id, t.updated_at
        FROM penstock.stream_registry s
        LEFT JOIN penstock.connector_run_state t ON t.connection_uid = s.connection_uid AND t.stream = s.stream
        WHERE s.connection_uid = %(uid)s ORDER BY s.stream, s.version DESC
        """,
        uid=connection_uid,
    )
