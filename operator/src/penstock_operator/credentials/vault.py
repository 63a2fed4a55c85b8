"""Credentials that sources replace, such as rotated refresh tokens: encrypted with a key that only the server has.

A value is stored before its connector uses it, in a transaction that locks the attempt's run, so that a paused attempt
which wakes up later cannot put an old one back. Connection and name are encrypted with it: a row that is copied to
another connection cannot be used there.
"""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass

import structlog
from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from penstock_sdk.protocol import CredentialRequest, IssuedToken, RotatedCredential
from pydantic import BaseModel, ConfigDict

from penstock_operator.errors import Invalid
from penstock_operator.ids import ConnectionUid
from penstock_operator.registry.database import DatabaseConnection, execute, fetch_all, fetch_one, fetch_value

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class StoredCredential:
    """A credential of a connection, encrypted."""

    name: str
    version: int
    ciphertext: bytes


async def credentials_of(db: DatabaseConnection, connection_uid: ConnectionUid) -> list[StoredCredential]:
    """Return the connection's stored credentials."""
    return await fetch_all(
        db,
        StoredCredential,
        "SELECT name, version, ciphertext FROM penstock.credentials WHERE connection_uid = %(uid)s ORDER BY name",
        uid=connection_uid,
    )


async def lock_credential(db: DatabaseConnection, connection_uid: ConnectionUid, name: str) -> StoredCredential | None:
    """Lock and return one stored credential."""
    return await fetch_one(
        db,
        StoredCredential,
        "SELECT name, version, ciphertext FROM penstock.credentials"
        " WHERE connection_uid = %(uid)s AND name = %(name)s FOR UPDATE",
        uid=connection_uid,
        name=name,
    )


async def put_credential(db: DatabaseConnection, connection_uid: ConnectionUid, name: str, ciphertext: bytes) -> int:
    """Store a credential in place of the one before it, and return its version."""
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
    """Delete the stored credentials of deleted connections."""
    await execute(
        db,
        "DELETE FROM penstock.credentials k USING penstock.tenant_connections c"
        " WHERE c.uid = k.connection_uid AND c.deleted_at IS NOT NULL",
    )


@dataclass(frozen=True, slots=True)
class OpenedCredential:
    """A decrypted credential, and the token that a provider issued with it."""

    kept: RotatedCredential
    token: IssuedToken | None = None


class _Sealed(BaseModel):
    """The content of a ciphertext."""

    model_config = ConfigDict(frozen=True)

    connection: str
    name: str
    kept: RotatedCredential
    token: IssuedToken | None = None


def _fernet(key: str) -> Fernet:
    return Fernet(base64.urlsafe_b64encode(hashlib.sha256(key.encode()).digest()))


@dataclass(frozen=True)
class CredentialOwner:
    """The connection that a credential is stored for, and the names that its manifest declares."""

    connection_uid: ConnectionUid
    declared: frozenset[str]


class Vault:
    """Encrypts and decrypts credentials. The first key encrypts; the others only decrypt values that an earlier key encrypted."""

    def __init__(self, keys: tuple[str, ...]) -> None:
        self._cipher = MultiFernet([_fernet(key) for key in keys]) if keys else None

    def check(self, holder: CredentialOwner, name: str) -> None:
        """Raise Invalid unless the manifest declares the credential, and there is a key to encrypt it with."""
        if name not in holder.declared:
            known = ", ".join(sorted(holder.declared)) or "none"
            raise Invalid(f"credentials: the manifest declares no credential of this name; it declares: {known}")
        if self._cipher is None:
            raise Invalid(
                "credentials: the platform has no key to keep replaced credentials with; set PENSTOCK_CREDENTIALS_KEY"
                " of the server (the chart's credentials.existingSecret)"
            )

    async def keep(self, db: DatabaseConnection, holder: CredentialOwner, request: CredentialRequest) -> int:
        """Store a value and return its version; the same value again has the same version."""
        self.check(holder, request.name)
        kept = RotatedCredential(value=request.value, seed=request.seed)
        return await self.store(db, holder.connection_uid, request.name, OpenedCredential(kept))

    async def store(
        self, db: DatabaseConnection, connection_uid: ConnectionUid, name: str, opened: OpenedCredential
    ) -> int:
        """Store a credential of a connection and return its version; the same again has the same version."""
        assert self._cipher  # noqa: S101 - the callers have checked
        known_row = await lock_credential(db, connection_uid, name)
        if known_row and self.opened(connection_uid, known_row) == opened:
            return known_row.version
        sealed = _Sealed(connection=connection_uid, name=name, kept=opened.kept, token=opened.token)
        ciphertext = self._cipher.encrypt(sealed.model_dump_json().encode())
        return await put_credential(db, connection_uid, name, ciphertext)

    async def kept(self, db: DatabaseConnection, connection_uid: ConnectionUid) -> dict[str, RotatedCredential]:
        """Return the stored credentials of a connection. One that no key decrypts is left out: the Secret's value counts again."""
        rows = await credentials_of(db, connection_uid) if self._cipher else []
        opened = {row.name: self.opened(connection_uid, row) for row in rows}
        return {name: credential.kept for name, credential in opened.items() if credential}

    def opened(self, connection_uid: ConnectionUid, row: StoredCredential) -> OpenedCredential | None:
        """Return a decrypted credential; None if no key decrypts it, or if it is another connection's."""
        if self._cipher is None:
            return None
        try:
            sealed = _Sealed.model_validate_json(self._cipher.decrypt(row.ciphertext))
        except InvalidToken:
            log.warning("stored credential not decrypted", connection=connection_uid, name=row.name)
            return None
        if (sealed.connection, sealed.name) != (connection_uid, row.name):
            return None
        return OpenedCredential(sealed.kept, sealed.token)
