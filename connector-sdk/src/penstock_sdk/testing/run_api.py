"""A run API and a bucket on this machine: what a pod sees of the platform, over real HTTP, in memory.

It carries one run: attempts come and go, each with a token of its own, and only the newest can commit. A commit is
checked as the platform checks it: the objects must be in the bucket, with the bytes and the digest that were said.
"""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Self

import zstandard
from pydantic import BaseModel

from penstock_sdk import protocol as wire
from penstock_sdk.testing.loopback import HOST, LoopbackServer, QuietHandler

RUN = "conformance"
BRISK = wire.Limits(checkpoint_records=1, object_bytes=1024 * 1024, heartbeat_seconds=0.25)
"""Every promise becomes a commit, so that a test sees each of them."""
SIDE_BY_SIDE = BRISK.model_copy(update={"parallelism": 3})
PRODUCTION = wire.Limits(heartbeat_seconds=0.25)
"""As in a cluster, but for heartbeats: a cursor is committed after 50,000 records or 30 seconds, or when a read ends. Where a
source fails, that shows whether progress is kept; a commit after each cursor would hide that it is not."""
COARSE = wire.Limits(checkpoint_records=20_000, object_bytes=1024 * 1024, heartbeat_seconds=1.0)


@dataclass
class StreamState:
    """What is committed of one stream."""

    cursor: Any = None
    checkpoint: int = 0
    done: bool = False
    records: list[dict[str, Any]] = field(default_factory=list)
    cursors: list[Any] = field(default_factory=list)


class RequestRefused(Exception):  # noqa: N818 - an answer, not an error of ours
    """The request is refused with a status and a code."""

    def __init__(self, status: int, code: wire.ErrorCode, message: str) -> None:
        super().__init__(message)
        self.status, self.error = status, wire.ApiError(code=code, message=message)


class RunApi:
    """One run. `moment` is called with what just happened: a test kills, waits or counts there."""

    def __init__(
        self,
        identity: wire.ConnectorIdentity,
        config: dict[str, Any],
        *,
        mode: wire.Mode = "full",
        streams: tuple[str, ...] = (),
        cursors: dict[str, Any] | None = None,
        since: datetime | None = None,
        window: wire.ReadWindow | None = None,
        limits: wire.Limits = BRISK,
        kept: dict[str, wire.RotatedCredential] | None = None,
    ) -> None:
        self._window = window
        self.attempt = 0
        self.offered: list[wire.DiscoveredStream] = []
        self.states = {name: StreamState(cursor=cursor) for name, cursor in (cursors or {}).items()}
        self.finished: list[wire.FinishRequest] = []
        self.heartbeats: list[float] = []
        self.progressed = time.monotonic()
        self.heard: list[str] = []
        self.moment: Callable[[str, int], None] = lambda _what, _number: None
        self._identity, self._config, self._mode = identity, config, mode
        self._wanted, self._since, self._limits = streams, since, limits
        self._bucket: dict[str, bytes] = {}
        self._kept: dict[str, wire.RotatedCredential] = {} if kept is None else kept
        self._lock, self._puts = threading.Lock(), threading.Lock()
        self._commits = 0
        self._server = LoopbackServer(_handler(self))
        self.port = self._server.port
        self.url = f"http://{HOST}:{self.port}"

    def __enter__(self) -> Self:
        self._server.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.__exit__()

    def next_attempt(self) -> int:
        """Fence the attempt there was, and return the number of the next."""
        with self._lock:
            self.attempt += 1
            return self.attempt

    @property
    def token(self) -> str:
        """The current attempt's token; the one that its pod would be given and the one of its run are the same."""
        return f"attempt-{self.attempt}"

    def final_cursors(self) -> dict[str, Any]:
        """Return where a next incremental run would go on."""
        return {name: state.cursor for name, state in self.states.items()}

    def state(self, stream: str) -> StreamState:
        """Return what is committed of a stream."""
        return self.states.setdefault(stream, StreamState())

    def answer(self, path: str, body: bytes, token: str) -> tuple[int, str]:
        """Return status and body, as the server of the platform would."""
        calls: dict[str, Callable[[bytes], BaseModel]] = {
            "start": self._start,
            "streams": self._streams,
            "estimate": self._estimate,
            "uploads": self._uploads,
            "checkpoints": self._checkpoint,
            "credentials": self._credential,
            "heartbeat": self._heartbeat,
            "finish": self._finish,
        }
        with self._lock:  # a commit and the fence before it are one step
            self.heard.append(body.decode(errors="replace"))
            try:
                self._fence(token)
                answer = calls[path](body)
                if path != "heartbeat":
                    self.progressed = time.monotonic()
            except RequestRefused as refused:
                return refused.status, refused.error.model_dump_json()
        return 200, answer.model_dump_json(by_alias=True)

    def _fence(self, token: str) -> None:
        if token != self.token:
            raise RequestRefused(409, "fenced", "another attempt of this run has taken over")

    def _start(self, body: bytes) -> wire.StartResponse:
        wire.StartRequest.model_validate_json(body)
        self.moment("start", self.attempt)
        return wire.StartResponse(
            run_token=self.token,
            tenant="team-a",
            connection="trial",
            connector=self._identity,
            config=self._config,
            streams=[],
            default_mode=self._mode,
            since=self._since,
            limits=self._limits,
            credentials=self._kept,
        )

    def _streams(self, body: bytes) -> wire.StreamsResponse:
        self.offered = wire.StreamsRequest.model_validate_json(body).streams
        names = [stream.name for stream in self.offered]
        missing = [name for name in self._wanted if name not in names]
        if missing:
            raise RequestRefused(
                422, "invalid", f"streams: the source offers no stream {missing[0]!r}; it offers: {names}"
            )
        verdicts = [self._verdict(stream) for stream in self.offered if stream.name in (self._wanted or names)]
        self.moment("streams", len(verdicts))
        return wire.StreamsResponse(verdicts=verdicts)

    def _verdict(self, offered: wire.DiscoveredStream) -> wire.StreamVerdict:
        state = self.state(offered.name)
        selected = wire.SelectedStream(
            name=offered.name,
            mode=self._mode,
            cursor=state.cursor,
            done=state.done,
            checkpoint=state.checkpoint,
            window=self._window,
        )
        read = self._mode in offered.modes and not state.done and (offered.windows or self._window is None)
        return wire.StreamVerdict(name=offered.name, read=read, schema_version=1, selected=selected)

    def _estimate(self, body: bytes) -> wire.EstimateResponse:
        wire.EstimateRequest.model_validate_json(body)
        return wire.EstimateResponse()

    def _uploads(self, body: bytes) -> wire.UploadsResponse:
        asked = wire.UploadsRequest.model_validate_json(body)
        numbers = range(asked.after + 1, asked.after + 1 + asked.count)
        return wire.UploadsResponse(
            grants=[self._grant(asked.stream, number) for number in numbers],
            expires_at=datetime.now(UTC) + timedelta(hours=1),
        )

    def _grant(self, stream: str, number: int) -> wire.UploadGrant:
        digest = hashlib.sha256(stream.encode()).hexdigest()[:16]  # a stream's name may hold what a URL may not
        key = f"{digest}/attempt-{self.attempt:02d}-{number:06d}.jsonl.zst"
        return wire.UploadGrant(
            key=key, sequence=number, url=f"{self.url}/bucket/{key}", headers={"If-None-Match": "*"}
        )

    def _checkpoint(self, body: bytes) -> wire.CheckpointResponse:
        asked = wire.CheckpointRequest.model_validate_json(body)
        state = self.state(asked.stream)
        if asked.checkpoint <= state.checkpoint:
            return wire.CheckpointResponse(checkpoint=state.checkpoint)
        if asked.checkpoint != state.checkpoint + 1:
            raise RequestRefused(409, "mismatch", f"the next checkpoint of {asked.stream!r} is {state.checkpoint + 1}")
        self.moment("commit", self._commits + 1)
        lines = [line for uploaded in asked.objects for line in self._lines(uploaded)]
        state.records += lines
        state.cursor, state.checkpoint, state.done = asked.cursor, asked.checkpoint, asked.done
        state.cursors.append(asked.cursor)
        self._commits += 1
        self.moment("committed", self._commits)
        return wire.CheckpointResponse(checkpoint=asked.checkpoint)

    def _lines(self, uploaded: wire.UploadedObject) -> list[dict[str, Any]]:
        body = self._bucket.get(uploaded.key)
        if body is None or (len(body), hashlib.sha256(body).hexdigest()) != (uploaded.bytes, uploaded.sha256):
            raise RequestRefused(422, "mismatch", f"the bucket does not hold object {uploaded.key} as it was described")
        text = zstandard.ZstdDecompressor().decompressobj().decompress(body)
        lines = [json.loads(line) for line in text.split(b"\n")[:-1]]
        if uploaded.by_op is not None and +Counter(uploaded.by_op) != Counter(line["op"] for line in lines):
            raise RequestRefused(
                422, "mismatch", f"object {uploaded.key} holds other numbers of operations than were told"
            )
        return lines

    def _credential(self, body: bytes) -> wire.CredentialResponse:
        asked = wire.CredentialRequest.model_validate_json(body)
        self._kept[asked.name] = wire.RotatedCredential(value=asked.value, seed=asked.seed)
        return wire.CredentialResponse(version=1)

    def _heartbeat(self, body: bytes) -> wire.HeartbeatResponse:
        asked = wire.HeartbeatRequest.model_validate_json(body)
        self.heartbeats.append(asked.metrics.get("records", 0))
        return wire.HeartbeatResponse()

    def _finish(self, body: bytes) -> wire.FinishResponse:
        self.finished.append(wire.FinishRequest.model_validate_json(body))
        return wire.FinishResponse(phase="ended")

    def put(self, key: str, headers: dict[str, str], body: bytes) -> int:
        """Take an object as a bucket takes a presigned PUT that must not overwrite; return the status."""
        if headers.get("if-none-match") != "*":
            return 403
        with self._puts:
            if key in self._bucket:
                return 412
            self._bucket[key] = body
        self.progressed = time.monotonic()
        return 200


def _handler(api: RunApi) -> type[QuietHandler]:
    class Handler(QuietHandler):
        def do_POST(self) -> None:  # noqa: N802 - http.server calls it so
            token = self.headers.get("Authorization", "").removeprefix("Bearer ")
            status, text = api.answer(self.path.removeprefix("/v1/attempts/"), self.content(), token)
            self.answer(status, {"Content-Type": "application/json"}, text.encode())

        def do_PUT(self) -> None:  # noqa: N802
            headers = {name.lower(): value for name, value in self.headers.items()}
            self.answer(api.put(self.path.removeprefix("/bucket/"), headers, self.content()), {}, b"")

    return Handler
