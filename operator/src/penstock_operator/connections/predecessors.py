"""Which connection goes on with what another of its name left behind.

A connection is who it was when its namespace (by uid), its name and its connector are the same: it goes on with the states,
generations and runs. Anything else begins anew, in generations that nobody of that name has written.
"""

from __future__ import annotations

from dataclasses import dataclass

from penstock_operator.audit import audit_store
from penstock_operator.audit.events import Action, AuditedObject
from penstock_operator.connections.connection_store import ConnectionKey
from penstock_operator.ids import ConnectionName, ConnectionUid, Namespace, NamespaceUid
from penstock_operator.registry.database import DatabaseConnection, execute, fetch_all, fetch_value
from penstock_operator.resources.models import ConnectionSpec

STREAM_TABLES = ("connector_run_state", "stream_checkpoints", "stream_registry", "stream_reads", "compat_alerts")
"""Tables about a connection's streams. Their rows mean nothing to another connector, or to one that reads all anew."""


@dataclass(frozen=True, slots=True)
class ConnectorMethod:
    """A connector and its method; a version is none of its identity."""

    name: str
    method: str

    @classmethod
    def of(cls, spec: ConnectionSpec) -> ConnectorMethod | None:
        """Return the connector that a spec names, None where it names none."""
        return cls(spec.connector.name, spec.connector.method) if spec.connector.name else None


async def predecessor(
    db: DatabaseConnection,
    successor: tuple[ConnectionUid, Namespace, ConnectionName],
    namespace_uid: NamespaceUid | None,
    connector: ConnectorMethod | None,
) -> ConnectionUid | None:
    """Return the newest retired connection of that name, namespace and connector whose state is still there.

    `successor` is uid, namespace and name of the connection that continues it. Without a connector, any connector
    matches. Without the namespace's uid, no connection matches.
    """
    uid, namespace, name = successor
    return await fetch_value(
        db,
        ConnectionUid,
        """
        SELECT uid FROM penstock.tenant_connections
        WHERE namespace = %(namespace)s AND name = %(name)s AND uid <> %(uid)s AND deleted_at IS NOT NULL
          AND namespace_uid = %(namespace_uid)s AND purge_started_at IS NULL AND purged_at IS NULL
          AND (NOT %(known)s OR (spec -> 'connector' ->> 'name', spec -> 'connector' ->> 'method')
               = (%(connector)s::text, %(method)s::text))
        ORDER BY deleted_at DESC, first_generation DESC LIMIT 1
        """,
        uid=uid,
        namespace=namespace,
        name=name,
        namespace_uid=namespace_uid,
        known=connector is not None,
        connector=connector.name if connector else None,
        method=connector.method if connector else None,
    )


async def take_over(db: DatabaseConnection, old: ConnectionUid, new: ConnectionUid) -> bool:
    """Give what is recorded under a retired uid to a new one; False when it was purged or taken meanwhile.

    The tables that refer to the connection follow.
    """
    return bool(
        await execute(
            db,
            "UPDATE penstock.tenant_connections SET uid = %(new)s, updated_at = now()"
            " WHERE uid = %(old)s AND deleted_at IS NOT NULL AND purge_started_at IS NULL AND purged_at IS NULL",
            old=old,
            new=new,
        )
    )


async def retire_namesakes(
    db: DatabaseConnection, uid: ConnectionUid, namespace: Namespace, name: ConnectionName
) -> None:
    """Mark live connections of that name with another uid deleted: they were, and made anew."""
    async with db.transaction():
        gone = await execute(
            db,
            "UPDATE penstock.tenant_connections SET deleted_at = now(), schedule = NULL, next_run_at = NULL"
            " WHERE namespace = %(namespace)s AND name = %(name)s AND uid <> %(uid)s AND deleted_at IS NULL",
            namespace=namespace,
            name=name,
            uid=uid,
        )
        if gone:
            await audit_store.record(db, Action.connection_delete, AuditedObject("connection", namespace, name))


async def begin_anew(db: DatabaseConnection, uid: ConnectionUid) -> None:
    """Let a connection begin with no state, in generations that nobody of its name has written."""
    await execute(
        db,
        "UPDATE penstock.tenant_connections SET first_generation = penstock.next_generation(namespace, name),"
        " last_success_at = NULL, last_success_run = NULL WHERE uid = %(uid)s",
        uid=uid,
    )
    for table in STREAM_TABLES:
        await execute(db, f"DELETE FROM penstock.{table} WHERE connection_uid = %(uid)s", uid=uid)  # noqa: S608


async def set_namespace(db: DatabaseConnection, uid: ConnectionUid, namespace_uid: NamespaceUid) -> None:
    """Record the namespace of a connection that was recorded without it."""
    await execute(
        db,
        "UPDATE penstock.tenant_connections SET namespace_uid = %(namespace)s WHERE uid = %(uid)s",
        uid=uid,
        namespace=namespace_uid,
    )


async def names_taken(db: DatabaseConnection, names: list[tuple[Namespace, ConnectionName]]) -> set[ConnectionKey]:
    """Return those of the namespaces and names that a connection, live or retired, has or had."""
    taken = await fetch_all(
        db,
        ConnectionKey,
        """
        SELECT DISTINCT c.namespace, c.name FROM unnest(%(namespaces)s::text[], %(names)s::text[]) AS w (namespace, name)
        JOIN penstock.tenant_connections c ON c.namespace = w.namespace AND c.name = w.name
        """,
        namespaces=[namespace for namespace, _ in names],
        names=[name for _, name in names],
    )
    return set(taken)
