"""Launchers run attempts: as a Job in a cluster, as a process on one machine."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, Protocol

from penstock_sdk.manifest import Manifest
from penstock_sdk.protocol import ErrorClass

from penstock_operator.ids import AttemptNumber, ConnectionName, ConnectionUid, DefinitionName, Namespace, RunId
from penstock_operator.resources.conditions import Reason
from penstock_operator.runs.attempt_store import CarriedAttempt, LiveAttempt
from penstock_operator.runs.run_spec import RunSpec


@dataclass(frozen=True)
class LaunchedAttempt:
    """An attempt that has a Job."""

    run_id: RunId
    attempt: AttemptNumber
    job_name: str
    job_uid: str | None
    namespace: Namespace
    connection: ConnectionName

    @classmethod
    def of(cls, found: LiveAttempt) -> LaunchedAttempt:
        """Return the attempt that the registry holds."""
        return cls(found.run_id, found.attempt, found.job_name, found.job_uid, found.namespace, found.name)


@dataclass(frozen=True)
class AttemptLaunch(LaunchedAttempt):
    """An attempt to launch, with everything that its Job is made from."""

    connection_uid: ConnectionUid
    definition: DefinitionName
    image: str
    spec: RunSpec
    memory: str
    """The memory that the attempt may use; more than the spec says after an earlier attempt ran out of memory."""
    manifest: Manifest

    @classmethod
    def of_carried(cls, found: CarriedAttempt) -> AttemptLaunch:
        """Return the launch of an attempt that the registry holds."""
        return cls(
            run_id=found.run_id,
            attempt=found.attempt,
            job_name=found.job_name,
            job_uid=found.job_uid,
            namespace=found.namespace,
            connection=found.name,
            connection_uid=found.connection_uid,
            definition=found.definition,
            image=found.image,
            spec=found.spec,
            memory=found.memory_limit,
            manifest=found.manifest,
        )


@dataclass(frozen=True)
class AttemptObservation:
    """The state of an attempt's Job, with a message for people.

    `waiting` has a reason and the message of Kubernetes if the pod cannot start now; with `final`, it never will. `gone`
    means that there is no such Job.
    """

    state: Literal["waiting", "active", "succeeded", "failed", "gone"]
    reason: Reason | None = None
    message: str = ""
    error_class: ErrorClass = "TransientError"
    exit_code: int | None = None
    disrupted: bool = False
    final: bool = False


@dataclass(frozen=True)
class LeftoverJob:
    """A Job that exists; `finished_at` is None while it runs."""

    namespace: str
    job_name: str
    finished_at: datetime | None


class LaunchRefused(Exception):  # noqa: N818 - a refusal, with its own message
    """The attempt cannot be launched now.

    `passing`: the cause may soon be gone, and is nobody's mistake. `no_room`: the namespace's quota has no room now.
    """

    def __init__(
        self,
        reason: Reason,
        message: str,
        error_class: ErrorClass = "ConfigError",
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
    """It is not known whether the attempt can be launched; the launch is repeated until it is."""


class Launcher(Protocol):
    """Runs attempts. Every call can be repeated."""

    async def launch(self, launch: AttemptLaunch) -> str:
        """Make the attempt's Job, or adopt the one that an earlier call made, and return its uid."""

    async def observe(self, launch: LaunchedAttempt) -> AttemptObservation:
        """Return the state of the attempt's Job."""

    async def observe_many(self, attempts: list[LaunchedAttempt]) -> dict[str, AttemptObservation]:
        """Return the states of many attempts by Job name, cheaply; an attempt that is left out must be observed by itself."""

    async def stop(self, launch: LaunchedAttempt) -> None:
        """End the attempt's Job; a pod gets its grace period."""

    async def retire(self, launch: LaunchedAttempt) -> None:
        """Delete the Job, whose outcome is in the registry."""

    def leftovers(self) -> AsyncIterator[list[LeftoverJob]]:
        """Yield the existing Jobs, page by page."""

    async def discard(self, leftover: LeftoverJob) -> None:
        """Delete a Job that was left over."""
