"""The commit manifest: the document beside a run's objects that lists them, with the state before and after the run."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from penstock_operator.bronze.keys import commit_key
from penstock_operator.connections import connection_store
from penstock_operator.registry.database import DatabaseConnection, Row, many
from penstock_operator.registry.installation import installation_id
from penstock_operator.runs import bronze_objects, run_store

MANIFEST_VERSION = 2
"""Version of the format. Version 1 has no states, so a registry cannot be brought forward by it."""


def _moment(value: datetime | None) -> str | None:
    return value.isoformat() if value else None


async def commit_document(db: DatabaseConnection, run_id: str, prefix: str) -> tuple[str, dict[str, Any]] | None:
    """Return the key and content of a run's commit manifest, None when it committed nothing and did not succeed.

    It holds all that the registry knows of the run's commits, so that an older registry can be brought forward by it.
    """
    run = await run_store.run_by_id(db, run_id)
    if run is None:
        return None
    uid = run["connection_uid"]
    found = await bronze_objects.objects_of_run(db, run_id)
    states = await _states_of_run(db, uid, run_id)
    if not found and not states and run["phase"] != "succeeded":
        return None
    shown = (
        *("key", "stream", "generation", "attempt", "sequence", "checkpoint", "records", "deletes", "bytes"),
        *("sha256", "schema_version"),
    )
    holder = await connection_store.connection_by_uid(db, uid) or run
    document = {
        "version": MANIFEST_VERSION,
        "run": run_id,
        "tenant": run["namespace"],
        "connection": run["name"],
        "definition": run["definition"],
        "phase": run["phase"],
        "records": run["records"],
        "deletes": run["deletes"],
        "bytes": run["bytes"],
        "finished_at": run["finished_at"].isoformat(),
        "objects": [{key: each[key] for key in shown} for each in found if each["kind"] == "data"],
        **({"window": run["spec"]["window"]} if "window" in run["spec"] else {}),
        "rejected": [{key: each[key] for key in shown} for each in found if each["kind"] == "rejected"],
        "states": states,
        "schemas": await _schemas_first_used(db, uid, run_id),
        "registry": {
            "installation": await installation_id(db),
            "connection_uid": uid,
            "namespace_uid": holder["namespace_uid"],
            "first_generation": holder["first_generation"],
            "connector": run["spec"].get("connector", {}),
            "bronze": run["spec"].get("bronze", {}),
            **{key: run[key] for key in ("trigger", "token", "attempt", "reason", "error_class", "message")},
            **{key: _moment(run[key]) for key in ("scheduled_at", "created_at", "started_at")},
        },
    }
    return commit_key(prefix, run["namespace"], run["name"], run_id), document


async def _states_of_run(db: DatabaseConnection, uid: str, run_id: str) -> list[Row]:
    """Return where a run left each stream that it moved, with where it found it."""
    return await many(
        db,
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


async def _schemas_first_used(db: DatabaseConnection, uid: str, run_id: str) -> list[Row]:
    """Return the versions of streams that no run before has objects of."""
    return await many(
        db,
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
