"""Credentials that are replaced when they are used, such as refresh tokens, are used by one pod at a time.

All connections of a namespace whose Secrets have the same value share a credential: each of them has a copy of the newest
value, encrypted for it, and all copies are written in one transaction. A pod takes a lease, uses the credential, and stores what it
got before it uses that. The value is stored only in place of the value that was used, so the order in which pods wake up does
not matter. A lease that nobody has given back ends by its time; the next holder learns that the credential may have been used.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from penstock_sdk.protocol import (
    CREDENTIAL_LEASE_SECONDS,
    CredentialLeaseRequest,
    CredentialLeaseResponse,
    CredentialReleaseRequest,
    CredentialRequest,
    IssuedToken,
    RotatedCredential,
    usable_seconds,
)

from penstock_operator.credentials.vault import (
    CredentialOwner,
    OpenedCredential,
    StoredCredential,
    TamperedError,
    Vault,
    copies_of,
)
from penstock_operator.errors import Mismatch
from penstock_operator.ids import AttemptNumber, ConnectionUid, Namespace, RunId
from penstock_operator.registry.database import DatabaseConnection, execute, fetch_one

WAIT_SECONDS = 1.0
"""How long a pod waits before it asks again for a lease that another one has."""


@dataclass(frozen=True, slots=True)
class LeaseHolder:
    """The attempt that asks for a lease, and its connection."""

    owner: CredentialOwner
    namespace: Namespace
    run_id: RunId
    attempt: AttemptNumber


@dataclass(frozen=True, slots=True)
class _Lease:
    lease: str
    is_open: bool


@dataclass(frozen=True, slots=True)
class _Shared:
    """A credential as all its connections have it."""

    key: bytes
    copies: dict[ConnectionUid, OpenedCredential]
    versions: dict[ConnectionUid, int]
    newest: OpenedCredential | None
    age: float
    """How long ago the provider issued the newest token, in seconds."""

    def version_of(self, connection_uid: ConnectionUid) -> int:
        """Return the version of a connection's copy; 0 if it has none."""
        return self.versions.get(connection_uid, 0)

    def digest(self, seed: str) -> str:
        """Return the digest of the newest value; of the Secret's own while none has replaced it."""
        return _digest(self.newest.kept.value) if self.newest else seed

    def aged(self) -> OpenedCredential:
        """Return the newest value with the present age of its token, for another copy."""
        assert self.newest  # noqa: S101 - the caller has checked
        token = self.newest.token
        return OpenedCredential(self.newest.kept, token and token.model_copy(update={"age": self.age}))

    def holds(self, opened: OpenedCredential) -> bool:
        """Return True if this is what is stored already."""
        if self.newest is None or self.newest.kept != opened.kept:
            return False
        tokens = [credential.token and credential.token.value for credential in (self.newest, opened)]
        return tokens[0] == tokens[1]

    def usable_token(self, refused: str | None) -> IssuedToken | None:
        """Return the token that was issued last, if it can still be used."""
        token = self.newest.token if self.newest else None
        if token is None or _digest(token.value) == refused:
            return None
        if token.lifetime is not None and self.age >= usable_seconds(token.lifetime):
            return None
        return token.model_copy(update={"age": self.age})


async def lease(
    db: DatabaseConnection, vault: Vault, holder: LeaseHolder, request: CredentialLeaseRequest
) -> CredentialLeaseResponse:
    """Return a token that another pod got, or the lease, or neither: then ask again."""
    vault.check(holder.owner, request.name)
    shared = await _lock(db, vault, holder, request.name, request.seed)
    newest = shared.newest.kept if shared.newest else None
    if shared.newest is not None and holder.owner.connection_uid not in shared.copies:
        await vault.store(db, holder.owner.connection_uid, request.name, shared.aged())
    credential = newest if newest and _digest(newest.value) != request.known else None
    token = shared.usable_token(request.refused)
    if token is not None:
        return CredentialLeaseResponse(credential=credential, token=token)
    before = await fetch_one(
        db,
        _Lease,
        "SELECT lease, expires_at > now() AS is_open FROM penstock.credential_leases WHERE key = %(key)s FOR UPDATE",
        key=shared.key,
    )
    if before and before.is_open and before.lease != request.lease:
        return CredentialLeaseResponse(wait_seconds=WAIT_SECONDS)
    await execute(
        db,
        """
        INSERT INTO penstock.credential_leases (key, lease, run_id, attempt, expires_at)
        VALUES (%(key)s, %(lease)s, %(run)s, %(attempt)s, now() + make_interval(secs => %(seconds)s))
        ON CONFLICT (key) DO UPDATE SET lease = excluded.lease, run_id = excluded.run_id, attempt = excluded.attempt,
            expires_at = excluded.expires_at
        """,
        key=shared.key,
        lease=request.lease,
        run=holder.run_id,
        attempt=holder.attempt,
        seconds=CREDENTIAL_LEASE_SECONDS,
    )
    interrupted = before is not None and before.lease != request.lease
    return CredentialLeaseResponse(granted=True, credential=credential, interrupted=interrupted)


async def store(db: DatabaseConnection, vault: Vault, holder: LeaseHolder, request: CredentialRequest) -> int:
    """Store what a pod got for a credential in every copy, and end the lease. Raises Mismatch if another pod was faster."""
    vault.check(holder.owner, request.name)
    shared = await _lock(db, vault, holder, request.name, request.seed)
    opened = OpenedCredential(RotatedCredential(value=request.value, seed=request.seed), request.token)
    if shared.holds(opened):
        await _end(db, shared.key, request.lease or "")
        return shared.version_of(holder.owner.connection_uid)
    if shared.digest(request.seed) != request.replaces:
        raise Mismatch("credentials: another attempt has replaced the value that this one used; ask for a lease again")
    version = 0
    for connection_uid in {holder.owner.connection_uid, *shared.copies}:
        stored = await vault.store(db, connection_uid, request.name, opened)
        version = stored if connection_uid == holder.owner.connection_uid else version
    await _end(db, shared.key, request.lease or "")
    return version


async def release(db: DatabaseConnection, holder: LeaseHolder, request: CredentialReleaseRequest) -> None:
    """Give a lease back. A credential that was used without an answer stays marked for the next holder."""
    key = _key(holder.namespace, request.name, request.seed)
    if not request.unanswered:
        await _end(db, key, request.lease)
        return
    await execute(
        db,
        "UPDATE penstock.credential_leases SET expires_at = now() WHERE key = %(key)s AND lease = %(lease)s",
        key=key,
        lease=request.lease,
    )


async def forget_old_leases(db: DatabaseConnection) -> None:
    """Delete leases whose holders have been gone for a day."""
    await execute(db, "DELETE FROM penstock.credential_leases WHERE expires_at < now() - interval '1 day'")


async def _end(db: DatabaseConnection, key: bytes, name: str) -> None:
    await execute(
        db, "DELETE FROM penstock.credential_leases WHERE key = %(key)s AND lease = %(lease)s", key=key, lease=name
    )


async def _lock(db: DatabaseConnection, vault: Vault, holder: LeaseHolder, name: str, seed: str) -> _Shared:
    """Return a credential with all its copies, locked until the end of the transaction."""
    key = _key(holder.namespace, name, seed)
    number = int.from_bytes(key[:8], "big", signed=True)
    await execute(db, "SELECT pg_advisory_xact_lock(%(number)s)", number=number)
    rows = await copies_of(db, holder.namespace, name)
    copies: dict[ConnectionUid, OpenedCredential] = {}
    versions: dict[ConnectionUid, int] = {}
    age = 0.0
    for row in rows:
        opened = _opened(vault, holder, row)
        if opened is not None and row.version is not None and opened.kept.seed == seed:
            if not copies:
                age = max(0.0, row.age) + (opened.token.age if opened.token else 0.0)
            copies[row.connection_uid], versions[row.connection_uid] = opened, row.version
    return _Shared(key, copies, versions, next(iter(copies.values()), None), age)


def _opened(vault: Vault, holder: LeaseHolder, row: StoredCredential) -> OpenedCredential | None:
    """Return a copy. Raises TamperedError for the holder's own; another connection's own run reports its copy."""
    try:
        return vault.opened(row)
    except TamperedError:
        if row.connection_uid == holder.owner.connection_uid:
            raise
        return None


def _key(namespace: Namespace, name: str, seed: str) -> bytes:
    return hashlib.sha256(f"{namespace}\0{name}\0{seed}".encode()).digest()


def _digest(value: str) -> str:
    return hashlib.sha256(value.encode()).hexdigest()
