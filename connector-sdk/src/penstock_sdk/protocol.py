"""What a run's pod and the run API say to each other.

Every path is under `/v1/attempts`. `start` is called with the pod's own token and answers with a run token; every
other call carries that run token and is refused with 409 `fenced` once another attempt has taken over.

    POST start        StartRequest        -> StartResponse
    POST streams      StreamsRequest      -> StreamsResponse
    POST estimate     EstimateRequest     -> EstimateResponse
    POST uploads      UploadsRequest      -> UploadsResponse
    POST checkpoints  CheckpointRequest   -> CheckpointResponse
    POST credentials  CredentialRequest   -> CredentialResponse
    POST heartbeat    HeartbeatRequest    -> HeartbeatResponse
    POST finish       FinishRequest       -> FinishResponse

Each call can be repeated: a lost reply is followed by the same request again, and nothing happens twice.
An error's body is `ApiError`.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

PROTOCOL_VERSION = 1
TOKEN_AUDIENCE = "penstock"  # noqa: S105 - an audience, not a secret

MAX_PARALLELISM = 16
"""The most partitions of one stream that an attempt reads at the same time."""

API_URL_VARIABLE = "PENSTOCK_API_URL"
"""Environment variable of a connector's process: the URL of the run API."""
RUN_ID_VARIABLE = "PENSTOCK_RUN_ID"
"""Environment variable of a connector's process: the id of the run."""
ATTEMPT_VARIABLE = "PENSTOCK_ATTEMPT"
"""Environment variable of a connector's process: the number of the attempt."""
CONNECTOR_VARIABLE = "PENSTOCK_CONNECTOR"
"""Environment variable of a connector's process: the connector's entry point, `{connector}-{method}`."""
TOKEN_FILE_VARIABLE = "PENSTOCK_TOKEN_FILE"  # noqa: S105 - a variable's name
"""Environment variable of a connector's process: the file that holds the pod's own token."""
CREDENTIAL_VARIABLE_PREFIX = "PENSTOCK_CREDENTIAL_"
"""What the environment variable of a credential begins with; the credential's name follows."""
PARENT_PIPE_VARIABLE = "PENSTOCK_LIFELINE"
"""Environment variable of a process that `penstock up` starts: the descriptor of a pipe that closes when its parent ends."""

Mode = Literal["full", "incremental"]
Op = Literal["upsert", "delete"]
Outcome = Literal["succeeded", "failed", "cancelled", "interrupted"]
ErrorClass = Literal[
    "ConfigError",
    "AuthenticationError",
    "SourceContractError",
    "LocalPersistenceError",
    "TransientError",
    "DefectError",
]
ErrorCode = Literal[
    "unauthenticated", "forbidden", "fenced", "not_ready", "invalid", "mismatch", "not_found", "unavailable"
]
Count = Annotated[int, Field(ge=0, le=2**62)]
StreamName = Annotated[str, Field(min_length=1, max_length=253)]


class Message(BaseModel):
    """Base of all messages: unknown fields are ignored, so that either side may be the newer one."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class ApiError(Message):
    """Why a request was refused. `not_ready` and `unavailable` are worth a later try, the others are final."""

    code: ErrorCode
    message: str


class ConnectorIdentity(Message):
    """Which artifact runs: the three that name a definition."""

    name: str
    method: str
    version: str


class StartRequest(Message):
    """Claims the attempt that the pod was launched for."""

    run: str
    attempt: Annotated[int, Field(ge=1)]
    protocol: int = PROTOCOL_VERSION
    connector: ConnectorIdentity
    sdk_version: str


class ReadWindow(Message):
    """A span of time that is read again: from its start, included, to its end, excluded."""

    start: datetime
    end: datetime


class SelectedStream(Message):
    """One stream that the connection selects.

    `cursor` is where to go on: None for a read from the start. `done` says that an earlier attempt of this run has
    finished the stream. `checkpoint` is the number of the stream's last committed checkpoint. With a `window`, only that
    is read, and cursor, checkpoint and `done` are of that reading.
    """

    name: StreamName
    mode: Mode
    cursor: Any = None
    done: bool = False
    checkpoint: Count = 0
    generation: Annotated[int, Field(ge=1)] = 1
    window: ReadWindow | None = None


class Limits(Message):
    """When a promise becomes a commit, whichever comes first, and how large an object grows (bytes, compressed).

    `patience_seconds` is how long an attempt waits for a server or a bucket that does not answer; without it, as long
    as the SDK does by itself. `parallelism` is how many parts of one stream are read at the same time, at most.
    """

    checkpoint_records: Annotated[int, Field(ge=1)] = 50_000
    checkpoint_seconds: Annotated[float, Field(gt=0)] = 30.0
    object_bytes: Annotated[int, Field(ge=1024)] = 32 * 1024 * 1024
    heartbeat_seconds: Annotated[float, Field(gt=0)] = 10.0
    patience_seconds: Annotated[float, Field(gt=0)] | None = None
    parallelism: Annotated[int, Field(ge=1, le=MAX_PARALLELISM)] = 1


class RotatedCredential(Message):
    """A credential that the source has replaced during an earlier attempt.

    `seed` is the SHA-256, in hex, of the Secret's value that it descends from: once the owner has put another value into
    the Secret, that one counts.
    """

    value: Annotated[str, Field(repr=False)]
    seed: Annotated[str, Field(pattern="^[0-9a-f]{64}$", repr=False)]


class RejectRules(Message):
    """What becomes of records that do not fit: they are put aside, and past a threshold the attempt fails.

    `max_records` and `max_share` are of one stream, None where there is no such threshold; `strict` has every record
    checked against the stream's schema.
    """

    max_records: Count | None = None
    max_share: Annotated[float, Field(ge=0, le=1)] | None = None
    strict: bool = False


class StartResponse(Message):
    """Everything the attempt needs; `streams` is empty when the connection selects all that discover() returns."""

    run_token: str
    tenant: str
    connection: str
    connector: ConnectorIdentity
    config: dict[str, Any]
    streams: list[SelectedStream]
    default_mode: Mode = "full"
    since: datetime | None = None
    state_version: Annotated[int, Field(ge=1)] = 1
    format: Literal["jsonl"] = "jsonl"
    limits: Limits = Limits()
    rejects: RejectRules | None = None
    credentials: dict[str, RotatedCredential] = {}


class UnavailableReason(Message):
    """Why a stream cannot be read, and the class of error that it fails with."""

    error_class: ErrorClass
    message: Annotated[str, Field(max_length=2000)]


class DiscoveredStream(Message):
    """A stream as discover() returned it.

    `id` is what stays the same when the name changes; without one the name is the identity. `pii_suggested` are fields
    that look like personal data by their names, each with its class. `partitioned` says that it can be read in parts.
    `cursor_care` is what the connector takes care of;
    `windows`, that it can be read by spans of time; `only_full` is why it cannot be read incrementally; `unavailable` is
    why it cannot be read at all: its schema says nothing then.
    """

    name: StreamName
    id: StreamName | None = None
    schema_: Annotated[dict[str, Any], Field(alias="schema")]
    primary_key: list[str] = []
    cursor_field: str | None = None
    modes: list[Mode] = ["full"]
    pii: list[str] = []
    pii_suggested: dict[str, str] = {}
    partitioned: bool = False
    cursor_care: list[str] = []
    windows: bool = False
    only_full: Annotated[str, Field(max_length=1000)] = ""
    unavailable: UnavailableReason | None = None

    model_config = ConfigDict(extra="ignore", frozen=True, populate_by_name=True)

    @property
    def identity(self) -> str:
        """What verdicts, states and objects call the stream."""
        return self.id or self.name


Ability = Literal["drop", "care", "window"]


class AnnouncedDrift(Message):
    """A change of a stream that the connector knows of from its source, such as a field that is about to go."""

    stream: StreamName
    field: str = ""
    message: str


class StreamsRequest(Message):
    """All that discover() returned, and what this SDK is able to: an older one says nothing.

    `drop`: it can leave fields out; `care`: its streams declare what is taken care of;
    `window`: it reads a window that is asked for. `drift` is what the connector's own hook says.
    """

    streams: list[DiscoveredStream]
    abilities: list[str] = []
    drift: list[AnnouncedDrift] = []


class StreamVerdict(Message):
    """What to do with one selected stream, in the order in which they are to be read.

    `name` is the stream's identity. One that is `refused` is not read, and fails with `reason` and `error_class` while
    the others are read. `drop` are fields to leave out of every record, each as the names on the way to it; a list on the
    way stands for all its items.
    """

    name: StreamName
    read: bool
    schema_version: int
    selected: SelectedStream
    reason: str = ""
    refused: bool = False
    error_class: ErrorClass = "SourceContractError"
    drop: list[list[str]] = []


class StreamsResponse(Message):
    """What to do with each selected stream; one that the source does not offer is refused, the others are read."""

    verdicts: list[StreamVerdict]


ObjectKind = Literal["data", "rejected"]


class StreamEstimate(Message):
    """What reading one stream is expected to cost; bytes before compression; None where it is not known."""

    records: Count | None = None
    bytes: Count | None = None
    api_calls: Count | None = None


class EstimateRequest(Message):
    """What the attempt is expected to cost, by stream; sent before the first record is read, where anything is known."""

    streams: dict[StreamName, StreamEstimate]


class EstimateResponse(Message):
    """The attempt may begin. One that is over its budget is refused with `invalid`."""


class UploadsRequest(Message):
    """Asks for places to put the next objects of one stream; `after` is the last sequence number already granted.

    Objects of records that do not fit have sequence numbers of their own.
    """

    stream: StreamName
    kind: ObjectKind = "data"
    count: Annotated[int, Field(ge=1, le=100)] = 10
    after: Count = 0


class UploadGrant(Message):
    """One presigned PUT: send exactly these headers. `sequence` grows by one within the attempt's stream."""

    key: str
    sequence: Annotated[int, Field(ge=1)]
    url: str
    headers: dict[str, str]
    kind: ObjectKind = "data"


class UploadsResponse(Message):
    """The granted places, in order; they expire, and an unused one is harmless."""

    grants: list[UploadGrant]
    expires_at: datetime


class UploadedObject(Message):
    """One immutable Bronze file, uploaded and not yet committed. `bytes` and `sha256` are of the compressed file.

    `by_op` says how many of the records are of each operation; an older SDK does not send it.
    """

    key: str
    sequence: Annotated[int, Field(ge=1)]
    records: Count
    bytes: Count
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    kind: ObjectKind = "data"
    by_op: dict[Op, Count] | None = None


class CheckpointRequest(Message):
    """Commits objects and the state that covers them, in one transaction.

    `checkpoint` is the last committed number plus one. `done` says that the stream is finished for this run. `read` counts
    the records that were read since the checkpoint before, by operation: the objects must hold exactly these, or the
    checkpoint is refused. An older SDK does not send it.
    """

    stream: StreamName
    checkpoint: Annotated[int, Field(ge=1)]
    cursor: Any = None
    objects: list[UploadedObject] = []
    done: bool = False
    schema_version: int = 1
    read: dict[Op, Count] | None = None


class CheckpointResponse(Message):
    """The number that is committed now."""

    checkpoint: int


class CredentialRequest(Message):
    """Keeps a credential that the source has replaced, such as a rotated refresh token, for the attempts to come."""

    name: Annotated[str, Field(min_length=1, max_length=60)]
    value: Annotated[str, Field(min_length=1, max_length=65_536, repr=False)]
    seed: Annotated[str, Field(pattern="^[0-9a-f]{64}$", repr=False)]


class CredentialResponse(Message):
    """The number of the version that is kept now; the same value again makes no new one."""

    version: int


class HeartbeatRequest(Message):
    """The attempt is alive. `metrics` are numbers by name, cumulative within the attempt."""

    metrics: dict[str, float] = {}
    stream: str | None = None


class HeartbeatResponse(Message):
    """`cancel` asks the attempt to stop at the next batch border and to finish as `cancelled`."""

    cancel: bool = False


class RunError(Message):
    """Why an attempt failed. `message` is for the connection's owner, `operator_message` for the platform's."""

    error_class: ErrorClass
    message: str
    operator_message: str = ""
    retry_after: float | None = None


class StreamOutcome(Message):
    """How one stream went in an attempt: read to its end, failed with an error, or not asked for; then why, if it is known."""

    outcome: Literal["succeeded", "failed", "not_read"]
    error: RunError | None = None
    reason: Annotated[str, Field(max_length=2000)] = ""


class FinishRequest(Message):
    """The attempt's end. `records` counts what this attempt committed, by stream, `rejected` what it put aside.

    `read` counts what the connector handed over, by stream and op: for each stream and op it must be what is committed and
    rejected together, or the run fails and is not tried again. An older SDK says nothing of it. `streams` says how each
    stream went, as far as the attempt came; an older SDK says nothing. The registry believes that a stream has succeeded
    only when its last checkpoint is committed.

    `pii_suggested` are fields whose values look like personal data, by stream: names of classes, never a value.
    """

    outcome: Outcome
    error: RunError | None = None
    records: dict[str, Count] = {}
    rejected: dict[str, Count] = {}
    read: dict[str, dict[str, Count]] = {}
    streams: dict[StreamName, StreamOutcome] = {}
    pii_suggested: dict[str, dict[str, str]] = {}
    metrics: dict[str, float] = {}


class FinishResponse(Message):
    """The run's phase after this attempt."""

    phase: str
