"""bronze_objects: every object that was granted, and whether a checkpoint committed it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import datetime

from penstock_sdk.protocol import ObjectKind, UploadedObject

from penstock_operator.ids import AttemptNumber, ConnectionUid, RunId, StreamName
from penstock_operator.registry.database import DatabaseConnection, execute, fetch_all, fetch_value, fetch_values


@dataclass(frozen=True, kw_only=True)
class Grant:
    """The right to upload one object."""

    key: str
    connection_uid: ConnectionUid
    stream: StreamName
    generation: int
    run_id: RunId
    attempt: AttemptNumber
    sequence: int
    kind: ObjectKind = "data"


@dataclass(frozen=True, kw_only=True)
class CheckpointKey:
    """One checkpoint of an attempt's stream."""

    run_id: RunId
    attempt: AttemptNumber
    stream: StreamName
    checkpoint: int


@dataclass(frozen=True, kw_only=True)
class StreamCounts:
    """How many records all attempts of a run have committed of a stream; `deletes` are among `records`."""

    stream: StreamName
    records: int
    deletes: int
    rejected: int


@dataclass(frozen=True, kw_only=True)
class CommittedObject:
    """An object that a checkpoint has committed."""

    key: str
    stream: StreamName
    generation: int
    run_id: RunId
    attempt: AttemptNumber
    sequence: int
    kind: ObjectKind
    checkpoint: int
    records: int
    deletes: int | None
    """None where an older SDK wrote the object, which does not count operations."""
    bytes: int
    sha256: str
    schema_version: int
    committed_at: datetime


OBJECT_COLUMNS = ", ".join(f"o.{name}" for name in CommittedObject.__dataclass_fields__)


@dataclass(frozen=True, kw_only=True)
class _StreamSum:
    stream: StreamName
    records: int
    deletes: int = 0


async def insert_grants(db: DatabaseConnection, grants: list[Grant]) -> None:
    """Record grants, so that an object that is uploaded and never committed can be found and deleted."""
    async with db.cursor() as cursor:
        await cursor.executemany(
            """
            INSERT INTO penstock.bronze_objects
                (key, connection_uid, stream, generation, run_id, attempt, sequence, kind)
            VALUES (%(key)s, %(connection_uid)s, %(stream)s, %(generation)s, %(run_id)s, %(attempt)s, %(sequence)s,
                    %(kind)s)
            ON CONFLICT DO NOTHING
            """,
            [asdict(grant) for grant in grants],
        )


async def commit_object(
    db: DatabaseConnection, checkpoint: CheckpointKey, uploaded: UploadedObject, schema_version: int
) -> bool:
    """Commit one granted object; False when it was not granted to this attempt's stream, or is committed already."""
    return bool(
        await execute(
            db,
            """
            UPDATE penstock.bronze_objects SET committed_at = now(), records = %(records)s, deletes = %(deletes)s,
                bytes = %(bytes)s, sha256 = %(sha256)s, checkpoint = %(checkpoint)s, schema_version = %(version)s
            WHERE key = %(key)s AND run_id = %(run)s AND attempt = %(attempt)s AND stream = %(stream)s
              AND sequence = %(sequence)s AND committed_at IS NULL
            """,
            run=checkpoint.run_id,
            attempt=checkpoint.attempt,
            stream=checkpoint.stream,
            checkpoint=checkpoint.checkpoint,
            key=uploaded.key,
            sequence=uploaded.sequence,
            records=uploaded.records,
            deletes=None if uploaded.by_op is None else uploaded.by_op.get("delete", 0),
            bytes=uploaded.bytes,
            sha256=uploaded.sha256,
            version=schema_version,
        )
    )


async def committed_by(db: DatabaseConnection, checkpoint: CheckpointKey) -> set[str]:
    """Return the keys of the objects that one checkpoint committed."""
    keys = await fetch_values(
        db,
        str,
        "SELECT key FROM penstock.bronze_objects WHERE run_id = %(run_id)s AND attempt = %(attempt)s"
        " AND stream = %(stream)s AND checkpoint = %(checkpoint)s AND committed_at IS NOT NULL",
        **asdict(checkpoint),
    )
    return set(keys)


async def committed_counts(
    db: DatabaseConnection, run_id: str, attempt: int, kind: ObjectKind = "data"
) -> dict[str, int]:
    """Return how many records an attempt has committed, or put aside as not fitting, by stream."""
    sums = await fetch_all(
        db,
        _StreamSum,
        "SELECT stream, sum(records)::bigint AS records FROM penstock.bronze_objects"
        " WHERE run_id = %(run)s AND attempt = %(attempt)s AND kind = %(kind)s AND committed_at IS NOT NULL"
        " GROUP BY stream",
        run=run_id,
        attempt=attempt,
        kind=kind,
    )
    return {found.stream: found.records for found in sums}


async def counts_by_op(db: DatabaseConnection, run_id: str, attempt: int) -> dict[str, dict[str, int]]:
    """Return how many records an attempt has committed and put aside together, by stream and operation.

    A stream of which an object's operations are not known, as an older SDK committed it, is left out.
    """
    sums = await fetch_all(
        db,
        _StreamSum,
        "SELECT stream, sum(records)::bigint AS records, sum(deletes)::bigint AS deletes FROM penstock.bronze_objects"
        " WHERE run_id = %(run)s AND attempt = %(attempt)s AND committed_at IS NOT NULL"
        " GROUP BY stream HAVING bool_and(deletes IS NOT NULL)",
        run=run_id,
        attempt=attempt,
    )
    return {found.stream: {"upsert": found.records - found.deletes, "delete": found.deletes} for found in sums}


async def run_counts(db: DatabaseConnection, run_id: str) -> list[StreamCounts]:
    """Return how many records all attempts of a run have committed and put aside, by stream."""
    return await fetch_all(
        db,
        StreamCounts,
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
    progressed = await fetch_value(
        db,
        bool,
        """
        WITH last AS (
            SELECT DISTINCT ON (c.stream) c.connection_uid, c.stream, c.cursor, c.done
            FROM penstock.connector_runs r JOIN penstock.stream_checkpoints c ON c.connection_uid = r.connection_uid
                AND c.run_id = r.id
            WHERE r.id = %(run)s AND c.attempt = %(attempt)s ORDER BY c.stream, c.checkpoint DESC)
        SELECT true FROM (SELECT DISTINCT stream FROM penstock.bronze_objects
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
    return bool(progressed)


async def objects_of_run(db: DatabaseConnection, run_id: str) -> list[CommittedObject]:
    """Return all that a run committed, in order, also of generations that have ended since."""
    return await fetch_all(
        db,
        CommittedObject,
        f"SELECT {OBJECT_COLUMNS} FROM penstock.bronze_objects o"  # noqa: S608 - a constant
        " WHERE o.run_id = %(run)s AND o.committed_at IS NOT NULL ORDER BY o.attempt, o.stream, o.sequence",
        run=run_id,
    )
