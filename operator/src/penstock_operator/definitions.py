"""connector_definitions: every version of every connector method that was admitted."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from penstock_sdk.manifest import Manifest
from psycopg.types.json import Jsonb
from pydantic import ValidationError

from penstock_operator.audit import audit_store
from penstock_operator.audit.callers import current_actor
from penstock_operator.audit.events import Action, AuditedObject, AuditEvent
from penstock_operator.ids import DefinitionName, DefinitionUid
from penstock_operator.registry.database import (
    DatabaseConnection,
    execute,
    fetch_all,
    fetch_one,
    fetch_value,
    fetch_values,
)
from penstock_operator.resources.models import DefinitionSpec, Stage
from penstock_operator.resources.stored import parse_stored


async def upsert_definition(
    db: DatabaseConnection, uid: DefinitionUid, name: DefinitionName, generation: int, spec: DefinitionSpec
) -> None:
    """Record a definition as it stands; one of the same name with another uid was deleted and made anew."""
    async with db.transaction():
        known = await fetch_value(
            db,
            int,
            "SELECT generation FROM penstock.connector_definitions WHERE uid = %(uid)s AND deleted_at IS NULL",
            uid=uid,
        )
        await _upsert(db, uid, name, generation, spec)
        if known != generation:
            await audit_store.record(
                db, Action.definition_admit, AuditedObject("definition", name=name), reason=spec.stage
            )


async def _upsert(
    db: DatabaseConnection, uid: DefinitionUid, name: DefinitionName, generation: int, spec: DefinitionSpec
) -> None:
    await execute(
        db,
        "UPDATE penstock.connector_definitions SET deleted_at = now()"
        " WHERE name = %(name)s AND uid <> %(uid)s AND deleted_at IS NULL",
        name=name,
        uid=uid,
    )
    manifest = spec.manifest
    await execute(
        db,
        """
        INSERT INTO penstock.connector_definitions (uid, name, connector, method, version, image, stage, manifest, generation)
        VALUES (%(uid)s, %(name)s, %(connector)s, %(method)s, %(version)s, %(image)s, %(stage)s, %(manifest)s, %(generation)s)
        ON CONFLICT (uid) DO UPDATE SET stage = excluded.stage, generation = excluded.generation, deleted_at = NULL,
            image = excluded.image, manifest = excluded.manifest, version = excluded.version
        """,
        uid=uid,
        name=name,
        connector=manifest.name,
        method=manifest.method,
        version=manifest.version,
        image=spec.image,
        stage=spec.stage,
        manifest=Jsonb(manifest.model_dump(by_alias=True, exclude_unset=True)),
        generation=generation,
    )


async def retire_definitions(db: DatabaseConnection, live: list[DefinitionUid], before: datetime) -> int:
    """Mark every definition deleted whose uid is not in the list; runs pinned to it go on.

    `before` is when the listing began: a definition that was recorded since then may be one that it missed.
    """
    async with db.transaction():
        gone = await fetch_values(
            db,
            DefinitionName,
            "UPDATE penstock.connector_definitions SET deleted_at = now()"
            " WHERE deleted_at IS NULL AND uid <> ALL(%(live)s) AND created_at < %(before)s RETURNING name",
            live=live,
            before=before,
        )
        await _audit_deletions(db, gone)
    return len(gone)


async def retire_definition(db: DatabaseConnection, name: DefinitionName) -> None:
    """Mark one definition deleted; runs pinned to it go on."""
    async with db.transaction():
        gone = await fetch_values(
            db,
            DefinitionName,
            "UPDATE penstock.connector_definitions SET deleted_at = now() WHERE deleted_at IS NULL AND name = %(name)s"
            " RETURNING name",
            name=name,
        )
        await _audit_deletions(db, gone)


async def _audit_deletions(db: DatabaseConnection, names: list[DefinitionName]) -> None:
    actor = current_actor()
    await audit_store.record_all(
        db,
        [AuditEvent(Action.definition_delete, AuditedObject("definition", name=name), actor=actor) for name in names],
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class DefinitionVersion:
    """A definition's row with its manifest's digest alone: manifests with the same digest are the same."""

    uid: DefinitionUid
    name: DefinitionName
    connector: str
    method: str
    version: str
    stage: Stage
    deleted_at: datetime | None
    digest: str


VERSION = """
    SELECT uid, name, connector, method, version, stage, deleted_at, md5(manifest::text) AS digest
    FROM penstock.connector_definitions
"""


async def versions_of(db: DatabaseConnection, connector: str, method: str) -> list[DefinitionVersion]:
    """Return the live versions of a connector method."""
    return await fetch_all(
        db,
        DefinitionVersion,
        f"{VERSION} WHERE connector = %(connector)s AND method = %(method)s AND deleted_at IS NULL",
        connector=connector,
        method=method,
    )


async def version_by_uid(db: DatabaseConnection, uid: DefinitionUid) -> DefinitionVersion | None:
    """Return one version, deleted or not."""
    return await fetch_one(db, DefinitionVersion, f"{VERSION} WHERE uid = %(uid)s", uid=uid)


async def list_versions(db: DatabaseConnection) -> list[DefinitionVersion]:
    """Return the live versions of all connectors by name."""
    return await fetch_all(db, DefinitionVersion, f"{VERSION} WHERE deleted_at IS NULL ORDER BY name")


async def manifest_of(db: DatabaseConnection, uid: DefinitionUid | None) -> Manifest | None:
    """Return a definition's manifest; None without such a definition, or if this release cannot read its manifest."""
    sql = "SELECT manifest FROM penstock.connector_definitions WHERE uid = %(uid)s"
    return await fetch_value(db, parse_manifest, sql, uid=uid)


def parse_manifest(document: object) -> Manifest | None:
    """Return the manifest that the registry holds as `document`; None if it lacks a field that this release needs."""
    try:
        return parse_stored(Manifest, document)
    except ValidationError:
        return None


async def connection_count(db: DatabaseConnection, name: DefinitionName) -> int:
    """Return how many live connections resolve to the definition, or to one of its name that it replaces."""
    count = await fetch_value(
        db,
        int,
        "SELECT count(*) FROM penstock.tenant_connections c"
        " JOIN penstock.connector_definitions d ON d.uid = c.definition_uid"
        " WHERE d.name = %(name)s AND c.deleted_at IS NULL AND c.released_at IS NULL",
        name=name,
    )
    return count or 0
