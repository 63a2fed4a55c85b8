"""credentials: what a source has put in place of a Secret's value, encrypted; the registry never sees it plain."""

from __future__ import annotations

from penstock_operator.registry.database import DatabaseConnection, Row, many, one, run


async def credentials_of(db: DatabaseConnection, connection_uid: str) -> list[Row]:
    """Return the connection's kept credentials."""
    return await many(
        db,
        "SELECT name, version, ciphertext FROM penstock.credentials WHERE connection_uid = %(uid)s ORDER BY name",
        uid=connection_uid,
    )


async def lock_credential(db: DatabaseConnection, connection_uid: str, name: str) -> Row | None:
    """Lock and return one kept credential."""
    return await one(
        db,
        "SELECT name, version, ciphertext FROM penstock.credentials"
        " WHERE connection_uid = %(uid)s AND name = %(name)s FOR UPDATE",
        uid=connection_uid,
        name=name,
    )


async def put_credential(db: DatabaseConnection, connection_uid: str, name: str, ciphertext: bytes) -> int:
    """Keep a credential in place of the one before it, and return its version."""
    row = await one(
        db,
        """
        INSERT INTO penstock.credentials (connection_uid, name, version, ciphertext)
        VALUES (%(uid)s, %(name)s, 1, %(ciphertext)s)
        ON CONFLICT (connection_uid, name) DO UPDATE SET version = credentials.version + 1,
            ciphertext = excluded.ciphertext, updated_at = now()
        RETURNING version
        """,
        uid=connection_uid,
        name=name,
        ciphertext=ciphertext,
    )
    assert row is not None  # noqa: S101 - INSERT … RETURNING always returns
    return int(row["version"])


async def forget_credentials_of_the_deleted(db: DatabaseConnection) -> None:
    """Drop all that is kept for connections that are gone."""
    await run(
        db,
        "DELETE FROM penstock.credentials k USING penstock.tenant_connections c"
        " WHERE c.uid = k.connection_uid AND c.deleted_at IS NOT NULL",
    )
