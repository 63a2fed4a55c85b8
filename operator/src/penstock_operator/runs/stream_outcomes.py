"""run_streams: how each stream of a run went."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import astuple, dataclass, fields
from typing import Literal

from penstock_sdk.protocol import StreamOutcome

from penstock_operator.registry.database import DatabaseConnection, execute, fetch_all, fetch_one, fetch_values
from penstock_operator.runs import bronze_objects
from penstock_operator.runs.bronze_objects import StreamCounts

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


async def record(db: DatabaseConnection, run_id: str, attempt: int, told: Mapping[str, StreamOutcome]) -> None:
    """Record how the streams of an attempt that ends have gone.

    `told` is what the pod says. That a stream has succeeded is believed only where its last checkpoint is committed; why
    one failed is kept until a later attempt says more of it than that it was not read.
    """
    selected = await _selected(db, run_id, attempt)
    counts: dict[str, StreamCounts] = {found.stream: found for found in await bronze_objects.run_counts(db, run_id)}
    await _put(
        db,
        run_id,
        attempt,
        [_Entry.of(stream, told.get(stream.stream), counts.get(stream.stream)) for stream in selected],
    )


@dataclass(frozen=True)
class _Selected:
    """A stream that an attempt was to read; `refusal` is why it was not allowed to, `done` that it is at its end."""

    stream: str
    refusal: str | None
    done: bool


@dataclass(frozen=True, kw_only=True)
class _AttemptStreams:
    streams: list[str]
    refused: dict[str, str]
    connection_uid: str


async def _selected(db: DatabaseConnection, run_id: str, attempt: int) -> list[_Selected]:
    found = await fetch_one(
        db,
        _AttemptStreams,
        "SELECT a.streams, a.refused, r.connection_uid FROM penstock.run_attempts a"
        " JOIN penstock.connector_runs r ON r.id = a.run_id WHERE a.run_id = %(run)s AND a.attempt = %(attempt)s",
        run=run_id,
        attempt=attempt,
    )
    if found is None:  # a run that has had no attempt yet
        return []
    ended = await fetch_values(
        db,
        str,
        "SELECT stream FROM penstock.connector_run_state"
        " WHERE connection_uid = %(connection)s AND run_id = %(run)s AND done"
        " UNION ALL SELECT stream FROM penstock.window_states WHERE run_id = %(run)s AND done",
        connection=found.connection_uid,
        run=run_id,
    )
    done = set(ended)
    return [_Selected(stream, found.refused.get(stream), stream in done) for stream in found.streams]


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
    def of(cls, selected: _Selected, told: StreamOutcome | None, found: StreamCounts | None) -> _Entry:
        """Return how a stream went."""
        numbers = (found.records, found.deletes, found.rejected) if found else (0, 0, 0)
        error = told.error if told and told.outcome == "failed" else None
        if selected.done:
            return cls(selected.stream, "succeeded", None, "", "", *numbers)
        if error:
            words = (error.error_class, error.message, error.operator_message)
            return cls(selected.stream, "failed", *words, *numbers)
        if selected.refusal is not None:
            return cls(selected.stream, "failed", "SourceContractError", selected.refusal, "", *numbers)
        return cls(selected.stream, "not_read", None, told.reason if told else "", "", *numbers)


async def _put(db: DatabaseConnection, run_id: str, attempt: int, entries: list[_Entry]) -> None:
    """Write the rows; one that says only that a stream was not read replaces none that says more.

    The attempt is the one that read the stream: later ones of the run pass over what is at its end.
    """
    columns = list(zip(*map(astuple, entries), strict=True)) or [()] * len(fields(_Entry))
    await execute(
        db,
        """
        INSERT INTO penstock.run_streams AS s (run_id, attempt, stream, outcome, error_class, message, operator_message,
            records, deletes, rejected)
        SELECT %(run)s, %(attempt)s, * FROM unnest(%(streams)s::text[], %(outcomes)s::text[], %(classes)s::text[],
            %(messages)s::text[], %(operator_messages)s::text[], %(records)s::bigint[], %(deletes)s::bigint[],
            %(rejected)s::bigint[])
        ON CONFLICT (run_id, stream) DO UPDATE SET outcome = excluded.outcome,
            attempt = CASE WHEN s.outcome = 'succeeded' AND excluded.outcome = 'succeeded' THEN s.attempt
                ELSE excluded.attempt END,
            error_class = excluded.error_class, message = excluded.message,
            operator_message = excluded.operator_message, records = excluded.records, deletes = excluded.deletes,
            rejected = excluded.rejected, updated_at = now()
        WHERE excluded.outcome <> 'not_read' OR s.outcome = 'not_read'
        """,
        run=run_id,
        attempt=attempt,
        **dict(zip(PARAMETERS, map(list, columns), strict=True)),
    )


COLUMNS = "stream, attempt, outcome, error_class, message, records, deletes, rejected"


async def unfinished(db: DatabaseConnection, run_id: str, limit: int = 20) -> list[RunStream]:
    """Return streams of a run that no attempt has read to their end."""
    return await fetch_all(
        db,
        RunStream,
        f"SELECT {COLUMNS} FROM penstock.run_streams WHERE run_id = %(run)s AND outcome <> 'succeeded'"  # noqa: S608
        " ORDER BY stream LIMIT %(limit)s",
        run=run_id,
        limit=limit,
    )


async def of_run(db: DatabaseConnection, run_id: str, limit: int = 1000) -> list[RunStream]:
    """Return the streams of a run, those that failed first, then by name."""
    return await fetch_all(
        db,
        RunStream,
        f"SELECT {COLUMNS} FROM penstock.run_streams WHERE run_id = %(run)s"  # noqa: S608
        " ORDER BY outcome = 'failed' DESC, stream LIMIT %(limit)s",
        run=run_id,
        limit=limit,
    )
