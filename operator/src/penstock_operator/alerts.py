"""compat_alerts: changes and faults of a connection's streams that need attention, until they are resolved or acknowledged."""

from __future__ import annotations

from dataclasses import dataclass

from penstock_operator.audit import audit_store
from penstock_operator.audit.events import Action, AuditedObject
from penstock_operator.ids import AlertId, ConnectionUid, ObjectId, RunId
from penstock_operator.registry.database import DatabaseConnection, execute, fetch_all, fetch_value


@dataclass(frozen=True, slots=True)
class StreamAlert:
    """An alert of a stream. `baseline` is the stream version that it is a change against, None where it is not one."""

    id: AlertId
    stream: str
    kind: str
    path: str
    message: str
    baseline: int | None


COLUMNS = "id, stream, kind, path, message, baseline"


@dataclass(frozen=True, slots=True)
class NewAlert:
    """An alert to be. `baseline` is the stream version that it is a change against, None where it is not one."""

    stream: str
    kind: str
    path: str
    message: str
    baseline: int | None = None


async def open_alerts(db: DatabaseConnection, uid: ConnectionUid, run_id: RunId, alerts: list[NewAlert]) -> None:
    """Open alerts, all in one statement; one that is open already stays as it is."""
    columns = {name: [getattr(alert, name) for alert in alerts] for name in NewAlert.__dataclass_fields__}
    await execute(
        db,
        """
        INSERT INTO penstock.compat_alerts (connection_uid, run_id, stream, kind, path, message, baseline)
        SELECT %(uid)s, %(run)s, * FROM unnest(%(stream)s::text[], %(kind)s::text[], %(path)s::text[],
            %(message)s::text[], %(baseline)s::int[])
        ON CONFLICT DO NOTHING
        """,
        uid=uid,
        run=run_id,
        **columns,
    )


async def resolve_alerts(db: DatabaseConnection, ids: list[AlertId]) -> None:
    """Resolve alerts whose cause is gone."""
    await execute(
        db,
        "UPDATE penstock.compat_alerts SET resolved_at = now() WHERE id = ANY(%(ids)s) AND resolved_at IS NULL",
        ids=ids,
    )


async def resolve_alerts_of_kind(db: DatabaseConnection, uid: ConnectionUid, kind: str) -> None:
    """Resolve a connection's open alerts of one kind."""
    await execute(
        db,
        "UPDATE penstock.compat_alerts SET resolved_at = now()"
        " WHERE connection_uid = %(uid)s AND kind = %(kind)s AND resolved_at IS NULL",
        uid=uid,
        kind=kind,
    )


async def acknowledge_alert(db: DatabaseConnection, alert: AlertId, by: str, note: str) -> ConnectionUid | None:
    """Resolve an open alert because somebody accepts it, and return its connection; None when it is not open."""
    connection = await fetch_value(
        db,
        ConnectionUid,
        "UPDATE penstock.compat_alerts SET resolved_at = now(), acknowledged_at = now(), acknowledged_by = %(by)s,"
        " note = %(note)s WHERE id = %(id)s AND resolved_at IS NULL RETURNING connection_uid",
        id=alert,
        by=by,
        note=note,
    )
    if connection:
        accepted = AuditedObject("alert", id=ObjectId(str(alert)), connection_uid=connection)
        await audit_store.record(db, Action.alert_acknowledge, accepted)
    return connection


async def open_alerts_of(db: DatabaseConnection, uid: ConnectionUid) -> list[StreamAlert]:
    """Return a connection's open alerts, oldest first."""
    return await fetch_all(
        db,
        StreamAlert,
        f"SELECT {COLUMNS} FROM penstock.compat_alerts"  # noqa: S608 - a constant
        " WHERE connection_uid = %(uid)s AND resolved_at IS NULL ORDER BY id",
        uid=uid,
    )


async def acknowledged_alerts_of(db: DatabaseConnection, uid: ConnectionUid) -> list[StreamAlert]:
    """Return a connection's acknowledged alerts."""
    return await fetch_all(
        db,
        StreamAlert,
        f"SELECT {COLUMNS} FROM penstock.compat_alerts"  # noqa: S608 - a constant
        " WHERE connection_uid = %(uid)s AND acknowledged_at IS NOT NULL",
        uid=uid,
    )
