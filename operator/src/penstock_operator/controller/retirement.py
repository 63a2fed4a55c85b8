"""Deleted resources: marked as deleted in the registry, and their runs ended."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from penstock_operator import definitions
from penstock_operator.connections import connection_records
from penstock_operator.connections.connection_records import RetiredConnection
from penstock_operator.credentials import credential_leases, vault
from penstock_operator.ids import ConnectionUid, DefinitionUid
from penstock_operator.registry.database import Pool
from penstock_operator.resources.models import Kind
from penstock_operator.runs import run_store, transitions


@dataclass(frozen=True, slots=True)
class LiveResources:
    """The uids of all listed resources."""

    definitions: list[DefinitionUid] = field(default_factory=list)
    connections: list[ConnectionUid] = field(default_factory=list)


async def retire_all_but(pool: Pool, live: LiveResources, before: dict[Kind, datetime]) -> None:
    """Retire all resources whose uids are not listed; `before` is when each list began."""
    async with pool.connection() as db:
        await definitions.retire_definitions(db, live.definitions, before["ConnectorDefinition"])
        await connection_records.retire_connections(db, live.connections, before["TenantConnection"])
    await _let_go(pool)


async def retire_connection(pool: Pool, namespace: str, name: str) -> RetiredConnection | None:
    """Retire one connection, and return it; None if there is none of that name. Its Jobs are deleted with it, as it owns them."""
    async with pool.connection() as db:
        gone = await connection_records.retire_connection(db, namespace, name)
    if gone:
        await _let_go(pool)
    return gone


async def _let_go(pool: Pool) -> None:
    """End the runs of deleted connections and delete their credentials, also after a crash between the two steps."""
    async with pool.connection() as db:
        for run_id in await run_store.runs_of_deleted_connections(db):
            async with db.transaction():
                locked = await run_store.lock_run(db, run_id)
                if locked and locked.is_active:
                    await transitions.cancel(db, locked)
        await vault.forget_credentials_of_the_deleted(db)
        await credential_leases.forget_old_leases(db)
