"""The run that a connection has next, before it is inserted."""

from __future__ import annotations

from datetime import datetime

from penstock_operator.connections.connection_store import RunnableConnection
from penstock_operator.ids import new_run_id
from penstock_operator.runs.run_store import NewRun, Trigger


def new_run(
    connection: RunnableConnection,
    *,
    scheduled_at: datetime | None = None,
    token: str | None = None,
    trigger: Trigger | None = None,
) -> NewRun:
    """Return a run of a connection, pinned to its definition and its spec."""
    return NewRun(
        new_run_id(),
        connection.uid,
        connection.definition_uid,
        connection.spec.document(),
        scheduled_at=scheduled_at,
        token=token,
        trigger=trigger,
    )
