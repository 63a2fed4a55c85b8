"""A run API and a bucket in memory, over real HTTP: what a pod sees of the platform."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import msgspec
import pytest
import zstandard
from penstock_sdk import Batch, Connector, Drift, Estimate, Partition, Stream
from penstock_sdk import protocol as wire
from penstock_sdk._runtime.assignment import Assignment
from penstock_sdk._runtime.client import RetryPolicy, RunClient
from penstock_sdk._runtime.run import run_connector
from penstock_sdk.errors import ConnectorError

IDENTITY = wire.ConnectorIdentity(name="fake", method="list", version="1.0.0")
Reply = tuple[int, dict[str, Any]]


@dataclass
class FakePlatform:
    """Keeps what it was told. `lose_reply` names paths whose next reply is lost after the work was done."""

    url: str = ""
    limits: wire.Limits = field(default_factory=lambda: wire.Limits(heartbeat_seconds=60))
    selected: list[wire.SelectedStream] = field(default_factory=list)
    config: dict[str, Any] = field(default_factory=dict)
    lose_reply: list[str] = field(default_factory=list)
    refuse: dict[str, list[Reply]] = field(default_factory=dict)
    cancel: bool = False
    kept: dict[str, wire.RotatedCredential] = field(default_factory=dict)
    drop: list[list[str]] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)
    rejects: wire.RejectRules | None = None
    calls: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    tokens: list[tuple[str, str]] = field(default_factory=list)
    bucket: dict[str, bytes] = field(default_factory=dict)
    commits: list[wire.CheckpointRequest] = field(default_factory=list)
    finished: list[wire.FinishRequest] = field(default_factory=list)
    expired: set[str] = field(default_factory=set)
    before_put: Callable[[str], None] = lambda _: None
    granted: int = 0

    def answer(self, path: str, body: bytes, token: str) -> Reply:
        """Do what the run API does, in memory."""
        self.calls.append((path, json.loads(body)))
        self.tokens.append((path, token))
        if self.refuse.get(path):
            return self.refuse[path].pop(0)
        result = getattr(self, f"on_{path}")(body)
        if path in self.lose_reply:
            self.lose_reply.remove(path)
            return 500, {}
        return result if isinstance(result, tuple) else (200, json.loads(result.model_dump_json(by_alias=True)))

    def on_start(self, body: bytes) -> wire.StartResponse:
        del body
        return wire.StartResponse(
            run_token="run-token",
            tenant="team",
            connection="orders",
            connector=IDENTITY,
            config=self.config,
            streams=self.selected,
            limits=self.limits,
            rejects=self.rejects,
            credentials=self.kept,
        )

    def on_streams(self, body: bytes) -> wire.StreamsResponse:
        offered = wire.StreamsRequest.model_validate_json(body).streams
        chosen = self.selected or [wire.SelectedStream(name=stream.name, mode="full") for stream in offered]
        return wire.StreamsResponse(
            verdicts=[
                wire.StreamVerdict(
                    name=each.name,
                    read=not each.done and each.name not in self.refused,
                    schema_version=1,
                    selected=each,
                    drop=self.drop,
                    refused=each.name in self.refused,
                    reason=self.refused.get(each.name, ""),
                )
                for each in chosen
            ]
        )

    def on_estimate(self, body: bytes) -> wire.EstimateResponse:
        wire.EstimateRequest.model_validate_json(body)
        return wire.EstimateResponse()

    def on_uploads(self, body: bytes) -> wire.UploadsResponse:
        asked = wire.UploadsRequest.model_validate_json(body)
        self.granted += 1
        grants = [
            wire.UploadGrant(
                key=f"{'' if asked.kind == 'data' else 'rejected-'}{asked.stream}-{number:06d}",
                kind=asked.kind,
                sequence=number,
                url=f"{self.url}/bucket/{'' if asked.kind == 'data' else 'rejected-'}{asked.stream}-{number:06d}?grant={self.granted}",
                headers={"If-None-Match": "*", "X-Grant": str(self.granted)},
            )
            for number in range(asked.after + 1, asked.after + 1 + asked.count)
        ]
        return wire.UploadsResponse(grants=grants, expires_at=datetime.now(UTC) + timedelta(hours=1))

    def on_checkpoints(self, body: bytes) -> wire.CheckpointResponse | Reply:
        asked = wire.CheckpointRequest.model_validate_json(body)
        committed = [each for each in self.commits if each.stream == asked.stream]
        if committed and committed[-1].checkpoint == asked.checkpoint:
            same = committed[-1] == asked
            return wire.CheckpointResponse(checkpoint=asked.checkpoint) if same else error(409, "mismatch")
        for each in asked.objects:
            body_ = self.bucket[each.key]
            assert (len(body_), hashlib.sha256(body_).hexdigest()) == (each.bytes, each.sha256)
        self.commits.append(asked)
        return wire.CheckpointResponse(checkpoint=asked.checkpoint)

    def on_credentials(self, body: bytes) -> wire.CredentialResponse:
        asked = wire.CredentialRequest.model_validate_json(body)
        self.kept[asked.name] = wire.RotatedCredential(value=asked.value, seed=asked.seed)
        return wire.CredentialResponse(version=1)

    def on_heartbeat(self, body: bytes) -> wire.HeartbeatResponse:
        del body
        return wire.HeartbeatResponse(cancel=self.cancel)

    def on_finish(self, body: bytes) -> wire.FinishResponse:
        self.finished.append(wire.FinishRequest.model_validate_json(body))
        return wire.FinishResponse(phase="Ended")

    def put(self, key: str, headers: dict[str, str], body: bytes) -> int:
        """Do what a bucket does with a presigned PUT that must not overwrite."""
        self.before_put(key)
        if headers.get("x-grant") in self.expired:
            return 403
        if headers.get("if-none-match") == "*" and key in self.bucket:
            return 412
        self.bucket[key] = body
        if "put" in self.lose_reply:
            self.lose_reply.remove("put")
            return 500
        if "put, and the grant" in self.lose_reply:
            self.lose_reply.remove("put, and the grant")
            self.expired.add(headers["x-grant"])
            return 500
        return 200

    def lines(
        self, commits: list[wire.CheckpointRequest] | None = None, kind: wire.ObjectKind = "data"
    ) -> list[dict[str, Any]]:
        """Return what a reader by commits sees."""
        chosen = self.commits if commits is None else commits
        bodies = [self.bucket[each.key] for commit in chosen for each in commit.objects if each.kind == kind]
        texts = [zstandard.ZstdDecompressor().decompressobj().decompress(body) for body in bodies]
        return [json.loads(line) for text in texts for line in text.split(b"\n")[:-1]]

    def count(self, path: str) -> int:
        return sum(called == path for called, _ in self.calls)


def error(status: int, code: str, message: str = "no") -> Reply:
    return status, {"code": code, "message": message}


def handler_of(platform: FakePlatform) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            token = self.headers["Authorization"].removeprefix("Bearer ")
            path = self.path.removeprefix("/v1/attempts/")
            self.reply(*platform.answer(path, self.body(), token))

        def do_PUT(self) -> None:
            key = self.path.removeprefix("/bucket/").split("?")[0]
            headers = {name.lower(): value for name, value in self.headers.items()}
            self.reply(platform.put(key, headers, self.body()), {})

        def body(self) -> bytes:
            return self.rfile.read(int(self.headers["Content-Length"]))

        def reply(self, status: int, content: dict[str, Any]) -> None:
            text = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *arguments: object) -> None:
            del arguments

    return Handler


@pytest.fixture
def platform() -> Iterator[FakePlatform]:
    fake = FakePlatform()
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler_of(fake))
    server.daemon_threads = True
    fake.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield fake
    server.shutdown()
    server.server_close()


@pytest.fixture
def client(platform: FakePlatform) -> Iterator[RunClient]:
    made = RunClient(platform.url, "pod-token", RetryPolicy(seconds=5, sleep=lambda _: None))
    yield made
    made.close()


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

    platform: FakePlatform
    client: RunClient
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
                    Stream(**{"name": name, "unavailable": unavailable.get(name), **shape, **broken.get(name, {})})
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

        assignment = Assignment("run1", 2, IDENTITY, lambda: Fake, self.credentials, frozenset(), self.log_context)
        client = RunClient(self.platform.url, "pod-token", RetryPolicy(seconds=5, sleep=lambda _: None))
        return run_connector(assignment, client, self.interrupts.append)


@pytest.fixture
def attempt(platform: FakePlatform, client: RunClient) -> Runner:
    return Runner(platform, client)
