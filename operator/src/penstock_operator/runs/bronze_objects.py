"""bronze_objects: every place that was granted, and what was committed there."""

from __future__ import annotations

from dataclasses import dataclass

from penstock_sdk.protocol import ObjectKind

from penstock_operator.registry.database import DatabaseConnection, Row, many, one, run


@dataclass(frozen=True)
class Grant:
    """A place for one object."""

    key: str
    connection_uid: str
    stream: str
    generation: int
    run_id: str
    attempt: int
    sequence: int
    kind: ObjectKind = "data"


async def insert_grants(db: DatabaseConnection, grants: list[Grant]) -> None:
    """Record granted places, so that whatever is uploaded there and never committed can be found and deleted."""
    async with db.cursor() as cursor:
        await cursor.executemany(
            """
            INSERT INTO penstock.bronze_objects
                (key, connection_uid, stream, generation, run_id, attempt, sequence, kind)
            VALUES (%(key)s, %(connection_uid)s, %(stream)s, %(generation)s, %(run_id)s, %(attempt)s, %(sequence)s,
                    %(kind)s)
            ON CONFLICT DO NOTHING
            """,
            [vars(grant) for grant in grants],
        )


async def commit_object(
    db: DatabaseConnection,
    holder: tuple[str, int, str],
    key: str,
    sequence: int,
    counts: tuple[int, int | None, int, str],
    checkpoint: tuple[int, int],
) -> bool:
    """Commit one granted object; False when it was not granted to this attempt's stream, or is committed already.

    `holder` is run, attempt and stream; `counts` records, those of them that are deletes, bytes and sha256; `checkpoint` its number and the schema's.
    """
    return bool(
        await run(
            db,
            """
            UPDATE penstock.bronze_objects SET committed_at = now(), records = %(records)s, deletes = %(deletes)s,
                bytes = %(bytes)s, sha256 = %(sha256)s, checkpoint = %(checkpoint)s, schema_version = %(version)s
            WHERE key = %(key)s AND run_id = %(run)s AND attempt = %(attempt)s AND stream = %(stream)s
              AND sequence = %(sequence)s AND committed_at IS NULL
            """,
            run=holder[0],
            attempt=holder[1],
            stream=holder[2],
            key=key,
            sequence=sequence,
            records=counts[0],
            deletes=counts[1],
            bytes=counts[2],
            sha256=counts[3],
            checkpoint=checkpoint[0],
            version=checkpoint[1],
        )
    )


async def committed_by(db: DatabaseConnection, holder: tuple[str, int, str], checkpoint: int) -> set[str]:
    """Return the keys of the objects that one checkpoint committed; `holder` is run, attempt and stream."""
    rows = await many(
        db,
        "SELECT key FROM penstock.bronze_objects WHERE run_id = %(run)s AND attempt = %(attempt)s AND stream = %(stream)s"
        " AND checkpoint = %(checkpoint)s AND committed_at IS NOT NULL",
        run=holder[0],
        attempt=holder[1],
        stream=holder[2],
        checkpoint=checkpoint,
    )
    return {row["key"] for row in rows}


async def committed_counts(
    db: DatabaseConnection, run_id: str, attempt: int, kind: ObjectKind = "data"
) -> dict[str, int]:
    """Return how many records an attempt has committed, or put aside as not fitting, by stream."""
    rows = await many(
        db,
        "SELECT stream, sum(records)::bigint AS records FROM penstock.bronze_objects"
        " WHERE run_id = %(run)s AND attempt = %(attempt)s AND kind = %(kind)s AND committed_at IS NOT NULL"
        " GROUP BY stream",
        run=run_id,
        attempt=attempt,
        kind=kind,
    )
    return {row["stream"]: row["records"] for row in rows}


async def counts_by_op(db: DatabaseConnection, run_id: str, attempt: int) -> dict[str, dict[str, int]]:
    """Return how many records an attempt has committed and put aside together, by stream and operation.

    A stream of which an object's operations are not known, as an older SDK committed it, is left out.
    """
    rows = await many(
        db,
        "SELECT stream, sum(records)::bigint AS records, sum(deletes)::bigint AS deletes FROM penstock.bronze_objects"
        " WHERE run_id = %(run)s AND attempt = %(attempt)s AND committed_at IS NOT NULL"
        " GROUP BY stream HAVING bool_and(deletes IS NOT NULL)",
        run=run_id,
        attempt=attempt,
    )
    return {row["stream"]: {"upsert": row["records"] - row["deletes"], "delete": row["deletes"]} for row in rows}


async def run_counts(db: DatabaseConnection, run_id: str) -> list[Row]:
    """Return how many records all attempts of a run have committed and put aside, by stream."""
    return await many(
        db,
        """
        SELECT stream, coalesce(sum(records) FILTER (WHERE kind = 'data'), 0)::bigint AS records,
            coalesce(sum(deletes) FILTER (WHERE kind = 'data'), 0)::bigint AS deletes,
            coalesce(sum(records) FILTER (WHERE kind = 'rejected'), 0)::bigint AS rejected
        FROM penstock.bronze_objects WHERE run_id = %(run)s AND committed_at IS NOT NULL GROUP BY stream
        """,
        run=run_id,
    )


async def has_progressed(db: DatabaseConnection, run_id: str, attempt: int) -> bool:
    """Return True if an attempt has committed records and left a stream where no earlier attempt of the run had left it.

    A connector that ignores its cursor commits the same records in each attempt; without the second condition it would be
    tried again without end. A run that reads a window again has no history of checkpoints: there the first one counts.
    """
    row = await one(
        db,
        """
        WITH last AS (
            SELECT DISTINCT ON (c.stream) c.connection_uid, c.stream, c.cursor, c.done
            FROM penstock.connector_runs r JOIN penstock.stream_checkpoints c ON c.connection_uid = r.connection_uid
                AND c.run_id = r.id
            WHERE r.id = %(run)s AND c.attempt = %(attempt)s ORDER BY c.stream, c.checkpoint DESC)
        SELECT 1 AS yes FROM (SELECT DISTINCT stream FROM penstock.bronze_objects
            WHERE run_id = %(run)s AND attempt = %(attempt)s AND committed_at IS NOT NULL) o
        LEFT JOIN last ON last.stream = o.stream
        WHERE last.stream IS NULL OR last.done OR NOT EXISTS (
            SELECT 1 FROM penstock.stream_checkpoints p
            WHERE p.connection_uid = last.connection_uid AND p.run_id = %(run)s AND p.stream = last.stream
              AND p.attempt < %(attempt)s AND p.cursor IS NOT DISTINCT FROM last.cursor)
        LIMIT 1
        """,
        run=run_id,
        attempt=attempt,
    )
    return row is not None


async def committed_objects(
    db: DatabaseConnection,
    namespace: str | None,
    name: str | None,
    stream: str | None,
    run_id: str | None,
    kind: ObjectKind = "data",
) -> list[Row]:
    """Return the committed objects of live generations in the order in which they were committed.

    A reset reads a stream anew into its next generation; with the ones before it, each record would be there twice. So it
    would with those of another connection that had the name before.
    """
    return await many(
        db,
        """
        SELECT o.key, o.stream, o.generation, o.run_id, o.attempt, o.sequence, o.checkpoint, o.records, o.bytes, o.sha256,
            o.schema_version, o.committed_at, c.namespace, c.name
        FROM penstock.bronze_objects o JOIN penstock.tenant_connections c ON c.uid = o.connection_uid
        LEFT JOIN penstock.connector_run_state s ON s.connection_uid = o.connection_uid AND s.stream = o.stream
        WHERE o.committed_at IS NOT NULL AND o.kind = %(kind)s
          AND o.generation = coalesce(s.generation, greatest(o.generation, c.first_generation))
          AND (%(run)s::text IS NOT NULL OR c.uid = (
              SELECT n.uid FROM penstock.tenant_connections n WHERE n.namespace = c.namespace AND n.name = c.name
              ORDER BY n.deleted_at DESC NULLS FIRST, n.first_generation DESC LIMIT 1))
          AND o.granted_at >= coalesce(c.purge_started_at, '-infinity') AND (%(namespace)s::text IS NULL OR c.namespace = %(namespace)s)
          AND (%(name)s::text IS NULL OR c.name = %(name)s) AND (%(stream)s::text IS NULL OR o.stream = %(stream)s)
          AND (%(run)s::text IS NULL OR o.run_id = %(run)s)
        ORDER BY o.run_id, o.attempt, o.stream, o.sequence
        """,
        namespace=namespace,
        name=name,
        stream=stream,
        run=run_id,
        kind=kind,
    )


async def objects_of_run(db: DatabaseConnection, run_id: str) -> list[Row]:
    """Return all that a run committed, in order, whatever became of its generation."""
    return await many(
        db,
        "SELECT * FROM penstock.bronze_objects WHERE run_id = %(run)s AND committed_at IS NOT NULL"
        " ORDER BY attempt, stream, sequence",
        run=run_id,
    )
