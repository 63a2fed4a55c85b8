"""Plays the pods of fake nodes: each speaks the run protocol over HTTP with a real token of its own, and ends.

A token is requested for the pod's service account, bound to the pod, so that the server's TokenReview is the real one.
The checkpoint carries no object: what is measured is the control plane.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from control_plane_cluster import Api
from penstock_sdk import protocol as wire

RUN, ATTEMPT = "penstock.io/run", "penstock.io/attempt"
IDENTITY = wire.ConnectorIdentity(name="faker", method="generate", version="0.1.0")
STREAM = wire.DiscoveredStream(name="people", schema_={"type": "object"}, primary_key=["n"], modes=["incremental"])
NOT_READY = 425


@dataclass
class Player:
    """Watches Jobs and pods; remembers when each run's first Job was seen, and how the runs ended."""

    api: Api
    server: str
    hold: float
    jobs: dict[str, float] = field(default_factory=dict)
    finished: dict[str, float] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)
    _played: set[str] = field(default_factory=set)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    async def run(self) -> None:
        """Play until cancelled."""
        async with (
            aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=32)) as session,
            asyncio.TaskGroup() as group,
        ):
            group.create_task(self._watch_jobs())
            group.create_task(self._watch_pods(session))

    async def _watch_jobs(self) -> None:
        async for event in self.api.watch(f"/apis/batch/v1/jobs?labelSelector={RUN}"):
            if event["type"] == "ADDED":
                self.jobs.setdefault(event["object"]["metadata"]["labels"][RUN], time.time())

    async def _watch_pods(self, session: aiohttp.ClientSession) -> None:
        places = asyncio.Semaphore(64)
        async for event in self.api.watch(f"/api/v1/pods?labelSelector={RUN}"):
            pod = event["object"]
            running = event["type"] in ("ADDED", "MODIFIED") and pod.get("status", {}).get("phase") == "Running"
            if running and pod["metadata"]["uid"] not in self._played:
                self._played.add(pod["metadata"]["uid"])
                task = asyncio.create_task(self._play(session, places, pod))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

    async def _play(self, session: aiohttp.ClientSession, places: asyncio.Semaphore, pod: dict[str, Any]) -> None:
        labels = pod["metadata"]["labels"]
        try:
            async with places:
                token = await self._begin(session, pod)
            await asyncio.sleep(self.hold)
            async with places:
                await self._end(session, pod, token)
            self.finished[labels[RUN]] = time.time()
        except (RuntimeError, aiohttp.ClientError, TimeoutError) as error:
            self.errors.append(f"{labels[RUN]}: {type(error).__name__}: {error}")

    async def _begin(self, session: aiohttp.ClientSession, pod: dict[str, Any]) -> str:
        meta = pod["metadata"]
        request = wire.StartRequest(
            run=meta["labels"][RUN],
            attempt=int(meta["labels"][ATTEMPT]),
            connector=IDENTITY,
            sdk_version="0",
            key=secrets.token_urlsafe(32),
        )
        mine = await self._token(meta)
        for _ in range(60):
            status, answer = await self._post(session, "start", mine, request)
            if status != NOT_READY:
                break
            await asyncio.sleep(0.5)
        return str(answer["run_token"])

    async def _token(self, meta: dict[str, Any]) -> str:
        bound = {"kind": "Pod", "apiVersion": "v1", "name": meta["name"], "uid": meta["uid"]}
        spec = {"audiences": [wire.TOKEN_AUDIENCE], "expirationSeconds": 3600, "boundObjectRef": bound}
        path = f"/api/v1/namespaces/{meta['namespace']}/serviceaccounts/default/token"
        body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
        return str((await self.api.call("POST", path, body))["status"]["token"])

    async def _end(self, session: aiohttp.ClientSession, pod: dict[str, Any], token: str) -> None:
        verdict = (await self._post(session, "streams", token, wire.StreamsRequest(streams=[STREAM])))[1]["verdicts"][0]
        number = verdict["selected"]["checkpoint"] + 1
        checkpoint = wire.CheckpointRequest(
            stream="people", checkpoint=number, cursor={"n": number}, objects=[], done=True
        )
        await self._post(session, "checkpoints", token, checkpoint)
        await self._post(session, "finish", token, wire.FinishRequest(outcome="succeeded", records={"people": 0}))
        meta = pod["metadata"]
        path = f"/api/v1/namespaces/{meta['namespace']}/pods/{meta['name']}/status"
        await self.api.call("PATCH", path, {"status": _ended(pod)}, "application/merge-patch+json")

    async def _post(
        self, session: aiohttp.ClientSession, call: str, token: str, body: wire.Message
    ) -> tuple[int, dict[str, Any]]:
        """Send a call, and send it again when its connection breaks, as a connector would."""
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        url, data = f"{self.server}/v1/attempts/{call}", body.model_dump_json(by_alias=True)
        for last in (False, False, True):
            try:
                async with session.post(url, data=data, headers=headers) as answer:
                    if answer.status >= 300 and answer.status != NOT_READY:
                        raise RuntimeError(f"{call}: {answer.status} {(await answer.text())[:200]}")
                    return answer.status, dict(await answer.json())
            except aiohttp.ClientConnectionError:
                if last:
                    raise
        raise AssertionError


def _ended(pod: dict[str, Any]) -> dict[str, Any]:
    """Return the status of a pod whose connector ended with exit code 0."""
    container = pod["spec"]["containers"][0]
    at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    ended = {"exitCode": 0, "reason": "Completed", "startedAt": at, "finishedAt": at}
    status = {
        "name": container["name"],
        "image": container["image"],
        "imageID": "",
        "ready": False,
        "started": False,
        "restartCount": 0,
        "state": {"terminated": ended},
    }
    return {"phase": "Succeeded", "containerStatuses": [status]}
