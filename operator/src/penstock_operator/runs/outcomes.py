"""The end of an attempt, whoever saw it first: its pod, its Job, or the clock.

Every function here runs in its caller's transaction, holds the run row, and does nothing when the attempt is no
longer the current one: an end is recorded once.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from penstock_operator.bronze.keys import commit_key
from penstock_operator.registry import attempts, connections, objects, outbox, restoring, run_streams, runs
from penstock_operator.registry.attempts import Ending
from penstock_operator.registry.database import Connection, Row
from penstock_operator.registry.installation import installation_id
from penstock_operator.runs.breaker import pause_after
from penstock_operator.runs.retry import Failure, Standing, decide_retry

MANIFEST_VERSION = 2
"""Of the commit manifest: 1 had no states, so that a registry could not be brought forward by it."""
CANCELLED = Ending("cancelled", "RunCancelled", message="cancelled on request")
REPLACED = Ending("cancelled", "RunReplaced", message="replaced by a newer run, as spec.concurrencyPolicy asks")


async def current(connection: Connection, run_id: str, attempt: int) -> Row | None:
    """Lock the run, and return it if the attempt is still the current one."""
    row = await runs.lock_run(connection, run_id)
    return row if row and row["attempt"] == attempt and row["phase"] == "running" else None


async def succeed(connection: Connection, run: Row, ending: Ending) -> str:
    """End attempt and run as succeeded. The caller has compared the counts."""
    await attempts.end_attempt(connection, run["id"], run["attempt"], ending)
    await connections.mark_success(connection, run["connection_uid"], run["id"])
    return await _finish(connection, run, "succeeded", ending)


async def fail(connection: Connection, run: Row, ending: Ending, failure: Failure) -> str:
    """End the attempt as failed, and the run too unless it is to be tried again; return the run's phase."""
    await attempts.end_attempt(connection, run["id"], run["attempt"], ending)
    if run["cancel_requested"]:
        return await _finish(connection, run, "cancelled", CANCELLED)
    again = decide_retry(run["spec"], standing(run), failure)
    if again is None:
        await _count_failure(connection, run["connection_uid"])
        return await _finish(connection, run, "failed", ending)
    at = datetime.now(UTC) + timedelta(seconds=again.delay)
    await runs.postpone_run(connection, run["id"], at, again.streak, ending)
    await runs.carry_over(connection, run["id"], again.disruptions, again.memory)
    await _tell(connection, run, "retire")
    return "pending"


def standing(run: Row) -> Standing:
    """Return what lies behind a run."""
    limits = run["spec"].get("resources", {}).get("limits", {})
    return Standing(run["streak"], run["disruptions"], run["memory"] or limits.get("memory", "512Mi"))


async def _count_failure(connection: Connection, uid: str) -> None:
    seconds = pause_after(await connections.count_failure(connection, uid))
    if seconds:
        await connections.pause(connection, uid, seconds)


async def cancel(connection: Connection, run: Row) -> str:
    """End the run as cancelled, with its attempt if it has one."""
    await run_streams.record(connection, run["id"], run["attempt"], {})
    await attempts.end_attempt(connection, run["id"], run["attempt"], CANCELLED)
    return await _finish(connection, run, "cancelled", CANCELLED)


async def stop(connection: Connection, run: Row, ending: Ending = CANCELLED) -> str:
    """End the run as cancelled whatever its attempt is doing: it is fenced from now on, and its Job is deleted soon."""
    await run_streams.record(connection, run["id"], run["attempt"], {})
    await attempts.end_attempt(connection, run["id"], run["attempt"], ending)
    await runs.end_run(connection, run["id"], "cancelled", ending)
    await outbox.post(connection, "commit", {"run": run["id"]})
    await _tell(connection, run, "stop")
    return "cancelled"


async def replace(connection: Connection, run: Row) -> str:
    """End the run for a newer one to take its place; what it has committed is kept."""
    return await stop(connection, run, REPLACED)


async def _finish(connection: Connection, run: Row, phase: str, ending: Ending) -> str:
    await runs.end_run(connection, run["id"], phase, ending)
    await outbox.post(connection, "commit", {"run": run["id"]})
    await _tell(connection, run, "retire")
    return phase


async def _tell(connection: Connection, run: Row, job: Literal["retire", "stop"]) -> None:
    """Have the status written, and the Job of the attempt let go, or stopped first."""
    await outbox.post(connection, "status", {"connection": run["connection_uid"]})
    if run["attempt"]:
        payload = {"run": run["id"], "attempt": run["attempt"], "stop": job == "stop"}
        await outbox.post(connection, "retire", payload)


async def fail_current(
    connection: Connection, run_id: str, attempt: int, ending: Ending, *, disrupted: bool = False
) -> bool:
    """Fail an attempt that did not say its own end; False when it has ended already.

    One that a quota left no room for is no failure, and its run waits for as long as it takes.
    """
    async with connection.transaction():
        run = await current(connection, run_id, attempt)
        if run is None:
            return False
        await run_streams.record(connection, run_id, attempt, {})
        progressed = await objects.has_progressed(connection, run_id, attempt)
        failure = Failure(
            ending.error_class or "DefectError",
            progressed=progressed,
            disrupted=disrupted,
            out_of_memory=ending.reason == "OutOfMemory",
            no_room=ending.reason == "QuotaExceeded",
        )
        await fail(connection, run, ending, failure)
        return True


def _moment(value: datetime | None) -> str | None:
    return value.isoformat() if value else None


async def commit_document(connection: Connection, run_id: str, prefix: str) -> tuple[str, dict[str, Any]] | None:
    """Return the key and content of a run's commit manifest, None when it committed nothing and did not succeed.

    It holds all that the registry knows of the run's commits, so that an older registry can be brought forward by it.
    """
    run = await runs.run_by_id(connection, run_id)
    if run is None:
        return None
    uid = run["connection_uid"]
    found = await objects.objects_of_run(connection, run_id)
    states = await restoring.states_of_run(connection, uid, run_id)
    if not found and not states and run["phase"] != "succeeded":
        return None
    shown = (
        *("key", "stream", "generation", "attempt", "sequence", "checkpoint", "records", "deletes", "bytes"),
        *("sha256", "schema_version"),
    )
    holder = await connections.connection_by_uid(connection, uid) or run
    document = {
        "version": MANIFEST_VERSION,
        "run": run_id,
        "tenant": run["namespace"],
        "connection": run["name"],
        "definition": run["definition"],
        "phase": run["phase"],
        "records": run["records"],
        "deletes": run["deletes"],
        "bytes": run["bytes"],
        "finished_at": run["finished_at"].isoformat(),
        "objects": [{key: each[key] for key in shown} for each in found if each["kind"] == "data"],
        **({"window": run["spec"]["window"]} if "window" in run["spec"] else {}),
        "rejected": [{key: each[key] for key in shown} for each in found if each["kind"] == "rejected"],
        "states": states,
        "schemas": await restoring.schemas_first_used(connection, uid, run_id),
        "registry": {
            "installation": await installation_id(connection),
            "connection_uid": uid,
            "namespace_uid": holder["namespace_uid"],
            "first_generation": holder["first_generation"],
            "connector": run["spec"].get("connector", {}),
            "bronze": run["spec"].get("bronze", {}),
            **{key: run[key] for key in ("trigger", "token", "attempt", "reason", "error_class", "message")},
            **{key: _moment(run[key]) for key in ("scheduled_at", "created_at", "started_at")},
        },
    }
    return commit_key(prefix, run["namespace"], run["name"], run_id), document
