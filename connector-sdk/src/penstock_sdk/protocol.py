"""The messages between the pod of a run and the run API.

Every path is under `/v1/attempts`. `start` is called with the pod's own token and returns a run token. Every other call
carries that run token, and is refused with 409 `fenced` once another attempt has replaced this one.

    POST start        StartRequest        -> StartResponse
    POST streams      StreamsRequest      -> StreamsResponse
    POST estimate     EstimateRequest     -> EstimateResponse
    POST uploads      UploadsRequest      -> UploadsResponse
    POST checkpoints  CheckpointRequest   -> CheckpointResponse
    POST credentials  CredentialRequest   -> CredentialResponse
    POST rate-limit   RateLimitRequest    -> RateLimitResponse
    POST credentials/lease    CredentialLeaseRequest    -> CredentialLeaseResponse
    POST credentials/release  CredentialReleaseRequest  -> CredentialReleaseResponse
    POST egress       EgressRequest       -> EgressResponse
    POST heartbeat    HeartbeatRequest    -> HeartbeatResponse
    POST finish       FinishRequest       -> FinishResponse

The egress gateway makes two calls with the token of the run that it serves: `egress`, and `egress/report` (EgressReport ->
EgressReportResponse).

Each call can be repeated: after a lost reply the pod sends the same request again, and nothing happens twice. The body of
an error is an `ApiError`.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydantic_core import to_json

from penstock_sdk._launch_variables import CREDENTIAL_VARIABLE_PREFIX, CREDENTIALS_DIRECTORY_VARIABLE
from penstock_sdk.json_types import JsonObject, JsonSchema, JsonValue

__all__ = [
    "API_URL_VARIABLE",
    "ATTEMPT_VARIABLE",
    "CA_CERTIFICATES_VARIABLE",
    "CONNECTOR_VARIABLE",
    "CREDENTIALS_DIRECTORY_VARIABLE",
    "CREDENTIAL_LEASE_SECONDS",
    "CREDENTIAL_VARIABLE_PREFIX",
    "EGRESS_BUCKET_VARIABLE",
    "EGRESS_CHECK_VARIABLE",
    "EGRESS_URL_VARIABLE",
    "MAX_LEASED_REQUESTS",
    "MAX_OBJECTS_PER_CHECKPOINT",
    "MAX_OBJECTS_PER_UPLOADS",
    "MAX_OBJECT_BYTES",
    "MAX_PARALLELISM",
    "MAX_SEQUENCE",
    "PARENT_PIPE_VARIABLE",
    "PROTOCOL_VERSION",
    "RUN_ID_VARIABLE",
    "SOURCE_CA_VARIABLE",
    "TOKEN_AUDIENCE",
    "TOKEN_FILE_VARIABLE",
    "Ability",
    "AnnouncedDrift",
    "ApiError",
    "CheckpointRequest",
    "CheckpointResponse",
    "ConnectorIdentity",
    "Count",
    "CredentialLeaseRequest",
    "CredentialLeaseResponse",
    "CredentialReleaseRequest",
    "CredentialReleaseResponse",
    "CredentialRequest",
    "CredentialResponse",
    "DiscoveredStream",
    "EgressDenial",
    "EgressDestination",
    "EgressReport",
    "EgressReportResponse",
    "EgressRequest",
    "EgressResponse",
    "ErrorClass",
    "ErrorCode",
    "EstimateRequest",
    "EstimateResponse",
    "FinishRequest",
    "FinishResponse",
    "HeartbeatRequest",
    "HeartbeatResponse",
    "IssuedToken",
    "Limits",
    "Message",
    "Mode",
    "ObjectKind",
    "ObjectToUpload",
    "Op",
    "Outcome",
    "RateLimitRequest",
    "RateLimitResponse",
    "ReadWindow",
    "RejectRules",
    "RotatedCredential",
    "RunError",
    "SelectedStream",
    "StartRequest",
    "StartResponse",
    "StreamEstimate",
    "StreamName",
    "StreamOutcome",
    "StreamVerdict",
    "StreamsRequest",
    "StreamsResponse",
    "UnavailableReason",
    "UploadGrant",
    "UploadedObject",
    "UploadsRequest",
    "UploadsResponse",
    "usable_seconds",
]

PROTOCOL_VERSION = 2
"""Version of these messages. In version 1, `start` had no key, and a grant did not name the object's size and checksum."""
TOKEN_AUDIENCE = "penstock"  # noqa: S105 - an audience, not a secret

MAX_STREAMS = 10_000
"""The most streams that discover() may return."""
MAX_FIELDS = 10_000
"""The most fields of a stream in one list."""
MAX_FIELD_CHARACTERS = 1_000
"""The longest path of a field."""
MAX_SCHEMA_BYTES = 1024 * 1024
"""The size of a stream's schema, as JSON."""
MAX_CURSOR_BYTES = 1024 * 1024
"""The size of a cursor, as JSON."""
MAX_METRICS = 200
"""The most metrics of an attempt."""
MAX_DRIFT = 1_000
"""The most changes that a source may announce at once."""
MAX_MESSAGE_CHARACTERS = 2_000
"""The longest message for the owner of a connection."""
MAX_OPERATOR_MESSAGE_CHARACTERS = 4_000
"""The longest message for the platform's operator."""
MAX_KEY_CHARACTERS = 1_024
"""The longest key of an object: the limit of S3, which counts bytes."""
MAX_INT32 = 2**31 - 1
MAX_PARALLELISM = 16
"""The most partitions of one stream that an attempt reads at the same time."""
MAX_OBJECT_BYTES = 5 * 2**30
"""The largest object: what S3 takes in one PUT."""
MAX_SEQUENCE = MAX_INT32
"""The largest sequence number of an object: the registry's column is a 32-bit integer."""
MAX_DENIALS = 20
"""Denied destinations of one attempt that are reported and kept. Each is kept once; the gateway's log has them all."""
MAX_OBJECTS_PER_UPLOADS = 100
"""The most objects in one request for grants."""
MAX_LEASED_REQUESTS = 1000
"""Requests to a source that one call may ask for."""
MAX_OBJECTS_PER_CHECKPOINT = 5_000
"""The most objects that one checkpoint commits: 160 GB in objects of the default size, for a read without cursors."""

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
CA_CERTIFICATES_VARIABLE = "PENSTOCK_CA_CERTIFICATES"
"""Environment variable of a connector's process: the CAs of the platform's own servers, as PEM; they are trusted for nothing else."""
SOURCE_CA_VARIABLE = "PENSTOCK_SOURCE_CA_CERTIFICATES"
"""Environment variable of a connector's process: the CAs that its connection names for its source, as PEM."""
EGRESS_URL_VARIABLE = "PENSTOCK_EGRESS_URL"
"""Environment variable of a connector's process: the URL of the egress gateway. Without it, connections are direct."""
EGRESS_BUCKET_VARIABLE = "PENSTOCK_EGRESS_BUCKET"
"""Environment variable of a connector's process: `direct` if it uploads to the bucket without the gateway."""
EGRESS_CHECK_VARIABLE = "PENSTOCK_EGRESS_CHECK"
"""Environment variable of a connector's process: set, the SDK itself refuses destinations that the manifest does not declare."""
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
Name = Annotated[str, Field(max_length=253)]
FieldPath = Annotated[str, Field(max_length=MAX_FIELD_CHARACTERS)]
FieldPaths = Annotated[list[FieldPath], Field(max_length=MAX_FIELDS)]
Number = Annotated[int, Field(ge=1, le=MAX_INT32)]
MetricName = Annotated[str, Field(max_length=100)]
Metrics = Annotated[dict[MetricName, float], Field(max_length=MAX_METRICS)]


def _at_most(most: int) -> AfterValidator:
    """Return the validator of a JSON value that may have at most so many bytes."""

    def check(value: JsonValue) -> JsonValue:
        size = len(to_json(value))
        if size > most:
            raise ValueError(f"has {size:,} bytes as JSON; at most {most:,} are accepted")
        return value

    return AfterValidator(check)


CursorValue = Annotated[JsonValue, _at_most(MAX_CURSOR_BYTES), Field(json_schema_extra={"maxBytes": MAX_CURSOR_BYTES})]
StartKey = Annotated[str, Field(pattern="^[A-Za-z0-9_-]{32,128}$")]


class Message(BaseModel):
    """Base of all messages. Unknown fields are ignored, so that either side may be newer than the other."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class ApiError(Message):
    """Why a request was refused. `not_ready` and `unavailable` can be retried; the other codes are final."""

    code: ErrorCode
    message: str


class ConnectorIdentity(Message):
    """The artifact that runs: the three names of a definition."""

    name: Name
    method: Name
    version: Name


class StartRequest(Message):
    """Claims the attempt for which the pod was launched.

    `key` is a random text that the process makes once and keeps in memory. The same request again gets the same answer; with
    another key, the attempt is fenced.
    """

    run: Name
    attempt: Number
    protocol: Annotated[int, Field(ge=0, le=1000)] = PROTOCOL_VERSION
    connector: ConnectorIdentity
    sdk_version: Name
    key: Annotated[StartKey | None, Field(repr=False)] = None


class ReadWindow(Message):
    """A time span that is read again, from `start` (inclusive) to `end` (exclusive)."""

    start: datetime
    end: datetime


class SelectedStream(Message):
    """One stream that the connection selects.

    The read resumes from `cursor`; with None it begins at the start. `done`: an earlier attempt of this run has finished
    the stream. `checkpoint` is the number of the stream's last committed checkpoint. With a `window`, only that time span is
    read, and cursor, checkpoint and `done` belong to that read.
    """

    name: StreamName
    mode: Mode
    cursor: JsonValue = None
    done: bool = False
    checkpoint: Count = 0
    generation: Annotated[int, Field(ge=1)] = 1
    window: ReadWindow | None = None


class Limits(Message):
    """When a cursor is committed, and how large an object becomes.

    A cursor is committed after `checkpoint_records` records or `checkpoint_seconds` seconds, whichever comes first.
    `object_bytes` is the compressed size of an object. `patience_seconds` is how long an attempt retries when the server or
    the bucket does not answer; None means the SDK's default. `parallelism` is the largest number of partitions of one stream
    that are read at the same time.
    """

    checkpoint_records: Annotated[int, Field(ge=1)] = 50_000
    checkpoint_seconds: Annotated[float, Field(gt=0)] = 30.0
    object_bytes: Annotated[int, Field(ge=1024)] = 32 * 1024 * 1024
    heartbeat_seconds: Annotated[float, Field(gt=0)] = 10.0
    patience_seconds: Annotated[float, Field(gt=0)] | None = None
    parallelism: Annotated[int, Field(ge=1, le=MAX_PARALLELISM)] = 1


class RotatedCredential(Message):
    """A credential that the source has replaced during an earlier attempt.

    `seed` is the SHA-256, in hex, of the value of the Secret that the source replaced. If the Secret now has another value,
    the value of the Secret is used.
    """

    value: Annotated[str, Field(repr=False)]
    seed: Annotated[str, Field(pattern="^[0-9a-f]{64}$", repr=False)]


class RejectRules(Message):
    """How the attempt treats invalid records: it sets them aside, and fails above a threshold.

    `max_records` and `max_share` are the thresholds of one stream; None means no threshold. With `strict`, every record is
    checked against the stream's schema.
    """

    max_records: Count | None = None
    max_share: Annotated[float, Field(ge=0, le=1)] | None = None
    strict: bool = False


class StartResponse(Message):
    """Everything that the attempt needs. `streams` is empty if the connection selects all streams of discover().

    `protocol` is the server's version of the messages.
    """

    run_token: str
    protocol: int = 1
    tenant: str
    connection: str
    connector: ConnectorIdentity
    config: JsonObject
    streams: list[SelectedStream]
    default_mode: Mode = "full"
    since: datetime | None = None
    state_version: Annotated[int, Field(ge=1)] = 1
    format: Literal["jsonl"] = "jsonl"
    limits: Limits = Limits()
    rejects: RejectRules | None = None
    credentials: dict[str, RotatedCredential] = {}


class UnavailableReason(Message):
    """Why a stream cannot be read, and the class of the error with which it fails."""

    error_class: ErrorClass
    message: Annotated[str, Field(max_length=MAX_MESSAGE_CHARACTERS)]


class DiscoveredStream(Message):
    """A stream as discover() returned it.

    `id` stays the same when the name changes; without an id, the name identifies the stream. `pii_suggested` holds the fields
    whose names suggest personal data, each with its class. `partitioned`: it can be read in partitions. `cursor_care`: the
    ways of losing records that the connector prevents. `windows`: a time span of it can be read again. `only_full`: why it
    cannot be read incrementally. `unavailable`: why it cannot be read at all; its schema then means nothing.
    """

    name: StreamName
    id: StreamName | None = None
    schema_: Annotated[
        JsonSchema, _at_most(MAX_SCHEMA_BYTES), Field(alias="schema", json_schema_extra={"maxBytes": MAX_SCHEMA_BYTES})
    ]
    primary_key: FieldPaths = []
    cursor_field: FieldPath | None = None
    modes: Annotated[list[Mode], Field(max_length=10)] = ["full"]
    pii: FieldPaths = []
    pii_suggested: Annotated[dict[FieldPath, Name], Field(max_length=MAX_FIELDS)] = {}
    partitioned: bool = False
    cursor_care: Annotated[list[Name], Field(max_length=50)] = []
    windows: bool = False
    only_full: Annotated[str, Field(max_length=1000)] = ""
    unavailable: UnavailableReason | None = None

    model_config = ConfigDict(extra="ignore", frozen=True, populate_by_name=True)

    @property
    def identity(self) -> str:
        """The name by which verdicts, state and objects identify the stream."""
        return self.id or self.name


Ability = Literal["drop", "care", "window"]


class AnnouncedDrift(Message):
    """A change of a stream that the source announces, such as a field that will be removed."""

    stream: StreamName
    field: FieldPath = ""
    message: Annotated[str, Field(max_length=MAX_MESSAGE_CHARACTERS)]


class StreamsRequest(Message):
    """All streams of discover(), and the abilities of this SDK. An older SDK sends no abilities.

    `drop`: it can leave fields out. `care`: its streams declare their `cursor_care`. `window`: it can read a time span again.
    `drift` are the changes that the connector's `drift` hook returned.
    """

    streams: Annotated[list[DiscoveredStream], Field(max_length=MAX_STREAMS)]
    abilities: Annotated[list[Name], Field(max_length=50)] = []
    drift: Annotated[list[AnnouncedDrift], Field(max_length=MAX_DRIFT)] = []


class StreamVerdict(Message):
    """What to do with one selected stream. The verdicts are in the order in which the streams are read.

    `name` is the stream's identity. A `refused` stream is not read, and fails with `reason` and `error_class`; the others are
    read. `drop` are fields to leave out of every record, each as the list of names that leads to it; where such a name is a
    list, the field is left out of all its items.
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
    """What to do with each selected stream. A stream that the source does not offer is refused; the others are read."""

    verdicts: list[StreamVerdict]


ObjectKind = Literal["data", "rejected"]


class StreamEstimate(Message):
    """The expected cost of reading one stream. `bytes` are before compression. None means unknown."""

    records: Count | None = None
    bytes: Count | None = None
    api_calls: Count | None = None


class EstimateRequest(Message):
    """The expected cost of the attempt, by stream. Sent before the first record is read, if any cost is known."""

    streams: Annotated[dict[StreamName, StreamEstimate], Field(max_length=MAX_STREAMS)]


class EstimateResponse(Message):
    """The attempt may read. An attempt over its budget is refused with `invalid`."""


Sequence = Annotated[int, Field(ge=1, le=MAX_SEQUENCE)]
ObjectBytes = Annotated[int, Field(ge=1, le=MAX_OBJECT_BYTES)]
Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class ObjectToUpload(Message):
    """An object that is ready to be uploaded. `bytes` and `sha256` are of the compressed file."""

    sequence: Sequence
    bytes: ObjectBytes
    sha256: Sha256


class UploadsRequest(Message):
    """Asks for grants to upload objects of one stream. A sequence number belongs to one object.

    Objects of rejected records have their own sequence numbers. A request that names other content for a sequence number
    that is granted already is refused.
    """

    stream: StreamName
    kind: ObjectKind = "data"
    objects: Annotated[list[ObjectToUpload], Field(min_length=1, max_length=MAX_OBJECTS_PER_UPLOADS)]


class UploadGrant(Message):
    """The right to upload one object with a presigned PUT. Send exactly these headers.

    The headers are signed: the bucket accepts only the object of this size and checksum, and only once.
    """

    key: str
    sequence: Sequence
    url: str
    headers: dict[str, str]
    kind: ObjectKind = "data"


class UploadsResponse(Message):
    """The grants, in the order of the request. They expire within minutes; a grant that is not used has no effect."""

    grants: list[UploadGrant]
    expires_at: datetime


class UploadedObject(Message):
    """One immutable Bronze file that is uploaded and not yet committed. `bytes` and `sha256` are those of its grant.

    `by_op` counts the records by operation; an older SDK does not send it.
    """

    key: Annotated[str, Field(max_length=MAX_KEY_CHARACTERS)]
    sequence: Sequence
    records: Count
    bytes: ObjectBytes
    sha256: Sha256
    kind: ObjectKind = "data"
    by_op: dict[Op, Count] | None = None


class CheckpointRequest(Message):
    """Commits objects and the cursor that covers them, in one transaction.

    The checkpoint is refused unless the bucket holds each object with the size and the checksum of its grant.
    `checkpoint` is the last committed number plus one. `done`: the stream is finished for this run. `read` counts the records
    read since the previous checkpoint, by operation. The objects must hold exactly this number of records, or the checkpoint
    is refused. An older SDK does not send `read`.
    """

    stream: StreamName
    checkpoint: Annotated[int, Field(ge=1, le=2**62)]
    cursor: CursorValue = None
    objects: Annotated[list[UploadedObject], Field(max_length=MAX_OBJECTS_PER_CHECKPOINT)] = []
    done: bool = False
    schema_version: Number = 1
    read: dict[Op, Count] | None = None


class CheckpointResponse(Message):
    """The number of the last committed checkpoint."""

    checkpoint: int


Digest = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
"""The SHA-256 of a secret value, in hex."""
LeaseKey = Annotated[str, Field(pattern="^[A-Za-z0-9_-]{16,128}$")]
"""A random text that a pod makes for a lease. A repeated request has the same."""
CREDENTIAL_LEASE_SECONDS = 120
"""How long a pod may take to use a credential and to store what it got. The longest login takes less."""
TOKEN_MARGIN_SECONDS = 60.0
"""A token that expires while a request is under way is of no use."""
TOKEN_MARGIN_SHARE = 0.25
"""The margin of a token that lives for a few minutes only, as a share of its life."""


def usable_seconds(lifetime: float) -> float:
    """Return for how many seconds of its life a token is used."""
    return lifetime - min(TOKEN_MARGIN_SECONDS, lifetime * TOKEN_MARGIN_SHARE)


class IssuedToken(Message):
    """A token that a provider issued for a credential. `lifetime` is in seconds; None if the provider does not say it.

    `age` is how long ago it was stored, in seconds.
    """

    value: Annotated[str, Field(min_length=1, max_length=65_536, repr=False)]
    lifetime: Annotated[float, Field(gt=0, le=31_622_400)] | None = None
    age: Annotated[float, Field(ge=0)] = 0.0


class CredentialLeaseRequest(Message):
    """Asks for the right to use a credential that its use replaces, such as a refresh token.

    All connections of a tenant whose Secrets have the same value share the credential. `seed` is the digest of the Secret's
    value, `known` of the newest value that the pod has, `refused` of a token that the source has refused.
    """

    name: Annotated[str, Field(min_length=1, max_length=60)]
    seed: Digest
    known: Digest
    refused: Digest | None = None
    lease: LeaseKey


class CredentialLeaseResponse(Message):
    """One of three: a usable `token` that somebody else got; the lease (`granted`); or neither, try again after `wait_seconds`.

    `credential` is the newest value, if it is not the one that the pod knows. `interrupted`: an earlier holder of the lease
    used the credential, and did not store what it got.
    """

    granted: bool = False
    credential: RotatedCredential | None = None
    token: IssuedToken | None = None
    wait_seconds: float = 0.0
    interrupted: bool = False


class CredentialReleaseRequest(Message):
    """Gives a lease back. `unanswered`: the credential was used, and no answer came."""

    name: Annotated[str, Field(min_length=1, max_length=60)]
    seed: Digest
    lease: LeaseKey
    unanswered: bool = False


class CredentialReleaseResponse(Message):
    """The lease is given back."""


class CredentialRequest(Message):
    """Stores a credential that the source has replaced, such as a rotated refresh token, for later attempts.

    With a `lease`, the value is stored for all connections that share the credential, if the stored one is still the one that
    was used (`replaces`), and the lease ends. This works for a short time after the attempt has ended too, because the value
    is lost otherwise. `token` is what the provider issued with it.
    """

    name: Annotated[str, Field(min_length=1, max_length=60)]
    value: Annotated[str, Field(min_length=1, max_length=65_536, repr=False)]
    seed: Digest
    lease: LeaseKey | None = None
    replaces: Digest | None = None
    token: IssuedToken | None = None


class CredentialResponse(Message):
    """The number of the stored version. The same value sent again makes no new version."""

    version: int


class RateLimitRequest(Message):
    """Asks for requests to a host whose rate limit several connections share."""

    host: Annotated[str, Field(min_length=1, max_length=255)]
    port: Annotated[int, Field(ge=1, le=65_535)]
    requests: Annotated[int, Field(ge=1, le=MAX_LEASED_REQUESTS)] = 1


class RateLimitResponse(Message):
    """How many requests may be sent after `wait_seconds`, within `valid_seconds` from then on.

    With 0 requests, ask again after `wait_seconds`. `limited`: False if the manifest declares no limit for the host; then do not
    ask again.
    """

    requests: int
    wait_seconds: float = 0.0
    valid_seconds: float = 0.0
    limited: bool = True


class EgressRequest(Message):
    """Asks where the attempt may connect to."""


class EgressDestination(Message):
    """A host and a port. `*.example.com` stands for every name below example.com; `private`: it may be a private address."""

    host: Annotated[str, Field(min_length=1, max_length=255)]
    port: Annotated[int, Field(ge=1, le=65_535)]
    private: bool = False


class EgressResponse(Message):
    """Where the attempt may connect to: the destinations of its manifest, and the platform's own, such as the bucket."""

    run: str
    attempt: Annotated[int, Field(ge=1)]
    destinations: Annotated[list[EgressDestination], Field(max_length=100)] = []
    platform: Annotated[list[EgressDestination], Field(max_length=10)] = []


class EgressDenial(Message):
    """A connection that was forbidden, and the rule that forbids it."""

    host: Annotated[str, Field(min_length=1, max_length=255)]
    port: Annotated[int, Field(ge=1, le=65_535)]
    reason: Annotated[str, Field(max_length=500)]


class EgressReport(Message):
    """What an attempt did on the network since the last report: denials, and bytes sent to sources and received."""

    denials: Annotated[list[EgressDenial], Field(max_length=MAX_DENIALS)] = []
    sent: Count = 0
    received: Count = 0


class EgressReportResponse(Message):
    """The report is kept."""


class HeartbeatRequest(Message):
    """The attempt is alive. `metrics` are numbers by name, cumulative within the attempt. `stream` is being read now."""

    metrics: Metrics = {}
    stream: Name | None = None


class HeartbeatResponse(Message):
    """With `cancel`, the attempt stops after the current batch and finishes as `cancelled`."""

    cancel: bool = False


class RunError(Message):
    """Why an attempt failed. `message` is for the connection's owner, `operator_message` for the platform's operator."""

    error_class: ErrorClass
    message: Annotated[str, Field(max_length=MAX_MESSAGE_CHARACTERS)]
    operator_message: Annotated[str, Field(max_length=MAX_OPERATOR_MESSAGE_CHARACTERS)] = ""
    retry_after: float | None = None


class StreamOutcome(Message):
    """The outcome of one stream in an attempt: read to its end, failed with `error`, or not read, with the `reason` if known."""

    outcome: Literal["succeeded", "failed", "not_read"]
    error: RunError | None = None
    reason: Annotated[str, Field(max_length=MAX_MESSAGE_CHARACTERS)] = ""


class FinishRequest(Message):
    """The end of the attempt.

    `records` counts the records that this attempt committed, by stream; `rejected` those that it set aside. `read` counts
    the records that the connector yielded, by stream and operation. For each of them, `read` must equal the committed and
    the rejected records together, or the run fails and is not retried. `streams` holds the outcome of each stream, as far as
    the attempt came; the registry accepts a stream as succeeded only if its last checkpoint is committed. An older SDK sends
    neither `read` nor `streams`.

    `pii_suggested` holds, by stream, the fields whose values look like personal data, each with its class. It holds no value.
    """

    outcome: Outcome
    error: RunError | None = None
    records: Annotated[dict[Name, Count], Field(max_length=MAX_STREAMS)] = {}
    rejected: Annotated[dict[Name, Count], Field(max_length=MAX_STREAMS)] = {}
    read: Annotated[dict[Name, Annotated[dict[Name, Count], Field(max_length=10)]], Field(max_length=MAX_STREAMS)] = {}
    streams: Annotated[dict[StreamName, StreamOutcome], Field(max_length=MAX_STREAMS)] = {}
    pii_suggested: Annotated[
        dict[Name, Annotated[dict[FieldPath, Name], Field(max_length=MAX_FIELDS)]], Field(max_length=MAX_STREAMS)
    ] = {}
    metrics: Metrics = {}


class FinishResponse(Message):
    """The run's phase after this attempt."""

    phase: str
