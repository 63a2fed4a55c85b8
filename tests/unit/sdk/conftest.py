"""Attempts of connectors against the SDK's double of the platform."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
import pytest
from penstock_sdk import Batch, Connector, Drift, Estimate, Partition, Stream
from penstock_sdk import protocol as wire
from penstock_sdk._runtime.assignment import Assignment
from penstock_sdk._runtime.client import RetryPolicy, RunClient
from penstock_sdk._runtime.run import run_connector
from penstock_sdk.errors import ConnectorError
from penstock_sdk.testing.run_api import RUN, RunApi

from tests.run_api.pods import START_KEY

IDENTITY = wire.ConnectorIdentity(name="fake", method="list", version="1.0.0")
Reply = tuple[int, dict[str, Any]]


class Platform(RunApi):
    """The SDK's double of the platform, with faults: refused calls, lost replies, and grants that expire.

    `refuse` has replies by path that are given instead of carrying the call out; `lose_reply` names paths whose next reply
    is lost after the work was done; `rewrite` changes a request's body before it is read.
    """

    def __init__(self) -> None:
        super().__init__(IDENTITY, {}, limits=wire.Limits(heartbeat_seconds=60))
        self.lose_reply: list[str] = []
        self.refuse: dict[str, list[Reply]] = {}
        self.refuse_from: dict[str, Callable[[], Reply | None]] = {}
        self.rewrite: dict[str, Callable[[bytes], bytes]] = {}
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.tokens: list[tuple[str, str | None]] = []
        self.expired: set[str] = set()
        self.before_put: Callable[[str], None] = lambda _: None
        self.granted = 0

    def answer(self, path: str, body: bytes, token: str | None) -> tuple[int, str]:
        """Carry the call out, or answer with the fault that is due."""
        self.calls.append((path, json.loads(body)))
        self.tokens.append((path, token))
        refused = self.refuse[path].pop(0) if self.refuse.get(path) else self.refuse_from.get(path, lambda: None)()
        if refused:
            return refused[0], json.dumps(refused[1])
        status, text = super().answer(path, self.rewrite.get(path, bytes)(body), token)
        if path in self.lose_reply:
            self.lose_reply.remove(path)
            return 500, "{}"
        return status, self._numbered(text) if path == "uploads" and status == 200 else text

    def _numbered(self, text: str) -> str:
        """Give the grants of an answer a header of their own, so that those of one answer can expire."""
        answer = wire.UploadsResponse.model_validate_json(text)
        self.granted += 1
        number = {"X-Grant": str(self.granted)}
        grants = [grant.model_copy(update={"headers": grant.headers | number}) for grant in answer.grants]
        return answer.model_copy(update={"grants": grants}).model_dump_json()

    def put(self, key: str, headers: Mapping[str, str], body: bytes) -> int:
        """Take an object, unless its grant has expired."""
        self.before_put(key)
        if headers.get("x-grant") in self.expired:
            return 403
        status = super().put(key, headers, body)
        if status == 200 and "put" in self.lose_reply:
            self.lose_reply.remove("put")
            return 500
        if status == 200 and "put, and the grant" in self.lose_reply:
            self.lose_reply.remove("put, and the grant")
            self.expired.add(headers["x-grant"])
            return 500
        return status

    def lines(
        self, commits: list[wire.CheckpointRequest] | None = None, kind: wire.ObjectKind = "data"
    ) -> list[dict[str, Any]]:
        """Return what a reader by commits sees."""
        chosen = self.commits if commits is None else commits
        objects = [uploaded for commit in chosen for uploaded in commit.objects if uploaded.kind == kind]
        return [line for uploaded in objects for line in self.bucket.lines(uploaded)]

    def count(self, path: str) -> int:
        return sum(called == path for called, _ in self.calls)


def error(status: int, code: str, message: str = "no") -> Reply:
    return status, {"code": code, "message": message}


@pytest.fixture
def platform() -> Iterator[Platform]:
    with Platform() as running:
        running.next_attempt()
        yield running


@pytest.fixture
def client(platform: Platform) -> Iterator[RunClient]:
    made = RunClient(platform.url, platform.token, RetryPolicy(seconds=5, sleep=lambda _: None))
    yield made
    made.close()


@pytest.fixture
def started(client: RunClient, platform: Platform) -> RunClient:
    """A client that has claimed the attempt, and has posted one stream."""
    client.start(
        wire.StartRequest(run=RUN, attempt=platform.attempt, connector=IDENTITY, sdk_version="1", key=START_KEY)
    )
    client.streams(wire.StreamsRequest(streams=[wire.DiscoveredStream(name="people", schema_={})]))
    return client


class Config(msgspec.Struct):
    """What the connector of the tests declares."""

    tables: int = 1


class Credentials(msgspec.Struct):
    """What the Secret must hold."""

    password: str


Read = Callable[[Stream, Any], Iterator[Batch]]


@dataclass
class Runner:
    """Runs an attempt of a connector whose `read` is the function given."""

    platform: Platform
    streams: tuple[str, ...] = ("people",)
    shape: dict[str, Any] = field(default_factory=lambda: {"schema": {"type": "object"}})
    unavailable: dict[str, ConnectorError] = field(default_factory=dict)
    broken: dict[str, dict[str, Any]] = field(default_factory=dict)
    credentials: dict[str, str] = field(default_factory=lambda: {"password": "hunter2000"})
    interrupts: list[Callable[[], None]] = field(default_factory=list)
    log_context: dict[str, Any] = field(default_factory=dict)

    def __call__(self, read: Read, **methods: Any) -> int:
        names, shape, unavailable, broken = self.streams, self.shape, self.unavailable, self.broken

        class Fake(Connector[Config, Credentials]):
            def authenticate(self) -> None:
                methods.get("authenticate", lambda: None)()

            def health(self) -> None:
                methods.get("health", lambda _: None)(self)

            def discover(self) -> list[Stream]:
                return [
                    Stream(
                        **{
                            "name": name,
                            "modes": ("full", "incremental"),
                            "unavailable": unavailable.get(name),
                            **shape,
                            **broken.get(name, {}),
                        }
                    )
                    for name in names
                ]

            def partitions(self, stream: Stream, since: Any, cursor: Any, known: Any) -> Sequence[Partition]:
                del since
                found: Sequence[Partition] = methods.get("partitions", lambda *_: ())(stream, cursor, known)
                return found

            def read(self, stream: Stream, since: Any, cursor: Any) -> Iterator[Batch]:
                del since
                return read(stream, cursor)

            def estimate(self, stream: Stream, since: Any, cursor: Any) -> Estimate | None:
                del since
                found: Estimate | None = methods.get("estimate", lambda *_: None)(stream, cursor)
                return found

            def not_offered(self, name: str) -> ConnectorError | None:
                found: ConnectorError | None = methods.get("not_offered", lambda _: None)(name)
                return found

            def drift(self, streams: Sequence[Stream]) -> list[Drift]:
                return list(methods.get("drift", lambda _: [])(streams))

            def close(self) -> None:
                methods.get("close", lambda: None)()

        number = self.platform.attempt if not self.platform.count("start") else self.platform.next_attempt()
        assignment = Assignment(RUN, number, IDENTITY, lambda: Fake, self.credentials, frozenset(), self.log_context)
        client = RunClient(self.platform.url, self.platform.token, RetryPolicy(seconds=5, sleep=lambda _: None))
        return run_connector(assignment, client, self.interrupts.append)


@pytest.fixture
def attempt(platform: Platform) -> Runner:
    return Runner(platform)
