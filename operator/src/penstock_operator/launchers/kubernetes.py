"""The launcher of a cluster: one Job per attempt."""

from __future__ import annotations

import json
from typing import Any

from kubernetes.aio import client
from kubernetes.aio.client.exceptions import ApiException

from penstock_operator.launchers import Launch, LaunchRefused, Observation
from penstock_operator.launchers.jobs import LABEL_ATTEMPT, LABEL_RUN, JobSettings, desired_job, observe_job
from penstock_operator.resources.conditions import Reason

NOT_FOUND, CONFLICT, FORBIDDEN, UNPROCESSABLE = 404, 409, 403, 422


class KubernetesLauncher:
    """Carries attempts as Jobs in their connections' namespaces."""

    def __init__(self, api: client.ApiClient, settings: JobSettings, ttl_seconds: int) -> None:
        self._api = api
        self._batch = client.BatchV1Api(api)
        self._core = client.CoreV1Api(api)
        self._settings = settings
        self._ttl = ttl_seconds

    async def launch(self, launch: Launch) -> str:
        """Create the Job, or adopt the one that an earlier call created before it could be recorded."""
        try:
            job = await self._batch.create_namespaced_job(launch.namespace, desired_job(launch, self._settings))
        except ApiException as error:
            if error.status == CONFLICT:
                return await self._adopt(launch)
            if error.status in (FORBIDDEN, UNPROCESSABLE, NOT_FOUND):
                reason: Reason = "LaunchRefused"
                message = f"Kubernetes refuses the run's Job: {_words(error)}"
                raise LaunchRefused(reason, message) from None
            raise
        return str(job.metadata.uid)

    async def _adopt(self, launch: Launch) -> str:
        job = await self._job(launch)
        owners = [each["uid"] for each in (job or {}).get("metadata", {}).get("ownerReferences", [])]
        if job is None or launch.connection_uid not in owners:
            reason: Reason = "LaunchRefused"
            message = f"a Job named {launch.job_name} exists that is not this connection's; delete it"
            raise LaunchRefused(reason, message)
        return str(job["metadata"]["uid"])

    async def observe(self, launch: Launch) -> Observation:
        """Read the Job, and its pod when the Job failed or has not started."""
        job = await self._job(launch)
        if job is not None and launch.job_uid and job["metadata"]["uid"] != launch.job_uid:
            job = None
        done = {each["type"] for each in (job or {}).get("status", {}).get("conditions", [])}
        pod = await self._pod(launch) if job is not None and "Complete" not in done else None
        return observe_job(job, pod)

    async def stop(self, launch: Launch) -> None:
        """Delete the Job and its pod."""
        try:
            await self._batch.delete_namespaced_job(launch.job_name, launch.namespace, propagation_policy="Background")
        except ApiException as error:
            if error.status != NOT_FOUND:
                raise

    async def retire(self, launch: Launch) -> None:
        """Give the Job a time to live, now that its outcome is in the registry."""
        patch = {"spec": {"ttlSecondsAfterFinished": self._ttl}}
        try:
            await self._batch.patch_namespaced_job(launch.job_name, launch.namespace, patch)
        except ApiException as error:
            if error.status != NOT_FOUND:
                raise

    async def _job(self, launch: Launch) -> dict[str, Any] | None:
        try:
            job = await self._batch.read_namespaced_job(launch.job_name, launch.namespace)
        except ApiException as error:
            if error.status == NOT_FOUND:
                return None
            raise
        return self._plain(job)

    async def _pod(self, launch: Launch) -> dict[str, Any] | None:
        selector = f"{LABEL_RUN}={launch.run_id},{LABEL_ATTEMPT}={launch.attempt}"
        pods = await self._core.list_namespaced_pod(launch.namespace, label_selector=selector)
        return self._plain(pods.items[0]) if pods.items else None

    def _plain(self, value: object) -> dict[str, Any]:
        plain: dict[str, Any] = self._api.sanitize_for_serialization(value)
        return plain


def _words(error: ApiException) -> str:
    try:
        return str(json.loads(error.body or "{}").get("message", error.reason))
    except ValueError:
        return str(error.reason)
