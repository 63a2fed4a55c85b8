"""A run API and a bucket on this machine: the platform as a pod sees it, over real HTTP, in memory.

It has one run. Attempts of it start one after the other, each with a token of its own, and only the newest can commit.
It answers as the platform does; one contract suite is run against both (tests/integration/run_api). In four ways it
differs on purpose:

- The run is tried again for as long as `next_attempt` is called, and may be tried again after it has ended.
- A commit is refused with `mismatch` unless its objects hold the numbers of operations that were told. The platform
  compares sizes and checksums with the bucket, and does not read the objects.
- Without `streams`, all streams are read that can be read in `mode`; the platform reads all of them in full.
- It knows one schema of each stream, no schema policy, no generation and no retry limit.
"""

from __future__ import annotations

import base64
import hashlib
import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from typing import Any, Self, TypedDict

import zstandard
from pydantic import BaseModel, ValidationError

from penstock_sdk import protocol as wire
from penstock_sdk.contract import Cursor
from penstock_sdk.json_types import JsonObject
from penstock_sdk.manifest import RateRule, lease_tokens, refilled
from penstock_sdk.testing.loopback import HOST, LoopbackServer, QuietHandler

RUN = "conformance"
BRISK = wire.Limits(checkpoint_records=1, object_bytes=1024 * 1024, heartbeat_seconds=0.25)
"""Every cursor is committed, so that a test sees each of them."""
SIDE_BY_SIDE = BRISK.model_copy(update={"parallelism": 3})
PRODUCTION = wire.Limits(heartbeat_seconds=0.25)
"""The limits of a cluster, except for heartbeats: a cursor is committed after 50,000 records or 30 seconds, or when a read ends.
If the source fails, this shows whether the progress is committed; a commit after each cursor would hide an error."""
COARSE = wire.Limits(checkpoint_records=20_000, object_bytes=1024 * 1024, heartbeat_seconds=1.0)

STATUSES: dict[wire.ErrorCode, HTTPStatus] = {
    "unauthenticated": HTTPStatus.UNAUTHORIZED,
    "fenced": HTTPStatus.CONFLICT,
    "mismatch": HTTPStatus.CONFLICT,
    "invalid": HTTPStatus.UNPROCESSABLE_ENTITY,
    "not_ready": HTTPStatus.TOO_EARLY,
    "unavailable": HTTPStatus.SERVICE_UNAVAILABLE,
}
FINAL: tuple[wire.ErrorClass, ...] = (
    "ConfigError",
    "AuthenticationError",
    "SourceContractError",
    "LocalPersistenceError",
)
"""Classes of errors after which the platform does not try a run again."""


class Line(TypedDict):
    """One line of an object: a record in its envelope, of which the suite reads these two fields."""

    op: str
    data: JsonObject


@dataclass
class StreamState:
    """The committed state of one stream. `committed_by` is the attempt that committed last, 0 if that was an earlier run."""

    cursor: Cursor = None
    checkpoint: int = 0
    done: bool = False
    records: list[Line] = field(default_factory=list)
    cursors: list[Cursor] = field(default_factory=list)
    committed_by: int = 0
    last: wire.CheckpointRequest | None = None


class RequestRefused(Exception):  # noqa: N818 - a response, not an error
    """The request is refused with a code."""

    def __init__(self, code: wire.ErrorCode, message: str) -> None:
        super().__init__(message)
        self.status, self.error = int(STATUSES[code]), wire.ApiError(code=code, message=message)


def _fenced() -> RequestRefused:
    return RequestRefused("fenced", "another attempt of this run has taken over, or this one has ended")


def _unauthenticated() -> RequestRefused:
    return RequestRefused("unauthenticated", "the token is missing or not one of this run")


@dataclass(frozen=True)
class ObjectGrant:
    """The right to upload one object."""

    stream: str
    kind: wire.ObjectKind
    content: wire.ObjectToUpload


def signed_headers(content: wire.ObjectToUpload) -> dict[str, str]:
    """Return the headers with which an object must be uploaded, as a bucket's signed URL demands them."""
    checksum = base64.b64encode(bytes.fromhex(content.sha256)).decode()
    return {"If-None-Match": "*", "Content-Length": str(content.bytes), "x-amz-checksum-sha256": checksum}


@dataclass
class AttemptRecord:
    """One attempt: `phase` is None until it has ended."""

    number: int
    has_job: bool = True
    start_key: str | None = None
    run_token: str | None = None
    phase: wire.Outcome | None = None
    granted: dict[str, ObjectGrant] = field(default_factory=dict)
    """The grant of each key."""
    committed: dict[str, wire.UploadedObject] = field(default_factory=dict)
    stream_of: dict[str, str] = field(default_factory=dict)
    """The stream of each committed key."""

    def counts(self, kind: wire.ObjectKind) -> Counter[str]:
        """Return how many records are committed, by stream."""
        counts = Counter[str]()
        for key, uploaded in self.committed.items():
            if uploaded.kind == kind:
                counts[self.stream_of[key]] += uploaded.records
        return counts

    def counts_by_op(self, stream: str) -> Counter[str] | None:
        """Return how many records of each operation are committed or rejected, None where an object does not say it."""
        counts = Counter[str]()
        for key, uploaded in self.committed.items():
            if self.stream_of[key] == stream and uploaded.by_op is None:
                return None
            if self.stream_of[key] == stream:
                counts.update(uploaded.by_op or {})
        return counts


@dataclass
class CredentialLease:
    """The lease of a credential. One that has ended by its time is not open."""

    lease: str
    is_open: bool = True


class Bucket:
    """Objects by key. Thread-safe."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self._allowed: dict[str, wire.ObjectToUpload] = {}
        self._lock = threading.Lock()

    def allow(self, key: str, content: wire.ObjectToUpload) -> None:
        """Let an object of this size and checksum be uploaded under the key."""
        self._allowed[key] = content

    def put(self, key: str, headers: Mapping[str, str], body: bytes) -> int:
        """Take an object as a bucket takes a presigned PUT that must not overwrite; return the status."""
        content = self._allowed.get(key)
        signed = signed_headers(content) if content else {}
        if not signed or any(headers.get(name.lower()) != value for name, value in signed.items()):
            return HTTPStatus.FORBIDDEN
        if content and hashlib.sha256(body).hexdigest() != content.sha256:
            return HTTPStatus.BAD_REQUEST
        with self._lock:
            if key in self.objects:
                return HTTPStatus.PRECONDITION_FAILED
            self.objects[key] = body
        return HTTPStatus.OK

    def lines(self, uploaded: wire.UploadedObject) -> list[Line]:
        """Return the lines of an object. Raises RequestRefused when it is not as it was described."""
        body = self.objects.get(uploaded.key)
        if body is None or (len(body), hashlib.sha256(body).hexdigest()) != (uploaded.bytes, uploaded.sha256):
            raise RequestRefused("mismatch", f"the bucket does not hold object {uploaded.key} as it was described")
        text = zstandard.ZstdDecompressor().decompressobj().decompress(body)
        lines: list[Line] = [json.loads(line) for line in text.split(b"\n")[:-1]]
        if uploaded.kind == "data" and uploaded.by_op is not None:
            held = Counter(line["op"] for line in lines)
            if +Counter[str](uploaded.by_op) != held:
                message = f"object {uploaded.key} holds other numbers of operations than were told"
                raise RequestRefused("mismatch", message)
        return lines


class RunApi:
    """One run. `moment` is called with each event and its number, so that a test can kill, wait or count there.

    `streams` are selected in `mode`; `selected` are selected with a mode each, and begin with the cursor and checkpoint that
    they name. `refusals` are streams that a schema policy refuses, each with the reason; `drop` are the fields to leave out of
    every record. `declared` are the credentials that the manifest declares, None where any may be kept. `rate_limits` are those
    of its manifest.
    """

    def __init__(
        self,
        identity: wire.ConnectorIdentity,
        config: JsonObject,
        *,
        mode: wire.Mode = "full",
        streams: tuple[str, ...] = (),
        selected: Sequence[wire.SelectedStream] = (),
        cursors: Mapping[str, Cursor] | None = None,
        since: datetime | None = None,
        window: wire.ReadWindow | None = None,
        limits: wire.Limits = BRISK,
        rejects: wire.RejectRules | None = None,
        kept: dict[str, wire.RotatedCredential] | None = None,
        declared: Collection[str] | None = None,
        budget: wire.StreamEstimate | None = None,
        rate_limits: Sequence[RateRule] = (),
    ) -> None:
        self._window = window
        self.attempt = 0
        self.phase = "pending"
        self.cancel_requested = False
        self.refusals: dict[str, str] = {}
        self.drop: list[list[str]] = []
        self.offered: list[wire.DiscoveredStream] = []
        self.states = {name: StreamState(cursor=cursor) for name, cursor in (cursors or {}).items()}
        self.commits: list[wire.CheckpointRequest] = []
        self.finished: list[wire.FinishRequest] = []
        self.heartbeats: list[float] = []
        self.progressed = time.monotonic()
        self.heard: list[str] = []
        self.moment: Callable[[str, int], None] = lambda _what, _number: None
        self.config, self.limits, self.rejects, self.selected = config, limits, rejects, list(selected)
        self.bucket = Bucket()
        self.kept: dict[str, wire.RotatedCredential] = {} if kept is None else kept
        self._identity, self._mode, self._names, self._since = identity, mode, streams, since
        self._declared, self._budget = declared, budget
        self._rate_limits = tuple(rate_limits)
        self._tokens: dict[RateRule, tuple[float, float]] = {}
        self._versions = Counter(dict.fromkeys(self.kept, 1))
        self.tokens: dict[str, tuple[wire.IssuedToken, float]] = {}
        self.leases: dict[str, CredentialLease] = {}
        self._attempts: dict[int, AttemptRecord] = {}
        self._verdicts: dict[str, wire.StreamVerdict] = {}
        self._lock = threading.Lock()
        self._server = LoopbackServer(_handler(self))
        self.port = self._server.port
        self.url = f"http://{HOST}:{self.port}"

    def __enter__(self) -> Self:
        self._server.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.__exit__()

    def next_attempt(self, *, has_job: bool = True) -> int:
        """Fence the attempt there was, and return the number of the next.

        Without `has_job`, its pod is told to try again until `record_job` is called: a pod can start before the platform
        has recorded the pod's Job.
        """
        with self._lock:
            self.attempt += 1
            self._attempts[self.attempt] = AttemptRecord(self.attempt, has_job=has_job)
            self._verdicts = {}
            self.phase = "running"
            return self.attempt

    def record_job(self) -> None:
        """Record the Job of the current attempt."""
        with self._lock:
            self._attempts[self.attempt].has_job = True

    @property
    def token(self) -> str:
        """The token of the current attempt's pod, with which it calls `start`."""
        return f"pod-{self.attempt}"

    def final_cursors(self) -> dict[str, Cursor]:
        """Return where a next incremental run would resume."""
        return {name: state.cursor for name, state in self.states.items()}

    def state(self, stream: str) -> StreamState:
        """Return what is committed of a stream."""
        return self.states.setdefault(stream, StreamState())

    def object_key(self, stream: str, sequence: int, kind: wire.ObjectKind = "data") -> str:
        """Return the key of the current attempt's object."""
        digest = hashlib.sha256(stream.encode()).hexdigest()[:16]  # a name may hold what a URL may not
        folder = f"_rejected/{digest}" if kind == "rejected" else digest
        return f"{folder}/attempt-{self.attempt:02d}-{sequence:06d}.jsonl.zst"

    def answer(self, path: str, body: bytes, token: str | None) -> tuple[int, str]:
        """Return status and body, as the server of the platform would."""
        calls: dict[str, Callable[[bytes, str], BaseModel]] = {
            "start": self._start,
            "streams": self._streams,
            "estimate": self._estimate,
            "uploads": self._uploads,
            "checkpoints": self._checkpoint,
            "credentials": self._credential,
            "rate-limit": self._rate_limit,
            "credentials/lease": self._lease_credential,
            "credentials/release": self._release_credential,
            "heartbeat": self._heartbeat,
            "finish": self._finish,
        }
        if path not in calls:
            return HTTPStatus.NOT_FOUND, json.dumps({"detail": "Not Found"})
        with self._lock:  # a commit and the fence before it are one step
            self.heard.append(body.decode(errors="replace"))
            try:
                if not token:
                    raise _unauthenticated()
                answer = calls[path](body, token)
                if path != "heartbeat":
                    self.progressed = time.monotonic()
            except RequestRefused as refused:
                return refused.status, refused.error.model_dump_json()
            except ValidationError as error:
                detail = error.errors(include_url=False, include_context=False, include_input=False)
                return HTTPStatus.UNPROCESSABLE_ENTITY, json.dumps({"detail": detail})
        return HTTPStatus.OK, answer.model_dump_json(by_alias=True)

    def _holder(self, token: str) -> AttemptRecord:
        """Return the attempt that holds a run token, ended or not."""
        for attempt in self._attempts.values():
            if attempt.run_token == token:
                return attempt
        raise _unauthenticated()

    def _held(self, token: str) -> AttemptRecord:
        """Return the attempt that holds a run token. Raises RequestRefused when it is not the current one."""
        attempt = self._holder(token)
        if not self._is_current(attempt):
            raise _fenced()
        return attempt

    def _is_current(self, attempt: AttemptRecord) -> bool:
        return attempt.number == self.attempt and attempt.phase is None

    def _start(self, body: bytes, token: str) -> wire.StartResponse:
        asked = wire.StartRequest.model_validate_json(body)
        pods = {f"pod-{number}": attempt for number, attempt in self._attempts.items()}
        if token not in pods:
            raise _unauthenticated()
        attempt = self._attempts.get(asked.attempt)
        if asked.run != RUN or attempt is None or not self._is_current(attempt):
            raise _fenced()
        if not attempt.has_job:
            raise RequestRefused("not_ready", "the attempt's Job is not recorded yet; try again")
        if attempt is not pods[token]:
            raise _unauthenticated()
        if asked.protocol < wire.PROTOCOL_VERSION or asked.key is None:
            self._end(attempt, "failed", "failed")
            raise RequestRefused(
                "invalid", f"the SDK speaks version {asked.protocol} of the run protocol, without a key"
            )
        if asked.connector != self._identity:
            self._end(attempt, "failed", "failed")
            raise RequestRefused("invalid", f"the image holds {asked.connector}, the definition is {self._identity}")
        if attempt.start_key not in (None, asked.key):
            raise _fenced()
        self.moment("start", self.attempt)
        attempt.start_key, attempt.run_token = asked.key, f"run-{attempt.number}-{asked.key}"
        return wire.StartResponse(
            run_token=attempt.run_token,
            protocol=wire.PROTOCOL_VERSION,
            tenant="team-a",
            connection="trial",
            connector=self._identity,
            config=self.config,
            streams=[wire.SelectedStream(name=stream.name, mode=stream.mode) for stream in self._selection([])],
            default_mode=self._mode,
            since=self._since,
            limits=self.limits,
            rejects=self.rejects,
            credentials=self.kept,
        )

    def _selection(self, offered: Sequence[str]) -> list[wire.SelectedStream]:
        """Return the selected streams; all that are offered where none is selected by name."""
        names = self._names or offered
        return self.selected or [wire.SelectedStream(name=name, mode=self._mode) for name in names]

    def _streams(self, body: bytes, token: str) -> wire.StreamsResponse:
        asked = wire.StreamsRequest.model_validate_json(body)
        self._held(token)
        _check_storable(body)
        self.offered = asked.streams
        by_name = {stream.identity: stream for stream in asked.streams}
        selection = self._selection(list(by_name))
        if not selection:
            raise RequestRefused("invalid", "the source offers no stream to these credentials")
        verdicts = [self._verdict(selected, by_name.get(selected.name)) for selected in selection]
        verdicts.sort(key=lambda verdict: verdict.refused)
        self._verdicts = {verdict.name: verdict for verdict in verdicts}
        self.moment("streams", len(verdicts))
        return wire.StreamsResponse(verdicts=verdicts)

    def _verdict(self, selected: wire.SelectedStream, offered: wire.DiscoveredStream | None) -> wire.StreamVerdict:
        initial = StreamState(selected.cursor, selected.checkpoint, selected.done)
        state = self.states.setdefault(selected.name, initial)
        may_read, reason = True, ""
        error_class: wire.ErrorClass = "ConfigError"
        if offered is None:
            reason = f"the source offers no stream {selected.name!r}"
        elif selected.mode not in offered.modes and self.selected:
            reason = f"stream {selected.name!r} cannot be read {selected.mode}: it can be read {offered.modes}"
        elif offered.unavailable is not None:
            reason, error_class = offered.unavailable.message, offered.unavailable.error_class
        elif selected.name in self.refusals:
            reason, error_class = self.refusals[selected.name], "SourceContractError"
        else:
            may_read = selected.mode in offered.modes and (offered.windows or self._window is None)
        return wire.StreamVerdict(
            name=selected.name,
            read=may_read and not reason and not state.done,
            schema_version=0 if reason else 1,
            selected=selected.model_copy(
                update={
                    "cursor": state.cursor if selected.mode == "incremental" or self._is_of_this_run(state) else None,
                    "done": state.done,
                    "checkpoint": state.checkpoint,
                    "window": self._window or selected.window,
                }
            ),
            reason=reason,
            refused=bool(reason),
            error_class=error_class,
            drop=self.drop,
        )

    def _is_of_this_run(self, state: StreamState) -> bool:
        return state.committed_by > 0 or bool(self.selected)

    def _estimate(self, body: bytes, token: str) -> wire.EstimateResponse:
        asked = wire.EstimateRequest.model_validate_json(body)
        self._held(token)
        _check_storable(body)
        budget = self._budget.model_dump(exclude_none=True) if self._budget else {}
        for measure, allowed in budget.items():
            expected = sum(getattr(estimate, measure) or 0 for estimate in asked.streams.values())
            if expected > allowed:
                raise RequestRefused(
                    "invalid", f"the run is expected to take {expected} {measure}, and {allowed} are allowed"
                )
        return wire.EstimateResponse()

    def _uploads(self, body: bytes, token: str) -> wire.UploadsResponse:
        asked = wire.UploadsRequest.model_validate_json(body)
        attempt = self._held(token)
        _check_storable(body)
        self._check_allowed(asked.stream)
        described = [(self.object_key(asked.stream, wanted.sequence, asked.kind), wanted) for wanted in asked.objects]
        for key, wanted in described:
            grant = ObjectGrant(asked.stream, asked.kind, wanted)
            if attempt.granted.setdefault(key, grant) != grant:
                message = f"object {wanted.sequence} of stream {asked.stream!r} is granted already, with other content"
                raise RequestRefused("mismatch", message)
            self.bucket.allow(key, wanted)
        return wire.UploadsResponse(
            grants=[self._grant(key, wanted, asked.kind) for key, wanted in described],
            expires_at=datetime.now(UTC) + timedelta(minutes=10),
        )

    def _check_allowed(self, stream: str) -> None:
        """Raise RequestRefused unless the attempt has a verdict for the stream that allows to read it."""
        verdict = self._verdicts.get(stream)
        if verdict is None:
            raise RequestRefused("invalid", f"stream {stream!r} has no verdict in this attempt")
        if verdict.refused:
            raise RequestRefused("invalid", f"stream {stream!r} is refused in this attempt")

    def _grant(self, key: str, wanted: wire.ObjectToUpload, kind: wire.ObjectKind) -> wire.UploadGrant:
        return wire.UploadGrant(
            key=key,
            sequence=wanted.sequence,
            url=f"{self.url}/bucket/{key}",
            headers=signed_headers(wanted),
            kind=kind,
        )

    def _checkpoint(self, body: bytes, token: str) -> wire.CheckpointResponse:
        asked = wire.CheckpointRequest.model_validate_json(body)
        attempt = self._held(token)
        _check_storable(body)
        self._check_allowed(asked.stream)
        state = self.state(asked.stream)
        if asked.checkpoint == state.checkpoint and state.committed_by == attempt.number and state.last is not None:
            _check_repeated(asked, state.last)
            return wire.CheckpointResponse(checkpoint=asked.checkpoint)
        if asked.checkpoint != state.checkpoint + 1:
            message = f"checkpoint {asked.checkpoint} of {asked.stream!r} does not follow {state.checkpoint}"
            raise RequestRefused("mismatch", message)
        if state.done and self._is_of_this_run(state):
            raise RequestRefused("mismatch", f"stream {asked.stream!r} is done in this run")
        _check_counts(asked)
        _check_granted(asked, attempt)
        self.moment("commit", len(self.commits) + 1)
        lines = {uploaded.key: self.bucket.lines(uploaded) for uploaded in asked.objects}
        self._commit(asked, attempt, state, lines)
        self.moment("committed", len(self.commits))
        return wire.CheckpointResponse(checkpoint=asked.checkpoint)

    def _commit(
        self,
        asked: wire.CheckpointRequest,
        attempt: AttemptRecord,
        state: StreamState,
        lines: Mapping[str, list[Line]],
    ) -> None:
        for uploaded in asked.objects:
            attempt.committed[uploaded.key] = uploaded
            attempt.stream_of[uploaded.key] = asked.stream
            if uploaded.kind == "data":
                state.records += lines[uploaded.key]
        state.cursor, state.checkpoint, state.done = asked.cursor, asked.checkpoint, asked.done
        state.committed_by, state.last = attempt.number, asked
        state.cursors.append(asked.cursor)
        self.commits.append(asked)

    def _check_declared(self, name: str) -> None:
        if self._declared is not None and name not in self._declared:
            raise RequestRefused("invalid", "credentials: the manifest declares no credential of this name")

    def _newest(self, name: str, seed: str) -> wire.RotatedCredential | None:
        """Return the stored credential that belongs to a value of the Secret."""
        kept = self.kept.get(name)
        return kept if kept is not None and kept.seed == seed else None

    def _lease_credential(self, body: bytes, token: str) -> wire.CredentialLeaseResponse:
        asked = wire.CredentialLeaseRequest.model_validate_json(body)
        attempt = self._held(token)
        self._check_declared(asked.name)
        newest = self._newest(asked.name, asked.seed)
        credential = newest if newest and _digest(newest.value) != asked.known else None
        issued, stored_at = self.tokens.get(asked.name, (None, 0.0)) if newest else (None, 0.0)
        age = time.monotonic() - stored_at
        is_fresh = issued is not None and (issued.lifetime is None or age < wire.usable_seconds(issued.lifetime))
        if issued is not None and is_fresh and _digest(issued.value) != asked.refused:
            return wire.CredentialLeaseResponse(credential=credential, token=issued.model_copy(update={"age": age}))
        before = self.leases.get(f"{asked.name} {asked.seed}")
        if before and before.is_open and before.lease != asked.lease:
            return wire.CredentialLeaseResponse(wait_seconds=0.05)
        self.leases[f"{asked.name} {asked.seed}"] = CredentialLease(asked.lease)
        self.moment("lease", attempt.number)
        return wire.CredentialLeaseResponse(
            granted=True, credential=credential, interrupted=before is not None and before.lease != asked.lease
        )

    def _release_credential(self, body: bytes, token: str) -> wire.CredentialReleaseResponse:
        asked = wire.CredentialReleaseRequest.model_validate_json(body)
        self._holder(token)
        self._end_lease(asked.name, asked.seed, asked.lease, unanswered=asked.unanswered)
        return wire.CredentialReleaseResponse()

    def _end_lease(self, name: str, seed: str, lease: str, *, unanswered: bool = False) -> None:
        held = self.leases.get(f"{name} {seed}")
        if held is None or held.lease != lease:
            return
        held.is_open = False
        if not unanswered:
            del self.leases[f"{name} {seed}"]

    def _credential(self, body: bytes, token: str) -> wire.CredentialResponse:
        asked = wire.CredentialRequest.model_validate_json(body)
        self._holder(token) if asked.lease else self._held(token)
        self._check_declared(asked.name)
        kept = wire.RotatedCredential(value=asked.value, seed=asked.seed)
        if asked.lease is not None:
            newest = self._newest(asked.name, asked.seed)
            if newest != kept and (_digest(newest.value) if newest else asked.seed) != asked.replaces:
                raise RequestRefused(
                    "mismatch", "credentials: another attempt has replaced the value that this one used"
                )
            if asked.token is not None:
                self.tokens[asked.name] = (asked.token, time.monotonic())
            self._end_lease(asked.name, asked.seed, asked.lease)
            self.moment("credential", self._versions[asked.name] + 1)
        if self.kept.get(asked.name) != kept:
            self.kept[asked.name] = kept
            self._versions[asked.name] += 1
        return wire.CredentialResponse(version=self._versions[asked.name])

    def _rate_limit(self, body: bytes, token: str) -> wire.RateLimitResponse:
        asked = wire.RateLimitRequest.model_validate_json(body)
        self._held(token)
        rules = [rule for rule in self._rate_limits if (rule.host, rule.port) == (asked.host, asked.port)]
        if not rules:
            return wire.RateLimitResponse(requests=asked.requests, limited=False)
        now = time.monotonic()
        known = {rule: self._tokens.get(rule, (float(rule.burst), now)) for rule in rules}
        budgets = {rule: refilled(rule, tokens, now - since) for rule, (tokens, since) in known.items()}
        lease = lease_tokens(budgets, asked.requests)
        self._tokens.update({rule: (tokens, now) for rule, tokens in lease.tokens.items()})
        return wire.RateLimitResponse(
            requests=lease.granted, wait_seconds=lease.wait_seconds, valid_seconds=lease.valid_seconds
        )

    def _heartbeat(self, body: bytes, token: str) -> wire.HeartbeatResponse:
        asked = wire.HeartbeatRequest.model_validate_json(body)
        self._held(token)
        _check_storable(body)
        self.heartbeats.append(asked.metrics.get("records", 0))
        return wire.HeartbeatResponse(cancel=self.cancel_requested)

    def _finish(self, body: bytes, token: str) -> wire.FinishResponse:
        asked = wire.FinishRequest.model_validate_json(body)
        attempt = self._holder(token)
        if not self._is_current(attempt):
            if attempt.phase != asked.outcome:
                raise _fenced()
            return wire.FinishResponse(phase=self.phase)
        _check_storable(body)
        phase, run_phase = self._ending(asked, attempt)
        self._end(attempt, phase, run_phase)
        self.finished.append(asked)
        return wire.FinishResponse(phase=run_phase)

    def _ending(self, asked: wire.FinishRequest, attempt: AttemptRecord) -> tuple[wire.Outcome, str]:
        """Return the phase of the attempt that ends, and the run's. Raises RequestRefused."""
        failed = [name for name, told in asked.streams.items() if told.outcome != "succeeded"]
        if asked.outcome == "succeeded" and (failed or any(verdict.refused for verdict in self._verdicts.values())):
            return "failed", self._failed("SourceContractError")
        if _is_lost(asked, attempt):
            return "failed", "failed"
        if asked.outcome == "succeeded":
            left = [name for name, verdict in self._verdicts.items() if verdict.read and not self.state(name).done]
            if left:
                raise RequestRefused("mismatch", f"streams without a final checkpoint: {', '.join(left)}")
            return "succeeded", "succeeded"
        if asked.outcome == "cancelled":
            return "cancelled", "cancelled"
        if asked.outcome == "interrupted":
            return "interrupted", self._failed("TransientError")
        if asked.error is None:
            raise RequestRefused("invalid", "a failed attempt must say its error")
        return "failed", self._failed(asked.error.error_class)

    def _failed(self, error_class: wire.ErrorClass) -> str:
        """Return the run's phase after a failed attempt."""
        if self.cancel_requested:
            return "cancelled"
        return "failed" if error_class in FINAL else "pending"

    def _end(self, attempt: AttemptRecord, phase: wire.Outcome, run_phase: str) -> None:
        attempt.phase, self.phase = phase, run_phase

    def put(self, key: str, headers: Mapping[str, str], body: bytes) -> int:
        """Take an object into the bucket; return the status."""
        status = self.bucket.put(key, headers, body)
        if status == HTTPStatus.OK:
            self.progressed = time.monotonic()
        return status


def _digest(value: str) -> str:
    return hashlib.sha256(value.encode()).hexdigest()


def _check_storable(body: bytes) -> None:
    """Raise RequestRefused for text that Postgres does not store."""
    if "\0" in _texts(json.loads(body)):
        raise RequestRefused("invalid", "the request holds what cannot be stored: a NUL character")


def _texts(value: object) -> str:
    """Return all text of a JSON value, names and values."""
    if isinstance(value, str):
        return value
    if isinstance(value, dict):
        return " ".join([*value, *map(_texts, value.values())])
    return " ".join(map(_texts, value)) if isinstance(value, list) else ""


def _check_repeated(asked: wire.CheckpointRequest, committed: wire.CheckpointRequest) -> None:
    """Raise RequestRefused when a checkpoint that is committed comes again with other content."""

    def content(request: wire.CheckpointRequest) -> tuple[Any, bool, set[str]]:
        return request.cursor, request.done, {uploaded.key for uploaded in request.objects}

    if content(asked) != content(committed):
        message = f"checkpoint {asked.checkpoint} of {asked.stream!r} is committed already, with other content"
        raise RequestRefused("mismatch", message)


def _check_counts(asked: wire.CheckpointRequest) -> None:
    """Raise RequestRefused unless the objects hold exactly the records that were read, by operation."""
    for uploaded in asked.objects:
        if uploaded.by_op is not None and sum(uploaded.by_op.values()) != uploaded.records:
            raise RequestRefused(
                "mismatch", f"object {uploaded.key} has {uploaded.records} records, and {uploaded.by_op}"
            )
    if asked.read is None or any(uploaded.by_op is None for uploaded in asked.objects):
        return
    held = Counter[wire.Op]()
    for uploaded in asked.objects:
        held.update(uploaded.by_op or {})
    if +Counter(asked.read) != +held:
        raise RequestRefused(
            "mismatch", f"stream {asked.stream!r}: {asked.read} were read, and the objects hold {dict(held)}"
        )


def _check_granted(asked: wire.CheckpointRequest, attempt: AttemptRecord) -> None:
    """Raise RequestRefused when an object was not granted to this attempt's stream, or is committed already."""
    seen = set(attempt.committed)
    for uploaded in asked.objects:
        described = wire.ObjectToUpload(sequence=uploaded.sequence, bytes=uploaded.bytes, sha256=uploaded.sha256)
        granted = attempt.granted.get(uploaded.key) == ObjectGrant(asked.stream, uploaded.kind, described)
        if not granted or uploaded.key in seen:
            message = f"object {uploaded.key} was not granted to this attempt with this size and checksum, or is committed already"
            raise RequestRefused("mismatch", message)
        seen.add(uploaded.key)


def _is_lost(asked: wire.FinishRequest, attempt: AttemptRecord) -> bool:
    """Return True if the pod's counts differ from what is committed, of the streams that it has read to their end."""

    def is_whole(stream: str) -> bool:
        told = asked.streams.get(stream)
        ended = stream in asked.read and told is not None and told.outcome == "succeeded"
        return asked.outcome == "succeeded" or ended

    told: dict[wire.ObjectKind, dict[str, int]] = {"data": asked.records, "rejected": asked.rejected}
    for kind, numbers in told.items():
        counted = attempt.counts(kind)
        if any(numbers.get(name, 0) != counted[name] for name in {*numbers, *counted} if is_whole(name)):
            return True
    for name, by_op in asked.read.items():
        kept = attempt.counts_by_op(name)
        total = asked.records.get(name, 0) + asked.rejected.get(name, 0)
        if is_whole(name) and (sum(by_op.values()) != total or (kept is not None and +Counter[str](by_op) != +kept)):
            return True
    return False


def _handler(api: RunApi) -> type[QuietHandler]:
    class Handler(QuietHandler):
        def do_POST(self) -> None:  # noqa: N802 - http.server calls it so
            scheme, _, token = self.headers.get("Authorization", "").partition(" ")
            said = token if scheme.lower() == "bearer" else None
            status, text = api.answer(self.path.removeprefix("/v1/attempts/"), self.content(), said)
            self.answer(status, {"Content-Type": "application/json"}, text.encode())

        def do_PUT(self) -> None:  # noqa: N802
            headers = {name.lower(): value for name, value in self.headers.items()}
            self.answer(api.put(self.path.removeprefix("/bucket/"), headers, self.content()), {}, b"")

    return Handler
