"""compat_alerts: what people should know of a connection's streams, until it is resolved or somebody acknowledges it."""

from __future__ import annotations

from dataclasses import dataclass

from penstock_operator.registry.database import DatabaseConnection, Row, execute, many, one


@dataclass(frozen=True)
class NewAlert:
    """An alert to be. `baseline` is the stream version that it is a change against, None where it is not one."""

    stream: str
    kind: str
    path: str
    message: str
    baseline: int | None = None


async def open_alerts(db: DatabaseConnection, uid: str, run_id: str, alerts: list[NewAlert]) -> None:
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


async def resolve_alerts(db: DatabaseConnection, ids: list[int]) -> None:
    """Resolve alerts: what they tell is not so any more."""
    await execute(
        db,
        "UPDATE penstock.compat_alerts SET resolved_at = now() WHERE id = ANY(%(ids)s) AND resolved_at IS NULL",
        ids=ids,
    )


async def acknowledge_alert(db: DatabaseConnection, alert: int, by: str, note: str) -> Row | None:
    """Resolve an open alert because somebody has seen it and accepts it; None when it is not open."""
    return await one(
        db,
        "UPDATE penstock.compat_alerts SET resolved_at = now(), acknowledged_at = now(), acknowledged_by = %(by)s,"
        " note = %(note)s WHERE id = %(id)s AND resolved_at IS NULL RETURNING *",
        id=alert,
        by=by,
        note=note,
    )


async def open_alerts_of(db: DatabaseConnection, uid: str) -> list[Row]:
    """Return a connection's open alerts, oldest first."""
    return await many(
        db,
        "SELECT * FROM penstock.compat_alerts WHERE connection_uid = %(uid)s AND resolved_at IS NULL ORDER BY id",
        uid=uid,
    )


async def acknowledged_alerts_of(db: DatabaseConnection, uid: str) -> list[Row]:
    """Return what was acknowledged of a connection."""
    return await many(
        db,
        "SELECT * FROM penstock.compat_alerts WHERE connection_uid = %(uid)s AND acknowledged_at IS NOT NULL",
        uid=uid,
    )
