"""What is gone: marked so in the registry, and its runs ended."""

from __future__ import annotations

from datetime import datetime

from penstock_operator.registry import credentials, definitions, recording, runs
from penstock_operator.registry.database import Pool, Row
from penstock_operator.resources.models import Kind
from penstock_operator.runs import outcomes


async def retire_all_but(pool: Pool, live: dict[Kind, list[str]], before: dict[Kind, datetime]) -> None:
    """Retire all whose uids are not listed; `before` is when each listing began."""
    async with pool.connection() as connection:
        await definitions.retire_definitions(connection, live["ConnectorDefinition"], before["ConnectorDefinition"])
        await recording.retire_connections(connection, live["TenantConnection"], before["TenantConnection"])
    await _let_go(pool)


async def retire_connection(pool: Pool, namespace: str, name: str) -> Row | None:
    """Retire one connection, whose Jobs go with it, as it owns them; None when there is none of that name."""
    async with pool.connection() as connection:
        gone = await recording.retire_connection(connection, namespace, name)
    if gone:
        await _let_go(pool)
    return gone


async def _let_go(pool: Pool) -> None:
    """End the runs of connections that are gone, and forget their credentials, whoever marked them and was killed then."""
    async with pool.connection() as connection:
        for run_id in await runs.runs_of_deleted_connections(connection):
            async with connection.transaction():
                locked = await runs.lock_run(connection, run_id)
                if locked and locked["phase"] in ("pending", "running"):
                    await outcomes.cancel(connection, locked)
        await credentials.forget_credentials_of_the_deleted(connection)
