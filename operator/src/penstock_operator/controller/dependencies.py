"""The upstreams of a connection (`spec.after`): recorded in the registry, and checked."""

from __future__ import annotations

from datetime import datetime

from penstock_operator.connections.connection_store import ConnectionRow
from penstock_operator.ids import ConnectionName, Namespace
from penstock_operator.registry.database import DatabaseConnection
from penstock_operator.resources.conditions import Finding
from penstock_operator.resources.models import ConnectionSpec
from penstock_operator.scheduling import upstream_store
from penstock_operator.scheduling.upstreams import upstream_problem


async def record_upstreams(db: DatabaseConnection, row: ConnectionRow, spec: ConnectionSpec, now: datetime) -> None:
    """Record a changed `after` and its problem; make the connection due if its upstreams have succeeded."""
    names = [upstream.name for upstream in spec.after]
    if names != row.upstreams:
        await upstream_store.set_upstreams(db, row.uid, names)
    if not names and row.upstream_reason is None:
        return
    edges = {str(follower.name): follower.upstreams for follower in await upstream_store.followers(db, row.namespace)}
    missing = await upstream_store.missing_upstreams(db, row.namespace, names)
    problem = upstream_problem(row.namespace, row.name, edges, missing) if names else None
    await upstream_store.set_upstream_problem(db, row.uid, *(problem or (None, "")))
    await upstream_store.wake_followers(db, row.namespace, now)


def upstream_finding(row: ConnectionRow) -> Finding | None:
    """Return the problem with a connection's upstreams; such a connection can still be run by request."""
    if row.upstream_reason is None:
        return None
    return Finding("stalled", row.upstream_reason, row.upstream_message)


async def affected(
    db: DatabaseConnection, namespace: Namespace, name: ConnectionName, *, changed: bool
) -> list[ConnectionName]:
    """Return the connections that may have to look at their upstreams again, now that this one has been reconciled.

    After a change of this one, those are all connections that have upstreams; always, those that missed this one.
    """
    return [
        follower.name
        for follower in await upstream_store.followers(db, namespace)
        if follower.name != name
        and (changed or (follower.upstream_reason == "UpstreamNotFound" and name in follower.upstreams))
    ]
