"""A credential that the source replaces is kept before it is used, given to the next attempt, and never shown."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import pytest
from penstock_sdk import Batch, Connector, Stream
from penstock_sdk import protocol as wire
from penstock_sdk._runtime.assignment import Assignment
from penstock_sdk._runtime.client import RunClient
from penstock_sdk._runtime.run import run_connector
from penstock_sdk.testing.run_api import RUN

from tests.unit.sdk.conftest import IDENTITY, Platform, error


class Rotating(Connector[dict[str, Any], dict[str, str]]):
    """Its source takes each refresh token once, and hands out the next one."""

    seen: list[str]

    def authenticate(self) -> None:
        number = int(self.credentials["refresh_token"].removeprefix("refresh-token-"))
        type(self).seen.append(self.credentials["refresh_token"])
        self.keep_credential("refresh_token", f"refresh-token-{number + 1}")

    def discover(self) -> list[Stream]:
        logging.getLogger("connector").warning("the source gave refresh-token-2")
        return [Stream(name="people", schema={"type": "object"})]

    def read(self, stream: Stream, since: datetime | None, cursor: Any) -> Iterator[Batch]:
        return iter(())


@pytest.fixture
def rotating() -> type[Rotating]:
    Rotating.seen = []
    return Rotating


def attempt(platform: Platform, client: RunClient, secret: str = "refresh-token-1") -> int:
    credentials = {"refresh_token": secret}
    return run_connector(Assignment(RUN, platform.attempt, IDENTITY, lambda: Rotating, credentials), client)


def fresh(platform: Platform) -> RunClient:
    platform.next_attempt()
    return RunClient(platform.url, platform.token)


def test_the_next_attempt_goes_on_with_what_was_kept(platform: Platform, rotating: type[Rotating]) -> None:
    assert attempt(platform, fresh(platform)) == 0
    assert attempt(platform, fresh(platform)) == 0
    assert rotating.seen == ["refresh-token-1", "refresh-token-2"]
    assert platform.kept["refresh_token"].value == "refresh-token-3"


def test_a_new_value_in_the_secret_goes_before_what_was_kept(platform: Platform, rotating: type[Rotating]) -> None:
    assert attempt(platform, fresh(platform)) == 0
    assert attempt(platform, fresh(platform), secret="refresh-token-70") == 0
    assert rotating.seen == ["refresh-token-1", "refresh-token-70"]


def test_a_lost_reply_loses_no_credential(platform: Platform, client: RunClient, rotating: type[Rotating]) -> None:
    platform.lose_reply.append("credentials")
    assert attempt(platform, client) == 0
    assert platform.kept["refresh_token"].value == "refresh-token-2"


def test_a_platform_that_keeps_none_is_named(platform: Platform, client: RunClient, rotating: type[Rotating]) -> None:
    platform.refuse["credentials"] = [error(422, "invalid", "the platform has no key")]
    assert attempt(platform, client) == 10
    assert platform.finished[0].error == wire.RunError(error_class="ConfigError", message="the platform has no key")


def test_11_a_replaced_value_is_masked_too(platform: Platform, client: RunClient) -> None:
    assignment = Assignment(RUN, platform.attempt, IDENTITY, lambda: Rotating, {"refresh_token": "refresh-token-1"})
    Rotating.seen = []
    run_connector(assignment, client)
    assert assignment.mask("refresh-token-1 refresh-token-2") == "*** ***"


def test_without_a_platform_it_is_kept_nowhere() -> None:
    Rotating.seen = []
    connector = Rotating({}, {"refresh_token": "refresh-token-1"})
    connector.authenticate()
    assert connector.credentials["refresh_token"] == "refresh-token-1"
