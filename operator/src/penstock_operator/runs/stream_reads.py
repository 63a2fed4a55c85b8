"""stream_reads: what the last reads of each stream brought, so that the next one can be judged by them."""

from __future__ import annotations

from dataclasses import dataclass

from penstock_operator.registry.database import DatabaseConnection, Row, many, run

KEPT = 100


@dataclass(frozen=True)
class StreamRead:
    """What one run read of a stream."""

    stream: str
    mode: str
    records: int


async def reads_of(db: DatabaseConnection, connection_uid: str) -> dict[str, Row]:
    """Return the last reads of each stream of a connection."""
    rows = await many(db, "SELECT * FROM penstock.stream_reads WHERE connection_uid = %(uid)s", uid=connection_uid)
    return {row["stream"]: row for row in rows}


async def add_reads(db: DatabaseConnection, connection_uid: str, run_id: str, reads: list[StreamRead]) -> None:
    """Add a run's reads to the last ones, all in one statement; in another mode they begin anew."""
    await run(
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
        streams=[each.stream for each in reads],
        modes=[each.mode for each in reads],
        records=[each.records for each in reads],
        kept=KEPT,
    )
