"""tenant_connections that follow others: `spec.after`, and which successes they have followed already.

A success is known by its run, never by a time: a clock that jumps, or two transactions that end out of order, neither
loses nor doubles one.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from psycopg.types.json import Jsonb

from penstock_operator.ids import ConnectionName, ConnectionUid, RunId
from penstock_operator.registry.database import DatabaseConnection, execute, fetch_all, fetch_value, fetch_values
from penstock_operator.resources.conditions import Reason

SUCCESSES = """
    SELECT coalesce(jsonb_object_agg(u.uid, u.last_success_run), '{}') FROM penstock.tenant_connections u
    WHERE u.namespace = d.namespace AND u.name = ANY(d.upstreams) AND u.deleted_at IS NULL
      AND u.last_success_run IS NOT NULL
"""


async def set_upstreams(db: DatabaseConnection, uid: ConnectionUid, names: list[str]) -> None:
    """Apply a changed `after`: what has succeeded so far is taken as followed, so that a change never fires."""
    await execute(
        db,
        "UPDATE penstock.tenant_connections SET upstreams = %(names)s::text[],"
        " next_run_at = CASE WHEN schedule IS NULL THEN NULL ELSE next_run_at END WHERE uid = %(uid)s",
        uid=uid,
        names=names,
    )
    await execute(
        db,
        f"UPDATE penstock.tenant_connections d SET upstreams_seen = ({SUCCESSES}) WHERE d.uid = %(uid)s",  # noqa: S608
        uid=uid,
    )


async def set_upstream_problem(db: DatabaseConnection, uid: ConnectionUid, reason: Reason | None, message: str) -> None:
    """Remember why a connection cannot follow its upstreams, None where it can."""
    await execute(
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
    await execute(
        db,
        """
        UPDATE penstock.tenant_connections d SET next_run_at = %(now)s
        WHERE d.namespace = %(namespace)s AND d.upstreams <> '{}' AND d.deleted_at IS NULL
          AND d.schedule IS NULL AND d.next_run_at IS NULL AND d.upstream_reason IS NULL
          AND NOT EXISTS (
              SELECT 1 FROM unnest(d.upstreams) AS upstream(name)
              LEFT JOIN penstock.tenant_connections u
                  ON u.namespace = d.namespace AND u.name = upstream.name AND u.deleted_at IS NULL
              WHERE u.last_success_run IS NULL OR u.last_success_run = d.upstreams_seen ->> u.uid)
        """,
        namespace=namespace,
        now=now,
    )


async def successes_to_follow(db: DatabaseConnection, uid: ConnectionUid) -> dict[ConnectionUid, RunId]:
    """Return the newest successful run of each upstream, by the upstream's uid."""
    seen = await fetch_value(
        db,
        dict[ConnectionUid, RunId],
        f"SELECT ({SUCCESSES}) FROM penstock.tenant_connections d WHERE d.uid = %(uid)s",  # noqa: S608
        uid=uid,
    )
    return seen or {}


async def record_followed(db: DatabaseConnection, uid: ConnectionUid, seen: dict[ConnectionUid, RunId]) -> None:
    """Remember which successes a run was made for; the next ones make the next run."""
    await execute(
        db,
        "UPDATE penstock.tenant_connections SET upstreams_seen = %(seen)s, next_run_at = NULL WHERE uid = %(uid)s",
        uid=uid,
        seen=Jsonb(seen),
    )


@dataclass(frozen=True, slots=True)
class Follower:
    """A connection that follows others."""

    uid: ConnectionUid
    name: ConnectionName
    upstreams: list[str]
    upstream_reason: Reason | None
    """Why it cannot follow them, None where it can."""


async def followers(db: DatabaseConnection, namespace: str) -> list[Follower]:
    """Return the connections of a namespace that follow others."""
    return await fetch_all(
        db,
        Follower,
        "SELECT uid, name, upstreams, upstream_reason FROM penstock.tenant_connections"
        " WHERE namespace = %(namespace)s AND upstreams <> '{}' AND deleted_at IS NULL ORDER BY name",
        namespace=namespace,
    )


async def missing_upstreams(db: DatabaseConnection, namespace: str, names: list[str]) -> list[str]:
    """Return those of the names that no live connection of the namespace has."""
    return await fetch_values(
        db,
        str,
        "SELECT upstream.name FROM unnest(%(names)s::text[]) AS upstream(name) WHERE NOT EXISTS ("
        " SELECT 1 FROM penstock.tenant_connections u WHERE u.namespace = %(namespace)s AND u.name = upstream.name"
        " AND u.deleted_at IS NULL)",
        namespace=namespace,
        names=names,
    )
