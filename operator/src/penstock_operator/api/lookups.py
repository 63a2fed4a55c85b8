"""Connections and runs that the path of a request names."""

from __future__ import annotations

from penstock_operator.connections import connection_store
from penstock_operator.connections.connection_store import ConnectionRow
from penstock_operator.errors import NotFound
from penstock_operator.registry.database import DatabaseConnection
from penstock_operator.runs import run_store
from penstock_operator.runs.run_store import RunDetail


async def find_connection(db: DatabaseConnection, namespace: str, name: str) -> ConnectionRow:
    """Return the live connection of that name. Raises NotFound."""
    row = await connection_store.connection_by_name(db, namespace, name)
    if row is None:
        message = f"there is no connection {namespace}/{name}"
        raise NotFound(message)
    return row


async def find_run(db: DatabaseConnection, run_id: str) -> RunDetail:
    """Return the run. Raises NotFound."""
    run = await run_store.run_by_id(db, run_id)
    if run is None:
        message = f"there is no run {run_id}"
        raise NotFound(message)
    return run
