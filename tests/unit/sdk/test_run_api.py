"""The SDK's double of the platform passes the contract of the run protocol, and looks into its bucket."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from penstock_sdk import protocol as wire
from penstock_sdk.manifest import RateRule
from penstock_sdk.testing import RunApi
from penstock_sdk.testing.run_api import RUN

from tests.run_api.contract import (  # noqa: F401 - collected here, on this module's platform
    TestCheckpoints,
    TestCredentialLeases,
    TestCredentials,
    TestEstimate,
    TestEveryCall,
    TestFinish,
    TestHeartbeat,
    TestRateLimit,
    TestStart,
    TestStreams,
    TestUploads,
    TestWindow,
    checkpoint,
    discovered,
    pod,
    uploaded,
    window_pod,
)
from tests.run_api.pods import BUDGET, CREDENTIAL, IDENTITY, REJECTS, SELECTED, WINDOW, Platform, Pod


class Double:
    """The SDK's double."""

    run = RUN

    def __init__(self, api: RunApi, http: httpx.AsyncClient) -> None:
        self.http = http
        self._api = api

    async def next_attempt(self) -> tuple[int, str]:
        return self._api.next_attempt(), self._api.token

    async def next_attempt_without_job(self) -> tuple[int, str]:
        return self._api.next_attempt(has_job=False), self._api.token

    async def record_job(self) -> None:
        self._api.record_job()

    async def request_cancel(self) -> None:
        self._api.cancel_requested = True


@asynccontextmanager
async def opened(window: wire.ReadWindow | None = None) -> AsyncIterator[Platform]:
    """Open the double."""
    selected = [wire.SelectedStream(name=name, mode=mode) for name, mode in SELECTED]
    with RunApi(
        IDENTITY,
        {},
        selected=selected,
        declared={CREDENTIAL},
        budget=wire.StreamEstimate(records=BUDGET),
        rejects=REJECTS,
        window=window,
        rate_limits=[RateRule("source.test", 443, 40, 60)],
    ) as api:
        async with httpx.AsyncClient(base_url=f"{api.url}/v1/attempts/") as http:
            yield Double(api, http)


@pytest.fixture
async def platform() -> AsyncIterator[Platform]:
    """The double."""
    async with opened() as double:
        yield double


@pytest.fixture
async def window_platform() -> AsyncIterator[Platform]:
    """The double, with a run that reads a time span again."""
    async with opened(WINDOW) as double:
        yield double


@pytest.mark.parametrize("other", [{"bytes": 1}, {"sha256": "0" * 64}, {"by_op": {"delete": 1}}], ids=str)
async def test_an_object_that_is_not_in_the_bucket_as_it_was_described_is_refused(
    pod: Pod,  # noqa: F811 - the fixture
    other: dict[str, Any],
) -> None:
    await discovered(pod)
    described = await uploaded(pod, 1)
    answer = await pod.call("checkpoints", checkpoint(1, described | other))
    assert answer.refusal == (409, "mismatch")
    assert (await pod.call("checkpoints", checkpoint(1, described))).status == 200
