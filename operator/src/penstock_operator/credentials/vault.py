"""Credentials that sources replace, such as rotated refresh tokens: encrypted with a key that only the server has.

A value is kept before its connector uses it, in a transaction that holds the attempt's run, so that a paused attempt
which wakes up later cannot put an old one back. Connection and name are sealed in with it: a row that is copied to
another connection opens nowhere.
"""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass

import structlog
from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from penstock_sdk.protocol import CredentialRequest, RotatedCredential
from pydantic import BaseModel, ConfigDict

from penstock_operator.credentials import credential_store
from penstock_operator.credentials.credential_store import StoredCredential
from penstock_operator.errors import Invalid
from penstock_operator.ids import ConnectionUid
from penstock_operator.registry.database import DatabaseConnection

log = structlog.get_logger()


class _Sealed(BaseModel):
    """What is encrypted."""

    model_config = ConfigDict(frozen=True)

    connection: str
    name: str
    kept: RotatedCredential


def _fernet(key: str) -> Fernet:
    return Fernet(base64.urlsafe_b64encode(hashlib.sha256(key.encode()).digest()))


@dataclass(frozen=True)
class CredentialOwner:
    """On whose behalf a credential is kept, and which ones its manifest declares."""

    connection_uid: ConnectionUid
    declared: frozenset[str]


class Vault:
    """Keeps and opens credentials. The first key encrypts; the others only open what an earlier one has encrypted."""

    def __init__(self, keys: tuple[str, ...]) -> None:
        self._cipher = MultiFernet([_fernet(key) for key in keys]) if keys else None

    async def keep(self, db: DatabaseConnection, holder: CredentialOwner, request: CredentialRequest) -> int:
        """Keep a value and return its version; the same value again is the same version."""
        if request.name not in holder.declared:
            known = ", ".join(sorted(holder.declared)) or "none"
            raise Invalid(f"credentials: the manifest declares no credential {request.name!r}; it declares: {known}")
        if self._cipher is None:
            raise Invalid(
                "credentials: the platform has no key to keep replaced credentials with; set PENSTOCK_CREDENTIALS_KEY"
                " of the server (the chart's credentials.existingSecret)"
            )
        kept = RotatedCredential(value=request.value, seed=request.seed)
        known_row = await credential_store.lock_credential(db, holder.connection_uid, request.name)
        if known_row and self._open(holder.connection_uid, known_row) == kept:
            return known_row.version
        sealed = _Sealed(connection=holder.connection_uid, name=request.name, kept=kept)
        ciphertext = self._cipher.encrypt(sealed.model_dump_json().encode())
        return await credential_store.put_credential(db, holder.connection_uid, request.name, ciphertext)

    async def kept(self, db: DatabaseConnection, connection_uid: ConnectionUid) -> dict[str, RotatedCredential]:
        """Return what is kept for a connection; what no key opens is left out, and the Secret's value counts again."""
        rows = await credential_store.credentials_of(db, connection_uid) if self._cipher else []
        opened = {row.name: self._open(connection_uid, row) for row in rows}
        return {name: credential for name, credential in opened.items() if credential}

    def _open(self, connection_uid: ConnectionUid, row: StoredCredential) -> RotatedCredential | None:
        assert self._cipher  # noqa: S101 - the callers have looked
        try:
            sealed = _Sealed.model_validate_json(self._cipher.decrypt(row.ciphertext))
        except InvalidToken:
            log.warning("stored credential not decrypted", connection=connection_uid, name=row.name)
            return None
        return sealed.kept if (sealed.connection, sealed.name) == (connection_uid, row.name) else None
