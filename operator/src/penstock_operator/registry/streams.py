"""connector_run_state, stream_registry and compat_alerts: where each stream stands and what it looks like."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from psycopg.types.json import Jsonb

from penstock_operator.registry.database import Connection, Row, many, one, run


async def states_of(connection: Connection, connection_uid: str) -> dict[str, Row]:
    """Return the connection's states by stream."""
    rows = await many(
        connection, "SELECT * FROM penstock.connector_run_state WHERE connection_uid = %(uid)s", uid=connection_uid
    )
    return {row["stream"]: row for row in rows}


async def lock_state(connection: Connection, connection_uid: str, stream: str) -> Row | None:
    """Lock and return one stream's state."""
    return await one(
        connection,
        "SELECT * FROM penstock.connector_run_state WHERE connection_uid = %(uid)s AND stream = %(stream)s FOR UPDATE",
        uid=connection_uid,
        stream=stream,
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


async def put_state(connection: Connection, state: NewState) -> None:
    """Write a stream's state, and the same to its history."""
    await run(
        connection,
        """
        WITH written AS (
            INSERT INTO penstock.connector_run_state
                (connection_uid, stream, cursor, state_version, checkpoint, run_id, attempt, done)
            VALUES (%(uid)s, %(stream)s, %(cursor)s, %(version)s, %(checkpoint)s, %(run)s, %(attempt)s, %(done)s)
            ON CONFLICT (connection_uid, stream) DO UPDATE SET cursor = excluded.cursor,
                checkpoint = excluded.checkpoint, state_version = excluded.state_version, run_id = excluded.run_id,
                attempt = excluded.attempt, done = excluded.done, updated_at = now()
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


async def newest_streams(connection: Connection, connection_uid: str) -> dict[str, Row]:
    """Return the newest version of each of the connection's streams, by name."""
    rows = await many(
        connection,
        "SELECT DISTINCT ON (stream) * FROM penstock.stream_registry WHERE connection_uid = %(uid)s"
        " ORDER BY stream, version DESC",
        uid=connection_uid,
    )
    return {row["stream"]: row for row in rows}


async def add_stream_version(connection: Connection, uid: str, version: int, fingerprint: str, seen: Row) -> None:
    """Record what a stream looks like from now on."""
    await run(
        connection,
        """
        INSERT INTO penstock.stream_registry
            (connection_uid, stream, version, fingerprint, schema, primary_key, cursor_field, modes, pii)
        VALUES (%(uid)s, %(stream)s, %(version)s, %(fingerprint)s, %(schema)s, %(primary_key)s, %(cursor_field)s,
                %(modes)s, %(pii)s)
        ON CONFLICT DO NOTHING
        """,
        uid=uid,
        stream=seen["name"],
        version=version,
        fingerprint=fingerprint,
        schema=Jsonb(seen["schema"]),
        primary_key=Jsonb(seen["primary_key"]),
        cursor_field=seen["cursor_field"],
        modes=Jsonb(seen["modes"]),
        pii=Jsonb(seen["pii"]),
    )


async def open_alert(connection: Connection, uid: str, stream: str, kind: str, message: str, run_id: str) -> None:
    """Open an alert; one that is open already stays as it is."""
    await run(
        connection,
        "INSERT INTO penstock.compat_alerts (connection_uid, stream, kind, message, run_id)"
        " VALUES (%(uid)s, %(stream)s, %(kind)s, %(message)s, %(run)s) ON CONFLICT DO NOTHING",
        uid=uid,
        stream=stream,
        kind=kind,
        message=message,
        run=run_id,
    )


async def list_streams(connection: Connection, connection_uid: str) -> list[Row]:
    """Return each stream's newest version with where it stands."""
    return await many(
        connection,
        """
        SELECT DISTINCT ON (s.stream) s.stream, s.version, s.schema, s.primary_key, s.cursor_field, s.modes, s.pii,
            s.first_seen_at, t.cursor, t.checkpoint, t.generation, t.run_id, t.updated_at
        FROM penstock.stream_registry s
        LEFT JOIN penstock.connector_run_state t ON t.connection_uid = s.connection_uid AND t.stream = s.stream
        WHERE s.connection_uid = %(uid)s ORDER BY s.stream, s.version DESC
        """,
        uid=connection_uid,
    )


async def list_alerts(connection: Connection, namespace: str | None) -> list[Row]:
    """Return the open alerts, of one namespace or of all."""
    return await many(
        connection,
        """
        SELECT a.*, c.namespace, c.name FROM penstock.compat_alerts a
        JOIN penstock.tenant_connections c ON c.uid = a.connection_uid
        WHERE a.resolved_at IS NULL AND (%(namespace)s::text IS NULL OR c.namespace = %(namespace)s) ORDER BY a.id
        """,
        namespace=namespace,
    )
