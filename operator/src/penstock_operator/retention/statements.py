"""Statements that find a batch of objects or rows to delete, and delete its rows.

A row that may be deleted stays so: two collectors at once do no harm.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from penstock_operator.ids import AttemptNumber, ConnectionName, ConnectionUid, Namespace, RunId
from penstock_operator.registry.database import DatabaseConnection, execute, fetch_all, fetch_value, fetch_values


@dataclass(frozen=True, slots=True)
class OldAttempt:
    """An attempt of a run to delete; `attempt` and `job_name` are None for a run without one.

    `empty` is True if the run left no object, and its commit manifest can go with it.
    """

    namespace: Namespace
    name: ConnectionName
    id: RunId
    attempt: AttemptNumber | None
    job_name: str | None
    empty: bool


@dataclass(frozen=True, slots=True)
class JobAttempt:
    """The attempt that a Job was made for; `posted` is True if its Job is about to be retired."""

    job_name: str
    run_id: RunId
    attempt: AttemptNumber
    finished_at: datetime | None
    log_key: str | None
    log_note: str | None
    posted: bool


@dataclass(frozen=True, slots=True)
class _RunPhase:
    id: RunId
    phase: str


@dataclass(frozen=True, slots=True)
class _FirstSeen:
    namespace: Namespace
    name: ConnectionName
    at: datetime


PAGE = """
    SELECT uid, namespace, name, CASE WHEN jsonb_typeof(spec -> 'historyLimit') = 'number'
        THEN greatest(least((spec ->> 'historyLimit')::numeric, 1000), 1)::int ELSE 10 END AS keep
    FROM penstock.tenant_connections WHERE uid > %(after)s ORDER BY uid LIMIT %(page)s
"""


async def page_end(db: DatabaseConnection, after: ConnectionUid, page: int) -> ConnectionUid | None:
    """Return the last connection's uid of the page that begins after one, None behind the last page."""
    sql = f"SELECT max(uid) FROM ({PAGE}) p"  # noqa: S608 - a constant
    return await fetch_value(db, ConnectionUid, sql, after=after, page=page)


async def orphan_keys(db: DatabaseConnection, before: datetime, limit: int) -> list[str]:
    """Return places that were granted and never committed, and that nobody can commit or upload to any more.

    An attempt that has ended commits nothing, and gets no URL signed; `before` is so far back that those which it had
    are no longer valid.
    """
    return await fetch_values(
        db,
        str,
        """
        SELECT o.key FROM penstock.bronze_objects o
        LEFT JOIN penstock.run_attempts a ON a.run_id = o.run_id AND a.attempt = o.attempt
        WHERE o.committed_at IS NULL AND o.granted_at < %(before)s AND (a.run_id IS NULL OR a.finished_at < %(before)s)
        ORDER BY o.granted_at LIMIT %(limit)s
        """,
        before=before,
        limit=limit,
    )


async def forget_orphans(db: DatabaseConnection, keys: list[str]) -> int:
    """Forget places whose objects are deleted."""
    return await execute(
        db,
        "DELETE FROM penstock.bronze_objects WHERE key = ANY(%(keys)s) AND committed_at IS NULL",
        keys=keys,
    )


async def superseded_keys(db: DatabaseConnection, before: datetime, limit: int) -> list[str]:
    """Return committed objects of generations that were followed by another before that moment."""
    return await fetch_values(
        db,
        str,
        """
        SELECT o.key FROM penstock.connector_run_state s
        JOIN LATERAL (
            SELECT max((h.after ->> 'generation')::int) AS live FROM penstock.state_changes h
            WHERE h.connection_uid = s.connection_uid AND h.stream = s.stream AND h.action = 'reset'
              AND h.changed_at < %(before)s) r ON true
        JOIN LATERAL (
            SELECT key FROM penstock.bronze_objects o
            WHERE o.connection_uid = s.connection_uid AND o.stream = s.stream
              AND o.generation < r.live AND o.generation < s.generation AND o.committed_at IS NOT NULL LIMIT %(limit)s) o ON true
        WHERE s.generation > 1 LIMIT %(limit)s
        """,
        before=before,
        limit=limit,
    )


async def forget_superseded(db: DatabaseConnection, keys: list[str]) -> int:
    """Forget objects that are deleted; one of a live generation stays, whatever was asked for."""
    return await execute(
        db,
        """
        DELETE FROM penstock.bronze_objects o USING penstock.connector_run_state s
        WHERE o.key = ANY(%(keys)s) AND s.connection_uid = o.connection_uid AND s.stream = o.stream
          AND o.generation < s.generation
        """,
        keys=keys,
    )


async def old_runs(
    db: DatabaseConnection, after: ConnectionUid, page: int, before: datetime, limit: int
) -> list[OldAttempt]:
    """Return runs beyond their connections' history limits, with their attempts, of one page of connections.

    `empty` is one that left no object, so that its commit manifest tells of nothing. The newest run and the newest success stay, and whatever something else still needs: a place that may be uploaded to,
    a commit manifest that is to be written, a state that names the run, an attempt whose end is not known.
    """
    return await fetch_all(
        db,
        OldAttempt,
        f"""
        WITH page AS ({PAGE}), old AS (
            SELECT c.namespace, c.name, r.id FROM page c
            CROSS JOIN LATERAL (
                SELECT id, finished_at FROM penstock.connector_runs
                WHERE connection_uid = c.uid AND phase IN ('succeeded', 'failed', 'cancelled')
                ORDER BY id DESC OFFSET c.keep) r
            WHERE r.finished_at < %(before)s
              AND r.id IS DISTINCT FROM (
                  SELECT id FROM penstock.connector_runs WHERE connection_uid = c.uid AND phase = 'succeeded'
                  ORDER BY id DESC LIMIT 1)
              AND NOT EXISTS (SELECT 1 FROM penstock.bronze_objects o WHERE o.run_id = r.id AND o.committed_at IS NULL)
              AND NOT EXISTS (SELECT 1 FROM penstock.outbox m WHERE m.kind = 'commit' AND m.payload ->> 'run' = r.id)
              AND r.id <> ALL(ARRAY(SELECT s.run_id FROM penstock.connector_run_state s
                                    WHERE s.connection_uid = c.uid AND s.run_id IS NOT NULL))
              AND NOT EXISTS (SELECT 1 FROM penstock.run_attempts a WHERE a.run_id = r.id AND a.finished_at IS NULL)
            LIMIT %(limit)s)
        SELECT old.namespace, old.name, old.id, a.attempt, a.job_name,
            NOT EXISTS (SELECT 1 FROM penstock.bronze_objects o WHERE o.run_id = old.id) AS empty
        FROM old LEFT JOIN penstock.run_attempts a ON a.run_id = old.id
        """,  # noqa: S608 - a constant
        after=after,
        page=page,
        before=before,
        limit=limit,
    )


async def forget_runs(db: DatabaseConnection, ids: list[RunId]) -> int:
    """Forget runs, with their attempts."""
    return await execute(
        db,
        "DELETE FROM penstock.connector_runs WHERE id = ANY(%(ids)s) AND phase IN ('succeeded', 'failed', 'cancelled')",
        ids=ids,
    )


async def forget_checkpoints(db: DatabaseConnection, after: ConnectionUid, page: int, keep: int, limit: int) -> int:
    """Forget a batch of checkpoints beyond the newest of each stream, of one page of connections."""
    return await execute(
        db,
        f"""
        DELETE FROM penstock.stream_checkpoints WHERE ctid = ANY(ARRAY(
            SELECT h.ctid FROM ({PAGE}) c
            CROSS JOIN LATERAL (
                SELECT * FROM penstock.connector_run_state WHERE connection_uid = c.uid OFFSET 0) s
            CROSS JOIN LATERAL (
                SELECT checkpoint FROM penstock.stream_checkpoints b
                WHERE b.connection_uid = s.connection_uid AND b.stream = s.stream
                ORDER BY checkpoint DESC OFFSET %(keep)s - 1 LIMIT 1) oldest
            JOIN penstock.stream_checkpoints h ON h.connection_uid = s.connection_uid AND h.stream = s.stream
                AND h.checkpoint < oldest.checkpoint
            LIMIT %(limit)s))
        """,  # noqa: S608 - a constant
        after=after,
        page=page,
        keep=keep,
        limit=limit,
    )


async def forget_schemas(db: DatabaseConnection, after: ConnectionUid, page: int, keep: int, limit: int) -> int:
    """Forget a batch of schema versions beyond the newest of each stream, but for those that committed objects have."""
    return await execute(
        db,
        f"""
        DELETE FROM penstock.stream_registry WHERE ctid = ANY(ARRAY(
            SELECT v.place FROM ({PAGE}) c
            CROSS JOIN LATERAL (
                SELECT *, ctid AS place FROM penstock.stream_registry WHERE connection_uid = c.uid OFFSET 0) v
            CROSS JOIN LATERAL (
                SELECT version FROM penstock.stream_registry b
                WHERE b.connection_uid = v.connection_uid AND b.stream = v.stream
                ORDER BY version DESC OFFSET %(keep)s - 1 LIMIT 1) oldest
            WHERE v.version < oldest.version
              AND (SELECT true FROM penstock.bronze_objects o
                   WHERE o.connection_uid = v.connection_uid AND o.stream = v.stream AND o.committed_at IS NOT NULL
                     AND o.schema_version = v.version LIMIT 1) IS NULL
            LIMIT %(limit)s))
        """,  # noqa: S608 - a constant
        after=after,
        page=page,
        keep=keep,
        limit=limit,
    )


async def forget_dead_messages(db: DatabaseConnection, tries: int) -> int:
    """Forget status messages that nobody could act on: the sweep does the same."""
    return await execute(db, "DELETE FROM penstock.outbox WHERE kind = 'status' AND tries > %(tries)s", tries=tries)


async def forget_turns(db: DatabaseConnection, before: datetime) -> int:
    """Forget tenants that have had nothing for so long that it counts no more."""
    return await execute(db, "DELETE FROM penstock.tenant_turns WHERE at < %(before)s", before=before)


async def attempts_of_jobs(db: DatabaseConnection, names: list[str]) -> list[JobAttempt]:
    """Return what is known of the attempts that Jobs were made for; `posted`: it is about to be retired."""
    return await fetch_all(
        db,
        JobAttempt,
        """
        SELECT a.job_name, a.run_id, a.attempt, a.finished_at, a.log_key, a.log_note,
            EXISTS (SELECT 1 FROM penstock.outbox m WHERE m.kind = 'retire' AND m.payload ->> 'run' = a.run_id
                    AND (m.payload ->> 'attempt')::int = a.attempt) AS posted
        FROM penstock.run_attempts a WHERE a.job_name = ANY(%(names)s)
        """,
        names=names,
    )


async def known_keys(db: DatabaseConnection, keys: list[str]) -> set[str]:
    """Return those of the keys that the registry knows, committed or not."""
    sql = "SELECT key FROM penstock.bronze_objects WHERE key = ANY(%(keys)s)"
    return set(await fetch_values(db, str, sql, keys=keys))


async def known_runs(db: DatabaseConnection, ids: list[RunId]) -> dict[RunId, str]:
    """Return the phases of those of the runs that the registry knows."""
    sql = "SELECT id, phase FROM penstock.connector_runs WHERE id = ANY(%(ids)s)"
    return {run.id: run.phase for run in await fetch_all(db, _RunPhase, sql, ids=ids)}


async def first_seen(db: DatabaseConnection) -> dict[tuple[str, str], datetime]:
    """Return when each name of a connection, live or deleted, was first in this registry."""
    rows = await fetch_all(
        db,
        _FirstSeen,
        "SELECT namespace, name, min(created_at) AS at FROM penstock.tenant_connections GROUP BY namespace, name",
    )
    return {(row.namespace, row.name): row.at for row in rows}
