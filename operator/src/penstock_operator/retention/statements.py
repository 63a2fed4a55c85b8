"""What may be deleted. Each statement finds a batch; what it finds stays deletable, so two collectors do no harm."""

from __future__ import annotations

from datetime import datetime

from penstock_operator.registry.database import DatabaseConnection, Row, many, run

PAGE = """
    SELECT uid, namespace, name, CASE WHEN jsonb_typeof(spec -> 'historyLimit') = 'number'
        THEN greatest(least((spec ->> 'historyLimit')::numeric, 1000), 1)::int ELSE 10 END AS keep
    FROM penstock.tenant_connections WHERE uid > %(after)s ORDER BY uid LIMIT %(page)s
"""


async def page_end(db: DatabaseConnection, after: str, page: int) -> str | None:
    """Return the last connection's uid of the page that begins after one, None behind the last page."""
    rows = await many(db, f"SELECT max(uid) AS uid FROM ({PAGE}) p", after=after, page=page)  # noqa: S608 - a constant
    return rows[0]["uid"] if rows else None


async def orphan_keys(db: DatabaseConnection, before: datetime, limit: int) -> list[str]:
    """Return places that were granted and never committed, and that nobody can commit or upload to any more.

    An attempt that has ended commits nothing, and gets no URL signed; `before` is so far back that those which it had
    are no longer valid.
    """
    rows = await many(
        db,
        """
        SELECT o.key FROM penstock.bronze_objects o
        LEFT JOIN penstock.run_attempts a ON a.run_id = o.run_id AND a.attempt = o.attempt
        WHERE o.committed_at IS NULL AND o.granted_at < %(before)s AND (a.run_id IS NULL OR a.finished_at < %(before)s)
        ORDER BY o.granted_at LIMIT %(limit)s
        """,
        before=before,
        limit=limit,
    )
    return [row["key"] for row in rows]


async def forget_orphans(db: DatabaseConnection, keys: list[str]) -> int:
    """Forget places whose objects are deleted."""
    return await run(
        db,
        "DELETE FROM penstock.bronze_objects WHERE key = ANY(%(keys)s) AND committed_at IS NULL",
        keys=keys,
    )


async def superseded_keys(db: DatabaseConnection, before: datetime, limit: int) -> list[str]:
    """Return committed objects of generations that were followed by another before that moment."""
    rows = await many(
        db,
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
    return [row["key"] for row in rows]


async def forget_superseded(db: DatabaseConnection, keys: list[str]) -> int:
    """Forget objects that are deleted; one of a live generation stays, whatever was asked for."""
    return await run(
        db,
        """
        DELETE FROM penstock.bronze_objects o USING penstock.connector_run_state s
        WHERE o.key = ANY(%(keys)s) AND s.connection_uid = o.connection_uid AND s.stream = o.stream
          AND o.generation < s.generation
        """,
        keys=keys,
    )


async def old_runs(db: DatabaseConnection, after: str, page: int, before: datetime, limit: int) -> list[Row]:
    """Return runs beyond their connections' history limits, with their attempts, of one page of connections.

    `empty` is one that left no object, so that its commit manifest tells of nothing. The newest run and the newest success stay, and whatever something else still needs: a place that may be uploaded to,
    a commit manifest that is to be written, a state that names the run, an attempt whose end is not known.
    """
    return await many(
        db,
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


async def forget_runs(db: DatabaseConnection, ids: list[str]) -> int:
    """Forget runs, with their attempts."""
    return await run(
        db,
        "DELETE FROM penstock.connector_runs WHERE id = ANY(%(ids)s) AND phase IN ('succeeded', 'failed', 'cancelled')",
        ids=ids,
    )


async def forget_checkpoints(db: DatabaseConnection, after: str, page: int, keep: int, limit: int) -> int:
    """Forget a batch of checkpoints beyond the newest of each stream, of one page of connections."""
    return await run(
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


async def forget_schemas(db: DatabaseConnection, after: str, page: int, keep: int, limit: int) -> int:
    """Forget a batch of schema versions beyond the newest of each stream, but for those that committed objects have."""
    return await run(
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
    return await run(db, "DELETE FROM penstock.outbox WHERE kind = 'status' AND tries > %(tries)s", tries=tries)


async def forget_turns(db: DatabaseConnection, before: datetime) -> int:
    """Forget tenants that have had nothing for so long that it counts no more."""
    return await run(db, "DELETE FROM penstock.tenant_turns WHERE at < %(before)s", before=before)


async def attempts_of_jobs(db: DatabaseConnection, names: list[str]) -> list[Row]:
    """Return what is known of the attempts that Jobs were made for; `posted`: it is about to be retired."""
    return await many(
        db,
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
    rows = await many(db, "SELECT key FROM penstock.bronze_objects WHERE key = ANY(%(keys)s)", keys=keys)
    return {row["key"] for row in rows}


async def known_runs(db: DatabaseConnection, ids: list[str]) -> dict[str, str]:
    """Return the phases of those of the runs that the registry knows."""
    rows = await many(db, "SELECT id, phase FROM penstock.connector_runs WHERE id = ANY(%(ids)s)", ids=ids)
    return {row["id"]: row["phase"] for row in rows}


async def first_seen(db: DatabaseConnection) -> dict[tuple[str, str], datetime]:
    """Return when each name of a connection, live or deleted, was first in this registry."""
    rows = await many(
        db,
        "SELECT namespace, name, min(created_at) AS at FROM penstock.tenant_connections GROUP BY namespace, name",
    )
    return {(row["namespace"], row["name"]): row["at"] for row in rows}
