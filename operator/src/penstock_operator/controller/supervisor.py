"""Attempts under way: launched, watched, and ended when they do not say their own end."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Protocol

import structlog

from penstock_operator.launchers import Launch, Launcher, LaunchRefused, Observation
from penstock_operator.registry import attempts, outbox, runs
from penstock_operator.registry.attempts import Ending
from penstock_operator.registry.database import Pool, Row
from penstock_operator.runs import outcomes
from penstock_operator.settings import Timings

log = structlog.get_logger()
BATCH = 20
ADOPT_AFTER_SECONDS = 5.0
QUIET_SECONDS = 30.0


class Clock(Protocol):
    """Tells the time; a test's own may be turned."""

    def __call__(self) -> datetime:
        """Return the moment, aware."""


def utc_now() -> datetime:
    """Return the moment, in UTC."""
    return datetime.now(UTC)


class Supervisor:
    """Launches attempts and ends those that are over."""

    def __init__(self, pool: Pool, launcher: Launcher, timings: Timings, clock: Clock = utc_now) -> None:
        self._pool = pool
        self._launcher = launcher
        self._timings = timings
        self._clock = clock

    async def launch_pending(self) -> int:
        """Give each waiting run whose time has come its next attempt, and launch it."""
        async with self._pool.connection() as connection, connection.transaction():
            taken = await runs.claim_pending(connection, self._clock(), BATCH)
        for row in taken:
            await self._launch(row["run_id"], row["attempt"])
        return len(taken)

    async def _launch(self, run_id: str, attempt: int) -> None:
        """Launch the attempt, or adopt its Job: a crash between the row and the Job, or the Job and its record, ends here."""
        async with self._pool.connection() as connection:
            row = await attempts.attempt_to_launch(connection, run_id, attempt)
            if row is None:
                return
            try:
                job_uid = await self._launcher.launch(Launch.from_row(row))
            except LaunchRefused as refused:
                ending = Ending("failed", refused.reason, refused.error_class, refused.message)
                await outcomes.fail_current(connection, run_id, attempt, ending)
                return
            except Exception as error:  # noqa: BLE001 - the next round tries again; others are not held up
                log.warning("launch failed", run=run_id, attempt=attempt, error=f"{type(error).__name__}: {error}")
                return
            await attempts.record_job(connection, run_id, attempt, job_uid)

    async def observe_all(self) -> int:
        """Look at every attempt that has not ended; then there is nothing more to do for a while."""
        async with self._pool.connection() as connection:
            rows = await attempts.live_attempts(connection)
        for row in rows:
            try:
                await self.observe(row)
            except Exception as error:  # noqa: BLE001 - one attempt must not hide the others
                log.warning("observation failed", run=row["run_id"], error=f"{type(error).__name__}: {error}")
        return 0

    async def observe_job(self, job_name: str) -> None:
        """Look at the attempt that a Job carries."""
        async with self._pool.connection() as connection:
            row = await attempts.attempt_by_job(connection, job_name)
        if row:
            await self.observe(row)

    async def observe(self, row: Row) -> None:
        """Do what an attempt needs now."""
        if row["attempt_phase"] not in ("launching", "running"):
            return
        launch = Launch.from_row(row)
        if row["phase"] != "running" or row["current_attempt"] != row["attempt"]:
            await self._end_superseded(launch)
        elif row["job_uid"] is None:
            if self._age(row["launched_at"]) > ADOPT_AFTER_SECONDS:
                await self._launch(launch.run_id, launch.attempt)
        elif row["cancel_requested"] and row["attempt_started_at"] is None:
            await self._cancel(launch)
        elif row["heartbeat_at"] and self._age(row["heartbeat_at"]) > self._timings.heartbeat_deadline:
            message = f"no sign of life from the connector for {self._timings.heartbeat_deadline:.0f} s"
            await self._fail(launch, Ending("lost", "AttemptLost", "TransientError", message))
        else:
            await self._judge(launch, row, await self._launcher.observe(launch))

    async def _end_superseded(self, launch: Launch) -> None:
        await self._launcher.stop(launch)
        async with self._pool.connection() as connection, connection.transaction():
            await attempts.end_attempt(connection, launch.run_id, launch.attempt, Ending("cancelled", "RunCancelled"))
            await outbox.post(connection, "retire", {"run": launch.run_id, "attempt": launch.attempt})

    async def _cancel(self, launch: Launch) -> None:
        async with self._pool.connection() as connection, connection.transaction():
            run = await outcomes.current(connection, launch.run_id, launch.attempt)
            if run:
                await outcomes.cancel(connection, run)
        await self._launcher.stop(launch)

    async def _judge(self, launch: Launch, row: Row, seen: Observation) -> None:
        ending = self._ending(row, seen)
        if ending:
            await self._fail(launch, ending, disrupted=seen.disrupted, stop=seen.state in ("waiting", "active"))

    def _ending(self, row: Row, seen: Observation) -> Ending | None:
        age = self._age(row["launched_at"])
        if seen.state in ("failed", "gone"):
            return Ending(
                "failed", seen.reason or "DefectError", seen.error_class, seen.message, exit_code=seen.exit_code
            )
        if seen.state == "succeeded":
            message = "the connector ended with exit code 0 without reporting what it did"
            return Ending("failed", "DefectError", "DefectError", message, exit_code=0)
        if row["attempt_started_at"] is not None:
            return None
        if seen.final or (seen.reason == "ImagePullFailed" and age > self._timings.image_deadline):
            return Ending("failed", seen.reason or "LaunchRefused", seen.error_class, seen.message)
        if age > self._timings.start_deadline:
            why = seen.message or "its pod has not started"
            return Ending("failed", "LaunchRefused", "TransientError", f"the attempt did not start in time: {why}")
        return None

    async def _fail(self, launch: Launch, ending: Ending, *, disrupted: bool = False, stop: bool = True) -> None:
        async with self._pool.connection() as connection:
            failed = await outcomes.fail_current(connection, launch.run_id, launch.attempt, ending, disrupted=disrupted)
        if failed and stop:
            await self._launcher.stop(launch)

    def _age(self, since: datetime) -> float:
        return (self._clock() - since).total_seconds()
