"""A connection that is new, or another than it was: what it goes on with, and what it leaves."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from penstock_operator.registry import identity, runs
from penstock_operator.registry.attempts import Ending
from penstock_operator.registry.database import Connection, Row
from penstock_operator.registry.identity import connector_of
from penstock_operator.registry.recording import ConnectionRecord
from penstock_operator.runs import outcomes

LEFT = Ending(
    "cancelled", "RunReplaced", message="the connection was deleted and applied again, or has another connector"
)
NamespaceUid = Callable[[str], Awaitable[str | None]]


async def one_namespace(name: str) -> str | None:
    """Return the uid of a namespace where there is one of each name, ever: in a folder."""
    return f"folder:{name}"


async def settle(connection: Connection, record: ConnectionRecord, known: Row | None, *, valid: bool) -> None:
    """Make a connection's past its own, in the caller's transaction: taken over, left behind, or never there.

    Namesakes of a new one are retired before: whoever ends a run holds the run first and its connection second.
    `valid` is whether its spec says which connector it uses; one that does not say takes over, and decides later.
    """
    if known is None:
        await _take_over(connection, record, valid=valid)
    elif valid and known["spec"] and connector_of(known["spec"]) != connector_of(record.spec):
        await _end_runs(connection, record.uid)
        await identity.begin_anew(connection, record.uid)


async def _take_over(connection: Connection, record: ConnectionRecord, *, valid: bool) -> None:
    named = (record.uid, record.namespace, record.name)
    connector = connector_of(record.spec) if valid else None
    found = await identity.predecessor(connection, named, record.namespace_uid, connector)
    if found is None:
        return
    await _end_runs(connection, found["uid"])
    await identity.take_over(connection, found["uid"], record.uid)


async def _end_runs(connection: Connection, uid: str) -> None:
    """End what runs for the connection as it was: its attempts are fenced, and commit nothing any more."""
    for each in await runs.active_runs(connection, uid):
        locked = await runs.lock_run(connection, each["id"])
        if locked and locked["phase"] in ("pending", "running"):
            await outcomes.stop(connection, locked, LEFT)
