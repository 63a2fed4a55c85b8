"""A launcher whose Jobs are names in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

from penstock_operator.launchers import AttemptLaunch, AttemptObservation, LaunchedAttempt, Launcher, LeftoverJob

ACTIVE = AttemptObservation("active")


def active(_attempt: LaunchedAttempt) -> AttemptObservation | None:
    """Observe every attempt as active."""
    return ACTIVE


class FakeLauncher:
    """Makes every Job, and remembers what it was asked for.

    `observation` says what became of an attempt's Job; where it returns None, `observe_many` leaves the attempt out and
    `observe` calls it active.
    """

    def __init__(self, observation: Callable[[LaunchedAttempt], AttemptObservation | None] = active) -> None:
        self.observation = observation
        self.launched: list[AttemptLaunch] = []
        self.jobs: set[str] = set()
        self.observed: list[str] = []
        """The runs whose Jobs were looked at one by one."""
        self.stopped: list[str] = []
        self.retired: list[str] = []
        self.left_over: list[LeftoverJob] = []

    def observe_as(self, observation: AttemptObservation) -> None:
        """Observe every attempt so from now on."""
        self.observation = lambda _: observation

    async def launch(self, launch: AttemptLaunch) -> str:
        """Make a Job."""
        self.launched.append(launch)
        self.jobs.add(launch.job_name)
        return f"uid-{launch.job_name}"

    async def observe(self, launch: LaunchedAttempt) -> AttemptObservation:
        """Say what became of one attempt's Job."""
        self.observed.append(launch.run_id)
        return self.observation(launch) or ACTIVE

    async def observe_many(self, attempts: list[LaunchedAttempt]) -> dict[str, AttemptObservation]:
        """Say what became of many attempts' Jobs."""
        observations = {attempt.job_name: self.observation(attempt) for attempt in attempts}
        return {name: observation for name, observation in observations.items() if observation}

    async def stop(self, launch: LaunchedAttempt) -> None:
        """End a Job."""
        self.stopped.append(launch.job_name)
        self.jobs.discard(launch.job_name)

    async def retire(self, launch: LaunchedAttempt) -> None:
        """Let a Job go."""
        self.retired.append(launch.job_name)

    async def leftovers(self) -> AsyncIterator[list[LeftoverJob]]:
        """Yield the Jobs that the test has put there."""
        yield list(self.left_over)

    async def discard(self, leftover: LeftoverJob) -> None:
        """Delete one of them."""
        self.left_over.remove(leftover)


_: Launcher = FakeLauncher()
