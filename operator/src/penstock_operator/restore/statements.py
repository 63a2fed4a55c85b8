"""Statements that bring a registry forward which is older than its bucket."""

from __future__ import annotations

from dataclasses import dataclass

from penstock_sdk.protocol import ObjectKind
from psycopg.types.json import Jsonb

from penstock_operator.bronze.keys import ObjectLocation
from penstock_operator.connections.connection_store import ConnectionKey
from penstock_operator.ids import ConnectionName, ConnectionUid, Namespace, NamespaceUid, RunId
from penstock_operator.registry.database import (
    DatabaseConnection,
    ParsedRow,
    execute,
    fetch_all,
    fetch_one,
    fetch_values,
)
from penstock_operator.resources.models import ConnectionSpec
from penstock_operator.runs.commit_manifest import (
    CommitManifest,
    ManifestObject,
    ManifestSchema,
    ManifestState,
    RegistryRecord,
)
from penstock_operator.runs.run_store import RUN_COLUMNS, Run


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedConnection(ParsedRow):
    """A connection that has or had a name."""

    PARSERS = {"spec": ConnectionSpec.parse}
    uid: ConnectionUid
    namespace: Namespace
    generation: int
    """0 for a connection that was recorded from its commit manifests alone."""
    spec: ConnectionSpec
    namespace_uid: NamespaceUid | None


COLUMNS = "uid, namespace, generation, spec, namespace_uid"


async def connections_named(db: DatabaseConnection, namespace: str, name: str) -> list[NamedConnection]:
    """Lock and return the connections that have or had a name, the newest first."""
    return await fetch_all(
        db,
        NamedConnection.parse,
        f"SELECT {COLUMNS} FROM penstock.tenant_connections"  # noqa: S608 - a constant
        " WHERE namespace = %(namespace)s AND name = %(name)s"
        " ORDER BY deleted_at DESC NULLS FIRST, first_generation DESC FOR UPDATE",
        namespace=namespace,
        name=name,
    )


async def insert_retired(
    db: DatabaseConnection, namespace: str, name: str, registry: RegistryRecord
) -> NamedConnection:
    """Record a connection that the registry never knew as one that was just deleted: it goes on when it is reconciled."""
    connection = await fetch_one(
        db,
        NamedConnection.parse,
        f"""
        INSERT INTO penstock.tenant_connections (uid, namespace, name, generation, spec, ready, suspended, time_zone,
            namespace_uid, first_generation, deleted_at)
        VALUES (%(uid)s, %(namespace)s, %(name)s, 0, %(spec)s, false, false, '', %(namespace_uid)s, %(first)s, now())
        RETURNING {COLUMNS}
        """,  # noqa: S608 - a constant
        uid=registry.connection_uid,
        namespace=namespace,
        name=name,
        spec=Jsonb(registry.spec.document()),
        namespace_uid=registry.namespace_uid,
        first=registry.first_generation,
    )
    assert connection is not None  # noqa: S101 - INSERT … RETURNING always returns
    return connection


async def ended_runs(db: DatabaseConnection, ids: list[RunId]) -> set[RunId]:
    """Return those of the runs that the registry knows as ended."""
    ended = await fetch_values(
        db,
        RunId,
        "SELECT id FROM penstock.connector_runs WHERE id = ANY(%(ids)s) AND phase IN ('succeeded', 'failed', 'cancelled')",
        ids=ids,
    )
    return set(ended)


async def active_among(db: DatabaseConnection, ids: list[RunId]) -> list[Run]:
    """Lock and return those of the runs that have not ended, as far as the registry knows."""
    return await fetch_all(
        db,
        Run.parse,
        f"SELECT {RUN_COLUMNS} FROM penstock.connector_runs"  # noqa: S608 - a constant
        " WHERE id = ANY(%(ids)s) AND phase IN ('pending', 'running')"
        " ORDER BY id FOR UPDATE",
        ids=ids,
    )


async def put_run(db: DatabaseConnection, connection: NamedConnection, manifest: CommitManifest) -> int:
    """Record the run of a manifest, if its definition is known, and return 1; 0 if the run was not recorded.

    A run that was under way here has ended as the manifest says. A due time or a token that has made another run here
    belongs to that one.
    """
    registry = manifest.registry
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
        id=manifest.run,
        uid=connection.uid,
        namespace=connection.namespace,
        spec=Jsonb(connection.spec.document()),
        definition=manifest.definition,
        phase=manifest.phase,
        records=manifest.records,
        deletes=sum(written.deletes or 0 for written in manifest.objects),
        rejected=sum(written.records for written in manifest.rejected),
        bytes=manifest.bytes,
        objects=len(manifest.objects),
        finished_at=manifest.finished_at,
        trigger=registry.trigger,
        token=registry.token,
        attempt=registry.attempt,
        reason=registry.reason,
        error_class=registry.error_class,
        message=registry.message,
        scheduled_at=registry.scheduled_at,
        created_at=registry.created_at,
        started_at=registry.started_at,
    )
    await execute(
        db,
        "UPDATE penstock.run_attempts SET phase = 'lost', finished_at = now() WHERE run_id = %(id)s AND finished_at IS NULL",
        id=manifest.run,
    )
    return count


async def put_objects(
    db: DatabaseConnection, uid: ConnectionUid, run_id: RunId, kind: ObjectKind, objects: list[ManifestObject]
) -> int:
    """Record committed objects that are not known as such, and return how many."""
    count = 0
    for written in objects:
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
            **dict(written),
            uid=uid,
            run=run_id,
            kind=kind,
        )
    return count


async def put_uncommitted(
    db: DatabaseConnection, uid: ConnectionUid, run_id: RunId, key: str, location: ObjectLocation
) -> int:
    """Record an object that no commit covers as granted and never committed: the collector deletes it. Return 1 if it is new."""
    return await execute(
        db,
        "INSERT INTO penstock.bronze_objects (key, connection_uid, stream, generation, run_id, attempt, sequence, kind)"
        " VALUES (%(key)s, %(uid)s, %(stream)s, %(generation)s, %(run)s, %(attempt)s, %(sequence)s, %(kind)s)"
        " ON CONFLICT DO NOTHING",
        key=key,
        uid=uid,
        run=run_id,
        stream=location.stream,
        generation=location.generation,
        attempt=location.attempt,
        sequence=location.sequence,
        kind=location.kind,
    )


async def bring_forward(db: DatabaseConnection, uid: ConnectionUid, run_id: RunId, state: ManifestState) -> bool:
    """Give a stream the state in which a run left it, unless the registry knows a later checkpoint; False if it does."""
    values = {**dict(state), "cursor": Jsonb(state.cursor), "uid": uid, "run": run_id}
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


async def put_schema(db: DatabaseConnection, uid: ConnectionUid, schema: ManifestSchema) -> int:
    """Record a stream's version, unless it is known."""
    return await execute(
        db,
        """
        INSERT INTO penstock.stream_registry (connection_uid, stream, version, fingerprint, schema, primary_key, cursor_field,
            modes, pii, display_name, names, pii_suggested)
        VALUES (%(uid)s, %(stream)s, %(version)s, %(fingerprint)s, %(schema)s, %(primary_key)s, %(cursor_field)s, %(modes)s,
            %(pii)s, %(display_name)s, %(names)s, %(pii_suggested)s)
        ON CONFLICT DO NOTHING
        """,
        uid=uid,
        stream=schema.stream,
        version=schema.version,
        fingerprint=schema.fingerprint,
        schema=Jsonb(schema.schema_),
        primary_key=Jsonb(schema.primary_key),
        cursor_field=schema.cursor_field,
        modes=Jsonb(schema.modes),
        pii=Jsonb(schema.pii),
        display_name=schema.display_name,
        names=Jsonb(schema.names),
        pii_suggested=Jsonb(schema.pii_suggested),
    )


async def raise_first_generation(
    db: DatabaseConnection, uid: ConnectionUid, generation: int, succeeded: RunId | None
) -> None:
    """Note the first generation of a connection's newest life, and its newest success."""
    await execute(
        db,
        "UPDATE penstock.tenant_connections SET first_generation = greatest(first_generation, %(generation)s),"
        " last_success_run = greatest(last_success_run, %(run)s) WHERE uid = %(uid)s",
        uid=uid,
        generation=generation,
        run=succeeded,
    )


@dataclass(frozen=True, slots=True)
class _CommittedKeys:
    namespace: Namespace
    name: ConnectionName
    keys: list[str]


async def committed_keys(db: DatabaseConnection) -> dict[ConnectionKey, set[str]]:
    """Return the keys of all committed objects by namespace and name of their connection."""
    found = await fetch_all(
        db,
        _CommittedKeys,
        "SELECT c.namespace, c.name, array_agg(o.key) AS keys FROM penstock.bronze_objects o"
        " JOIN penstock.tenant_connections c ON c.uid = o.connection_uid WHERE o.committed_at IS NOT NULL GROUP BY 1, 2",
    )
    return {ConnectionKey(committed.namespace, committed.name): set(committed.keys) for committed in found}


async def forget_objects(db: DatabaseConnection, keys: list[str]) -> int:
    """Forget objects that are not in the bucket any more."""
    return await execute(db, "DELETE FROM penstock.bronze_objects WHERE key = ANY(%(keys)s)", keys=keys)
