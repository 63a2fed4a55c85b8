"""run_streams: how each stream of a run went."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from penstock_sdk.protocol import StreamOutcome
from psycopg.rows import class_row

from penstock_operator.registry.database import Connection, run

Outcome = Literal["succeeded", "failed", "not_read"]


@dataclass(frozen=True)
class RunStream:
    """One stream of a run; `records` and `rejected` are those that all attempts of the run have committed."""

    stream: str
    attempt: int
    outcome: Outcome
    error_class: str | None
    message: str
    records: int
    rejected: int


async def record(connection: Connection, run_id: str, attempt: int, told: Mapping[str, StreamOutcome]) -> None:
    """Record how the streams of an attempt that ends have gone.

    `told` is what the pod says. That a stream has succeeded is believed only where its last checkpoint is committed; why
    one failed is kept until a later attempt says more of it than that it was not read.
    """
    failed = {stream: each.error for stream, each in told.items() if each.outcome == "failed" and each.error}
    await run(
        connection,
        """
        INSERT INTO penstock.run_streams AS s
            (run_id, stream, attempt, outcome, error_class, message, operator_message, records, rejected)
        SELECT %(run)s, asked.stream, %(attempt)s,
            CASE WHEN asked.done THEN 'succeeded' WHEN t.stream IS NOT NULL OR asked.refusal IS NOT NULL THEN 'failed'
                ELSE 'not_read' END,
            CASE WHEN asked.done THEN NULL WHEN t.stream IS NOT NULL THEN t.error_class
                WHEN asked.refusal IS NOT NULL THEN 'SourceContractError' END,
            CASE WHEN asked.done THEN '' ELSE coalesce(t.message, asked.refusal, '') END,
            CASE WHEN asked.done THEN '' ELSE coalesce(t.operator_message, '') END,
            coalesce(c.records, 0), coalesce(c.rejected, 0)
        FROM (
            SELECT each.stream, a.refused ->> each.stream AS refusal,
                EXISTS (SELECT 1 FROM penstock.connector_run_state st WHERE st.connection_uid = r.connection_uid
                            AND st.stream = each.stream AND st.run_id = r.id AND st.done)
                OR EXISTS (SELECT 1 FROM penstock.window_states w WHERE w.run_id = r.id AND w.stream = each.stream
                            AND w.done) AS done
            FROM penstock.run_attempts a JOIN penstock.connector_runs r ON r.id = a.run_id
            CROSS JOIN LATERAL jsonb_array_elements_text(a.streams) AS each (stream)
            WHERE a.run_id = %(run)s AND a.attempt = %(attempt)s
        ) asked
        LEFT JOIN unnest(%(streams)s::text[], %(classes)s::text[], %(messages)s::text[], %(operator_messages)s::text[])
            AS t (stream, error_class, message, operator_message) ON t.stream = asked.stream
        LEFT JOIN (
            SELECT o.stream, sum(o.records) FILTER (WHERE o.kind = 'data') AS records,
                sum(o.records) FILTER (WHERE o.kind = 'rejected') AS rejected
            FROM penstock.bronze_objects o WHERE o.run_id = %(run)s AND o.committed_at IS NOT NULL GROUP BY o.stream
        ) c ON c.stream = asked.stream
        ON CONFLICT (run_id, stream) DO UPDATE SET attempt = excluded.attempt, outcome = excluded.outcome,
            error_class = excluded.error_class, message = excluded.message,
            operator_message = excluded.operator_message, records = excluded.records, rejected = excluded.rejected,
            updated_at = now()
        WHERE excluded.outcome <> 'not_read' OR s.outcome = 'not_read'
        """,
        run=run_id,
        attempt=attempt,
        streams=list(failed),
        classes=[each.error_class for each in failed.values()],
        messages=[each.message for each in failed.values()],
        operator_messages=[each.operator_message for each in failed.values()],
    )


async def of_run(connection: Connection, run_id: str, limit: int = 1000) -> list[RunStream]:
    """Return the streams of a run, those that failed first, then by name."""
    async with connection.cursor(row_factory=class_row(RunStream)) as cursor:
        await cursor.execute(
            b"SELECT stream, attempt, outcome, error_class, message, records, rejected FROM penstock.run_streams"
            b" WHERE run_id = %(run)s ORDER BY outcome = 'failed' DESC, stream LIMIT %(limit)s",
            {"run": run_id, "limit": limit},
        )
        return await cursor.fetchall()
