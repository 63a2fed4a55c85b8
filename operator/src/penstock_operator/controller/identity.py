"""The identity of a connection: whether a new one continues a deleted one of its name, and what a changed connector ends."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from penstock_operator.connections import predecessors
from penstock_operator.connections.connection_records import ConnectionRecord
from penstock_operator.connections.connection_store import ConnectionRow
from penstock_operator.connections.predecessors import ConnectorMethod
from penstock_operator.ids import ConnectionUid, NamespaceUid
from penstock_operator.registry.database import DatabaseConnection
from penstock_operator.runs import run_store, transitions
from penstock_operator.runs.attempt_store import AttemptOutcome

LEFT = AttemptOutcome(
    "cancelled", "RunReplaced", message="the connection was deleted and applied again, or has another connector"
)
NamespaceUidReader = Callable[[str], Awaitable[NamespaceUid | None]]
"""Returns the uid of a namespace: one that is deleted and made anew has another. None where it may not be read."""


async def one_namespace(name: str) -> NamespaceUid | None:
    """Return the uid of a namespace of a folder, which has one namespace of each name, ever."""
    return NamespaceUid(f"folder:{name}")


async def settle(db: DatabaseConnection, record: ConnectionRecord, known: ConnectionRow | None, *, valid: bool) -> None:
    """Let a new connection continue a deleted one of its name, and a connection with another connector begin anew.

    Runs in the caller's transaction. Namesakes of a new connection are retired before it: a run is always locked before its
    connection. `valid` is False if the spec names no usable connector: such a connection continues whatever its name had.
    """
    if known is None:
        await _take_over(db, record, valid=valid)
    elif valid and ConnectorMethod.of(known.spec) not in (None, ConnectorMethod.of(record.spec)):
        await _end_runs(db, record.uid)
        await predecessors.begin_anew(db, record.uid)


async def _take_over(db: DatabaseConnection, record: ConnectionRecord, *, valid: bool) -> None:
    successor = (record.uid, record.namespace, record.name)
    connector = ConnectorMethod.of(record.spec) if valid else None
    found = await predecessors.predecessor(db, successor, record.namespace_uid, connector)
    if found is None:
        return
    await _end_runs(db, found)
    await predecessors.take_over(db, found, record.uid)


async def _end_runs(db: DatabaseConnection, uid: ConnectionUid) -> None:
    """End the connection's runs: their attempts are fenced, and commit nothing any more."""
    for run in await run_store.active_runs(db, uid):
        locked = await run_store.lock_run(db, run.id)
        if locked and locked.is_active:
            await transitions.stop(db, locked, LEFT)
