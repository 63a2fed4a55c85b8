"""The end of an attempt, whoever saw it first: its pod, its Job, or the clock.

Every function here runs in its caller's transaction, holds the run row, and does nothing when the attempt is no
longer the current one: an end is recorded once.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Literal

from penstock_operator import outbox
from penstock_operator.audit import audit_store
from penstock_operator.audit.events import Action, AuditedObject, Result
from penstock_operator.connections import connection_store
from penstock_operator.ids import ConnectionUid, ObjectId
from penstock_operator.registry.database import DatabaseConnection
from penstock_operator.runs import attempt_store, bronze_objects, egress_records, run_store, stream_outcomes
from penstock_operator.runs.attempt_store import AttemptOutcome, RunPhase
from penstock_operator.runs.circuit_breaker import pause_after
from penstock_operator.runs.retry import AttemptFailure, RetryHistory, decide_retry
from penstock_operator.runs.run_store import Run

CANCELLED = AttemptOutcome("cancelled", "RunCancelled", message="cancelled on request")
REPLACED = AttemptOutcome("cancelled", "RunReplaced", message="replaced by a newer run, as spec.concurrencyPolicy asks")


async def current(db: DatabaseConnection, run_id: str, attempt: int) -> Run | None:
    """Lock the run, and return it if the attempt is still the current one."""
    row = await run_store.lock_run(db, run_id)
    return row if row and row.attempt == attempt and row.phase == "running" else None


async def succeed(db: DatabaseConnection, run: Run, ending: AttemptOutcome) -> RunPhase:
    """End attempt and run as succeeded, unless the attempt was denied a destination. The caller has compared the counts."""
    if await egress_records.denials_of(db, run.id, run.attempt):
        return await fail(db, run, ending, AttemptFailure("ConfigError"))
    await egress_records.resolve_denial_alerts(db, run.connection_uid)
    await attempt_store.end_attempt(db, run.id, run.attempt, ending)
    await connection_store.record_success(db, run.connection_uid, run.id)
    return await _finish(db, run, "succeeded", ending)


async def fail(db: DatabaseConnection, run: Run, ending: AttemptOutcome, failure: AttemptFailure) -> RunPhase:
    """End the attempt as failed, and the run too unless it is to be tried again; return the run's phase."""
    denials = await egress_records.denials_of(db, run.id, run.attempt)
    if denials:
        await egress_records.open_denial_alerts(db, run.connection_uid, run.id, denials)
        ending = egress_records.denied_ending(ending, denials)
        failure = failure if failure.disrupted else AttemptFailure("ConfigError", failure.progressed)
    await attempt_store.end_attempt(db, run.id, run.attempt, ending)
    if run.cancel_requested:
        return await _finish(db, run, "cancelled", CANCELLED)
    again = decide_retry(run.spec, history_of(run), failure)
    if again is None:
        await _count_failure(db, run.connection_uid)
        return await _finish(db, run, "failed", ending)
    at = datetime.now(UTC) + timedelta(seconds=again.delay)
    await run_store.postpone_run(db, run.id, at, again.streak, ending)
    await run_store.carry_over(db, run.id, again.disruptions, again.memory)
    attempt = AuditedObject("attempt", id=ObjectId(f"{run.id}/{run.attempt}"), connection_uid=run.connection_uid)
    await audit_store.record(db, Action.attempt_end, attempt, "failed", f"{ending.reason}, is tried again")
    await _tell(db, run, "retire")
    return "pending"


def history_of(run: Run) -> RetryHistory:
    """Return how the attempts of a run have failed so far."""
    return RetryHistory(run.streak, run.disruptions, run.memory or run.spec.resources.limits.memory)


async def _count_failure(db: DatabaseConnection, uid: ConnectionUid) -> None:
    seconds = pause_after(await connection_store.count_failure(db, uid))
    if seconds:
        await connection_store.pause(db, uid, seconds)


async def cancel(db: DatabaseConnection, run: Run) -> RunPhase:
    """End the run as cancelled, with its attempt if it has one."""
    await stream_outcomes.record(db, run.id, run.attempt, {})
    await attempt_store.end_attempt(db, run.id, run.attempt, CANCELLED)
    return await _finish(db, run, "cancelled", CANCELLED)


async def stop(db: DatabaseConnection, run: Run, ending: AttemptOutcome = CANCELLED) -> RunPhase:
    """End the run as cancelled whatever its attempt is doing: it is fenced from now on, and its Job is deleted soon."""
    await stream_outcomes.record(db, run.id, run.attempt, {})
    await attempt_store.end_attempt(db, run.id, run.attempt, ending)
    await run_store.end_run(db, run.id, "cancelled", ending)
    await _audit(db, run, "cancelled", ending)
    await outbox.post_commit(db, run.id)
    await _tell(db, run, "stop")
    return "cancelled"


async def replace(db: DatabaseConnection, run: Run) -> RunPhase:
    """End the run for a newer one to take its place; what it has committed is kept."""
    return await stop(db, run, REPLACED)


async def _finish(db: DatabaseConnection, run: Run, phase: RunPhase, ending: AttemptOutcome) -> RunPhase:
    await run_store.end_run(db, run.id, phase, ending)
    await _audit(db, run, phase, ending)
    await outbox.post_commit(db, run.id)
    await _tell(db, run, "retire")
    return phase


async def _audit(db: DatabaseConnection, run: Run, phase: RunPhase, ending: AttemptOutcome) -> None:
    ended = AuditedObject("run", id=ObjectId(run.id), connection_uid=run.connection_uid)
    result: Result = "failed" if phase == "failed" else "allowed"
    await audit_store.record(db, Action.run_end, ended, result, f"{phase}: {ending.reason}")


async def _tell(db: DatabaseConnection, run: Run, job: Literal["retire", "stop"]) -> None:
    """Have the status written, and the Job of the attempt let go, or stopped first."""
    await outbox.post_status(db, run.connection_uid)
    if run.attempt:
        await outbox.post_retirement(db, run.id, run.attempt, stop=job == "stop")


async def fail_current(
    db: DatabaseConnection, run_id: str, attempt: int, ending: AttemptOutcome, *, disrupted: bool = False
) -> bool:
    """Fail an attempt that did not say its own end; False when it has ended already.

    One that a quota left no room for is no failure, and its run waits for as long as it takes.
    """
    async with db.transaction():
        run = await current(db, run_id, attempt)
        if run is None:
            return False
        await stream_outcomes.record(db, run_id, attempt, {})
        progressed = await bronze_objects.has_progressed(db, run_id, attempt)
        failure = AttemptFailure(
            ending.error_class or "DefectError",
            progressed=progressed,
            disrupted=disrupted,
            out_of_memory=ending.reason == "OutOfMemory",
            no_room=ending.reason == "QuotaExceeded",
        )
        await fail(db, run, ending, failure)
        return True
