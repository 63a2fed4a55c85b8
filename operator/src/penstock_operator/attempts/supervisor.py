"""Attempts under way: launched, watched, and ended when they do not say their own end."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime
from typing import Protocol

import structlog

from penstock_operator import outbox
from penstock_operator.attempts.heartbeat_monitor import HeartbeatMonitor
from penstock_operator.attempts.launch_rate import TokenBucket
from penstock_operator.attempts.task_pool import TaskPool
from penstock_operator.audit import audit_store
from penstock_operator.audit.events import Action, AuditedObject
from penstock_operator.failpoints import reach
from penstock_operator.ids import ObjectId
from penstock_operator.launchers import (
    AttemptLaunch,
    AttemptObservation,
    LaunchedAttempt,
    Launcher,
    LaunchPostponed,
    LaunchRefused,
)
from penstock_operator.launchers.jobs import SIGKILL_EXIT, as_noted, wants_words
from penstock_operator.registry.database import Pool
from penstock_operator.runs import attempt_store, run_store, transitions
from penstock_operator.runs.attempt_store import AttemptOutcome, CarriedAttempt, LiveAttempt
from penstock_operator.runs.oom_policy import out_of_memory_message, ran_out
from penstock_operator.runs.run_store import WaitReason
from penstock_operator.scheduling import fairness
from penstock_operator.settings import NO_QUOTAS, Quotas, Timings

log = structlog.get_logger()
BATCH = 20
LAUNCHES, LAUNCH_SECONDS = 32, 30.0  # how many at the same time, and how long one may take
LOOKS, LOOK_SECONDS = 16, 30.0  # a stop keeps the log first, and then gives the connector its time
ADOPT_AFTER_SECONDS = 5.0
WAITING_AFTER_SECONDS, WORDS_SECONDS = 8.0, 10.0
"""A pod that has not started after so long is said to wait; its warnings are read at most this often."""
MOST_WORDS, MOST_NOTES = 20, 50
"""How many attempts' warnings are read, and how many notes of why one waits change, at each look at all attempts."""


class Clock(Protocol):
    """Tells the time; a test's own may be turned."""

    def __call__(self) -> datetime:
        """Return the moment, aware."""


def utc_now() -> datetime:
    """Return the moment, in UTC."""
    return datetime.now(UTC)


class Supervisor:
    """Launches attempts and ends those that are over."""

    def __init__(
        self, pool: Pool, launcher: Launcher, timings: Timings, clock: Clock = utc_now, quotas: Quotas = NO_QUOTAS
    ) -> None:
        self._pool = pool
        self._launcher = launcher
        self._timings = timings
        self._clock = clock
        self._heartbeats = HeartbeatMonitor(timings.heartbeat_deadline, lambda: time.monotonic() + self._ahead())
        self._quotas = quotas
        self._rate = TokenBucket(quotas.launch_rate, quotas.launch_burst)
        self._launching = TaskPool("launch", LAUNCHES, LAUNCH_SECONDS)
        self._looking = TaskPool("look", LOOKS, LOOK_SECONDS)
        self._asked: dict[str, float] = {}

    async def launch_pending(self) -> int:
        """Give waiting runs whose time has come their next attempts, and launch these beside the caller.

        Only as many are claimed as can be launched at once, so that a run waits in the registry and not in memory.
        """
        await self._launching.slot()
        now = self._clock()
        room = min(BATCH, self._launching.free, self._rate.room(now.timestamp()))
        if not room:
            return 0
        async with self._pool.connection() as db, db.transaction():
            taken = await fairness.claim_runs(db, now, room, self._quotas)
            attempts = await attempt_store.attempts_to_launch(db, taken) if taken else []
            await outbox.post_statuses(db, [attempt.connection_uid for attempt in attempts])
        self._rate.take(len(taken))
        for attempt in attempts:
            reach("attempt.claimed")
            launch = AttemptLaunch.of_carried(attempt)
            self._launching.start(launch.job_name, self._launch(launch))
        return len(taken)

    async def _launch(self, launch: AttemptLaunch, age: float = 0.0) -> None:
        """Launch the attempt, or adopt its Job: a crash between the attempt and the Job, or the Job and its record, ends here.

        An error leaves the attempt without a Job, which the next look at it sees; so does a refusal that may pass.
        """
        try:
            job_uid = await self._launcher.launch(launch)
        except LaunchRefused as refused:
            if refused.passing and age < self._timings.start_deadline:
                log.warning("launch refused, is tried again", job=launch.job_name, error=refused.message)
                await self._note([WaitReason(launch.run_id, launch.attempt, refused.reason, refused.message)])
                return
            ending = AttemptOutcome("failed", refused.reason, refused.error_class, refused.message)
            async with self._pool.connection() as db:
                await transitions.fail_current(db, launch.run_id, launch.attempt, ending)
            return
        except LaunchPostponed as postponed:
            log.warning("not launched, is tried again", job=launch.job_name, error=str(postponed))
            await self._note([WaitReason(launch.run_id, launch.attempt, "PodPending", str(postponed))])
            return
        reach("attempt.launched")
        async with self._pool.connection() as db, db.transaction():
            recorded = await attempt_store.record_job(db, launch.run_id, launch.attempt, job_uid)
            if recorded:
                launched = AuditedObject(
                    "attempt", launch.namespace, launch.connection, ObjectId(f"{launch.run_id}/{launch.attempt}")
                )
                await audit_store.record(db, Action.attempt_launch, launched, reason=launch.job_name)
        reach("attempt.recorded")
        if not recorded:
            await self._launcher.stop(launch)

    async def observe_all(self) -> int:
        """Look at every attempt that has not ended, and closer at those that need something."""
        async with self._pool.connection() as db:
            attempts = await attempt_store.live_attempts(db)
        self._heartbeats.keep((attempt.run_id, attempt.attempt) for attempt in attempts)
        seen = await self._launcher.observe_many(
            [LaunchedAttempt.of(attempt) for attempt in attempts if attempt.job_uid]
        )
        self._asked = {key: at for key, at in self._asked.items() if key in {attempt.job_name for attempt in attempts}}
        await self._note_all(attempts, seen)
        await self._look(attempts, seen)
        return 0

    async def _look(self, attempts: list[LiveAttempt], seen: dict[str, AttemptObservation]) -> None:
        wordless = {attempt.job_name for attempt in attempts if self._wants_words(attempt, seen.get(attempt.job_name))}
        wordless = set(sorted(wordless, key=lambda key: self._asked.get(key, 0.0))[:MOST_WORDS])
        for attempt in attempts:
            key = attempt.job_name
            called = key in wordless or self._calls(attempt, seen.get(key))
            if called and key not in self._looking and key not in self._launching:
                await self._looking.slot()
                self._looking.start(key, self.observe_job(key))

    def _wants_words(self, attempt: LiveAttempt, seen: AttemptObservation | None) -> bool:
        """Say whether an attempt has not started and its Job and pod do not say why; their warnings may."""
        if not self._is_starting(attempt) or seen is None or not wants_words(seen):
            return False
        return time.monotonic() - self._asked.get(attempt.job_name, -WORDS_SECONDS) >= WORDS_SECONDS

    def _is_starting(self, attempt: LiveAttempt) -> bool:
        """Say whether an attempt has a Job and its pod takes long to start."""
        current = attempt.is_current
        return bool(
            current
            and attempt.job_uid
            and attempt.attempt_started_at is None
            and self._age(attempt) > WAITING_AFTER_SECONDS
        )

    async def _note_all(self, attempts: list[LiveAttempt], seen: dict[str, AttemptObservation]) -> None:
        """Note why pods have not started, where they say so themselves."""
        found = [
            (attempt, seen[attempt.job_name])
            for attempt in attempts
            if attempt.job_name in seen and self._is_starting(attempt)
        ]
        notes = [
            note
            for attempt, observation in found
            if not wants_words(observation) and (note := _news(attempt, observation))
        ]
        await self._note(notes[:MOST_NOTES])

    async def _note(self, notes: list[WaitReason]) -> None:
        """Note why attempts have not started, and have it told."""
        if not notes:
            return
        async with self._pool.connection() as db, db.transaction():
            changed = await run_store.note_waits(db, notes)
            if changed:
                await outbox.post_statuses(db, changed)

    def _calls(self, attempt: LiveAttempt, seen: AttemptObservation | None) -> bool:
        """Say whether an attempt needs a closer look; one that goes on as it should does not."""
        if attempt.attempt_phase not in ("launching", "running"):
            return False
        if not attempt.is_current:
            return True
        if attempt.job_uid is None:
            return bool(attempt.cancel_requested) or self._age(attempt) > ADOPT_AFTER_SECONDS
        if seen is None or seen.state not in ("waiting", "active"):
            return True
        return (
            self._cancellable(attempt) or self.is_silent(attempt) or self._failure_to_start(attempt, seen) is not None
        )

    def _cancellable(self, attempt: LiveAttempt) -> bool:
        """Say whether a run that somebody cancelled is to be ended now: it has not started, or had time to end itself."""
        if not attempt.cancel_requested:
            return False
        since = (
            attempt.cancelling_seconds
        )  # None: asked for through a server of the version before, which notes no time
        return bool(
            attempt.attempt_started_at is None or since is None or since + self._ahead() > self._timings.cancel_deadline
        )

    async def settled(self) -> None:
        """Return once every launch and closer look that was begun has ended."""
        await asyncio.gather(self._launching.settled(), self._looking.settled())

    async def close(self) -> None:
        """Let go of every launch and closer look under way; the next leader takes them up."""
        await asyncio.gather(self._launching.close(), self._looking.close())

    async def observe_job(self, job_name: str) -> None:
        """Look at the attempt that a Job carries."""
        async with self._pool.connection() as db:
            attempt = await attempt_store.attempt_by_job(db, job_name)
        if attempt:
            await self.observe(attempt)

    async def observe(self, attempt: CarriedAttempt) -> None:
        """Do what an attempt needs now."""
        if attempt.attempt_phase not in ("launching", "running"):
            return
        launch = AttemptLaunch.of_carried(attempt)
        if not attempt.is_current:
            await self._end_superseded(launch)
        elif self._cancellable(attempt):
            await self._cancel(launch, attempt)
        elif attempt.job_uid is None:
            if self._age(attempt) > ADOPT_AFTER_SECONDS and launch.job_name not in self._launching:
                await self._launch(launch, self._age(attempt))
        elif self.is_silent(attempt):
            await self._judge_silent(launch, attempt, await self._launcher.observe(launch))
        else:
            seen = await self._launcher.observe(launch)
            self._asked[launch.job_name] = time.monotonic()
            note = _news(attempt, seen) if self._is_starting(attempt) else None
            await self._note([note] if note else [])
            await self._judge(launch, attempt, seen)

    async def _end_superseded(self, launch: AttemptLaunch) -> None:
        await self._launcher.stop(launch)
        async with self._pool.connection() as db, db.transaction():
            await attempt_store.end_attempt(
                db, launch.run_id, launch.attempt, AttemptOutcome("cancelled", "RunCancelled")
            )
            await outbox.post_retirement(db, launch.run_id, launch.attempt)

    async def _cancel(self, launch: AttemptLaunch, attempt: CarriedAttempt) -> None:
        if attempt.attempt_started_at is not None and attempt.cancelling_seconds is None:
            async with self._pool.connection() as db:
                await run_store.request_cancel(db, launch.run_id)
            return
        async with self._pool.connection() as db, db.transaction():
            run = await transitions.current(db, launch.run_id, launch.attempt)
            if run:
                await transitions.stop(db, run)
        await self._launcher.stop(launch)

    async def _judge_silent(self, launch: AttemptLaunch, attempt: CarriedAttempt, seen: AttemptObservation) -> None:
        """End an attempt that says nothing any more; what its Job tells goes before what the silence tells."""
        if seen.state in ("failed", "gone", "succeeded"):
            await self._judge(launch, attempt, seen)
            return
        why = f": {seen.message}" if seen.message else ""
        message = f"no sign of life from the connector for {self._timings.heartbeat_deadline:.0f} s{why}"
        ending = AttemptOutcome("lost", "AttemptLost", "TransientError", message)
        await self._fail(launch, ending, disrupted=seen.disrupted)

    async def _judge(self, launch: AttemptLaunch, attempt: CarriedAttempt, seen: AttemptObservation) -> None:
        ending = self._ending(attempt, seen)
        if ending:
            disrupted = (seen.disrupted and ending.reason != "OutOfMemory") or ending.reason == "Unschedulable"
            await self._fail(launch, ending, disrupted=disrupted, stop=seen.state in ("waiting", "active"))

    def _ending(self, attempt: CarriedAttempt, seen: AttemptObservation) -> AttemptOutcome | None:
        """Return how the attempt ended, None if it goes on."""
        if seen.state not in ("waiting", "active"):
            return _ended(attempt, seen)
        return self._failure_to_start(attempt, seen)

    def _failure_to_start(self, attempt: LiveAttempt, seen: AttemptObservation) -> AttemptOutcome | None:
        """Return how an attempt ends whose pod cannot start, or did not start in time; None otherwise."""
        age = self._age(attempt)
        if attempt.attempt_started_at is not None:
            return None
        refused = seen.reason == "ImagePullFailed" and seen.error_class == "ConfigError"
        if seen.final or (refused and age > self._timings.image_deadline):
            return AttemptOutcome("failed", seen.reason or "LaunchRefused", seen.error_class, seen.message)
        return _late(attempt, seen) if age > self._timings.start_deadline else None

    async def _fail(
        self, launch: AttemptLaunch, ending: AttemptOutcome, *, disrupted: bool = False, stop: bool = True
    ) -> None:
        async with self._pool.connection() as db:
            failed = await transitions.fail_current(db, launch.run_id, launch.attempt, ending, disrupted=disrupted)
        reach("attempt.failed")
        if failed and stop:
            await self._launcher.stop(launch)

    def is_silent(self, attempt: LiveAttempt) -> bool:
        """Return True if no heartbeat of the attempt arrived within the deadline, and this process has watched long enough."""
        return attempt.heartbeat_at is not None and self._heartbeats.has_expired(
            attempt, (attempt.silent_seconds or 0.0) + self._ahead()
        )

    def _age(self, attempt: LiveAttempt) -> float:
        """Return how old an attempt is, by the registry's clock: this machine's may have been put forward or back."""
        return float(attempt.age_seconds) + self._ahead()

    def _ahead(self) -> float:
        """Return by how many seconds a test has turned our clock."""
        return (self._clock() - utc_now()).total_seconds()


def _news(attempt: LiveAttempt, seen: AttemptObservation) -> WaitReason | None:
    """Return why an attempt has not started, None where that is known or nobody says it."""
    words = as_noted(seen.message, attempt.job_name)
    if seen.state != "waiting" or not words or (words, seen.reason) == (attempt.waits, attempt.waits_reason):
        return None
    return WaitReason(attempt.run_id, attempt.attempt, seen.reason, words)


def _late(attempt: LiveAttempt, seen: AttemptObservation) -> AttemptOutcome:
    """Return the end of an attempt that did not start in time, by what it waited for.

    A quota, nodes and a registry that is away are asked again by the next attempt; a Secret is its owner's.
    """
    reason = seen.reason if seen.message else attempt.waits_reason
    why = as_noted(seen.message, attempt.job_name) or attempt.waits or "its pod has not started"
    if reason == "SecretNotFound":
        return AttemptOutcome("failed", reason, "ConfigError", why)
    kept = reason in ("QuotaExceeded", "Unschedulable", "ImagePullFailed")
    words = why if kept else f"the attempt did not start in time: {why}"
    return AttemptOutcome("failed", reason if kept and reason else "LaunchRefused", "TransientError", words)


def _ended(attempt: CarriedAttempt, seen: AttemptObservation) -> AttemptOutcome:
    if seen.state == "succeeded":
        message = "the connector ended with exit code 0 without reporting what it did"
        return AttemptOutcome("failed", "DefectError", "DefectError", message, exit_code=0)
    if seen.reason == "DeadlineExceeded" and attempt.attempt_started_at is None:
        return _late(
            attempt, AttemptObservation("waiting")
        )  # spec.timeout is shorter than what a pod is given to start
    if seen.reason == "OutOfMemory" or (
        seen.exit_code == SIGKILL_EXIT and ran_out(attempt.memory_limit, attempt.metrics)
    ):
        message = out_of_memory_message(attempt.spec, attempt.memory_limit, attempt.metrics)
        return AttemptOutcome("failed", "OutOfMemory", "DefectError", message, exit_code=seen.exit_code)
    return AttemptOutcome(
        "failed", seen.reason or "DefectError", seen.error_class, seen.message, exit_code=seen.exit_code
    )
