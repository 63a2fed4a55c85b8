"""A pod that calls the run API, and the platform that it calls: the server or its double."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol

import httpx
from penstock_sdk import protocol as wire

IDENTITY = wire.ConnectorIdentity(name="faker", method="generate", version="0.1.0")
SELECTED: tuple[tuple[str, wire.Mode], ...] = (("people", "incremental"), ("events", "full"))
CREDENTIAL = "refresh_token"
"""The credential that the manifest declares."""
START_KEY = "the-key-of-the-process-of-one-pod"
BUDGET = 100
"""Records that the connection's budget allows."""
RATE_LIMITS = [{"host": "https://source.test/v1", "requests": 40, "seconds": 60}]
"""The rate limits of the manifest: two requests at once, and then one every 1.6 seconds."""
REJECTS = wire.RejectRules(max_records=5, max_share=0.5)
"""The thresholds of the connection."""
WINDOW = wire.ReadWindow(start=datetime(2026, 1, 1, tzinfo=UTC), end=datetime(2026, 1, 2, tzinfo=UTC))
"""The time span that the run of `window_platform` reads again."""


@dataclass(frozen=True)
class Answer:
    """What a call was answered."""

    status: int
    body: dict[str, Any]

    @property
    def code(self) -> str | None:
        """The code of a refusal, None where the call was carried out or its body is malformed."""
        return self.body.get("code")

    @property
    def refusal(self) -> tuple[int, str | None]:
        """Status and code."""
        return self.status, self.code


class Platform(Protocol):
    """One run, and what happens to it beside the calls of its pods."""

    run: str
    http: httpx.AsyncClient

    async def next_attempt(self) -> tuple[int, str]:
        """Give up the attempt there was, if any, and return the number of the next and its pod's token."""

    async def next_attempt_without_job(self) -> tuple[int, str]:
        """As `next_attempt`, and the platform does not know the attempt's Job yet: its pod is faster."""

    async def record_job(self) -> None:
        """Have the platform know the Job of that attempt."""

    async def request_cancel(self) -> None:
        """Have somebody ask for the run's cancellation."""


@dataclass
class Pod:
    """An attempt's pod: it calls the run API as the SDK does, and sees every answer."""

    platform: Platform
    attempt: int
    token: str
    run_token: str = ""

    async def call(self, path: str, body: dict[str, Any], token: str | None = None) -> Answer:
        """Send a call with the run token, or with another one."""
        headers = {"Authorization": f"Bearer {self.run_token if token is None else token}"}
        response = await self.platform.http.post(path, json=body, headers=headers)
        return Answer(response.status_code, response.json())

    def start_request(self, **other: Any) -> dict[str, Any]:
        """Return the body of `start`."""
        connector = IDENTITY.model_dump()
        request = {"run": self.platform.run, "attempt": self.attempt, "connector": connector, "sdk_version": "1"}
        request["key"] = START_KEY
        return request | other

    async def start(self, token: str | None = None, **other: Any) -> Answer:
        """Claim the attempt, with the pod's token or another one."""
        answer = await self.call("start", self.start_request(**other), self.token if token is None else token)
        self.run_token = answer.body.get("run_token", self.run_token)
        return answer
