"""The commit manifest: the document beside a run's objects that lists them, with the state before and after the run."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from penstock_operator.bronze.keys import commit_key
from penstock_operator.connections import connection_store
from penstock_operator.ids import ConnectionUid, RunId
from penstock_operator.registry.database import DatabaseConnection, fetch_all
from penstock_operator.registry.installation import installation_id
from penstock_operator.runs import bronze_objects, run_store
from penstock_operator.runs.bronze_objects import CommittedObject
from penstock_operator.runs.run_spec import RunSpec

MANIFEST_VERSION = 2
"""Version of the format. Version 1 has no states, so a registry cannot be brought forward by it."""


def _moment(value: datetime | None) -> str | None:
    return value.isoformat() if value else None


async def commit_document(db: DatabaseConnection, run_id: RunId, prefix: str) -> tuple[str, dict[str, Any]] | None:
    """Return the key and content of a run's commit manifest, None when it committed nothing and did not succeed.

    It holds all that the registry knows of the run's commits, so that an older registry can be brought forward by it.
    """
    run = await run_store.run_by_id(db, run_id)
    if run is None:
        return None
    uid = run.connection_uid
    found = await bronze_objects.objects_of_run(db, run_id)
    states = await _states_of_run(db, uid, run_id)
    if not found and not states and run.phase != "succeeded":
        return None
    holder = await connection_store.connection_by_uid(db, uid)
    spec = RunSpec.parse(run.spec)
    document = {
        "version": MANIFEST_VERSION,
        "run": run_id,
        "tenant": run.namespace,
        "connection": run.name,
        "definition": run.definition,
        "phase": run.phase,
        "records": run.records,
        "deletes": run.deletes,
        "bytes": run.bytes,
        "finished_at": _moment(run.finished_at),
        "objects": [_shown(written) for written in found if written.kind == "data"],
        **({"window": run.spec["window"]} if spec.window else {}),
        "rejected": [_shown(written) for written in found if written.kind == "rejected"],
        "states": [asdict(state) for state in states],
        "schemas": [asdict(schema) for schema in await _schemas_first_used(db, uid, run_id)],
        "registry": {
            "installation": await installation_id(db),
            "connection_uid": uid,
            "namespace_uid": holder.namespace_uid if holder else None,
            "first_generation": holder.first_generation if holder else 1,
            "connector": run.spec.get("connector", {}),
            "bronze": run.spec.get("bronze", {}),
            "trigger": run.trigger,
            "token": run.token,
            "attempt": run.attempt,
            "reason": run.reason,
            "error_class": run.error_class,
            "message": run.message,
            "scheduled_at": _moment(run.scheduled_at),
            "created_at": _moment(run.created_at),
            "started_at": _moment(run.started_at),
        },
    }
    return commit_key(prefix, run.namespace, run.name, run_id), document


def _shown(written: CommittedObject) -> dict[str, Any]:
    hidden = ("run_id", "kind", "committed_at")
    return {name: value for name, value in asdict(written).items() if name not in hidden}


@dataclass(frozen=True, kw_only=True)
class _CommittedState:
    """The state that a run committed last of a stream, and the one before the run."""

    stream: str
    cursor: Any
    state_version: int
    checkpoint: int
    generation: int
    attempt: int
    done: bool
    before: dict[str, Any] | None


@dataclass(frozen=True, kw_only=True)
class _UsedSchema:
    """A version of a stream's schema that a run was the first to use."""

    stream: str
    version: int
    fingerprint: str
    schema: dict[str, Any]
    primary_key: list[str]
    cursor_field: str | None
    modes: list[str]
    pii: list[str]
    display_name: str | None
    names: list[str]
    pii_suggested: dict[str, str]


async def _states_of_run(db: DatabaseConnection, uid: ConnectionUid, run_id: RunId) -> list[_CommittedState]:
    """Return where a run left each stream that it moved, with where it found it."""
    return await fetch_all(
        db,
        _CommittedState,
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


async def _schemas_first_used(db: DatabaseConnection, uid: ConnectionUid, run_id: RunId) -> list[_UsedSchema]:
    """Return the versions of streams that no run before has objects of."""
    return await fetch_all(
        db,
        _UsedSchema,
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
