"""The commits of a run, read from the registry for its commit manifest."""

from __future__ import annotations

from penstock_operator.connections import connection_store
from penstock_operator.ids import ConnectionUid, RunId
from penstock_operator.registry.database import DatabaseConnection, fetch_all
from penstock_operator.registry.installation import installation_id
from penstock_operator.runs import bronze_objects, run_store
from penstock_operator.runs.bronze_objects import CommittedObject
from penstock_operator.runs.commit_manifest import (
    CommitManifest,
    ManifestObject,
    ManifestSchema,
    ManifestState,
    ManifestWindow,
    RegistryRecord,
)
from penstock_operator.runs.run_store import RunDetail


async def commit_manifest(db: DatabaseConnection, run_id: RunId) -> CommitManifest | None:
    """Return the commit manifest of a run that has ended; None when it committed nothing and did not succeed.

    It holds everything that the registry knows of the run's commits, so that an older registry can be brought forward by it.
    """
    run = await run_store.run_by_id(db, run_id)
    if run is None or run.finished_at is None:
        return None
    found = await bronze_objects.objects_of_run(db, run_id)
    states = await _states_of_run(db, run.connection_uid, run_id)
    if not found and not states and run.phase != "succeeded":
        return None
    window = run.spec.window
    return CommitManifest(
        run=run_id,
        phase=run.phase,
        tenant=run.namespace,
        connection=run.name,
        definition=run.definition,
        records=run.records,
        deletes=run.deletes,
        bytes=run.bytes,
        finished_at=run.finished_at,
        objects=[_listed(written) for written in found if written.kind == "data"],
        window=ManifestWindow(start=window.start, end=window.end) if window else None,
        rejected=[_listed(written) for written in found if written.kind == "rejected"],
        states=states,
        schemas=await _schemas_first_used(db, run.connection_uid, run_id),
        registry=await _registry_record(db, run),
    )


async def _registry_record(db: DatabaseConnection, run: RunDetail) -> RegistryRecord:
    connection = await connection_store.connection_by_uid(db, run.connection_uid)
    spec = run.spec.document()
    return RegistryRecord(
        installation=await installation_id(db),
        connection_uid=run.connection_uid,
        namespace_uid=connection.namespace_uid if connection else None,
        first_generation=connection.first_generation if connection else 1,
        connector=spec.get("connector", {}),
        bronze=spec.get("bronze", {}),
        trigger=run.trigger,
        token=run.token,
        attempt=run.attempt,
        reason=run.reason,
        error_class=run.error_class,
        message=run.message,
        scheduled_at=run.scheduled_at,
        created_at=run.created_at,
        started_at=run.started_at,
    )


def _listed(written: CommittedObject) -> ManifestObject:
    return ManifestObject(
        key=written.key,
        stream=written.stream,
        generation=written.generation,
        attempt=written.attempt,
        sequence=written.sequence,
        checkpoint=written.checkpoint,
        records=written.records,
        deletes=written.deletes,
        bytes=written.bytes,
        sha256=written.sha256,
        schema_version=written.schema_version,
    )


async def _states_of_run(db: DatabaseConnection, uid: ConnectionUid, run_id: RunId) -> list[ManifestState]:
    """Return the last state that a run committed of each stream, with the state before the run."""
    return await fetch_all(
        db,
        ManifestState,
        """
        SELECT last.stream, last.cursor, last.state_version, last.checkpoint, last.generation, last.attempt, last.done,
            (SELECT jsonb_build_object('cursor', p.cursor, 'checkpoint', p.checkpoint, 'generation', p.generation)
             FROM penstock.stream_checkpoints p
             WHERE p.connection_uid = %(uid)s AND p.stream = last.stream AND p.checkpoint < last.first
             ORDER BY p.checkpoint DESC LIMIT 1) AS before
        FROM (SELECT DISTINCT ON (stream) *, min(checkpoint) OVER (PARTITION BY stream) AS first
              FROM penstock.stream_checkpoints WHERE connection_uid = %(uid)s AND run_id = %(run)s
              ORDER BY stream, checkpoint DESC) last
        """,
        uid=uid,
        run=run_id,
    )


async def _schemas_first_used(db: DatabaseConnection, uid: ConnectionUid, run_id: RunId) -> list[ManifestSchema]:
    """Return the versions of streams that no run before has objects of."""
    return await fetch_all(
        db,
        ManifestSchema,
        """
        SELECT r.stream, r.version, r.fingerprint, r.schema, r.primary_key, r.cursor_field, r.modes, r.pii, r.display_name,
            r.names, r.pii_suggested
        FROM (SELECT DISTINCT stream, schema_version FROM penstock.bronze_objects
              WHERE run_id = %(run)s AND committed_at IS NOT NULL) u
        JOIN penstock.stream_registry r
            ON r.connection_uid = %(uid)s AND r.stream = u.stream AND r.version = u.schema_version
        WHERE NOT EXISTS (SELECT 1 FROM penstock.bronze_objects o
            WHERE o.connection_uid = %(uid)s AND o.stream = u.stream AND o.schema_version = u.schema_version
              AND o.committed_at IS NOT NULL AND o.run_id < %(run)s)
        """,
        uid=uid,
        run=run_id,
    )
