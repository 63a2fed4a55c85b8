"""Statements that bring a registry forward which is older than its bucket."""

from __future__ import annotations

from typing import Any

from psycopg.types.json import Jsonb

from penstock_operator.registry.database import DatabaseConnection, Row, execute, fetch_all, many, one
from penstock_operator.runs.run_store import RUN_COLUMNS, Run


async def connections_named(db: DatabaseConnection, namespace: str, name: str) -> list[Row]:
    """Lock and return the connections that have or had a name, the newest first."""
    return await many(
        db,
        "SELECT * FROM penstock.tenant_connections WHERE namespace = %(namespace)s AND name = %(name)s"
        " ORDER BY deleted_at DESC NULLS FIRST, first_generation DESC FOR UPDATE",
        namespace=namespace,
        name=name,
    )


async def insert_retired(db: DatabaseConnection, values: dict[str, Any]) -> Row:
    """Record a connection that the registry never knew as one that was just deleted: it goes on when it is reconciled."""
    row = await one(
        db,
        """
        INSERT INTO penstock.tenant_connections (uid, namespace, name, generation, spec, ready, suspended, time_zone,
            namespace_uid, first_generation, deleted_at)
        VALUES (%(uid)s, %(namespace)s, %(name)s, 0, %(spec)s, false, false, '', %(namespace_uid)s, %(first)s, now())
        RETURNING *
        """,
        **{**values, "spec": Jsonb(values["spec"])},
    )
    assert row is not None  # noqa: S101 - INSERT … RETURNING always returns
    return row


async def ended_runs(db: DatabaseConnection, ids: list[str]) -> set[str]:
    """Return those of the runs that the registry knows as ended."""
    rows = await many(
        db,
        "SELECT id FROM penstock.connector_runs WHERE id = ANY(%(ids)s) AND phase IN ('succeeded', 'failed', 'cancelled')",
        ids=ids,
    )
    return {row["id"] for row in rows}


async def active_among(db: DatabaseConnection, ids: list[str]) -> list[Run]:
    """Lock and return those of the runs that have not ended, as far as the registry knows."""
    return await fetch_all(
        db,
        Run.parse,
        f"SELECT {RUN_COLUMNS} FROM penstock.connector_runs"  # noqa: S608 - a constant
        " WHERE id = ANY(%(ids)s) AND phase IN ('pending', 'running')"
        " ORDER BY id FOR UPDATE",
        ids=ids,
    )


async def put_run(db: DatabaseConnection, values: dict[str, Any]) -> int:
    """Record a run as its manifest tells of it, where its definition is known; one that was under way has ended so.

    A due time or a token that has made another run here is that one's. Return how many runs were recorded: 0 or 1.
    """
    count = await execute(
        db,
        """
        INSERT INTO penstock.connector_runs AS r (id, connection_uid, definition_uid, spec, trigger, scheduled_at, token, phase,
            attempt, created_at, started_at, finished_at, records, deletes, rejected, bytes, objects, reason, error_class,
            message, tenant)
        SELECT %(id)s, %(uid)s, d.uid, %(spec)s, %(trigger)s, %(scheduled_at)s, %(token)s, %(phase)s, %(attempt)s,
            %(created_at)s, %(started_at)s, %(finished_at)s, %(records)s, %(deletes)s, %(rejected)s, %(bytes)s, %(objects)s,
            %(reason)s, %(error_class)s, %(message)s, %(namespace)s
        FROM penstock.connector_definitions d WHERE d.name = %(definition)s
          AND NOT EXISTS (SELECT 1 FROM penstock.connector_runs o WHERE o.connection_uid = %(uid)s AND o.id <> %(id)s
              AND (o.scheduled_at = %(scheduled_at)s OR o.token = %(token)s))
        ORDER BY d.deleted_at DESC NULLS FIRST LIMIT 1
        ON CONFLICT (id) DO UPDATE SET phase = excluded.phase, attempt = greatest(r.attempt, excluded.attempt),
            finished_at = excluded.finished_at, records = excluded.records, deletes = excluded.deletes,
            rejected = excluded.rejected, bytes = excluded.bytes, objects = excluded.objects, reason = excluded.reason,
            error_class = excluded.error_class, message = excluded.message
        WHERE r.phase IN ('pending', 'running')
        """,
        **{**values, "spec": Jsonb(values["spec"])},
    )
    await execute(
        db,
        "UPDATE penstock.run_attempts SET phase = 'lost', finished_at = now() WHERE run_id = %(id)s AND finished_at IS NULL",
        id=values["id"],
    )
    return count


async def put_objects(db: DatabaseConnection, uid: str, run_id: str, objects: list[dict[str, Any]]) -> int:
    """Record committed objects that are not known as such, and return how many."""
    count = 0
    for each in objects:
        count += await execute(
            db,
            """
            INSERT INTO penstock.bronze_objects AS o (key, connection_uid, stream, generation, run_id, attempt, sequence,
                checkpoint, records, deletes, bytes, sha256, schema_version, kind, committed_at)
            VALUES (%(key)s, %(uid)s, %(stream)s, %(generation)s, %(run)s, %(attempt)s, %(sequence)s, %(checkpoint)s,
                %(records)s, %(deletes)s, %(bytes)s, %(sha256)s, %(schema_version)s, %(kind)s, now())
            ON CONFLICT (key) DO UPDATE SET committed_at = now(), records = excluded.records,
                deletes = excluded.deletes, bytes = excluded.bytes, sha256 = excluded.sha256, checkpoint = excluded.checkpoint,
                schema_version = excluded.schema_version
            WHERE o.committed_at IS NULL
            """,
            **{"deletes": None, **each, "uid": uid, "run": run_id},
        )
    return count


async def put_leftovers(db: DatabaseConnection, uid: str, leftovers: list[dict[str, Any]]) -> int:
    """Record objects that no commit covers as granted and never committed: the collector deletes them."""
    count = 0
    for each in leftovers:
        count += await execute(
            db,
            "INSERT INTO penstock.bronze_objects (key, connection_uid, stream, generation, run_id, attempt, sequence, kind)"
            " VALUES (%(key)s, %(uid)s, %(stream)s, %(generation)s, %(run_id)s, %(attempt)s, %(sequence)s, %(kind)s)"
            " ON CONFLICT DO NOTHING",
            **{**each, "uid": uid},
        )
    return count


async def bring_forward(db: DatabaseConnection, uid: str, run_id: str, state: dict[str, Any]) -> bool:
    """Put a stream where a run left it, unless the registry knows a later checkpoint; False where it does."""
    values = {**state, "cursor": Jsonb(state["cursor"]), "uid": uid, "run": run_id}
    moved = await execute(
        db,
        """
        INSERT INTO penstock.connector_run_state AS s
            (connection_uid, stream, cursor, state_version, checkpoint, generation, run_id, attempt, done)
        VALUES (%(uid)s, %(stream)s, %(cursor)s, %(state_version)s, %(checkpoint)s, %(generation)s, %(run)s, %(attempt)s,
            %(done)s)
        ON CONFLICT (connection_uid, stream) DO UPDATE SET cursor = excluded.cursor, state_version = excluded.state_version,
            checkpoint = excluded.checkpoint, generation = excluded.generation, run_id = excluded.run_id,
            attempt = excluded.attempt, done = excluded.done, updated_at = now()
        WHERE (s.generation, s.checkpoint) < (excluded.generation, excluded.checkpoint)
        """,
        **values,
    )
    await execute(
        db,
        """
        INSERT INTO penstock.stream_checkpoints
            (connection_uid, stream, checkpoint, generation, cursor, state_version, run_id, attempt, done)
        VALUES (%(uid)s, %(stream)s, %(checkpoint)s, %(generation)s, %(cursor)s, %(state_version)s, %(run)s, %(attempt)s,
            %(done)s)
        ON CONFLICT DO NOTHING
        """,
        **values,
    )
    return bool(moved)


async def put_schema(db: DatabaseConnection, uid: str, schema: dict[str, Any]) -> int:
    """Record a stream's version, unless it is known."""
    as_json = ("schema", "primary_key", "modes", "pii", "names", "pii_suggested")
    return await execute(
        db,
        """
        INSERT INTO penstock.stream_registry (connection_uid, stream, version, fingerprint, schema, primary_key, cursor_field,
            modes, pii, display_name, names, pii_suggested)
        VALUES (%(uid)s, %(stream)s, %(version)s, %(fingerprint)s, %(schema)s, %(primary_key)s, %(cursor_field)s, %(modes)s,
            %(pii)s, %(display_name)s, %(names)s, %(pii_suggested)s)
        ON CONFLICT DO NOTHING
        """,
        **{**schema, **{key: Jsonb(schema[key]) for key in as_json}, "uid": uid},
    )


async def raise_first_generation(db: DatabaseConnection, uid: str, generation: int, succeeded: str | None) -> None:
    """Note the first generation of a connection's newest life, and its newest success."""
    await execute(
        db,
        "UPDATE penstock.tenant_connections SET first_generation = greatest(first_generation, %(generation)s),"
        " last_success_run = greatest(last_success_run, %(run)s) WHERE uid = %(uid)s",
        uid=uid,
        generation=generation,
        run=succeeded,
    )


async def committed_keys(db: DatabaseConnection) -> dict[tuple[str, str], set[str]]:
    """Return the keys of all committed objects by namespace and name of their connection."""
    rows = await many(
        db,
        "SELECT c.namespace, c.name, array_agg(o.key) AS keys FROM penstock.bronze_objects o"
        " JOIN penstock.tenant_connections c ON c.uid = o.connection_uid WHERE o.committed_at IS NOT NULL GROUP BY 1, 2",
    )
    return {(row["namespace"], row["name"]): set(row["keys"]) for row in rows}


async def forget_objects(db: DatabaseConnection, keys: list[str]) -> int:
    """Forget objects that are not in the bucket any more."""
    return await execute(db, "DELETE FROM penstock.bronze_objects WHERE key = ANY(%(keys)s)", keys=keys)
