"""Every limit of the platform: what is beyond one is refused with a message that names the field and the limit.

The limits of the messages between a pod and the run API are in `penstock_sdk.protocol`, beside the messages. Limits of the
resources are in the CRDs. `docs/reference/limits.md` is written from the three.
"""

from __future__ import annotations

from dataclasses import dataclass

from penstock_sdk import _safe_yaml
from penstock_sdk.manifest import config_schema
from penstock_sdk.protocol import MAX_OBJECTS_PER_CHECKPOINT

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB
TIB = 1024 * GIB


@dataclass(frozen=True, slots=True)
class Limit:
    """One limit, with the unit in which it is counted and the reason for its number."""

    value: float
    unit: str
    applies_to: str
    reason: str


# -- Connections of the HTTP server ------------------------------------------------------------------

MAX_CONNECTIONS = 1_000
HEADER_SECONDS = 10.0
MAX_HEADER_BYTES = 16 * KIB
BODY_SECONDS = 15.0
BODY_BYTES_PER_SECOND = 256 * KIB
SEND_SECONDS = 60.0
MAX_HANDSHAKES = 200
HANDSHAKE_SECONDS = 10.0

# -- Requests ----------------------------------------------------------------------------------------

MAX_REQUESTS = 400
MAX_FOLLOWED_LOGS = 100
MAX_TOKEN_CHECKS = 8
MAX_TOKEN_CHARACTERS = 8_192
KNOWN_TOKEN_SECONDS = 30.0
MAX_KNOWN_TOKENS = 20_000

# -- Bodies ------------------------------------------------------------------------------------------

MAX_JSON_VALUES = 500_000
MAX_BODY_BYTES_HELD = 48 * MIB
LARGE_BODY_BYTES = MIB
MAX_DISCARDED_BYTES = 64 * MIB
RUN_API_PATH = "/v1/attempts/"
RUN_API_BODY_BYTES: dict[str, int] = {
    "start": 64 * KIB,
    "streams": 16 * MIB,
    "estimate": 4 * MIB,
    "uploads": 256 * KIB,
    "checkpoints": 8 * MIB,
    "credentials": 256 * KIB,
    "rate-limit": 4 * KIB,
    "heartbeat": 256 * KIB,
    "finish": 8 * MIB,
}
OTHER_CALL_BODY_BYTES = 64 * KIB
READ_API_BODY_BYTES = 4 * MIB
STATE_IMPORT_BODY_BYTES = 16 * MIB

# -- Pages of the read API ---------------------------------------------------------------------------

MAX_PAGE_ITEMS = 1_000
MAX_PAGE_BYTES = MIB
MAX_PAGE_CURSOR_CHARACTERS = 4_000

# -- Refusals in the audit, of each server process -----------------------------------------------------

AUDIT_WINDOW_SECONDS = 60.0
MAX_ANONYMOUS_REFUSALS = 120
MAX_ANONYMOUS_REFUSALS_PER_ADDRESS = 20
MAX_REFUSALS_PER_CALLER = 60
MAX_AUDIT_WRITES = 4
AUDIT_WRITE_SECONDS = 5.0

# -- Uploads of one attempt --------------------------------------------------------------------------

MAX_OPEN_OBJECTS = MAX_OBJECTS_PER_CHECKPOINT
MAX_OPEN_BYTES = 512 * GIB
MAX_ATTEMPT_OBJECTS = 100_000
MAX_ATTEMPT_BYTES = 16 * TIB

# -- Keys of objects ---------------------------------------------------------------------------------

MAX_KEY_BYTES = 1_024
MAX_PREFIX_BYTES = 128

SERVER_LIMITS: tuple[Limit, ...] = (
    Limit(
        MAX_CONNECTIONS,
        "connections",
        "each server process",
        "Beyond it, the connection that has waited longest for its next request is closed. A connection takes about 30 KB.",
    ),
    Limit(
        HEADER_SECONDS,
        "seconds",
        "the headers of a request, from the opening of the connection or the end of the request before",
        "A connection whose headers arrive more slowly is closed.",
    ),
    Limit(
        MAX_HANDSHAKES,
        "TLS handshakes",
        "each server process, those that are not finished",
        "Beyond it, the oldest one is ended. A client that behaves needs milliseconds for its handshake.",
    ),
    Limit(HANDSHAKE_SECONDS, "seconds", "a TLS handshake", "A connection whose handshake takes longer is closed."),
    Limit(MAX_HEADER_BYTES, "bytes", "the headers of a request, with its URL", "A token of Kubernetes has 1 to 2 KB."),
    Limit(
        BODY_SECONDS,
        "seconds",
        f"the body of a request, and one second more for each {BODY_BYTES_PER_SECOND // KIB} KiB that it may have",
        "A body that arrives more slowly is refused with 408.",
    ),
    Limit(
        SEND_SECONDS,
        "seconds",
        "each part of an answer",
        "A client that does not read its answer is disconnected.",
    ),
    Limit(
        MAX_REQUESTS,
        "requests",
        "each server process at the same time, without the health checks",
        "Beyond it, requests are refused with 503, and pods try again.",
    ),
    Limit(
        MAX_FOLLOWED_LOGS,
        "requests",
        "each server process: logs that are followed at the same time",
        "They last as long as a run; the other requests keep their places.",
    ),
    Limit(
        MAX_TOKEN_CHECKS,
        "checks",
        "each server process: tokens that are looked up at the same time",
        f"Tokens of runs that were valid less than {KNOWN_TOKEN_SECONDS:.0f} s ago are not looked up again before the body is read.",
    ),
    Limit(MAX_TOKEN_CHARACTERS, "characters", "a token", "A token of Kubernetes has 1 to 2 KB."),
    Limit(
        MAX_JSON_VALUES,
        "values",
        "the JSON of a body, counted by its commas and opening brackets",
        "One value takes up to 100 bytes of memory, however short its text is.",
    ),
    Limit(
        MAX_BODY_BYTES_HELD,
        "bytes",
        "each server process: all bodies that are being received",
        f"Bodies over {LARGE_BODY_BYTES // MIB} MiB wait for each other, and are processed one at a time.",
    ),
    *(
        Limit(
            size, "bytes", f"the body of `POST /v1/attempts/{call}`", "The largest message that the limits below allow."
        )
        for call, size in RUN_API_BODY_BYTES.items()
    ),
    Limit(
        STATE_IMPORT_BODY_BYTES,
        "bytes",
        "the body of `POST …/state/import`",
        "The state of 10,000 streams.",
    ),
    Limit(
        READ_API_BODY_BYTES, "bytes", "the body of every other call of the read API", "A list of 10,000 stream names."
    ),
    Limit(0, "bytes", "the body of a GET, and of the health checks", "They have none."),
    Limit(
        MAX_PAGE_ITEMS,
        "items",
        "a page of the read API",
        "A person reads no more, and a tool follows the cursor.",
    ),
    Limit(
        MAX_PAGE_BYTES,
        "bytes",
        "a page of the read API, as Postgres writes its items; an item that is larger is a page of its own",
        "Schemas, configs and manifests have up to hundreds of kilobytes.",
    ),
    Limit(MAX_PAGE_CURSOR_CHARACTERS, "characters", "the cursor of a page", "The longest key of a listing."),
    Limit(
        MAX_ANONYMOUS_REFUSALS_PER_ADDRESS,
        "events",
        "the audit, each minute: refusals of one address without a valid token",
        "Refusals beyond it are counted, and the minute ends with one event that says how many.",
    ),
    Limit(
        MAX_ANONYMOUS_REFUSALS,
        "events",
        "the audit, each minute: refusals of all addresses without a valid token",
        "At most 170,000 rows a day for each server process, whoever attacks it.",
    ),
    Limit(
        MAX_REFUSALS_PER_CALLER,
        "events",
        "the audit, each minute: refusals of one person, or of the pods of one namespace",
        "A pod that was fenced repeats its call.",
    ),
    Limit(
        MAX_OPEN_OBJECTS,
        "objects",
        "the objects of an attempt that are granted and not committed",
        "One checkpoint can commit them all: 160 GB in objects of the default size, for a read without cursors.",
    ),
    Limit(
        MAX_OPEN_BYTES, "bytes", "the objects of an attempt that are granted and not committed", "As the line above."
    ),
    Limit(
        MAX_ATTEMPT_OBJECTS,
        "objects",
        "all objects that an attempt is granted",
        "3 TB in objects of the default size, or a checkpoint each second for a day. The next attempt continues.",
    ),
    Limit(MAX_ATTEMPT_BYTES, "bytes", "all objects that an attempt is granted", "As the line above."),
)

DOCUMENT_LIMITS: tuple[Limit, ...] = (
    Limit(
        MAX_KEY_BYTES,
        "bytes",
        "the key of an object, with the name of its stream URL-encoded; a stream whose keys would be longer is refused",
        "S3 takes no longer key. A name in Latin letters and digits always has room.",
    ),
    Limit(MAX_PREFIX_BYTES, "bytes", "`s3.prefix`", "It leaves room for the other parts of a key."),
    Limit(
        config_schema.MAX_CONFIG_BYTES,
        "bytes",
        "`spec.config` of a TenantConnection, as JSON",
        "It is part of every start.",
    ),
    Limit(
        config_schema.MAX_SCHEMA_BYTES,
        "bytes",
        "`configSchema` of a manifest, as JSON",
        "Half of what a resource may have.",
    ),
    Limit(
        config_schema.MAX_SCHEMA_DEPTH,
        "subschemas",
        "`configSchema`: nested inside each other",
        "Readers go no deeper.",
    ),
    Limit(
        config_schema.MAX_SCHEMA_NODES,
        "subschemas",
        "`configSchema`, with its references written out; a reference to itself or to another document is refused",
        "It bounds how long the check of a config takes.",
    ),
    Limit(
        config_schema.MAX_PATTERN_CHARACTERS,
        "characters",
        "a regular expression of `configSchema`; one that linear time cannot evaluate is refused",
        "It bounds how long a match takes.",
    ),
    Limit(
        config_schema.PATTERN_PROGRAM_BYTES,
        "bytes",
        "a regular expression of `configSchema`, compiled",
        "A repetition of a repetition takes more memory than its text shows.",
    ),
    Limit(config_schema.MAX_PROBLEMS, "problems", "the message about a config", "A status has room for a few."),
    Limit(_safe_yaml.MAX_YAML_CHARACTERS, "characters", "a YAML file", "Kubernetes takes 3 MiB in one request."),
    Limit(
        _safe_yaml.MAX_YAML_VALUES,
        "values",
        "a YAML document, with its aliases written out",
        "A few hundred bytes of aliases can stand for billions of values.",
    ),
    Limit(_safe_yaml.MAX_YAML_DEPTH, "levels", "a YAML document", "JSON libraries fail at a thousand."),
    Limit(_safe_yaml.MAX_NUMBER_CHARACTERS, "characters", "a number in YAML", "Reading a number takes quadratic time."),
)


def body_limit(method: str, path: str) -> int:
    """Return how many bytes the body of a request may have."""
    if method in ("GET", "HEAD") or not path.startswith("/v1/"):
        return 0
    if path.startswith(RUN_API_PATH):
        return RUN_API_BODY_BYTES.get(path.removeprefix(RUN_API_PATH), OTHER_CALL_BODY_BYTES)
    return STATE_IMPORT_BODY_BYTES if path.endswith("/state/import") else READ_API_BODY_BYTES
