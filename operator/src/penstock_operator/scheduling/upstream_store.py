"""tenant_connections that follow others: `spec.after`, and which successes they have followed already.

A success is known by its run, never by a time: a clock that jumps, or two transactions that end out of order, neither
loses nor doubles one.
"""

from __future__ import annotations

from datetime import datetime

from psycopg.types.json import Jsonb

from penstock_operator.registry.database import DatabaseConnection, Row, many, one, run

SUCCESSES = """
    SELECT coalesce(jsonb_object_agg(u.uid, u.last_success_run), '{}') FROM penstock.tenant_connections u
    WHERE u.namespace = d.namespace AND u.name = ANY(d.upstreams) AND u.deleted_at IS NULL
      AND u.last_success_run IS NOT NULL
"""


async def set_upstreams(db: DatabaseConnection, uid: str, names: list[str]) -> None:
    """Apply a changed `after`: what has succeeded so far is taken as followed, so that a change never fires."""
    await run(
        db,
        "UPDATE penstock.tenant_connections SET upstreams = %(names)s::text[],"
        " next_run_at = CASE WHEN schedule IS NULL THEN NULL ELSE next_run_at END WHERE uid = %(uid)s",
        uid=uid,
        names=names,
    )
    await run(
        db,
        f"UPDATE penstock.tenant_connections d SET upstreams_seen = ({SUCCESSES}) WHERE d.uid = %(uid)s",  # noqa: S608
        uid=uid,
    )


async def set_upstream_problem(db: DatabaseConnection, uid: str, reason: str | None, message: str) -> None:
    """Remember why a connection cannot follow its upstreams, None where it can."""
    await run(
        db,
        "UPDATE penstock.tenant_connections SET upstream_reason = %(reason)s, upstream_message = %(message)s,"
        " next_run_at = CASE WHEN schedule IS NULL AND %(reason)s::text IS NOT NULL THEN NULL ELSE next_run_at END"
        " WHERE uid = %(uid)s AND (upstream_reason, upstream_message) IS DISTINCT FROM (%(reason)s, %(message)s)",
        uid=uid,
        reason=reason,
        message=message,
    )


async def wake_followers(db: DatabaseConnection, namespace: str, now: datetime) -> None:
    """Make due each connection of the namespace whose upstreams have all succeeded since it followed them last."""
    await run(
        db,
        """
        UPDATE penstock.tenant_connections d SET next_run_at = %(now)s
        WHERE d.namespace = %(namespace)s AND d.upstreams <> '{}' AND d.deleted_at IS NULL
          AND d.schedule IS NULL AND d.next_run_at IS NULL AND d.upstream_reason IS NULL
          AND NOT EXISTS (
              SELECT 1 FROM unnest(d.upstreams) AS wanted(name)
              LEFT JOIN penstock.tenant_connections u
                  ON u.namespace = d.namespace AND u.name = wanted.name AND u.deleted_at IS NULL
              WHERE u.last_success_run IS NULL OR u.last_success_run = d.upstreams_seen ->> u.uid)
        """,
        namespace=namespace,
        now=now,
    )


async def successes_to_follow(db: DatabaseConnection, uid: str) -> dict[str, str]:
    """Return the newest successful run of each upstream, by the upstream's uid."""
    row = await one(
        db,
        f"SELECT ({SUCCESSES}) AS seen FROM penstock.tenant_connections d WHERE d.uid = %(uid)s",  # noqa: S608
        uid=uid,
    )
    return dict(row["seen"]) if row else {}


async def mark_followed(db: DatabaseConnection, uid: str, seen: dict[str, str]) -> None:
    """Remember which successes a run was made for; the next ones make the next run."""
    await run(
        db,
        "UPDATE penstock.tenant_connections SET upstreams_seen = %(seen)s, next_run_at = NULL WHERE uid = %(uid)s",
        uid=uid,
        seen=Jsonb(seen),
    )


async def followers(db: DatabaseConnection, namespace: str) -> list[Row]:
    """Return the connections of a namespace that follow others."""
    return await many(
        db,
        "SELECT uid, name, upstreams, upstream_reason FROM penstock.tenant_connections"
        " WHERE namespace = %(namespace)s AND upstreams <> '{}' AND deleted_at IS NULL ORDER BY name",
        namespace=namespace,
    )


async def missing_upstreams(db: DatabaseConnection, namespace: str, names: list[str]) -> list[str]:
    """Return those of the names that no live connection of the namespace has."""
    rows = await many(
        db,
        "SELECT wanted.name FROM unnest(%(names)s::text[]) AS wanted(name) WHERE NOT EXISTS ("
        " SELECT 1 FROM penstock.tenant_connections u WHERE u.namespace = %(namespace)s AND u.name = wanted.name"
        " AND u.deleted_at IS NULL)",
        namespace=namespace,
        names=names,
    )
    return [row["name"] for row in rows]
