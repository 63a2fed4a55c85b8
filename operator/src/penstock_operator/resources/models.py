"""The two kinds, as `kubectl apply` takes them; the CRDs are generated from these models."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from penstock_sdk.manifest import Declared, Manifest, rules
from penstock_sdk.protocol import MAX_PARALLELISM
from pydantic import ConfigDict, Field

from penstock_operator.resources.conditions import Condition
from penstock_operator.resources.notations import CpuAmount, Duration, MemorySize, Moment
from penstock_operator.resources.schedules import UTC_ZONE, CronSchedule, TimeZone
from penstock_operator.resources.stored import parse_stored

GROUP, API_VERSION = "penstock.io", "v1alpha1"
REQUESTED_AT = f"{GROUP}/requestedAt"
RESET_STATE, REWIND_STATE = f"{GROUP}/resetState", f"{GROUP}/rewindState"
ANNOTATIONS = (REQUESTED_AT, RESET_STATE, REWIND_STATE)
"""All annotations that Penstock reads; another one of its group is a mistake."""
MAX_CA_CHARACTERS = 65_536
"""Of the CAs of one source. A bundle of all public CAs has 220,000; a private CA has about 2,000."""
Kind = Literal["ConnectorDefinition", "TenantConnection"]
PLURALS: dict[Kind, str] = {"ConnectorDefinition": "connectordefinitions", "TenantConnection": "tenantconnections"}
Stage = Literal["preview", "certified", "deprecated", "withdrawn"]

DURATION = "^([0-9]{1,6}(ms|s|m)|[0-9]{1,4}h)+$"  # no sum of these within 30 characters is too long for Kubernetes
DURATION_RULE = (
    f"self.matches('{DURATION}')",
    "must be a duration such as '30s', '10m' or '1h30m', with at most four digits of hours and six of anything else",
)
Wait = Annotated[
    Duration,
    Field(
        json_schema_extra=rules(
            DURATION_RULE,
            (
                f"self.matches('{DURATION}') ? duration(self) > duration('0s') : true",
                "must be longer than 0s, such as '10s'",
            ),
        ),
    ),
]
Timeout = Annotated[
    Duration,
    Field(
        json_schema_extra=rules(
            DURATION_RULE,
            (
                f"self.matches('{DURATION}') ? duration(self) >= duration('1s') : true",
                "must be at least 1s, such as '2h': an attempt that takes longer is ended",
            ),
        ),
    ),
]
Jitter = Annotated[
    Duration,
    Field(
        json_schema_extra=rules(
            DURATION_RULE,
            (
                f"self.matches('{DURATION}') ? duration(self) <= duration('24h') : true",
                "must be at most 24h: it puts each tick off by a part of it",
            ),
        ),
    ),
]
MEMORY = "^[0-9]+([.][0-9]+)?(Ki|Mi|Gi|Ti|k|M|G|T)$"
LEAST_MEMORY, MOST_MEMORY = "32Mi", "16Ti"  # in less, no container of a connector starts
Memory = Annotated[
    MemorySize,
    Field(
        json_schema_extra=rules(
            (
                f"self.matches('{MEMORY}')",
                "must be an amount of memory with its unit, such as '512Mi' or '2Gi'; a number without one is bytes",
            ),
            (
                (
                    f"self.matches('{MEMORY}') ? quantity(self).compareTo(quantity('{LEAST_MEMORY}')) >= 0"
                    f" && quantity(self).compareTo(quantity('{MOST_MEMORY}')) <= 0 : true"
                ),
                f"must be between {LEAST_MEMORY} and {MOST_MEMORY}",
            ),
        ),
    ),
]
CPU = "^([0-9]+([.][0-9]{1,3})?|[0-9]+m)$"
LEAST_CPU, MOST_CPU = "10m", "1024"
Cpu = Annotated[
    CpuAmount,
    Field(
        json_schema_extra=rules(
            (f"self.matches('{CPU}')", "must be cores such as '1' or '0.5', or thousandths of one such as '500m'"),
            (
                (
                    f"self.matches('{CPU}') ? quantity(self).compareTo(quantity('{LEAST_CPU}')) >= 0"
                    f" && quantity(self).compareTo(quantity('{MOST_CPU}')) <= 0 : true"
                ),
                f"must be between {LEAST_CPU} and {MOST_CPU} cores",
            ),
        ),
    ),
]
INSTANT = (
    "^[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]([.][0-9]{1,9})?"
    "(Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])$"
)
Instant = Annotated[
    Moment,
    Field(
        json_schema_extra=rules(
            (
                f"self.matches('{INSTANT}')",
                "must be a moment with a zone such as '2026-01-01T00:00:00Z'",
            )
        ),
    ),
]
SUBDOMAIN_RULE = (
    "self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*$')",
    "must be the name of a resource: lower-case letters, digits, '-' and '.', with a letter or digit at both ends",
)
Name = Annotated[str, Field(max_length=63, min_length=1, json_schema_extra=rules(SUBDOMAIN_RULE))]
StreamName = Annotated[str, Field(max_length=253, min_length=1)]
FreeForm = Annotated[
    dict[str, Any], Field(json_schema_extra={"x-kubernetes-preserve-unknown-fields": True, "nullable": True})
]
"""Nullable, as an API server would drop a null elsewhere in silence: this one reaches the reconcile, which refuses it."""


class DefinitionSpec(Declared):
    """One immutable version of one connector method."""

    image: Annotated[
        str,
        Field(
            max_length=500,
            json_schema_extra=rules(
                (
                    "self.matches('^[^@ ]+@sha256:[0-9a-f]{64}$')",
                    "must name the image by digest, such as 'registry.example/postgres-sql@sha256:<64 hex digits>'",
                )
            ),
        ),
    ]
    """The connector's image by digest; a tag would let one definition mean two things."""
    stage: Stage = "preview"
    """How far it is trusted: a range selects certified versions, an exact version also a preview; nothing a withdrawn one."""
    manifest: Manifest
    """The whole connector.yaml."""


IDENTIFIER_RULE = (
    "self.matches('^[a-z][a-z0-9]*(-[a-z0-9]+)*$')",
    "must be lower-case letters, digits and single dashes, as in the definition's manifest",
)


class ConnectorReference(Declared):
    """Which connector a connection uses."""

    name: Annotated[str, Field(max_length=40, min_length=1, json_schema_extra=rules(IDENTIFIER_RULE))]
    """The manifest's name, such as postgres."""
    method: Annotated[str, Field(max_length=20, min_length=1, json_schema_extra=rules(IDENTIFIER_RULE))]
    """The manifest's method, such as sql."""
    version: Annotated[
        str,
        Field(
            max_length=60,
            json_schema_extra=rules(
                (
                    "self.matches('^([\\\\^~]|>=)?[0-9]+([.][0-9]+){0,2}(-[0-9a-z.-]+)?$') || self == '*'",
                    "must be an exact version ('1.2.0') or a range ('^1.2', '~1.2.0', '>=1.2', '*')",
                )
            ),
        ),
    ] = "*"
    """An exact version, or a range of which the newest certified definition is taken that the connection fits: '^1.2', '~1.2.0', '>=1.2', '*'."""


NO_CONNECTOR = ConnectorReference.model_construct(name="", method="", version="*")
"""The connector of a spec that names none."""


class SecretReference(Declared):
    """The Secret in the connection's namespace that holds the credentials."""

    name: Annotated[str, Field(max_length=253, min_length=1, json_schema_extra=rules(SUBDOMAIN_RULE))]
    """The Secret's name. Its keys are the manifest's credentials."""


SchemaPolicy = Literal["evolve", "freeze", "discard-new", "block-pii"]


class StreamSelection(Declared):
    """One stream to read, and how. Its schemaPolicy goes before the connection's."""

    name: StreamName
    """The stream's id, or its name where it has none."""
    mode: Literal["full", "incremental"] = "full"
    """full reads everything each time; incremental goes on where the last run ended."""
    schema_policy: SchemaPolicy | None = None
    """What becomes of a changed schema; the connection's own where it is left out."""


BACKOFF_RULE = (
    (
        f"self.initial.matches('{DURATION}') && self.max.matches('{DURATION}')"
        " ? duration(self.max) >= duration(self.initial) : true"
    ),
    "max must be at least as long as initial (30m and 10s where they are left out)",
)
OUT_OF_MEMORY_RULE = (
    (
        f"has(self.onOutOfMemory) && self.onOutOfMemory.max.matches('{MEMORY}') && self.limits.memory.matches('{MEMORY}')"
        " ? quantity(self.onOutOfMemory.max).compareTo(quantity(self.limits.memory)) > 0 : true"
    ),
    "onOutOfMemory.max must be more than limits.memory (512Mi where it is left out); raise it, or remove onOutOfMemory",
)


class Backoff(Declared):
    """How long to wait before each retry: initial, times factor each time, at most max."""

    model_config = ConfigDict(json_schema_extra=rules(BACKOFF_RULE))

    initial: Wait = Duration("10s")
    """The wait before the first retry."""
    factor: Annotated[int, Field(ge=1, le=10)] = 3
    """What each further wait is multiplied by."""
    max: Wait = Duration("30m")
    """The longest wait."""


class Retry(Declared):
    """How often a transient failure is tried again."""

    limit: Annotated[int, Field(ge=0, le=100)] = 5
    """How many failures in a row without progress; an attempt that committed something begins the count anew."""
    backoff: Backoff = Backoff()
    """How long the waits are; a source's own wish (Retry-After) goes before it."""


class ResourceLimits(Declared):
    """Upper bounds of the run's container."""

    memory: Memory = MemorySize("512Mi")
    """All of it is reserved too."""
    cpu: Cpu = CpuAmount("1")
    """In cores ('1', '0.5') or thousandths ('500m')."""


class OnOutOfMemory(Declared):
    """Give the next attempt of a run that ran out of memory more of it: times factor each time, at most max."""

    factor: Annotated[int, Field(ge=2, le=10)] = 2
    """What the memory is multiplied by for the next attempt."""
    max: Memory
    """The most that an attempt gets."""


class Resources(Declared):
    """What the run's container may use."""

    model_config = ConfigDict(json_schema_extra=rules(OUT_OF_MEMORY_RULE))

    limits: ResourceLimits = ResourceLimits()
    """What an attempt may use."""
    on_out_of_memory: OnOutOfMemory | None = None
    """Without it a run that ran out of memory is tried again with the same."""


class Upstream(Declared):
    """A connection of the same namespace that another one follows."""

    name: Name
    """A connection of the same namespace."""


class Rejects(Declared):
    """How many records of one stream may be put aside because they do not fit; past it the run fails. None: any number."""

    max_records: Annotated[int, Field(ge=0)] | None = None
    """So many records of one stream in one run; 0: none."""
    max_share: Annotated[float, Field(ge=0, le=1)] | None = None
    """So large a part of a stream's records, from 0 to 1."""


class Budget(Declared):
    """What one run may cost, by the connector's own estimate; a run that is expected to cost more is not begun."""

    records: Annotated[int, Field(ge=0)] | None = None
    """The most records that a run may be expected to read."""
    bytes: Annotated[int, Field(ge=0)] | None = None
    """The most bytes, before compression."""
    api_calls: Annotated[int, Field(ge=0)] | None = None
    """The most requests to the source."""


class Bronze(Declared):
    """How records are stored, and what becomes of them when the connection goes."""

    format: Literal["jsonl"] = "jsonl"
    """JSON Lines, compressed with zstd."""
    deletion_policy: Literal["Retain", "Delete"] = "Retain"
    """Whether the data stays when the connection is deleted."""


CaCertificates = Annotated[
    str,
    Field(
        min_length=1,
        max_length=MAX_CA_CHARACTERS,
        json_schema_extra=rules(
            (
                "self.contains('-----BEGIN CERTIFICATE-----') && !self.contains('PRIVATE KEY')",
                "must be certificates as PEM, '-----BEGIN CERTIFICATE-----' and so on, and no private key",
            ),
        ),
    ),
]


class SourceTls(Declared):
    """How the source is verified."""

    ca_certificates: CaCertificates
    """The CAs of the source's certificate, as PEM; trusted beside those of the system, by this connection only."""


class ConnectionSpec(Declared):
    """A tenant's use of a connector. Without `streams`, all that the source offers are read in full."""

    connector: ConnectorReference
    """The connector, and which versions of it."""
    config: FreeForm = {}
    """What the connector's configSchema asks for. Never a secret: those belong into secretRef."""
    secret_ref: SecretReference | None = None
    """Where the credentials are, for a connector that takes any."""
    tls: SourceTls | None = None
    """For a source whose certificate is of a private CA."""
    streams: Annotated[
        list[StreamSelection],
        Field(
            max_length=500,
            json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
        ),
    ] = []
    """The streams to read; without it all that the source offers, in full."""
    since: Instant | None = None
    """The oldest moment that is wanted, for a read that has no cursor yet."""
    schedule: CronSchedule | None = None
    """A cron expression of five fields, or a macro such as @hourly. Without it, and without after, runs are requested."""
    time_zone: TimeZone = UTC_ZONE
    """The IANA time zone that schedule is meant in."""
    jitter: Jitter = Duration("0s")
    """Each due time is put off by a part of it, always the same for one connection."""
    after: Annotated[
        list[Upstream],
        Field(
            max_length=20,
            json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
        ),
    ] = []
    """Run once all of these have succeeded anew."""
    suspend: bool = False
    """No new runs while true; one that runs goes on."""
    concurrency_policy: Literal["Forbid", "Replace", "Allow"] = "Forbid"
    """What a due time does while a run is under way: Forbid makes one run after it, Replace cancels it, Allow queues."""
    starting_deadline_seconds: Annotated[int, Field(ge=10)] | None = None
    """How late a run of a due time may still be made; without it, however late."""
    retry: Retry = Retry()
    """How often, and how long after a failure."""
    timeout: Timeout = Duration("2h")
    """How long one attempt may take; what it committed is kept."""
    resources: Resources = Resources()
    """What an attempt may use."""
    schema_policy: SchemaPolicy = "evolve"
    """What becomes of a changed schema: evolve takes it, freeze refuses it, discard-new leaves new fields out, block-pii refuses new personal data."""
    validation: Literal["standard", "strict"] = "standard"
    """strict checks every record against its stream's schema, and rejects what does not fit."""
    parallelism: Annotated[int, Field(ge=1, le=MAX_PARALLELISM)] = 1
    """How many parts of one stream are read at the same time, at most, where the connector can split it."""
    rejects: Rejects | None = None
    """Without it, any number of records may be rejected."""
    budget: Budget | None = None
    """Without it, a run may cost what it costs."""
    bronze: Bronze = Bronze()
    """How records are stored."""
    history_limit: Annotated[int, Field(ge=0, le=1000)] = 10
    """How many ended runs are kept; their data stays."""

    @classmethod
    def parse(cls, document: object) -> Self:
        """Return the spec that the registry holds as `document`, also if an older release stored it.

        Without a usable connector, as for a connection whose document was never valid, the connector's name is empty.
        """
        spec = parse_stored(cls, document, connector=NO_CONNECTOR)
        if spec.connector is NO_CONNECTOR:
            spec.model_fields_set.discard("connector")
        return spec

    def document(self) -> dict[str, Any]:
        """Return the spec as the registry holds it: the fields that were set, in the notation of their document."""
        return self.model_dump(by_alias=True, exclude_unset=True)


NO_SPEC = ConnectionSpec.parse({})
"""The spec of a connection whose document was never valid."""


class LastRun(Declared):
    """The newest run, in short; the whole is in the registry."""

    id: str
    """The run's id, as `penstock runs show` takes it."""
    phase: str
    """pending, running, succeeded, failed or cancelled."""
    attempt: int = 0
    """The number of its newest attempt."""
    records: int = 0
    """What is committed."""
    rejected: int = 0
    """What was put aside."""
    failed_streams: list[str] | None = None
    """The streams that failed, at most 20; the others were read."""
    started_at: str | None = None
    """When its first attempt began."""
    finished_at: str | None = None
    """When it ended."""
    message: str = ""
    """Why it failed, or what it waits for."""


class StateAnswer(Declared):
    """What became of the newest state change that an annotation asked for."""

    action: Literal["reset", "rewind"]
    """What was asked for."""
    token: str
    """The annotation's token."""
    outcome: Literal["applied", "refused"]
    """Whether it was done."""
    message: str = ""
    """Why not."""
    time: str
    """When it was decided."""

    @classmethod
    def parse(cls, document: object) -> Self:
        """Return the answer that the registry holds as `document`."""
        return parse_stored(cls, document)


class ConnectionStatus(Declared):
    """What the operator found."""

    installation: str | None = None
    """The installation that the connection belongs to: the first that saw it. Every other one leaves it alone."""
    observed_generation: int | None = None
    """The spec's generation that was last reconciled."""
    conditions: list[Condition] = []
    """What holds of the connection."""
    definition: str | None = None
    """The definition that the next run uses."""
    last_run: LastRun | None = None
    """The newest run."""
    last_schedule_time: str | None = None
    """The newest due time that became a run."""
    last_successful_time: str | None = None
    """When a run last succeeded."""
    next_schedule_time: str | None = None
    """The next due time."""
    last_handled_request: str | None = None
    """The newest token of penstock.io/requestedAt that became a run."""
    waiting_runs: int | None = None
    """How many runs wait to begin."""
    consecutive_failures: int | None = None
    """How many runs failed in a row."""
    last_state_change: StateAnswer | None = None
    """The answer to the newest state annotation."""
    alerts: int = 0
    """How many alerts are open."""


class DefinitionStatus(Declared):
    """What the operator found."""

    installation: str | None = None
    """The installation that writes this status: the first that saw the definition. Every one may use it."""
    observed_generation: int | None = None
    """The spec's generation that was last reconciled."""
    conditions: list[Condition] = []
    """What holds of the definition."""
    connections: int = 0
    """How many connections use it."""
