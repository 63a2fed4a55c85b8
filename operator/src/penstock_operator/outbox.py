"""outbox: what must happen outside Postgres because of a transaction inside it, at least once.

A message is posted in the transaction that causes it, and deleted once somebody has acted on it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from psycopg.types.json import Jsonb

from penstock_operator.ids import AttemptNumber, ConnectionUid, RunId
from penstock_operator.registry.database import DatabaseConnection, execute, fetch_all, fetch_values

COALESCE_SECONDS = 1.0
"""How long a status waits for further changes, which the same write then reports. A run that is due starts within it."""


@dataclass(frozen=True, slots=True)
class WriteCommit:
    """Write the commit manifest of a run that has ended."""

    run: RunId


@dataclass(frozen=True, slots=True)
class WriteStatus:
    """Write the status of a connection."""

    connection: ConnectionUid


@dataclass(frozen=True, slots=True)
class RetireAttempt:
    """Store the log of an attempt and delete its Job, which is stopped first if `stop`."""

    run: RunId
    attempt: AttemptNumber
    stop: bool = False


Task: TypeAlias = WriteCommit | WriteStatus | RetireAttempt


@dataclass(frozen=True, slots=True)
class OutboxMessage:
    """A message that was taken, for the `tries`-th time."""

    id: int
    tries: int
    task: Task


@dataclass(frozen=True, slots=True)
class _Row:
    id: int
    kind: Literal["commit", "status", "retire"]
    payload: dict[str, Any]
    tries: int

    def message(self) -> OutboxMessage:
        kinds = {"commit": WriteCommit, "status": WriteStatus, "retire": RetireAttempt}
        return OutboxMessage(self.id, self.tries, kinds[self.kind](**self.payload))


async def post_commit(db: DatabaseConnection, run_id: RunId) -> None:
    """Have the commit manifest of a run written."""
    await _post(db, "commit", {"run": run_id})


async def post_status(db: DatabaseConnection, connection: ConnectionUid) -> None:
    """Have the status of a connection written at once."""
    await _post(db, "status", {"connection": connection})


async def post_retirement(db: DatabaseConnection, run_id: RunId, attempt: AttemptNumber, *, stop: bool = False) -> None:
    """Have the Job of an attempt deleted once its log is stored; `stop` ends its pod first."""
    await _post(db, "retire", {"run": run_id, "attempt": attempt, "stop": stop})


async def _post(db: DatabaseConnection, kind: str, payload: dict[str, Any]) -> None:
    sql = "INSERT INTO penstock.outbox (kind, payload) VALUES (%(kind)s, %(payload)s)"
    await execute(db, sql, kind=kind, payload=Jsonb(payload))


async def post_statuses(db: DatabaseConnection, connections: list[ConnectionUid]) -> None:
    """Have the statuses of connections written in COALESCE_SECONDS; the same write reports what changes until then."""
    await execute(
        db,
        "INSERT INTO penstock.outbox (kind, payload, available_at)"
        " SELECT 'status', jsonb_build_object('connection', uid), now() + %(seconds)s * interval '1 s'"
        " FROM unnest(%(connections)s::text[]) AS uid",
        connections=connections,
        seconds=COALESCE_SECONDS,
    )


async def status_messages(db: DatabaseConnection, connections: list[ConnectionUid]) -> list[int]:
    """Return the ids of all messages about these connections' statuses, also of those whose time has not come."""
    return await fetch_values(
        db,
        int,
        "SELECT id FROM penstock.outbox WHERE kind = 'status' AND payload ->> 'connection' = ANY(%(connections)s)",
        connections=connections,
    )


async def take(db: DatabaseConnection, limit: int) -> list[OutboxMessage]:
    """Take messages that are due. Nobody else gets them for 30 seconds, and for longer after each try, 600 at most."""
    rows = await fetch_all(
        db,
        _Row,
        """
        UPDATE penstock.outbox SET tries = tries + 1, available_at = now() + least(30 * (tries + 1), 600) * interval '1 s'
        WHERE id IN (SELECT id FROM penstock.outbox WHERE available_at <= now() ORDER BY id LIMIT %(limit)s
                     FOR UPDATE SKIP LOCKED)
        RETURNING id, kind, payload, tries
        """,
        limit=limit,
    )
    return [row.message() for row in rows]


async def delete(db: DatabaseConnection, ids: list[int]) -> None:
    """Delete messages that have been acted on."""
    await execute(db, "DELETE FROM penstock.outbox WHERE id = ANY(%(ids)s)", ids=ids)


async def release(db: DatabaseConnection, ids: list[int]) -> None:
    """Let others take messages at once which were taken and not acted on."""
    await execute(db, "UPDATE penstock.outbox SET available_at = now() WHERE id = ANY(%(ids)s)", ids=ids)
