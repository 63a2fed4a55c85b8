"""Statements of the table credentials: values that replace those of Secrets. The registry has them encrypted only."""

from __future__ import annotations

from dataclasses import dataclass

from penstock_operator.ids import ConnectionUid
from penstock_operator.registry.database import DatabaseConnection, execute, fetch_all, fetch_one, fetch_value


@dataclass(frozen=True, slots=True)
class StoredCredential:
    """A credential of a connection, encrypted."""

    name: str
    version: int
    ciphertext: bytes


async def credentials_of(db: DatabaseConnection, connection_uid: ConnectionUid) -> list[StoredCredential]:
    """Return the connection's kept credentials."""
    return await fetch_all(
        db,
        StoredCredential,
        "SELECT name, version, ciphertext FROM penstock.credentials WHERE connection_uid = %(uid)s ORDER BY name",
        uid=connection_uid,
    )


async def lock_credential(db: DatabaseConnection, connection_uid: ConnectionUid, name: str) -> StoredCredential | None:
    """Lock and return one kept credential."""
    return await fetch_one(
        db,
        StoredCredential,
        "SELECT name, version, ciphertext FROM penstock.credentials"
        " WHERE connection_uid = %(uid)s AND name = %(name)s FOR UPDATE",
        uid=connection_uid,
        name=name,
    )


async def put_credential(db: DatabaseConnection, connection_uid: ConnectionUid, name: str, ciphertext: bytes) -> int:
    """Keep a credential in place of the one before it, and return its version."""
    version = await fetch_value(
        db,
        int,
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
    assert version is not None  # noqa: S101 - INSERT … RETURNING always returns
    return version


async def forget_credentials_of_the_deleted(db: DatabaseConnection) -> None:
    """Drop all that is kept for connections that are gone."""
    await execute(
        db,
        "DELETE FROM penstock.credentials k USING penstock.tenant_connections c"
        " WHERE c.uid = k.connection_uid AND c.deleted_at IS NOT NULL",
    )
