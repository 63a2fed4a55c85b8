"""stream_reads: how many records the last reads of each stream brought, to judge the next one by them."""

from __future__ import annotations

from dataclasses import dataclass

from penstock_sdk.protocol import Mode

from penstock_operator.registry.database import DatabaseConnection, execute, fetch_all

KEPT = 100


@dataclass(frozen=True)
class StreamRead:
    """What one run read of a stream."""

    stream: str
    mode: Mode
    records: int


@dataclass(frozen=True, kw_only=True)
class EarlierReads:
    """How many records each of the last reads of a stream brought, oldest first; all of them in one mode."""

    stream: str
    mode: Mode
    recent: list[int]


async def reads_of(db: DatabaseConnection, connection_uid: str) -> dict[str, EarlierReads]:
    """Return the last reads of each stream of a connection."""
    sql = "SELECT stream, mode, recent FROM penstock.stream_reads WHERE connection_uid = %(uid)s"
    return {reads.stream: reads for reads in await fetch_all(db, EarlierReads, sql, uid=connection_uid)}


async def add_reads(db: DatabaseConnection, connection_uid: str, run_id: str, reads: list[StreamRead]) -> None:
    """Add a run's reads to the last ones, all in one statement; in another mode they begin anew."""
    await execute(
        db,
        """
        INSERT INTO penstock.stream_reads AS was (connection_uid, stream, mode, recent, run_id)
        SELECT %(uid)s, stream, mode, ARRAY[records], %(run)s
        FROM unnest(%(streams)s::text[], %(modes)s::text[], %(records)s::bigint[]) AS r (stream, mode, records)
        ON CONFLICT (connection_uid, stream) DO UPDATE SET mode = excluded.mode, run_id = excluded.run_id, read_at = now(),
            recent = CASE WHEN was.mode <> excluded.mode THEN excluded.recent
                          ELSE (was.recent || excluded.recent)[greatest(1, cardinality(was.recent) + 2 - %(kept)s):] END
        """,
        uid=connection_uid,
        run=run_id,
        streams=[read.stream for read in reads],
        modes=[read.mode for read in reads],
        records=[read.records for read in reads],
        kept=KEPT,
    )
