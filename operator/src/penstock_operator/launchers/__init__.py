"""What carries an attempt: a Job in a cluster, a process on a laptop. The only thing that differs between the two."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, Protocol

from penstock_operator.resources.conditions import Reason


@dataclass(frozen=True)
class LaunchedAttempt:
    """An attempt that a Job carries."""

    run_id: str
    attempt: int
    job_name: str
    job_uid: str | None
    namespace: str
    connection: str

    @classmethod
    def of(cls, row: dict[str, Any]) -> LaunchedAttempt:
        """Return the attempt that the registry's row describes."""
        return cls(row["run_id"], row["attempt"], row["job_name"], row["job_uid"], row["namespace"], row["name"])


@dataclass(frozen=True)
class AttemptLaunch(LaunchedAttempt):
    """An attempt to carry, with all that its Job is made from."""

    connection_uid: str
    definition: str
    image: str
    spec: dict[str, Any]
    manifest: dict[str, Any]

    @classmethod
    def from_row(cls, row: dict[str, Any]) -> AttemptLaunch:
        """Return the launch that the registry's row describes."""
        same = (
            "run_id",
            "attempt",
            "job_name",
            "job_uid",
            "namespace",
            "connection_uid",
            "definition",
            "image",
            "manifest",
        )
        return cls(connection=row["name"], spec=_spec(row), **{key: row[key] for key in same})


def _spec(row: dict[str, Any]) -> dict[str, Any]:
    """Return the run's spec, with the memory that an attempt got after one before ran out of it."""
    spec: dict[str, Any] = row["spec"]
    if not row["memory"]:
        return spec
    resources = spec.get("resources", {})
    return {**spec, "resources": {**resources, "limits": {**resources.get("limits", {}), "memory": row["memory"]}}}


@dataclass(frozen=True)
class AttemptObservation:
    """What became of an attempt's Job, in plain words.

    `waiting` carries a reason when the pod cannot start as things stand, and the words of Kubernetes; `final`: it never
    will. `gone` means that there is no such Job.
    """

    state: Literal["waiting", "active", "succeeded", "failed", "gone"]
    reason: Reason | None = None
    message: str = ""
    error_class: str = "TransientError"
    exit_code: int | None = None
    disrupted: bool = False
    final: bool = False


@dataclass(frozen=True)
class LeftoverJob:
    """A Job that is there; `finished_at` is None while it runs."""

    namespace: str
    job_name: str
    finished_at: datetime | None


class LaunchRefused(Exception):  # noqa: N818 - a refusal, with its own words
    """The attempt cannot be launched as things stand.

    `passing`: they may soon stand otherwise, and nobody did wrong. `no_room`: the namespace's quota has none for it now.
    """

    def __init__(
        self,
        reason: Reason,
        message: str,
        error_class: str = "ConfigError",
        *,
        passing: bool = False,
        no_room: bool = False,
    ) -> None:
        super().__init__(message)
        self.passing = passing
        self.no_room = no_room
        self.reason = reason
        self.message = message
        self.error_class = error_class


class LaunchPostponed(Exception):  # noqa: N818 - nobody refused
    """Nobody said whether the attempt can be launched: it is asked for again for as long as it takes."""


class Launcher(Protocol):
    """Carries attempts. Every call can be repeated."""

    async def launch(self, launch: AttemptLaunch) -> str:
        """Make the attempt's Job, or adopt the one that an earlier call made, and return its uid."""

    async def observe(self, launch: LaunchedAttempt) -> AttemptObservation:
        """Say what became of the attempt's Job."""

    async def observe_many(self, attempts: list[LaunchedAttempt]) -> dict[str, AttemptObservation]:
        """Say by Job name what became of many attempts, cheaply; one that is left out needs a closer look."""

    async def stop(self, launch: LaunchedAttempt) -> None:
        """End the attempt's Job; a pod gets its grace period."""

    async def retire(self, launch: LaunchedAttempt) -> None:
        """Let the Job go: its outcome is in the registry."""

    def leftovers(self) -> AsyncIterator[list[LeftoverJob]]:
        """Yield the Jobs that there are, page by page."""

    async def discard(self, leftover: LeftoverJob) -> None:
        """Delete a Job that was left over."""
