"""connector_definitions: every version of every connector method that was admitted."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from psycopg.types.json import Jsonb

from penstock_operator.registry.database import DatabaseConnection, Row, many, one, run


async def upsert_definition(db: DatabaseConnection, uid: str, name: str, generation: int, spec: dict[str, Any]) -> None:
    """Record a definition as it stands; one of the same name with another uid was deleted and made anew."""
    await run(
        db,
        "UPDATE penstock.connector_definitions SET deleted_at = now()"
        " WHERE name = %(name)s AND uid <> %(uid)s AND deleted_at IS NULL",
        name=name,
        uid=uid,
    )
    manifest = spec["manifest"]
    await run(
        db,
        """
        INSERT INTO penstock.connector_definitions (uid, name, connector, method, version, image, stage, manifest, generation)
        VALUES (%(uid)s, %(name)s, %(connector)s, %(method)s, %(version)s, %(image)s, %(stage)s, %(manifest)s, %(generation)s)
        ON CONFLICT (uid) DO UPDATE SET stage = excluded.stage, generation = excluded.generation, deleted_at = NULL,
            image = excluded.image, manifest = excluded.manifest, version = excluded.version
        """,
        uid=uid,
        name=name,
        connector=manifest["name"],
        method=manifest["method"],
        version=manifest["version"],
        image=spec["image"],
        stage=spec.get("stage", "preview"),
        manifest=Jsonb(manifest),
        generation=generation,
    )


async def retire_definitions(db: DatabaseConnection, live: list[str], before: datetime) -> int:
    """Mark every definition deleted whose uid is not in the list; runs pinned to it go on.

    `before` is when the listing began: a definition that was recorded since then may be one that it missed.
    """
    return await run(
        db,
        "UPDATE penstock.connector_definitions SET deleted_at = now()"
        " WHERE deleted_at IS NULL AND uid <> ALL(%(live)s) AND created_at < %(before)s",
        live=live,
        before=before,
    )


async def retire_definition(db: DatabaseConnection, name: str) -> None:
    """Mark one definition deleted; runs pinned to it go on."""
    await run(
        db,
        "UPDATE penstock.connector_definitions SET deleted_at = now() WHERE deleted_at IS NULL AND name = %(name)s",
        name=name,
    )


VERSION = """
    SELECT uid, name, connector, method, version, stage, deleted_at, md5(manifest::text) AS digest
    FROM penstock.connector_definitions
"""


async def versions_of(db: DatabaseConnection, connector: str, method: str) -> list[Row]:
    """Return the live versions of a connector method, with their manifests' digests alone."""
    return await many(
        db,
        f"{VERSION} WHERE connector = %(connector)s AND method = %(method)s AND deleted_at IS NULL",
        connector=connector,
        method=method,
    )


async def version_by_uid(db: DatabaseConnection, uid: str) -> Row | None:
    """Return one version as `versions_of` does, deleted or not."""
    return await one(db, f"{VERSION} WHERE uid = %(uid)s", uid=uid)


async def manifest_of(db: DatabaseConnection, uid: str | None) -> dict[str, Any] | None:
    """Return a definition's manifest, None when there is no such definition."""
    row = await one(db, "SELECT manifest FROM penstock.connector_definitions WHERE uid = %(uid)s", uid=uid)
    return row["manifest"] if row else None


async def connection_count(db: DatabaseConnection, name: str) -> int:
    """Return how many live connections resolve to the definition, or to one of its name that it replaces."""
    row = await one(
        db,
        "SELECT count(*) AS n FROM penstock.tenant_connections c"
        " JOIN penstock.connector_definitions d ON d.uid = c.definition_uid"
        " WHERE d.name = %(name)s AND c.deleted_at IS NULL AND c.released_at IS NULL",
        name=name,
    )
    return int(row["n"]) if row else 0


async def list_definitions(db: DatabaseConnection) -> list[Row]:
    """Return all live definitions by name."""
    return await many(db, "SELECT * FROM penstock.connector_definitions WHERE deleted_at IS NULL ORDER BY name")
