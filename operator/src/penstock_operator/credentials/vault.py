"""Credentials that sources replace, such as rotated refresh tokens: encrypted with keys that only the server has.

A value is stored before its connector uses it, in a transaction that locks the attempt's run, so that a paused attempt
which wakes up later cannot put an old one back. The ciphertext is bound to the connection, the name and the version, and
`credential_versions` knows the newest version. So a row that was copied, rolled back or removed is noticed: the run fails, and
its message names the credential.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import structlog
from penstock_sdk.protocol import CredentialRequest, IssuedToken, RotatedCredential
from pydantic import BaseModel, ConfigDict

from penstock_operator.audit import audit_store
from penstock_operator.audit.events import Action, AuditedObject
from penstock_operator.credentials.ciphers import (
    Binding,
    CredentialKey,
    NotAuthenticError,
    UnknownKeyError,
    decrypt_bound,
    decrypt_earlier,
    is_bound,
)
from penstock_operator.errors import Invalid
from penstock_operator.ids import ConnectionName, ConnectionUid, KeyId, Namespace, NamespaceUid
from penstock_operator.registry.database import DatabaseConnection, Pool, execute, fetch_all, fetch_value

log = structlog.get_logger()
ROTATION_BATCH = 100


class TamperedError(Invalid):
    """A stored credential was changed outside of Penstock."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredCredential:
    """A credential of a connection, encrypted, with the newest version that was stored.

    Version and ciphertext are None if the row is not there; `newest` is None if its version was never recorded.
    """

    connection_uid: ConnectionUid
    namespace: Namespace
    namespace_uid: NamespaceUid | None
    connection: ConnectionName
    name: str
    version: int | None
    ciphertext: bytes | None
    key_id: KeyId | None
    newest: int | None
    present: bool | None
    age: float
    """How long ago it was stored, in seconds."""

    def binding(self, version: int) -> Binding:
        """Return what a ciphertext of this row is bound to."""
        return Binding(self.namespace_uid or NamespaceUid(""), self.namespace, self.connection, self.name, version)

    def tampered(self, what: str) -> TamperedError:
        """Return the error that says what was done to the row."""
        return TamperedError(
            f"credentials: the stored credential {self.name} of {self.namespace}/{self.connection} {what} outside of Penstock."
            " Find out who did it, put a new value into the Secret, and run"
            f" `penstock credentials forget {self.namespace}/{self.connection} {self.name}`"
        )


STORED = """
    SELECT c.uid AS connection_uid, c.namespace, c.namespace_uid, c.name AS connection, s.name, k.version, k.ciphertext, k.key_id,
        v.version AS newest, v.present,
        coalesce(extract(epoch FROM clock_timestamp() - k.updated_at), 0)::float8 AS age
    FROM (SELECT connection_uid, name FROM penstock.credentials
          UNION SELECT connection_uid, name FROM penstock.credential_versions) s
    JOIN penstock.tenant_connections c ON c.uid = s.connection_uid
    LEFT JOIN penstock.credentials k ON k.connection_uid = s.connection_uid AND k.name = s.name
    LEFT JOIN penstock.credential_versions v ON v.connection_uid = s.connection_uid AND v.name = s.name
"""


async def credentials_of(db: DatabaseConnection, connection_uid: ConnectionUid) -> list[StoredCredential]:
    """Return the connection's stored credentials."""
    sql = f"{STORED} WHERE s.connection_uid = %(uid)s ORDER BY s.name"
    return await fetch_all(db, StoredCredential, sql, uid=connection_uid)


async def copies_of(db: DatabaseConnection, namespace: Namespace, name: str) -> list[StoredCredential]:
    """Return the credentials of that name of all connections of a namespace, the newest first."""
    return await fetch_all(
        db,
        StoredCredential,
        f"{STORED} WHERE c.namespace = %(namespace)s AND s.name = %(name)s AND k.version IS NOT NULL"
        " ORDER BY k.updated_at DESC, s.connection_uid",
        namespace=namespace,
        name=name,
    )


async def lock_credential(db: DatabaseConnection, connection_uid: ConnectionUid, name: str) -> None:
    """Lock a stored credential, so that nobody else replaces it."""
    await execute(
        db,
        "SELECT 1 FROM penstock.credentials WHERE connection_uid = %(uid)s AND name = %(name)s FOR UPDATE",
        uid=connection_uid,
        name=name,
    )


async def next_version(db: DatabaseConnection, connection_uid: ConnectionUid, name: str) -> int:
    """Record that a credential gets its next version, and return it."""
    version = await fetch_value(
        db,
        int,
        """
        INSERT INTO penstock.credential_versions AS v (connection_uid, name, version)
        VALUES (%(uid)s, %(name)s, 1 + coalesce((SELECT version FROM penstock.credentials
            WHERE connection_uid = %(uid)s AND name = %(name)s), 0))
        ON CONFLICT (connection_uid, name) DO UPDATE SET version = v.version + 1, present = true
        RETURNING version
        """,
        uid=connection_uid,
        name=name,
    )
    assert version is not None  # noqa: S101 - INSERT … RETURNING always returns
    return version


async def put_credential(
    db: DatabaseConnection, connection_uid: ConnectionUid, name: str, version: int, ciphertext: bytes, key_id: KeyId
) -> None:
    """Store a credential in place of the one before it."""
    await execute(
        db,
        """
        INSERT INTO penstock.credentials (connection_uid, name, version, ciphertext, key_id)
        VALUES (%(uid)s, %(name)s, %(version)s, %(ciphertext)s, %(key)s)
        ON CONFLICT (connection_uid, name) DO UPDATE SET version = excluded.version,
            ciphertext = excluded.ciphertext, key_id = excluded.key_id, updated_at = now()
        """,
        uid=connection_uid,
        name=name,
        version=version,
        ciphertext=ciphertext,
        key=key_id,
    )


async def forget_credentials_of_the_deleted(db: DatabaseConnection) -> None:
    """Delete the stored credentials of deleted connections, with their versions."""
    for table in ("credentials", "credential_versions"):
        await execute(
            db,
            f"DELETE FROM penstock.{table} k USING penstock.tenant_connections c"  # noqa: S608 - constants
            " WHERE c.uid = k.connection_uid AND c.deleted_at IS NOT NULL",
        )


async def forget_credential(db: DatabaseConnection, connection_uid: ConnectionUid, name: str) -> bool:
    """Delete a stored credential, so that the Secret's value is used; False if there is none. Its version still grows."""
    async with db.transaction():
        await lock_credential(db, connection_uid, name)
        known = any(stored.name == name for stored in await credentials_of(db, connection_uid))
        if known:
            await next_version(db, connection_uid, name)
            values = {"uid": connection_uid, "name": name}
            where = "WHERE connection_uid = %(uid)s AND name = %(name)s"
            await execute(db, f"DELETE FROM penstock.credentials {where}", **values)  # noqa: S608 - a constant
            await execute(db, f"UPDATE penstock.credential_versions SET present = false {where}", **values)  # noqa: S608
            deleted = AuditedObject("credential", connection_uid=connection_uid)
            await audit_store.record(db, Action.credential_delete, deleted, reason=name)
    return known


@dataclass(frozen=True, slots=True)
class OpenedCredential:
    """A decrypted credential, with the token that the provider issued last."""

    kept: RotatedCredential
    token: IssuedToken | None = None


class _Sealed(BaseModel):
    """The content of a ciphertext. Connection and name are those of the earlier form."""

    model_config = ConfigDict(frozen=True)

    connection: str = ""
    name: str = ""
    kept: RotatedCredential
    token: IssuedToken | None = None

    def opened(self) -> OpenedCredential:
        """Return the credential."""
        return OpenedCredential(self.kept, self.token)


@dataclass(frozen=True)
class CredentialOwner:
    """The connection that a credential is stored for, and the names that its manifest declares."""

    connection_uid: ConnectionUid
    declared: frozenset[str]


@dataclass(slots=True)
class Rotation:
    """How many credentials were encrypted with the newest key, and why others were not."""

    rotated: int = 0
    problems: list[str] = field(default_factory=list)


class Vault:
    """Encrypts and decrypts credentials. The first key encrypts; the others only decrypt values that an earlier key encrypted."""

    def __init__(self, keys: tuple[str, ...]) -> None:
        self._keys = tuple(CredentialKey(key) for key in keys)

    def check(self, holder: CredentialOwner, name: str) -> None:
        """Raise Invalid unless the manifest declares the credential, and there is a key to encrypt it with."""
        if name not in holder.declared:
            known = ", ".join(sorted(holder.declared)) or "none"
            raise Invalid(f"credentials: the manifest declares no credential of this name; it declares: {known}")
        if not self._keys:
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
        await lock_credential(db, connection_uid, name)
        stored = {row.name: row for row in await credentials_of(db, connection_uid)}.get(name)
        if stored and stored.version is not None and self.opened(stored) == opened:
            return stored.version
        version = await next_version(db, connection_uid, name)
        row = stored or {row.name: row for row in await credentials_of(db, connection_uid)}[name]
        await self._put(db, row, version, opened)
        return version

    async def _put(self, db: DatabaseConnection, row: StoredCredential, version: int, opened: OpenedCredential) -> None:
        plaintext = _Sealed(kept=opened.kept, token=opened.token).model_dump_json().encode()
        key = self._keys[0]
        ciphertext = key.encrypt(plaintext, row.binding(version))
        await put_credential(db, row.connection_uid, row.name, version, ciphertext, key.id)

    async def kept(self, db: DatabaseConnection, connection_uid: ConnectionUid) -> dict[str, RotatedCredential]:
        """Return the stored credentials of a connection. Raises TamperedError.

        One that was encrypted with a key that is not given is left out: the Secret's value counts again.
        """
        rows = await credentials_of(db, connection_uid) if self._keys else []
        opened = {row.name: self.opened(row) for row in rows}
        return {name: credential.kept for name, credential in opened.items() if credential}

    async def rotate(self, pool: Pool) -> Rotation:
        """Encrypt all credentials with the first key. It can be ended at any time, and continues when it is called again."""
        rotation, after = Rotation(), ("", "")
        while True:
            async with pool.connection() as db:
                rows = await fetch_all(
                    db,
                    StoredCredential,
                    f"{STORED} WHERE k.version IS NOT NULL AND k.key_id IS DISTINCT FROM %(key)s"
                    " AND (s.connection_uid, s.name) > (%(uid)s, %(name)s)"
                    " ORDER BY s.connection_uid, s.name LIMIT %(batch)s",
                    key=self._keys[0].id,
                    uid=after[0],
                    name=after[1],
                    batch=ROTATION_BATCH,
                )
                for row in rows:
                    async with db.transaction():
                        await self._rotate(db, row, rotation)
            if not rows:
                return rotation
            after = (rows[-1].connection_uid, rows[-1].name)

    async def _rotate(self, db: DatabaseConnection, seen: StoredCredential, rotation: Rotation) -> None:
        await lock_credential(db, seen.connection_uid, seen.name)
        row = next((row for row in await credentials_of(db, seen.connection_uid) if row.name == seen.name), None)
        if row is None or row.version is None or row.key_id == self._keys[0].id:
            return
        try:
            kept = self.opened(row)
        except TamperedError as error:
            rotation.problems.append(error.message)
            return
        if kept is None:
            key = row.key_id or "unknown"
            rotation.problems.append(
                f"{row.namespace}/{row.connection} {row.name}: it is encrypted with the key {key}, which is not given"
            )
            return
        version = await next_version(db, row.connection_uid, row.name)
        token = kept.token and kept.token.model_copy(update={"age": kept.token.age + row.age})
        await self._put(db, row, version, replace(kept, token=token))
        rotated = AuditedObject("credential", row.namespace, row.connection, connection_uid=row.connection_uid)
        await audit_store.record(db, Action.credential_rotate, rotated, reason=row.name)
        rotation.rotated += 1

    def opened(self, row: StoredCredential) -> OpenedCredential | None:
        """Return a stored credential; None if it was forgotten or its key is not given. Raises TamperedError."""
        if row.version is None or row.ciphertext is None:
            if row.present:
                raise row.tampered("was removed")
            return None
        if row.newest is not None and (row.version < row.newest or row.present is False):
            raise row.tampered("was rolled back to an earlier version")
        try:
            return self._decrypted(row, row.ciphertext, row.version)
        except UnknownKeyError:
            log.warning("stored credential not decrypted", connection=row.connection_uid, name=row.name, key=row.key_id)
            return None
        except NotAuthenticError:
            raise row.tampered("was changed, or copied from another row,") from None

    def _decrypted(self, row: StoredCredential, ciphertext: bytes, version: int) -> OpenedCredential:
        if not is_bound(ciphertext):
            if row.newest is not None:
                raise row.tampered("was rolled back to an earlier version")
            sealed = _Sealed.model_validate_json(decrypt_earlier(self._keys, ciphertext))
            if (sealed.connection, sealed.name) != (row.connection_uid, row.name):
                raise NotAuthenticError
            return sealed.opened()
        binding = row.binding(version)
        try:
            plaintext = decrypt_bound(self._keys, ciphertext, binding)
        except NotAuthenticError:  # stored before the controller knew the namespace's uid
            plaintext = decrypt_bound(self._keys, ciphertext, replace(binding, namespace_uid=NamespaceUid("")))
        return _Sealed.model_validate_json(plaintext).opened()
