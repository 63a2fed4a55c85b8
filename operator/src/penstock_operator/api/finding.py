"""What a path names, or NotFound."""

from __future__ import annotations

from penstock_operator.registry import connections, runs
from penstock_operator.registry.database import Connection, Row
from penstock_operator.runs.refusals import NotFound


async def find_connection(connection: Connection, namespace: str, name: str) -> Row:
    """Return the live connection of that name."""
    row = await connections.connection_by_name(connection, namespace, name)
    if row is None:
        message = f"there is no connection {namespace}/{name}"
        raise NotFound(message)
    return row


async def find_run(connection: Connection, run_id: str) -> Row:
    """Return the run."""
    row = await runs.run_by_id(connection, run_id)
    if row is None:
        message = f"there is no run {run_id}"
        raise NotFound(message)
    return row
