"""Connections and runs that the path of a request names, as far as the caller's tenant has them.

A tenant is a namespace by its uid. The rights of a caller are those in the namespace that has the name now, so whatever belongs to
an earlier namespace of the name is not found.
"""

from __future__ import annotations

from penstock_operator.api.authentication import Authenticator, Verb
from penstock_operator.audit.callers import concerns
from penstock_operator.connections import connection_store
from penstock_operator.connections.connection_store import ConnectionRow
from penstock_operator.errors import NotFound
from penstock_operator.ids import ConnectionUid, Namespace, NamespaceUid, ObjectId
from penstock_operator.registry.database import DatabaseConnection
from penstock_operator.runs import run_store
from penstock_operator.runs.run_store import RunDetail


async def find_connection(
    db: DatabaseConnection, authenticator: Authenticator, namespace: str, name: str
) -> ConnectionRow:
    """Return the live connection of that name. Raises NotFound."""
    concerns("connection", Namespace(namespace), name)
    row = await connection_store.connection_by_name(db, namespace, name)
    if row is None or not _is_of_tenant(row.namespace_uid, await authenticator.namespace_uid(row.namespace)):
        message = f"there is no connection {namespace}/{name}"
        raise NotFound(message)
    return row


async def find_run(
    db: DatabaseConnection, authenticator: Authenticator, token: str, verb: Verb, run_id: str
) -> RunDetail:
    """Return the run, if the caller may do this with its connection. Raises NotFound and Forbidden."""
    run = await run_store.run_by_id(db, run_id)
    message = f"there is no run {run_id}"
    if run is None:
        raise NotFound(message)
    await authenticator.person(token, verb, run.namespace)
    if not await is_connection_of_tenant(db, authenticator, run.connection_uid):
        raise NotFound(message)
    concerns("run", run.namespace, run.name, ObjectId(run_id))
    return run


async def is_connection_of_tenant(
    db: DatabaseConnection, authenticator: Authenticator, connection: ConnectionUid
) -> bool:
    """Return True unless the connection is of an earlier namespace that had the name."""
    row = await connection_store.connection_by_uid(db, connection)
    return row is not None and _is_of_tenant(row.namespace_uid, await authenticator.namespace_uid(row.namespace))


async def tenant_of(authenticator: Authenticator, namespace: Namespace | None) -> NamespaceUid | None:
    """Return the uid of the namespace that a list is limited to; None for a list of all namespaces, or without uids."""
    return await authenticator.namespace_uid(namespace) if namespace else None


def _is_of_tenant(recorded: NamespaceUid | None, current: NamespaceUid | None) -> bool:
    """Return True if the uids are equal. The controller records none where it may not read namespaces."""
    return recorded is None or current is None or recorded == current
