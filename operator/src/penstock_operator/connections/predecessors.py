"""Which connection goes on with what another of its name left behind.

A connection is who it was when its namespace (by uid), its name and its connector are the same: it goes on with the states,
generations and runs. Anything else begins anew, in generations that nobody of that name has written.
"""

from __future__ import annotations

from typing import Any

from penstock_operator.registry.database import DatabaseConnection, Row, many, one, run

STATES = ("connector_run_state", "stream_checkpoints", "stream_registry", "stream_reads", "compat_alerts")
"""What tells of streams: it means nothing to another connector, or to one that is to read everything again."""


def connector_of(spec: dict[str, Any]) -> tuple[str | None, str | None]:
    """Return name and method of the connector in a connection's spec."""
    connector = spec.get("connector") or {}
    return connector.get("name"), connector.get("method")


async def predecessor(
    db: DatabaseConnection,
    named: tuple[str, str, str],
    namespace_uid: str | None,
    connector: tuple[str | None, str | None] | None,
) -> Row | None:
    """Return the newest retired connection of that name, namespace and connector whose state is still there.

    `named` is uid, namespace and name of the connection that asks; without a connector, any will do. A namespace that
    nobody knows is nobody's.
    """
    uid, namespace, name = named
    return await one(
        db,
        """
        SELECT uid, spec FROM penstock.tenant_connections
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
        connector=connector[0] if connector else None,
        method=connector[1] if connector else None,
    )


async def take_over(db: DatabaseConnection, old: str, new: str) -> bool:
    """Give what is recorded under a retired uid to a new one; False when it was purged or taken meanwhile.

    The tables that refer to the connection follow.
    """
    return bool(
        await run(
            db,
            "UPDATE penstock.tenant_connections SET uid = %(new)s, updated_at = now()"
            " WHERE uid = %(old)s AND deleted_at IS NOT NULL AND purge_started_at IS NULL AND purged_at IS NULL",
            old=old,
            new=new,
        )
    )


async def retire_namesakes(db: DatabaseConnection, uid: str, namespace: str, name: str) -> None:
    """Mark live connections of that name with another uid deleted: they were, and made anew."""
    await run(
        db,
        "UPDATE penstock.tenant_connections SET deleted_at = now(), schedule = NULL, next_run_at = NULL"
        " WHERE namespace = %(namespace)s AND name = %(name)s AND uid <> %(uid)s AND deleted_at IS NULL",
        namespace=namespace,
        name=name,
        uid=uid,
    )


async def begin_anew(db: DatabaseConnection, uid: str) -> None:
    """Let a connection begin with no state, in generations that nobody of its name has written."""
    await run(
        db,
        "UPDATE penstock.tenant_connections SET first_generation = penstock.next_generation(namespace, name),"
        " last_success_at = NULL, last_success_run = NULL WHERE uid = %(uid)s",
        uid=uid,
    )
    for table in STATES:
        await run(db, f"DELETE FROM penstock.{table} WHERE connection_uid = %(uid)s", uid=uid)  # noqa: S608


async def set_namespace(db: DatabaseConnection, uid: str, namespace_uid: str) -> None:
    """Record the namespace of a connection that was recorded without it."""
    await run(
        db,
        "UPDATE penstock.tenant_connections SET namespace_uid = %(namespace)s WHERE uid = %(uid)s",
        uid=uid,
        namespace=namespace_uid,
    )


async def names_taken(db: DatabaseConnection, names: list[tuple[str, str]]) -> set[tuple[str, str]]:
    """Return those of the namespaces and names that a connection, live or retired, has or had."""
    rows = await many(
        db,
        """
        SELECT DISTINCT c.namespace, c.name FROM unnest(%(namespaces)s::text[], %(names)s::text[]) AS w (namespace, name)
        JOIN penstock.tenant_connections c ON c.namespace = w.namespace AND c.name = w.name
        """,
        namespaces=[namespace for namespace, _ in names],
        names=[name for _, name in names],
    )
    return {(row["namespace"], row["name"]) for row in rows}
