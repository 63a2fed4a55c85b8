"""run_streams: how each stream of a run went."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import astuple, dataclass, fields
from typing import Literal

from penstock_sdk.protocol import StreamOutcome
from psycopg.rows import class_row

from penstock_operator.registry import objects
from penstock_operator.registry.database import Connection, Row, run

Outcome = Literal["succeeded", "failed", "not_read"]
PARAMETERS = (
    *("streams", "outcomes", "classes", "messages", "operator_messages"),
    *("records", "deletes", "rejected"),
)


@dataclass(frozen=True)
class RunStream:
    """One stream of a run; `records` and `rejected` are those that all attempts of the run have committed.

    `deletes` are the records that say that something is gone.
    """

    stream: str
    attempt: int
    outcome: Outcome
    error_class: str | None
    message: str
    records: int
    deletes: int
    rejected: int


async def record(connection: Connection, run_id: str, attempt: int, told: Mapping[str, StreamOutcome]) -> None:
    """Record how the streams of an attempt that ends have gone.

    `told` is what the pod says. That a stream has succeeded is believed only where its last checkpoint is committed; why
    one failed is kept until a later attempt says more of it than that it was not read.
    """
    selected = await _selected(connection, run_id, attempt)
    counts = {row["stream"]: row for row in await objects.run_counts(connection, run_id)}
    await _put(connection, run_id, attempt, [_Entry.of(each, told.get(each.stream), counts) for each in selected])


@dataclass(frozen=True)
class _Selected:
    """A stream that an attempt was to read; `refusal` is why it was not allowed to, `done` that it is at its end."""

    stream: str
    refusal: str | None
    done: bool


async def _selected(connection: Connection, run_id: str, attempt: int) -> list[_Selected]:
    async with connection.cursor(row_factory=class_row(_Selected)) as cursor:
        await cursor.execute(
            b"""
            SELECT each.stream, a.refused ->> each.stream AS refusal,
                EXISTS (SELECT 1 FROM penstock.connector_run_state s WHERE s.connection_uid = r.connection_uid
                            AND s.stream = each.stream AND s.run_id = r.id AND s.done)
                OR EXISTS (SELECT 1 FROM penstock.window_states w WHERE w.run_id = r.id AND w.stream = each.stream
                            AND w.done) AS done
            FROM penstock.run_attempts a JOIN penstock.connector_runs r ON r.id = a.run_id
            CROSS JOIN LATERAL jsonb_array_elements_text(a.streams) AS each (stream)
            WHERE a.run_id = %(run)s AND a.attempt = %(attempt)s
            """,
            {"run": run_id, "attempt": attempt},
        )
        return await cursor.fetchall()


@dataclass(frozen=True)
class _Entry:
    """One row to be, in the order of the columns."""

    stream: str
    outcome: Outcome
    error_class: str | None
    message: str
    operator_message: str
    records: int
    deletes: int
    rejected: int

    @classmethod
    def of(cls, selected: _Selected, told: StreamOutcome | None, counts: Mapping[str, Row]) -> _Entry:
        """Return how a stream went."""
        found = counts.get(selected.stream, {"records": 0, "deletes": 0, "rejected": 0})
        numbers = (found["records"], found["deletes"], found["rejected"])
        error = told.error if told and told.outcome == "failed" else None
        if selected.done:
            return cls(selected.stream, "succeeded", None, "", "", *numbers)
        if error:
            words = (error.error_class, error.message, error.operator_message)
            return cls(selected.stream, "failed", *words, *numbers)
        if selected.refusal is not None:
            return cls(selected.stream, "failed", "SourceContractError", selected.refusal, "", *numbers)
        return cls(selected.stream, "not_read", None, told.reason if told else "", "", *numbers)


async def _put(connection: Connection, run_id: str, attempt: int, entries: list[_Entry]) -> None:
    """Write the rows; one that says only that a stream was not read replaces none that says more."""
    columns = list(zip(*map(astuple, entries), strict=True)) or [()] * len(fields(_Entry))
    await run(
        connection,
        """
        INSERT INTO penstock.run_streams AS s (run_id, attempt, stream, outcome, error_class, message, operator_message,
            records, deletes, rejected)
        SELECT %(run)s, %(attempt)s, * FROM unnest(%(streams)s::text[], %(outcomes)s::text[], %(classes)s::text[],
            %(messages)s::text[], %(operator_messages)s::text[], %(records)s::bigint[], %(deletes)s::bigint[],
            %(rejected)s::bigint[])
        ON CONFLICT (run_id, stream) DO UPDATE SET attempt = excluded.attempt, outcome = excluded.outcome,
            error_class = excluded.error_class, message = excluded.message,
            operator_message = excluded.operator_message, records = excluded.records, deletes = excluded.deletes,
            rejected = excluded.rejected, updated_at = now()
        WHERE excluded.outcome <> 'not_read' OR s.outcome = 'not_read'
        """,
        run=run_id,
        attempt=attempt,
        **dict(zip(PARAMETERS, map(list, columns), strict=True)),
    )


async def of_run(connection: Connection, run_id: str, limit: int = 1000) -> list[RunStream]:
    """Return the streams of a run, those that failed first, then by name."""
    async with connection.cursor(row_factory=class_row(RunStream)) as cursor:
        await cursor.execute(
            b"SELECT stream, attempt, outcome, error_class, message, records, deletes, rejected"
            b" FROM penstock.run_streams WHERE run_id = %(run)s ORDER BY outcome = 'failed' DESC, stream LIMIT %(limit)s",
            {"run": run_id, "limit": limit},
        )
        return await cursor.fetchall()
