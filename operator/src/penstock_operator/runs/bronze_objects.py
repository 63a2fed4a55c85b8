"""bronze_objects: every object that was granted, and whether a checkpoint committed it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import datetime

from penstock_sdk.protocol import ObjectKind, UploadedObject

from penstock_operator.bronze.store import ObjectContent
from penstock_operator.ids import AttemptNumber, ConnectionUid, RunId, StreamName
from penstock_operator.registry.database import (
    DatabaseConnection,
    execute,
    fetch_all,
    fetch_one,
    fetch_value,
    fetch_values,
)


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
    kind: ObjectKind
    bytes: int
    sha256: str

    @property
    def content(self) -> ObjectContent:
        """Size and checksum of the object that may be uploaded."""
        return ObjectContent(self.bytes, self.sha256)


@dataclass(frozen=True, kw_only=True)
class GrantTotals:
    """What an attempt has been granted: in all, and as far as it is not committed."""

    objects: int
    bytes: int
    open_objects: int
    open_bytes: int


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


async def insert_grants(db: DatabaseConnection, grants: list[Grant]) -> GrantTotals:
    """Record grants of one attempt, so that an object that is uploaded and never committed can be found and deleted.

    A grant whose sequence number is granted already is not recorded again.
    """
    first = grants[0]
    totals = await fetch_one(
        db,
        GrantTotals,
        """
        WITH added AS (
            INSERT INTO penstock.bronze_objects
                (key, connection_uid, stream, generation, run_id, attempt, sequence, kind, bytes, sha256)
            SELECT key, %(uid)s, %(stream)s, %(generation)s, %(run)s, %(attempt)s, sequence, %(kind)s, bytes, sha256
            FROM unnest(%(keys)s::text[], %(sequences)s::int[], %(sizes)s::bigint[], %(digests)s::text[])
                AS t (key, sequence, bytes, sha256)
            ON CONFLICT DO NOTHING RETURNING bytes),
        new AS (SELECT count(*) AS objects, coalesce(sum(bytes), 0)::bigint AS bytes FROM added)
        UPDATE penstock.run_attempts a
        SET granted_objects = granted_objects + new.objects, granted_bytes = granted_bytes + new.bytes
        FROM new, (SELECT count(*) AS objects, coalesce(sum(bytes), 0)::bigint AS bytes FROM penstock.bronze_objects
            WHERE run_id = %(run)s AND attempt = %(attempt)s AND committed_at IS NULL) earlier
        WHERE a.run_id = %(run)s AND a.attempt = %(attempt)s
        RETURNING a.granted_objects AS objects, a.granted_bytes AS bytes,
            earlier.objects + new.objects AS open_objects, earlier.bytes + new.bytes AS open_bytes
        """,
        uid=first.connection_uid,
        stream=first.stream,
        generation=first.generation,
        run=first.run_id,
        attempt=first.attempt,
        kind=first.kind,
        keys=[grant.key for grant in grants],
        sequences=[grant.sequence for grant in grants],
        sizes=[grant.bytes for grant in grants],
        digests=[grant.sha256 for grant in grants],
    )
    assert totals is not None  # noqa: S101 - the caller's transaction holds the attempt
    return totals


async def grants_of(db: DatabaseConnection, wanted: Grant, sequences: list[int]) -> dict[int, Grant]:
    """Return what is granted under some sequence numbers of the attempt, stream and kind of `wanted`, by number."""
    found = await fetch_all(
        db,
        Grant,
        "SELECT key, connection_uid, stream, generation, run_id, attempt, sequence, kind, bytes, sha256"
        " FROM penstock.bronze_objects WHERE run_id = %(run)s AND attempt = %(attempt)s AND stream = %(stream)s"
        " AND kind = %(kind)s AND sequence = ANY(%(sequences)s)",
        run=wanted.run_id,
        attempt=wanted.attempt,
        stream=wanted.stream,
        kind=wanted.kind,
        sequences=sequences,
    )
    return {grant.sequence: grant for grant in found}


@dataclass(frozen=True, kw_only=True)
class _OpenGrant:
    key: str
    bytes: int
    sha256: str


async def open_grants(db: DatabaseConnection, token: bytes, keys: list[str]) -> dict[str, ObjectContent]:
    """Return what may be uploaded under those of the keys that the token's attempt was granted and has not committed."""
    found = await fetch_all(
        db,
        _OpenGrant,
        "SELECT o.key, o.bytes, o.sha256 FROM penstock.run_attempts a"
        " JOIN penstock.bronze_objects o ON o.run_id = a.run_id AND o.attempt = a.attempt"
        " WHERE a.token_sha256 = %(token)s AND a.finished_at IS NULL AND o.key = ANY(%(keys)s) AND o.committed_at IS NULL",
        token=token,
        keys=keys,
    )
    return {grant.key: ObjectContent(grant.bytes, grant.sha256) for grant in found}


async def commit_object(
    db: DatabaseConnection, checkpoint: CheckpointKey, uploaded: UploadedObject, schema_version: int
) -> bool:
    """Commit one object; False when it was not granted so to this attempt's stream, or is committed already."""
    return bool(
        await execute(
            db,
            """
            UPDATE penstock.bronze_objects SET committed_at = now(), records = %(records)s, deletes = %(deletes)s,
                checkpoint = %(checkpoint)s, schema_version = %(version)s
            WHERE key = %(key)s AND run_id = %(run)s AND attempt = %(attempt)s AND stream = %(stream)s
              AND sequence = %(sequence)s AND kind = %(kind)s AND bytes = %(bytes)s AND sha256 = %(sha256)s
              AND committed_at IS NULL
            """,
            run=checkpoint.run_id,
            attempt=checkpoint.attempt,
            stream=checkpoint.stream,
            checkpoint=checkpoint.checkpoint,
            key=uploaded.key,
            sequence=uploaded.sequence,
            kind=uploaded.kind,
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
