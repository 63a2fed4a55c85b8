"""The launcher of a cluster: one Job per attempt."""

from __future__ import annotations

import asyncio
import functools
import json
import re
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any, Self

import structlog
from kubernetes.aio import client
from kubernetes.aio.client.exceptions import ApiException
from penstock_sdk.json_types import JsonObject
from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel

from penstock_operator.apiserver import PageReader, pages
from penstock_operator.ids import Namespace
from penstock_operator.launchers import (
    AttemptLaunch,
    AttemptObservation,
    LaunchedAttempt,
    LaunchPostponed,
    LaunchRefused,
    LeftoverJob,
)
from penstock_operator.launchers.jobs import (
    LABEL_ATTEMPT,
    LABEL_INSTALLATION,
    LABEL_RUN,
    NO_ADDRESSES,
    PASSING_WORDS,
    QUOTA_WORDS,
    JobSettings,
    JobShape,
    desired_job,
    desired_network_policy,
    is_over,
    observe_job,
    rehearsal_of,
    told_by,
    wants_words,
)
from penstock_operator.resources.conditions import Reason
from penstock_operator.resources.scope import EVERYTHING, Scope
from penstock_operator.tls import TlsError, TrustedCertificates

log = structlog.get_logger()
JOBS = ("batch", "v1")
NETWORK_POLICIES = ("networking.k8s.io", "v1")
KNOWN_ADDRESS_SECONDS = 60.0
UNUSED_POLICY_SECONDS = 300.0
"""How old a NetworkPolicy without a Job must be to be deleted: it is made a moment before the Job."""
REFUSALS = (HTTPStatus.BAD_REQUEST, HTTPStatus.FORBIDDEN, HTTPStatus.UNPROCESSABLE_ENTITY, HTTPStatus.NOT_FOUND)
OWN_POLICY = re.compile(r"ValidatingAdmissionPolicy '[^']*\bpenstock\.io'")
"""A refusal by a policy of the chart: it is of another version than the controller, for example during an upgrade."""
WANT_OF_RIGHTS = "cannot create resource"  # a message of the authorizer; messages of admission name the Job


class KubernetesLauncher:
    """Runs attempts as Jobs in their connections' namespaces.

    Jobs are read and written as plain documents: the client's models cost several times the request itself.
    """

    def __init__(
        self,
        api: client.ApiClient,
        settings: JobSettings,
        scope: Scope = EVERYTHING,
        trusted: TrustedCertificates | None = None,
    ) -> None:
        self._trusted = trusted or TrustedCertificates()
        self._objects = client.CustomObjectsApi(api)
        self._known_addresses: tuple[float, Mapping[str, str]] = (0.0, NO_ADDRESSES)
        self._core = client.CoreV1Api(api)
        self._settings = settings
        self._namespaces = scope.namespaces
        ours = settings.installation
        self._selector = f"{LABEL_RUN},{LABEL_INSTALLATION}={ours}" if ours else LABEL_RUN
        self._may_read_events = True

    async def launch(self, launch: AttemptLaunch) -> str:
        """Create the Job, or adopt the one that an earlier call created before it could be recorded."""
        await self._apply_network_policy(launch)
        desired = desired_job(launch, self._settings_now(), await self._addresses())
        try:
            job = await self._objects.create_namespaced_custom_object(*JOBS, launch.namespace, "jobs", desired)
        except ApiException as error:
            if error.status == HTTPStatus.CONFLICT:
                return await self._adopt(launch, desired, error)
            if error.status in REFUSALS:
                raise _refused(error, "Job") from None
            raise LaunchPostponed(f"the API server did not make the run's Job: {_words(error)}") from error
        return str(job["metadata"]["uid"])

    def _settings_now(self) -> JobSettings:
        """Return the settings with the CAs that pods should trust now. Raises LaunchPostponed."""
        try:
            return replace(self._settings, ca_certificates=self._trusted.text())
        except TlsError as error:
            raise LaunchPostponed(str(error)) from None

    async def _apply_network_policy(self, launch: AttemptLaunch) -> None:
        """Create the NetworkPolicy before the Job, so that no packet of the pod comes before it. One that differs is replaced."""
        desired = desired_network_policy(launch, self._settings)
        if desired is None:
            return
        try:
            await self._put_network_policy(launch, desired)
        except ApiException as error:
            if error.status in REFUSALS:
                raise _refused(error, "NetworkPolicy") from None
            raise LaunchPostponed(f"the API server did not make the run's NetworkPolicy: {_words(error)}") from error

    async def _put_network_policy(self, launch: AttemptLaunch, desired: JsonObject) -> None:
        place = (*NETWORK_POLICIES, launch.namespace, "networkpolicies")
        try:
            await self._objects.create_namespaced_custom_object(*place, desired)
        except ApiException as error:
            if error.status != HTTPStatus.CONFLICT:
                raise
            await self._replace_network_policy(launch, desired)

    async def _replace_network_policy(self, launch: AttemptLaunch, desired: JsonObject) -> None:
        """Replace the policy. Raises LaunchPostponed if there is none: the conflict was a quota's, or it was just deleted."""
        place = (*NETWORK_POLICIES, launch.namespace, "networkpolicies", launch.job_name)
        try:
            await self._objects.replace_namespaced_custom_object(*place, desired)
        except ApiException as error:
            if error.status == HTTPStatus.NOT_FOUND:
                raise LaunchPostponed(f"the run's NetworkPolicy could not be replaced: {_words(error)}") from error
            raise

    async def _addresses(self) -> Mapping[str, str]:
        """Return the addresses of the hosts that pods reach without a name server, by host. Raises LaunchPostponed."""
        egress = self._settings.egress
        if egress is None:
            return NO_ADDRESSES
        known_at, known = self._known_addresses
        if known and time.monotonic() < known_at + KNOWN_ADDRESS_SECONDS:
            return known
        loop, found = asyncio.get_running_loop(), dict[str, str]()
        for host in egress.direct_hosts:
            try:
                answers = await loop.getaddrinfo(host, None, type=socket.SOCK_STREAM)
            except OSError as error:
                raise LaunchPostponed(f"the name {host}, which run pods reach, cannot be resolved: {error}") from error
            address = str(answers[0][4][0])
            if address != host:
                found[host] = address
        self._known_addresses = (time.monotonic(), found)
        return found

    async def _adopt(self, launch: AttemptLaunch, desired: dict[str, Any], conflict: ApiException) -> str:
        """Return the uid of the Job that is there, if it is the one that this launch would create.

        Without one the conflict was another, such as a quota's, and passes. A Job that has this connection's owner and
        differs, as a tenant or an earlier version of the controller made it, is deleted, and the launch is tried again.
        """
        job = await self._job(launch)
        if job is None:
            raise conflict
        found, wanted = JobShape.of(job), JobShape.of(desired)
        if (found.owners, found.labels) != (wanted.owners, wanted.labels):
            reason: Reason = "LaunchRefused"
            message = f"a Job named {launch.job_name} exists that is not this connection's; delete it"
            raise LaunchRefused(reason, message)
        if found.spec == (await self._rehearsed(launch, desired)).spec:
            return str(job["metadata"]["uid"])
        log.warning(
            "a Job that differs from the desired one is deleted", job=launch.job_name, namespace=launch.namespace
        )
        await self._delete_object((*JOBS, launch.namespace, "jobs", launch.job_name), found.resource_version)
        raise LaunchPostponed(f"a Job named {launch.job_name} differed from what the run needs; it was deleted")

    async def _rehearsed(self, launch: AttemptLaunch, desired: dict[str, Any]) -> JobShape:
        """Return what the API server makes of the Job, with its defaults and what admission changes; nothing is created."""
        create = self._objects.create_namespaced_custom_object
        try:
            return JobShape.of(await create(*JOBS, launch.namespace, "jobs", rehearsal_of(desired), dry_run="All"))
        except ApiException as error:
            raise LaunchPostponed(f"the API server did not make the run's Job: {_words(error)}") from error

    async def observe(self, launch: LaunchedAttempt) -> AttemptObservation:
        """Read the Job, and its pod when the Job failed or has not started."""
        job = await self._job(launch)
        if job is not None and launch.job_uid and job["metadata"]["uid"] != launch.job_uid:
            job = None
        done = {condition["type"] for condition in (job or {}).get("status", {}).get("conditions", [])}
        pod = await self._pod(launch) if job is not None and "Complete" not in done else None
        seen = observe_job(job, pod)
        if job is None or not wants_words(seen):
            return seen
        return told_by(seen, await self._warning(launch.namespace, pod or job), has_pod=pod is not None)

    async def _warning(self, namespace: str, about: dict[str, Any]) -> str:
        """Return the newest warning about a pod or a Job; an empty text if events may not be read."""
        if not self._may_read_events:
            return ""
        response = await self._core.list_namespaced_event_without_preload_content(
            namespace, field_selector=f"involvedObject.uid={about['metadata']['uid']},type=Warning"
        )
        try:
            events = (await _document(response))["items"]
        except ApiException as error:
            if error.status != HTTPStatus.FORBIDDEN:
                raise
            self._may_read_events = False
            log.warning("events not read", effect="statuses cannot show why a pod waits", error=_words(error))
            return ""
        newest = max(events, key=_moment_of, default=None)
        return str(newest.get("message", "")) if newest else ""

    async def observe_many(self, attempts: list[LaunchedAttempt]) -> dict[str, AttemptObservation]:
        """Read all Jobs and all pods that wait, page by page, instead of each attempt's.

        A Job that has ended or is not in the list is left out: the caller observes it by itself.
        """
        if not attempts:
            return {}
        wanted = {attempt.job_uid: attempt.job_name for attempt in attempts}
        waiting = {_attempt_of(pod): pod async for page in self._pages_of_waiting_pods() for pod in page}
        return {
            wanted[job["metadata"]["uid"]]: observe_job(job, waiting.get(_attempt_of(job)))
            async for page in self._pages_of_jobs()
            for job in page
            if job["metadata"]["uid"] in wanted and not is_over(job)
        }

    async def stop(self, launch: LaunchedAttempt) -> None:
        """Delete the Job and its pod."""
        await self._delete(launch.namespace, launch.job_name)

    async def retire(self, launch: LaunchedAttempt) -> None:
        """Delete the Job and its pod, now that the outcome is in the registry and the log is kept."""
        await self._delete(launch.namespace, launch.job_name)

    async def leftovers(self) -> AsyncIterator[list[LeftoverJob]]:
        """Yield the Jobs of this installation's runs, page by page, and delete the NetworkPolicies that no pod needs."""
        live = set[tuple[str, str]]()
        async for page in self._pages_of_jobs():
            live.update(_attempt_of(job) for job in page)
            yield [_leftover(job) for job in page]
        await self._delete_unused_network_policies(live)

    async def discard(self, leftover: LeftoverJob) -> None:
        """Delete a Job and its pod."""
        await self._delete(leftover.namespace, leftover.job_name)

    async def _delete(self, namespace: str, job_name: str) -> None:
        """Delete the Job and its pod. The pod's NetworkPolicy stays until the pod is gone."""
        await self._delete_object((*JOBS, namespace, "jobs", job_name))

    async def _delete_object(self, place: tuple[str, str, str, str, str], resource_version: str | None = None) -> None:
        """Delete an object with what it owns; with a version, only if it has not changed since. One that is gone is no error."""
        unchanged = {"preconditions": {"resourceVersion": resource_version}} if resource_version else {}
        options = {"propagationPolicy": "Background", **unchanged}
        try:
            await self._objects.delete_namespaced_custom_object(*place, body=options)
        except ApiException as error:
            changed = resource_version and error.status == HTTPStatus.CONFLICT
            if error.status != HTTPStatus.NOT_FOUND and not changed:
                raise

    async def _delete_unused_network_policies(self, live: set[tuple[str, str]]) -> None:
        """Delete the NetworkPolicies of attempts that have no Job and no pod. `live` are the attempts that have a Job."""
        if self._settings.egress is None:
            return
        unused = [
            policy
            async for page in self._pages_of_network_policies()
            for policy in page
            if _attempt_of(policy) not in live and _age(policy) > UNUSED_POLICY_SECONDS
        ]
        if not unused:
            return
        live = {_attempt_of(pod) async for page in self._pages_of_pods() for pod in page}
        for policy in unused:
            if _attempt_of(policy) not in live:
                metadata = _Metadata.of(policy)
                place = (*NETWORK_POLICIES, metadata.namespace, "networkpolicies", metadata.name)
                await self._delete_object(place, metadata.resource_version)

    async def _job(self, launch: LaunchedAttempt) -> dict[str, Any] | None:
        try:
            job = await self._objects.get_namespaced_custom_object(*JOBS, launch.namespace, "jobs", launch.job_name)
        except ApiException as error:
            if error.status == HTTPStatus.NOT_FOUND:
                return None
            raise
        return dict(job)

    async def _pod(self, launch: LaunchedAttempt) -> dict[str, Any] | None:
        """Return the attempt's pod. Of two pods, which a Job has if Kubernetes lost an answer, return the one that failed."""
        selector = f"{LABEL_RUN}={launch.run_id},{LABEL_ATTEMPT}={launch.attempt}"
        response = await self._core.list_namespaced_pod_without_preload_content(
            launch.namespace, label_selector=selector
        )
        pods = (await _document(response))["items"]
        failed = [pod for pod in pods if pod["status"].get("phase") == "Failed"]
        return next(iter([*failed, *pods]), None)

    async def _pages_of_jobs(self) -> AsyncIterator[list[dict[str, Any]]]:
        async for page in self._pages_of_objects(JOBS, "jobs"):
            yield page

    async def _pages_of_network_policies(self) -> AsyncIterator[list[dict[str, Any]]]:
        async for page in self._pages_of_objects(NETWORK_POLICIES, "networkpolicies"):
            yield page

    async def _pages_of_objects(self, group: tuple[str, str], plural: str) -> AsyncIterator[list[dict[str, Any]]]:
        chosen, objects = {"label_selector": self._selector}, self._objects
        reads = [
            functools.partial(objects.list_namespaced_custom_object, *group, namespace, plural, **chosen)
            for namespace in self._namespaces
        ]
        for read in reads or [functools.partial(objects.list_cluster_custom_object, *group, plural, **chosen)]:
            async for page in pages(read):
                yield page

    async def _pages_of_waiting_pods(self) -> AsyncIterator[list[dict[str, Any]]]:
        async for page in self._pages_of_pods(field_selector="status.phase=Pending"):
            yield page

    async def _pages_of_pods(self, **chosen: str) -> AsyncIterator[list[dict[str, Any]]]:
        chosen, core = {"label_selector": self._selector, **chosen}, self._core
        reads = [
            functools.partial(core.list_namespaced_pod_without_preload_content, namespace, **chosen)
            for namespace in self._namespaces
        ]
        for read in reads or [functools.partial(core.list_pod_for_all_namespaces_without_preload_content, **chosen)]:
            async for page in pages(_parsed(read)):
                yield page


def _parsed(read: Callable[..., Awaitable[Any]]) -> PageReader:
    async def page(**where: Any) -> dict[str, Any]:
        return await _document(await read(**where))

    return page


def _attempt_of(document: dict[str, Any]) -> tuple[str, str]:
    labels = document["metadata"].get("labels", {})
    return labels.get(LABEL_RUN, ""), labels.get(LABEL_ATTEMPT, "")


class _Metadata(BaseModel):
    """The metadata of a Kubernetes object, as far as it is read here."""

    model_config = ConfigDict(alias_generator=to_camel)

    name: str
    namespace: Namespace
    resource_version: str
    creation_timestamp: datetime

    @classmethod
    def of(cls, document: dict[str, Any]) -> Self:
        """Return an object's metadata."""
        return cls.model_validate(document.get("metadata"))


def _age(document: dict[str, Any]) -> float:
    """Return how many seconds ago an object was created."""
    return (datetime.now(UTC) - _Metadata.of(document).creation_timestamp).total_seconds()


def _moment_of(event: dict[str, Any]) -> str:
    series = event.get("series") or {}
    return str(series.get("lastObservedTime") or event.get("lastTimestamp") or event.get("eventTime") or "")


async def _document(response: Any) -> dict[str, Any]:
    """Return a raw response's JSON; the client checks the status of parsed responses only."""
    text = await response.text()
    if response.status != HTTPStatus.OK:
        raise ApiException(http_resp=response, body=text)
    document: dict[str, Any] = json.loads(text)
    return document


def _leftover(job: dict[str, Any]) -> LeftoverJob:
    ended = [
        datetime.fromisoformat(condition["lastTransitionTime"])
        for condition in job.get("status", {}).get("conditions", [])
        if condition["type"] in ("Complete", "Failed") and condition["status"] == "True"
    ]
    return LeftoverJob(job["metadata"]["namespace"], job["metadata"]["name"], ended[0] if ended else None)


def _refused(error: ApiException, kind: str) -> LaunchRefused:
    """Return the error for a refusal. If the operator lacks a right, that is not the connection's fault.

    An API server that starts has not read the rights yet, and forbids everything; a full quota has room again once
    other Jobs are gone.
    """
    reason: Reason = "LaunchRefused"
    words = _words(error)
    if error.status == HTTPStatus.FORBIDDEN and WANT_OF_RIGHTS in words:
        return LaunchRefused(
            reason, f"Penstock may not create the run's {kind}: {words}", "TransientError", passing=True
        )
    if OWN_POLICY.search(words):
        message = f"Penstock's admission policies refuse the run's {kind}; install the chart and the image of one version: {words}"
        return LaunchRefused(reason, message, "TransientError", passing=True)
    if any(phrase in words for phrase in QUOTA_WORDS):
        message = (
            f"the namespace's ResourceQuota has no room for the run's {kind}; raise it, or run less at once: {words}"
        )
        return LaunchRefused("QuotaExceeded", message, "TransientError", no_room=True)
    if any(phrase in words for phrase in PASSING_WORDS):
        return LaunchRefused(
            reason, f"Kubernetes does not take the run's {kind} now: {words}", "TransientError", passing=True
        )
    return LaunchRefused(reason, f"Kubernetes refuses the run's {kind}: {words}")


def _words(error: ApiException) -> str:
    try:
        return str(json.loads(error.body or "{}").get("message", error.reason))
    except ValueError:
        return str(error.reason)
