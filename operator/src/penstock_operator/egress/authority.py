"""What a run may reach, and where its denials are kept: the run API says, and is told. The gateway has no other rights."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Protocol

import httpx
from penstock_sdk import protocol as wire
from penstock_sdk.manifest import EgressRule

from penstock_operator.ids import AttemptNumber, RunId

KNOWN_SECONDS = 30.0
"""How long an answer counts: an ended attempt keeps its tunnels for this time at most."""
MOST_KNOWN = 10_000


@dataclass(frozen=True, slots=True)
class RunEgress:
    """The destinations of one attempt. `platform` are those that the platform itself names, such as its bucket."""

    run: RunId
    attempt: AttemptNumber
    rules: tuple[EgressRule, ...]
    platform: tuple[EgressRule, ...] = ()

    def rule_for(self, host: str, port: int) -> EgressRule | None:
        """Return the rule of the manifest that covers a host and a port."""
        return next((rule for rule in self.rules if rule.allows(host, port)), None)

    def is_platform(self, host: str, port: int) -> bool:
        """Say whether a host and a port are the platform's own."""
        return any(rule.allows(host, port) for rule in self.platform)


class UnknownRun(Exception):  # noqa: N818 - a refusal
    """The token is not the one of an attempt that runs."""


class AuthorityUnavailable(Exception):  # noqa: N818 - nobody refused
    """The run API does not answer; nothing is let through meanwhile."""


class EgressAuthority(Protocol):
    """Knows what runs may reach, and keeps what they did."""

    async def egress_of(self, token: str) -> RunEgress:
        """Return what the attempt of a run token may reach. Raises UnknownRun or AuthorityUnavailable."""

    async def report(self, token: str, report: wire.EgressReport) -> None:
        """Keep denials and bytes of the attempt. Raises AuthorityUnavailable."""


class RunApiAuthority:
    """Asks the run API with the run's own token, and remembers the answers for a moment."""

    def __init__(self, client: httpx.AsyncClient, clock: Callable[[], float] = time.monotonic) -> None:
        self._client = client
        self._clock = clock
        self._known: dict[bytes, tuple[float, RunEgress]] = {}

    async def egress_of(self, token: str) -> RunEgress:
        """Return what the attempt of a run token may reach."""
        key = hashlib.sha256(token.encode()).digest()
        until, known = self._known.get(key, (0.0, None))
        if known is not None and self._clock() < until:
            return known
        self._known.pop(key, None)
        response = await self._post("egress", token, wire.EgressRequest())
        answer = wire.EgressResponse.model_validate_json(response.content)
        found = RunEgress(
            RunId(answer.run), AttemptNumber(answer.attempt), _rules(answer.destinations), _rules(answer.platform)
        )
        if len(self._known) >= MOST_KNOWN:
            self._known.clear()
        self._known[key] = (self._clock() + KNOWN_SECONDS, found)
        return found

    async def report(self, token: str, report: wire.EgressReport) -> None:
        """Keep denials and bytes of the attempt."""
        await self._post("egress/report", token, report)

    async def _post(self, path: str, token: str, message: wire.Message) -> httpx.Response:
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        try:
            response = await self._client.post(
                f"/v1/attempts/{path}", content=message.model_dump_json(), headers=headers
            )
        except httpx.HTTPError as error:
            raise AuthorityUnavailable(f"the run API does not answer: {type(error).__name__}") from error
        if response.status_code in (HTTPStatus.UNAUTHORIZED, HTTPStatus.CONFLICT):
            raise UnknownRun
        if not response.is_success:
            raise AuthorityUnavailable(f"the run API answered HTTP {response.status_code}")
        return response


def _rules(destinations: list[wire.EgressDestination]) -> tuple[EgressRule, ...]:
    return tuple(EgressRule(place.host, place.port, place.private) for place in destinations)
