"""Logs of pods, through the API server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

from aiohttp import ClientError, ClientResponse
from kubernetes.aio import client

from penstock_operator.launchers.logs import LogGone

OK, BAD_REQUEST, NOT_FOUND = 200, 400, 404
STREAM_SECONDS = 600.0
AGAIN_SECONDS = 1.0


class PodLogs:
    """Reads an attempt's log from its pod.

    Every line comes with its time, which is taken off again: a stream that was cut goes on after the newest line seen.
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
        newest = b""
        while True:
            try:
                pod = await self._pod(namespace, job_name)
                ended = _has_ended(pod)
                async for at, line in self._lines(pod, follow=not ended):
                    if at > newest:
                        newest = at
                        yield line
            except LogGone:
                if not newest:
                    raise
                return
            except (ClientError, TimeoutError):
                ended = False
            if ended:
                return
            await asyncio.sleep(AGAIN_SECONDS)

    async def _pod(self, namespace: str, job_name: str) -> Any:
        pods = await self._core.list_namespaced_pod(namespace, label_selector=f"job-name={job_name}")
        if not pods.items:
            raise LogGone("the attempt's pod is gone, or was never made")
        return pods.items[0]

    async def _lines(self, pod: Any, *, follow: bool) -> AsyncGenerator[tuple[bytes, bytes]]:
        response: ClientResponse = await self._core.read_namespaced_pod_log_without_preload_content(
            pod.metadata.name, pod.metadata.namespace, follow=follow, timestamps=True, _request_timeout=STREAM_SECONDS
        )
        async with response:
            if response.status in (BAD_REQUEST, NOT_FOUND):
                raise LogGone("the attempt's container has not started, or its pod is gone")
            if response.status != OK:
                raise ClientError(f"the API server answered HTTP {response.status} to a request for a pod's log")
            try:
                async for line in response.content:
                    at, _, text = line.partition(b" ")
                    yield at, text
            except ValueError as error:
                raise LogGone("a line of the log is too long to be read through the API server") from error


def _has_ended(pod: Any) -> bool:
    statuses = pod.status.container_statuses or []
    return pod.status.phase in ("Succeeded", "Failed") or any(each.state.terminated for each in statuses)
