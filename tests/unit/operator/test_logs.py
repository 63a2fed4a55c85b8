"""A kept log is bounded, and loses its middle only; a pod's is read to its last line."""

from __future__ import annotations

from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st
from kubernetes.aio import client
from penstock_operator.launchers.logs import LogNotFound, LogUnreadable
from penstock_operator.launchers.pod_logs import PodLogs
from penstock_operator.logs.keeper import HeadAndTail


@given(st.lists(st.binary(max_size=300), max_size=200), st.integers(40, 4000))
def test_a_kept_text_is_bounded_and_has_both_ends(chunks: list[bytes], limit: int) -> None:
    kept, whole = HeadAndTail(limit), b"".join(chunks)
    for chunk in chunks:
        kept.add(chunk)
    text = kept.text()
    assert kept.total == len(whole)
    if kept.left_out is None:
        assert text == whole
    else:
        assert len(text) <= limit + limit // 4 + 600, "a line may be longer than the room that is left for it"
        head, _, tail = text.partition("… ".encode())
        assert whole.startswith(head)
        assert whole.endswith(tail.partition(b"\n")[2])


class Cluster:
    """An API server's answers about one pod's log: the stream breaks off once, the pod ends, and then goes away."""

    def __init__(self) -> None:
        self.phase, self.exists, self.waiting, self.cut = "Running", True, False, False
        self.broken = self.behind = False
        self.lines: list[str] = []
        self.owners = [{"apiVersion": "batch/v1", "kind": "Job", "name": "job", "uid": "u", "controller": True}]

    async def pods(self, request: web.Request) -> web.Response:
        assert request.query["labelSelector"] == "job-name=job,penstock.io/run"
        status = {"phase": self.phase, "containerStatuses": []}
        metadata = {"name": "pod", "namespace": "team", "ownerReferences": self.owners}
        pod = {"metadata": metadata, "spec": {"containers": []}, "status": status}
        seen = self.exists and not (self.behind and request.query.get("resourceVersion") == "0")
        return web.json_response({"kind": "PodList", "apiVersion": "v1", "items": [pod] if seen else []})

    async def log(self, request: web.Request) -> web.StreamResponse:
        assert request.query["timestamps"] == "true"
        if self.broken:
            return web.Response(status=500)
        if self.waiting:
            return web.json_response({"message": "container is waiting to start"}, status=400)
        answer = web.StreamResponse()
        await answer.prepare(request)
        for number, line in enumerate(self.lines):
            await answer.write(f"2026-01-01T00:00:{number:02d}.000000000Z {line}\n".encode())
            if self.cut and number == 1:
                self.cut, self.phase = False, "Failed"
                assert request.transport is not None
                request.transport.abort()
                return answer
        await answer.write_eof()
        return answer


@pytest.fixture
async def cluster() -> AsyncIterator[SimpleNamespace]:
    served = Cluster()
    app = web.Application()
    app.router.add_get("/api/v1/namespaces/team/pods", served.pods)
    app.router.add_get("/api/v1/namespaces/team/pods/pod/log", served.log)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    configuration = client.Configuration(host=f"http://127.0.0.1:{runner.addresses[0][1]}")
    async with client.ApiClient(configuration) as api:
        yield SimpleNamespace(served=served, logs=PodLogs(api))
    await runner.cleanup()


async def text_of(lines: Any) -> str:
    return b"".join([line async for line in lines]).decode()


async def test_a_stream_that_breaks_off_goes_on_after_the_last_line_seen(cluster: SimpleNamespace) -> None:
    cluster.served.lines, cluster.served.cut = ["one", "two", "three", "last words"], True
    assert await text_of(cluster.logs.follow("team", "job")) == "one\ntwo\nthree\nlast words\n"


async def test_a_pod_that_is_gone_or_has_not_begun_has_no_log(cluster: SimpleNamespace) -> None:
    cluster.served.waiting = True
    for read in (cluster.logs.read, cluster.logs.follow):
        with pytest.raises(LogNotFound, match="has not started"):
            await text_of(read("team", "job"))
    cluster.served.exists = False
    with pytest.raises(LogNotFound, match="gone"):
        await text_of(cluster.logs.follow("team", "job"))


@pytest.mark.parametrize("changed", [{"controller": False}, {"name": "another"}, {"kind": "ReplicaSet"}])
async def test_a_pod_that_only_has_the_labels_is_not_read(cluster: SimpleNamespace, changed: dict[str, Any]) -> None:
    cluster.served.lines = ["one"]
    cluster.served.owners = [{**cluster.served.owners[0], **changed}]
    with pytest.raises(LogNotFound, match="gone"):
        await text_of(cluster.logs.read("team", "job"))


async def test_a_pod_that_the_api_server_has_yet_to_hear_of_has_a_log(cluster: SimpleNamespace) -> None:
    cluster.served.lines, cluster.served.behind = ["one", "two"], True
    assert await text_of(cluster.logs.read("team", "job")) == "one\ntwo\n"


async def test_a_log_that_cannot_be_read_now_is_not_said_to_be_gone(cluster: SimpleNamespace) -> None:
    cluster.served.broken, cluster.served.phase = True, "Failed"
    with pytest.raises(LogUnreadable, match="HTTP 500"):
        await text_of(cluster.logs.follow("team", "job"))
