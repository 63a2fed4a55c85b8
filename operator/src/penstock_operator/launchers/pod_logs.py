"""Logs of pods, through the API server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from http import HTTPStatus
from typing import Any

from aiohttp import ClientError, ClientResponse
from kubernetes.aio import client

from penstock_operator.launchers.jobs import LABEL_RUN
from penstock_operator.launchers.logs import LogNotFound, LogUnreadable

STREAM_SECONDS = 600.0
AGAIN_SECONDS = 1.0


class PodLogs:
    """Reads an attempt's log from its pod, and the log of no other pod: RBAC cannot limit the right to the pods of runs.

    Every line comes with its timestamp, which is removed again: a stream that was cut continues after the newest line seen.
    """

    def __init__(self, api: client.ApiClient) -> None:
        self._core = client.CoreV1Api(api)

    async def read(self, namespace: str, job_name: str) -> AsyncGenerator[bytes]:
        """Yield what the pod has printed."""
        pod = await self._pod(namespace, job_name)
        async for _, line in self._lines(pod, follow=False):
            yield line

    async def follow(self, namespace: str, job_name: str) -> AsyncGenerator[bytes]:
        """Yield what the pod has printed and what it prints, until its container has ended."""
        newest, ended = b"", False
        while True:
            try:
                pod = await self._pod(namespace, job_name)
                ended = _has_ended(pod)
                async for at, line in self._lines(pod, follow=not ended):
                    if at > newest:
                        newest = at
                        yield line
            except LogUnreadable:
                if ended or not newest:
                    raise
                await asyncio.sleep(AGAIN_SECONDS)
            except LogNotFound:
                if not newest:
                    raise
                return
            if ended:
                return
            if not await self._has_ended_by_now(namespace, job_name):
                await asyncio.sleep(AGAIN_SECONDS)

    def forget(self, job_name: str) -> None:
        """Do nothing: a pod's log goes with the pod."""

    async def _has_ended_by_now(self, namespace: str, job_name: str) -> bool:
        try:
            return _has_ended(await self._pod(namespace, job_name))
        except LogUnreadable:
            return False
        except LogNotFound:
            return True

    async def _pod(self, namespace: str, job_name: str) -> dict[str, Any]:
        """Return the pod as a plain document: the client's models cost several times the request itself.

        The API server's cache is read first: a read of etcd takes a second on a busy server.
        """
        try:
            found = await self._pods(namespace, job_name, resource_version="0") or await self._pods(namespace, job_name)
        except (ClientError, TimeoutError) as error:
            raise LogUnreadable(f"the API server did not answer: {type(error).__name__}") from error
        if not found:
            raise LogNotFound("the attempt's pod is gone, or was never made")
        return found[0]

    async def _pods(self, namespace: str, job_name: str, **version: str) -> list[dict[str, Any]]:
        response = await self._core.list_namespaced_pod_without_preload_content(
            namespace, label_selector=f"job-name={job_name},{LABEL_RUN}", **version
        )
        async with response:
            if response.status != HTTPStatus.OK:
                raise LogUnreadable(f"the API server answered HTTP {response.status} when asked for the pod")
            pods: list[dict[str, Any]] = (await response.json())["items"]
            return [pod for pod in pods if _is_controlled_by(pod, job_name)]

    async def _lines(self, pod: dict[str, Any], *, follow: bool) -> AsyncGenerator[tuple[bytes, bytes]]:
        try:
            response: ClientResponse = await self._core.read_namespaced_pod_log_without_preload_content(
                pod["metadata"]["name"],
                pod["metadata"]["namespace"],
                follow=follow,
                timestamps=True,
                _request_timeout=STREAM_SECONDS,
            )
            async with response:
                if response.status in (HTTPStatus.BAD_REQUEST, HTTPStatus.NOT_FOUND):
                    raise LogNotFound("the attempt's container has not started, or its pod is gone")
                if response.status != HTTPStatus.OK:
                    raise LogUnreadable(f"the API server answered HTTP {response.status} when asked for the pod's log")
                async for line in response.content:
                    at, _, text = line.partition(b" ")
                    yield at, text
        except (ClientError, TimeoutError, ValueError) as error:  # a ValueError: a line of more than 4 MiB
            raise LogUnreadable(f"the pod's log broke off: {type(error).__name__}") from error


def _is_controlled_by(pod: dict[str, Any], job_name: str) -> bool:
    """Return True if the Job controls the pod: labels alone do not make a pod one of a run."""
    return any(
        owner.get("controller") and (owner.get("kind"), owner.get("name")) == ("Job", job_name)
        for owner in pod.get("metadata", {}).get("ownerReferences") or []
    )


def _has_ended(pod: dict[str, Any]) -> bool:
    status = pod.get("status", {})
    containers = status.get("containerStatuses") or []
    return status.get("phase") in ("Succeeded", "Failed") or any(
        "terminated" in (container.get("state") or {}) for container in containers
    )
