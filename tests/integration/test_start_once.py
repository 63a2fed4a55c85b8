"""A start whose answer is lost is repeated by the SDK, and gets the same token."""

from __future__ import annotations

import asyncio

import httpx
from penstock_sdk import protocol as wire
from penstock_sdk._runtime.client import RetryPolicy, RunClient

from tests.integration.test_run_api import Server, platform  # noqa: F401 - a fixture
from tests.run_api.pods import START_KEY, Pod


async def test_the_sdk_repeats_a_start_whose_answer_was_lost(platform: Server) -> None:  # noqa: F811 - the fixture
    number, token = await platform.next_attempt()
    loop, answers = asyncio.get_running_loop(), list[httpx.Response]()

    def lose_the_first(request: httpx.Request) -> httpx.Response:
        call = platform.http.post(request.url.path.rsplit("/", 1)[1], content=request.content, headers=request.headers)
        answers.append(asyncio.run_coroutine_threadsafe(call, loop).result())
        if len(answers) == 1:
            raise httpx.ReadError("the answer is lost", request=request)
        return httpx.Response(answers[-1].status_code, content=answers[-1].content)

    pod = Pod(platform, number, token)
    request = wire.StartRequest.model_validate(pod.start_request(key=START_KEY))
    patient = RetryPolicy(seconds=5, sleep=lambda _: None)
    client = RunClient("http://penstock", token, patient, httpx.MockTransport(lose_the_first))
    start = await asyncio.to_thread(client.start, request)
    assert [answer.status_code for answer in answers] == [200, 200]
    assert [answer.json()["run_token"] for answer in answers] == [start.run_token] * 2
    assert await asyncio.to_thread(client.heartbeat, wire.HeartbeatRequest()) == wire.HeartbeatResponse()
    client.close()
