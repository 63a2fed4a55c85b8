"""A connection that is new, or another than it was: what it goes on with, and what it leaves."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from penstock_operator.connections import predecessors
from penstock_operator.connections.connection_records import ConnectionRecord
from penstock_operator.connections.predecessors import connector_of
from penstock_operator.registry.database import DatabaseConnection, Row
from penstock_operator.runs import run_store, transitions
from penstock_operator.runs.attempt_store import AttemptOutcome

LEFT = AttemptOutcome(
    "cancelled", "RunReplaced", message="the connection was deleted and applied again, or has another connector"
)
NamespaceUid = Callable[[str], Awaitable[str | None]]


async def one_namespace(name: str) -> str | None:
    """Return the uid of a namespace where there is one of each name, ever: in a folder."""
    return f"folder:{name}"


async def settle(db: DatabaseConnection, record: ConnectionRecord, known: Row | None, *, valid: bool) -> None:
    """Make a connection's past its own, in the caller's transaction: taken over, left behind, or never there.

    Namesakes of a new one are retired before: whoever ends a run holds the run first and its connection second.
    `valid` is whether its spec says which connector it uses; one that does not say takes over, and decides later.
    """
    if known is None:
        await _take_over(db, record, valid=valid)
    elif valid and known["spec"] and connector_of(known["spec"]) != connector_of(record.spec):
        await _end_runs(db, record.uid)
        await predecessors.begin_anew(db, record.uid)


async def _take_over(db: DatabaseConnection, record: ConnectionRecord, *, valid: bool) -> None:
    named = (record.uid, record.namespace, record.name)
    connector = connector_of(record.spec) if valid else None
    found = await predecessors.predecessor(db, named, record.namespace_uid, connector)
    if found is None:
        return
    await _end_runs(db, found["uid"])
    await predecessors.take_over(db, found["uid"], record.uid)


async def _end_runs(db: DatabaseConnection, uid: str) -> None:
    """End what runs for the connection as it was: its attempts are fenced, and commit nothing any more."""
    for run in await run_store.active_runs(db, uid):
        locked = await run_store.lock_run(db, run.id)
        if locked and locked.is_active:
            await transitions.stop(db, locked, LEFT)
