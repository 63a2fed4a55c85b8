"""The settings: environment variables, read once when a process starts.

`VARIABLES` has every variable with its default and its bounds. `make reference` generates docs/reference/settings.md and the
schema of the chart's values from it.
"""

from __future__ import annotations

import ipaddress
import json
import os
import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from penstock_sdk.json_types import JsonObject, JsonSchema
from psycopg import ProgrammingError
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from penstock_operator.limits import MAX_PREFIX_BYTES
from penstock_operator.resources.scope import LABEL_VALUE, NAMESPACE, Scope, SelectorError
from penstock_operator.tls import CA_BUNDLE, TrustedCertificates

SHORTEST_KEY = 32
URL: JsonSchema = {"type": "string", "pattern": "^(https?://.+)?$"}
TEXT: JsonSchema = {"type": "string"}
TENANT = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")


class SettingsError(Exception):
    """A variable is missing or cannot be used; the message names it."""


@dataclass(frozen=True)
class Variable:
    """One variable of the environment: the settings reference and the chart's schema are generated from it.

    `readers` are the commands that read it. `value` is the path of the chart's value that sets it, such as `s3.prefix`, and
    `schema` the JSON Schema of that value.
    """

    name: str
    readers: str
    default: str
    meaning: str
    value: str = ""
    schema: JsonSchema = field(default_factory=lambda: TEXT)

    def value_schema(self) -> JsonSchema:
        """Return the JSON Schema of the chart's value."""
        return {**self.schema, "description": self.meaning}

    def text(self, environment: Mapping[str, str]) -> str:
        """Return the variable's text, or its default."""
        return environment.get(self.name, self.default)


@dataclass(frozen=True)
class WholeNumber(Variable):
    """A variable that holds a whole number of `least` or more. A default that is no number is computed where it is used."""

    least: int = 0

    @property
    def number(self) -> int:
        """The default; 0 where it is computed."""
        return int(self.default) if self.default.isdecimal() else 0

    def value_schema(self) -> JsonSchema:
        """Return the JSON Schema of the chart's value."""
        return {"type": "integer", "minimum": self.least, "default": self.number, "description": self.meaning}

    def read(self, environment: Mapping[str, str]) -> int:
        """Return the number. Raises SettingsError if the variable holds anything else."""
        return whole_number(environment, self.name, default=self.number, least=self.least)


S3_PREFIX = Variable("PENSTOCK_S3_PREFIX", "operate, serve, up", "bronze", "What every key begins with.", "s3.prefix")
AWS_REGION = Variable(
    "AWS_REGION",
    "operate, serve, up",
    "us-east-1",
    "The bucket's region; `AWS_DEFAULT_REGION` after it.",
    "s3.region",
    {"type": "string", "minLength": 1},
)
MAX_RUNS_PER_TENANT = WholeNumber(
    "PENSTOCK_MAX_RUNS_PER_TENANT",
    "operate, up",
    "0",
    "Runs of one namespace at once; 0: any number.",
    "fairness.runsPerTenant",
)
MAX_RUNS_PER_HOST = WholeNumber(
    "PENSTOCK_MAX_RUNS_PER_HOST",
    "operate, up",
    "0",
    "Runs that read from one host at once; 0: any number.",
    "fairness.runsPerHost",
)
LAUNCH_BURST = WholeNumber(
    "PENSTOCK_LAUNCH_BURST",
    "operate, up",
    "twice the rate",
    "Jobs made at once before the rate holds.",
    "fairness.launchBurst",
)
KEPT_LOG_BYTES = WholeNumber(
    "PENSTOCK_LOG_BYTES",
    "operate, up",
    str(4 * 1024 * 1024),
    "How much of an attempt's log is kept, in bytes, before compression.",
    "logs.keepBytes",
    least=64 * 1024,
)
GENERATION_DAYS = WholeNumber(
    "PENSTOCK_GENERATION_DAYS",
    "operate, up",
    "0",
    "How long data of former generations is kept; 0: for ever.",
    "retention.generationDays",
)
PURGE_DELAY_MINUTES = WholeNumber(
    "PENSTOCK_PURGE_DELAY_MINUTES",
    "operate, up",
    "60",
    "How long a deleted connection's data waits for its end.",
    "retention.purgeDelayMinutes",
)
BUCKET_SWEEP_HOURS = WholeNumber(
    "PENSTOCK_BUCKET_SWEEP_HOURS",
    "operate, up",
    "24",
    "How often the whole bucket is looked through; 0: never.",
    "retention.bucketSweepHours",
)
AUDIT_DAYS = WholeNumber(
    "PENSTOCK_AUDIT_DAYS",
    "operate, up",
    "90",
    "How long events of the audit are kept; 0: for ever.",
    "retention.auditDays",
)
SWEEP_SECONDS = WholeNumber(
    "PENSTOCK_SWEEP_SECONDS",
    "operate",
    "180",
    "How often all connections and definitions are listed, for what the watch missed; 5 or more.",
    "operate.sweepSeconds",
    least=5,
)
RECHECK_MINUTES = WholeNumber(
    "PENSTOCK_RECHECK_MINUTES",
    "operate, up",
    "2",
    "How long after a run failed for its Secret, its credentials or its pod another one looks again; 0: never.",
    "operate.recheckMinutes",
)
READ_AUDIENCES = Variable(
    "PENSTOCK_READ_AUDIENCES",
    "serve",
    "penstock-read",
    "The audiences of tokens for the read API, with commas between them; empty: tokens for the API server itself.",
    "serve.audiences",
    {"type": "array", "uniqueItems": True, "items": {"type": "string", "pattern": "^[^, ]+$"}},
)
LOG_BYTES = KEPT_LOG_BYTES.number

VARIABLES = (
    Variable("PENSTOCK_DATABASE_URL", "operate, serve, migrate, up", "", "The registry's Postgres, as a URL."),
    Variable(
        "PENSTOCK_S3_BUCKET",
        "operate, serve, up",
        "",
        "The bucket that Bronze is in.",
        "s3.bucket",
        {"type": "string", "pattern": "^([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])?$"},
    ),
    Variable(
        "PENSTOCK_CONTROLLER_ROLE",
        "migrate",
        "",
        "The role of Postgres with which operate connects: migrate gives it its rights. Empty: the owner's.",
    ),
    Variable(
        "PENSTOCK_SERVER_ROLE",
        "migrate",
        "",
        "The role of Postgres with which serve connects: migrate gives it its rights. Empty: the owner's.",
    ),
    S3_PREFIX,
    Variable(
        "PENSTOCK_S3_ENDPOINT", "operate, serve, up", "", "The S3 server; without it, AWS's own.", "s3.endpoint", URL
    ),
    Variable(
        "PENSTOCK_S3_PUBLIC_ENDPOINT",
        "operate, serve",
        "",
        "The S3 server as pods reach it, where that differs.",
        "s3.publicEndpoint",
        URL,
    ),
    AWS_REGION,
    Variable(
        "AWS_ACCESS_KEY_ID", "operate, serve, up", "", "The key; without it boto3's own chain, as a role of the pod."
    ),
    Variable("AWS_SECRET_ACCESS_KEY", "operate, serve, up", "", "Its secret."),
    Variable(
        "PENSTOCK_CREDENTIALS_KEY", "serve", "", "What replaced credentials are encrypted with, the newest first."
    ),
    Variable("PENSTOCK_API_URL", "operate, egress", "", "The run API as pods reach it."),
    READ_AUDIENCES,
    Variable(
        "PENSTOCK_TLS_DIRECTORY",
        "operate, serve, egress",
        "",
        "The folder of `tls.crt`, `tls.key` and `ca.crt` that the process serves TLS with; without it, plain HTTP.",
    ),
    Variable(
        "PENSTOCK_S3_CA_FILE",
        "operate, serve",
        "",
        "The CAs of the S3 server, as PEM; without it those of the system.",
    ),
    Variable(
        "PENSTOCK_POSTGRES_CA_FILE",
        "operate, serve, migrate",
        "",
        "The CAs of Postgres, as PEM; without it those of the system.",
    ),
    Variable("PENSTOCK_NAMESPACE", "operate", "default", "The operator's own namespace, where its Lease is."),
    Variable("PENSTOCK_LEASE", "operate", "penstock-operate", "The Lease's name, one for each release."),
    Variable(
        "PENSTOCK_WATCH_NAMESPACES",
        "operate",
        "",
        "The namespaces to work on, with commas between them; none: all.",
        "watch.namespaces",
        {"type": "array", "uniqueItems": True, "items": {"type": "string", "pattern": f"^{NAMESPACE.pattern}$"}},
    ),
    Variable(
        "PENSTOCK_WATCH_SELECTOR",
        "operate",
        "",
        "The label selector of the connections to work on, as kubectl takes it; none: all.",
        "watch.selector",
    ),
    Variable(
        "PENSTOCK_INSTALLATION",
        "operate",
        "made with the registry",
        "The installation's id; set it to take over what another one, which is gone, has marked as its own.",
        "installation.id",
        {"type": "string", "pattern": f"^{LABEL_VALUE}$"},
    ),
    MAX_RUNS_PER_TENANT,
    Variable(
        "PENSTOCK_TENANT_MAX_RUNS",
        "operate, up",
        "",
        "The same for single namespaces: `team-a=50,team-b=5`.",
        "fairness.tenants",
        {
            "type": "object",
            "propertyNames": {"pattern": f"^{TENANT.pattern}$"},
            "additionalProperties": {"type": "integer", "minimum": 1},
        },
    ),
    MAX_RUNS_PER_HOST,
    Variable(
        "PENSTOCK_LAUNCH_RATE",
        "operate, up",
        "0",
        "Jobs made a second; 0: no limit.",
        "fairness.launchRate",
        {"type": ["number", "string"], "minimum": 0, "maximum": 10000, "pattern": "^[0-9]+([.][0-9]+)?$"},
    ),
    LAUNCH_BURST,
    KEPT_LOG_BYTES,
    GENERATION_DAYS,
    PURGE_DELAY_MINUTES,
    SWEEP_SECONDS,
    RECHECK_MINUTES,
    BUCKET_SWEEP_HOURS,
    AUDIT_DAYS,
    Variable(
        "PENSTOCK_EGRESS_URL", "operate", "", "The egress gateway as pods reach it; none: pods connect by themselves."
    ),
    Variable(
        "PENSTOCK_EGRESS_RULES",
        "operate",
        "",
        "The egress rules of a run pod's NetworkPolicy, as JSON: the run API, the gateway, perhaps the bucket.",
    ),
    Variable(
        "PENSTOCK_EGRESS_BUCKET",
        "operate",
        "gateway",
        "How pods reach the bucket: `gateway`, or `direct` if it is in the cluster and the rules have it.",
    ),
    Variable(
        "PENSTOCK_EGRESS_PROBE_PORT",
        "operate",
        "0",
        "A port of the gateway that the controller's NetworkPolicy forbids: it tries whether the cluster enforces policies.",
    ),
    Variable(
        "PENSTOCK_ADMISSION_POLICIES",
        "operate",
        "",
        "The ValidatingAdmissionPolicies that the controller looks for, with commas between their names; none: it does not.",
    ),
    Variable(
        "PENSTOCK_EGRESS_PRIVATE_RANGES",
        "egress",
        "",
        "The private addresses of sources, such as 10.0.0.0/8,fd12:3456::/32; none: public addresses only.",
        "egress.privateRanges",
        {"type": "array", "items": {"type": "string", "pattern": "^[0-9a-fA-F.:]+/[0-9]{1,3}$"}},
    ),
    Variable(
        "PENSTOCK_SERVER", "runs, bronze, state, alerts", "", "The read API's URL; without it the data directory."
    ),
    Variable("PENSTOCK_TOKEN", "runs, bronze, state, alerts", "", "A Kubernetes token for it."),
    Variable(
        "PENSTOCK_CA_FILE",
        "runs, bronze, state, alerts",
        "",
        "The CA of the read API's certificate, as PEM; trusted beside those of the system.",
    ),
    Variable(
        "PENSTOCK_DATA_DIR", "up, runs, bronze, state, alerts", ".penstock", "Where `penstock up` keeps everything."
    ),
    Variable(
        "PENSTOCK_TRACEBACK",
        "every command",
        "",
        "Set, it prints the traceback of an error beside its message; for a report of a defect.",
    ),
)
"""Every variable that a person sets; a test holds it against the code."""


@dataclass(frozen=True)
class S3Settings:
    """Where Bronze objects go. `public_endpoint` is what pods use, where it differs. Keys never show in a repr."""

    endpoint: str | None
    bucket: str
    prefix: str = S3_PREFIX.default
    region: str = AWS_REGION.default
    access_key: str | None = field(default=None, repr=False)
    secret_key: str | None = field(default=None, repr=False)
    public_endpoint: str | None = None
    ca_file: str | None = None
    """The CAs of an https endpoint; None: those of the system."""


@dataclass(frozen=True)
class Timings:
    """How long the orchestrator waits for what, in seconds."""

    poll: float = 0.5
    observe: float = 5.0
    sweep: float = float(SWEEP_SECONDS.number)
    start_deadline: float = 300.0
    image_deadline: float = 120.0
    heartbeat_deadline: float = 90.0
    cancel_deadline: float = 30.0
    collect: float = 600.0
    recheck: float = 60.0 * RECHECK_MINUTES.number


@dataclass(frozen=True)
class EgressSettings:
    """The egress gateway. `rules` are the egress rules of a run pod's NetworkPolicy, as Kubernetes writes them.

    `direct_hosts` are the hosts that a pod reaches without the gateway: the run API, the gateway itself, and the bucket if
    `bucket_is_direct`.
    """

    url: str
    rules: tuple[JsonObject, ...] = ()
    direct_hosts: tuple[str, ...] = ()
    bucket_is_direct: bool = False


def egress(environment: Mapping[str, str] = os.environ) -> EgressSettings | None:
    """Return the egress gateway that run pods use, None if there is none."""
    url = http_url(environment, "PENSTOCK_EGRESS_URL")
    if not url:
        return None
    direct = environment.get("PENSTOCK_EGRESS_BUCKET", "").strip()
    if direct not in ("", "direct", "gateway"):
        raise SettingsError(f"PENSTOCK_EGRESS_BUCKET is {direct!r}; it must be direct or gateway")
    urls = [url, required_url(environment, "PENSTOCK_API_URL")]
    if direct == "direct":
        bucket = http_url(environment, "PENSTOCK_S3_PUBLIC_ENDPOINT") or http_url(environment, "PENSTOCK_S3_ENDPOINT")
        if not bucket:
            raise SettingsError(
                "PENSTOCK_EGRESS_BUCKET is direct, and AWS's S3 is not in the cluster; set it to gateway"
            )
        urls.append(bucket)
    hosts = tuple(dict.fromkeys(str(urlsplit(address).hostname) for address in urls))
    return EgressSettings(url, _network_rules(environment), hosts, direct == "direct")


def _network_rules(environment: Mapping[str, str]) -> tuple[JsonObject, ...]:
    name = "PENSTOCK_EGRESS_RULES"
    text = required(environment, name)
    try:
        rules = json.loads(text)
    except ValueError as error:
        raise SettingsError(f"{name} is no JSON: {error}; it must be the egress rules of a NetworkPolicy") from None
    if not isinstance(rules, list) or not rules or not all(isinstance(rule, dict) for rule in rules):
        raise SettingsError(f"{name} must be a list of egress rules of a NetworkPolicy, one or more")
    return tuple(rules)


def egress_probe_port(environment: Mapping[str, str] = os.environ) -> int:
    """Return the gateway's port that the controller's NetworkPolicy forbids; 0: whether policies are enforced is not checked."""
    return whole_number(environment, "PENSTOCK_EGRESS_PROBE_PORT", default=0)


def admission_policies(environment: Mapping[str, str] = os.environ) -> tuple[str, ...]:
    """Return the names of the admission policies that must be in the cluster; none if it is not checked."""
    listed = environment.get("PENSTOCK_ADMISSION_POLICIES", "")
    return tuple(name.strip() for name in listed.split(",") if name.strip())


def private_networks(environment: Mapping[str, str] = os.environ) -> str:
    """Return the private ranges that runs may reach, with commas between them."""
    return environment.get("PENSTOCK_EGRESS_PRIVATE_RANGES", "")


def timings(environment: Mapping[str, str] = os.environ) -> Timings:
    """Return how long the orchestrator waits, as the platform has it."""
    return Timings(sweep=float(SWEEP_SECONDS.read(environment)), recheck=60.0 * RECHECK_MINUTES.read(environment))


def watch_scope(environment: Mapping[str, str] = os.environ) -> Scope:
    """Return which connections the platform has this installation work on."""
    listed = environment.get("PENSTOCK_WATCH_NAMESPACES", "")
    namespaces = tuple(dict.fromkeys(namespace.strip() for namespace in listed.split(",") if namespace.strip()))
    wrong = [namespace for namespace in namespaces if not NAMESPACE.fullmatch(namespace)]
    if wrong:
        raise SettingsError(f"PENSTOCK_WATCH_NAMESPACES: {wrong[0]!r} is no name of a namespace; write team-a,team-b")
    try:
        return Scope(namespaces, environment.get("PENSTOCK_WATCH_SELECTOR", "").strip())
    except SelectorError as error:
        raise SettingsError(f"PENSTOCK_WATCH_SELECTOR: {error}") from None


def given_installation(environment: Mapping[str, str] = os.environ) -> str | None:
    """Return the id that the platform gives this installation, None for the one that the registry was made with."""
    given = environment.get("PENSTOCK_INSTALLATION", "").strip()
    if given and not re.fullmatch(LABEL_VALUE, given):
        raise SettingsError(
            f"PENSTOCK_INSTALLATION is {given!r}; it must be what `status.installation` of a connection shows, such as"
            " 0f8fad5b-d9cb-469f-a165-70867728950e"
        )
    return given or None


@dataclass(frozen=True)
class Retention:
    """What is kept, and for how long. `generation_days`, `sweep_hours` and `audit_days`: 0 is never."""

    checkpoints: int = 200
    schema_versions: int = 50
    generation_days: int = GENERATION_DAYS.number
    purge_delay: int = 60 * PURGE_DELAY_MINUTES.number
    sweep_hours: int = BUCKET_SWEEP_HOURS.number
    audit_days: int = AUDIT_DAYS.number


def retention(environment: Mapping[str, str] = os.environ) -> Retention:
    """Return what the platform keeps."""
    return Retention(
        generation_days=GENERATION_DAYS.read(environment),
        purge_delay=60 * PURGE_DELAY_MINUTES.read(environment),
        sweep_hours=BUCKET_SWEEP_HOURS.read(environment),
        audit_days=AUDIT_DAYS.read(environment),
    )


@dataclass(frozen=True)
class Quotas:
    """What the platform allows: runs at once of a tenant and at a source, and Jobs made a second. None: no limit."""

    runs_per_tenant: int | None = None
    tenants: Mapping[str, int] = field(default_factory=dict)
    runs_per_host: int | None = None
    launch_rate: float | None = None
    launch_burst: int = 1


NO_QUOTAS = Quotas()


def quotas(environment: Mapping[str, str] = os.environ) -> Quotas:
    """Return what the platform allows; 0 is no limit."""
    rate = _rate(environment, "PENSTOCK_LAUNCH_RATE")
    return Quotas(
        runs_per_tenant=MAX_RUNS_PER_TENANT.read(environment) or None,
        tenants=_by_tenant(environment, "PENSTOCK_TENANT_MAX_RUNS"),
        runs_per_host=MAX_RUNS_PER_HOST.read(environment) or None,
        launch_rate=rate,
        launch_burst=LAUNCH_BURST.read(environment) or max(1, int(2 * (rate or 0))),
    )


def _rate(environment: Mapping[str, str], name: str) -> float | None:
    text = environment.get(name, "").strip() or "0"
    if not re.fullmatch(r"[0-9]{1,6}([.][0-9]{1,6})?", text):
        raise SettingsError(
            f"{name} is {text!r}; it must be a number of Jobs a second, such as 10 or 0.5 (0: no limit)"
        )
    return float(text) or None


def _by_tenant(environment: Mapping[str, str], name: str) -> dict[str, int]:
    found: dict[str, int] = {}
    for entry in filter(None, (part.strip() for part in environment.get(name, "").split(","))):
        tenant, _, number = (part.strip() for part in entry.partition("="))
        if not TENANT.fullmatch(tenant) or not number.isdecimal() or int(number) < 1 or tenant in found:
            raise SettingsError(
                f"{name}: {entry!r} must be a namespace and its number of runs, 1 or more, each namespace once,"
                " such as team-a=50,team-b=5"
            )
        found[tenant] = int(number)
    return found


def required(environment: Mapping[str, str], name: str) -> str:
    """Return a variable's value, or say that it is missing."""
    value = environment.get(name, "")
    if not value:
        meaning = next((f" ({variable.meaning})" for variable in VARIABLES if variable.name == name), "")
        raise SettingsError(f"{name} is not set{meaning}; the chart sets it from its values")
    return value


def http_url(environment: Mapping[str, str], name: str) -> str:
    """Return a variable's URL; empty if it is not set. Raises SettingsError unless it is http or https, with a host alone."""
    text = environment.get(name, "").strip()
    try:
        url = urlsplit(text)
        fits = url.scheme in ("http", "https") and bool(url.hostname) and url.port != 0
    except ValueError:  # a port that is no number, or an address in brackets that is none
        raise SettingsError(f"{name} is no URL; write it as https://host or http://host:port") from None
    if not text or (fits and not url.query and not url.fragment and "@" not in url.netloc):
        return text
    raise SettingsError(
        f"{name} must be an http:// or https:// URL without user, password and query, such as https://host:9000"
    )


def required_url(environment: Mapping[str, str], name: str) -> str:
    """Return a variable's URL. Raises SettingsError if it is missing or is none."""
    required(environment, name)
    return http_url(environment, name)


def _s3_prefix(environment: Mapping[str, str]) -> str:
    prefix = S3_PREFIX.text(environment)
    length = len(prefix.encode())
    if length > MAX_PREFIX_BYTES:
        raise SettingsError(f"{S3_PREFIX.name} has {length:,} bytes; {MAX_PREFIX_BYTES} is the most")
    return prefix


def s3_settings(environment: Mapping[str, str] = os.environ) -> S3Settings:
    """Return the S3 settings; without a key in the environment, boto3's own chain of credentials applies."""
    return S3Settings(
        endpoint=http_url(environment, "PENSTOCK_S3_ENDPOINT") or None,
        bucket=required(environment, "PENSTOCK_S3_BUCKET"),
        prefix=_s3_prefix(environment),
        region=environment.get(AWS_REGION.name, environment.get("AWS_DEFAULT_REGION", AWS_REGION.default)),
        access_key=environment.get("AWS_ACCESS_KEY_ID") or None,
        secret_key=environment.get("AWS_SECRET_ACCESS_KEY") or None,
        public_endpoint=http_url(environment, "PENSTOCK_S3_PUBLIC_ENDPOINT") or None,
        ca_file=environment.get("PENSTOCK_S3_CA_FILE", "").strip() or None,
    )


def tls_directory(environment: Mapping[str, str] = os.environ) -> Path | None:
    """Return the folder of this process's certificate; None: it serves plain HTTP."""
    folder = environment.get("PENSTOCK_TLS_DIRECTORY", "").strip()
    return Path(folder) if folder else None


def read_audiences(environment: Mapping[str, str] = os.environ) -> tuple[str, ...]:
    """Return the audiences of tokens for the read API; none: tokens for the API server itself."""
    return tuple(filter(None, (name.strip() for name in READ_AUDIENCES.text(environment).split(","))))


def trusted_certificates(environment: Mapping[str, str] = os.environ) -> TrustedCertificates:
    """Return the CAs that run pods and the gateway trust beside the system's: the release's, and the bucket's."""
    folder, bucket = tls_directory(environment), environment.get("PENSTOCK_S3_CA_FILE", "").strip()
    files = [folder / CA_BUNDLE] if folder and (folder / CA_BUNDLE).exists() else []
    return TrustedCertificates(*files, *([Path(bucket)] if bucket else []))


def database_url(environment: Mapping[str, str] = os.environ) -> str:
    """Return the registry's address. Without an `sslmode`, a server that is not on loopback must prove its name."""
    url = required(environment, "PENSTOCK_DATABASE_URL")
    try:
        given = conninfo_to_dict(url)
    except ProgrammingError:
        message = (
            "PENSTOCK_DATABASE_URL is no address of Postgres, such as postgresql://user:password@host:5432/database"
        )
        raise SettingsError(message) from None
    if given.get("sslmode") or environment.get("PGSSLMODE") or _is_local(str(given.get("host") or "")):
        return url
    roots = given.get("sslrootcert") or environment.get("PENSTOCK_POSTGRES_CA_FILE", "").strip() or _system_roots()
    return make_conninfo(url, sslmode="verify-full", sslrootcert=str(roots))


def _is_local(host: str) -> bool:
    """Return True if a connection to the host stays on this machine: by a socket, or on loopback."""
    if not host or host.startswith(("/", "@")) or host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _system_roots() -> str:
    """Return the file of the system's CAs: libpq, as psycopg brings it, does not find it by itself on every system."""
    return ssl.get_default_verify_paths().cafile or "system"


@dataclass(frozen=True, slots=True)
class DatabaseRoles:
    """The roles of Postgres with which the controller and the server connect; None: with the owner's."""

    controller: str | None = None
    server: str | None = None


OWNER_ONLY = DatabaseRoles()


def database_roles(environment: Mapping[str, str] = os.environ) -> DatabaseRoles:
    """Return the roles that a migration gives rights to."""
    names = (environment.get(f"PENSTOCK_{role}_ROLE", "").strip() or None for role in ("CONTROLLER", "SERVER"))
    return DatabaseRoles(*names)


def credentials_keys(environment: Mapping[str, str] = os.environ) -> tuple[str, ...]:
    """Return the keys that replaced credentials are kept with, the newest first; none: they are not kept."""
    keys = tuple(key.strip() for key in environment.get("PENSTOCK_CREDENTIALS_KEY", "").split(",") if key.strip())
    if any(len(key) < SHORTEST_KEY for key in keys):
        message = (
            f"PENSTOCK_CREDENTIALS_KEY: a key must be {SHORTEST_KEY} characters or more; make one with"
            " `openssl rand -base64 32`, and put it before the one that it replaces, separated by a comma"
        )
        raise SettingsError(message)
    return keys


def log_bytes(environment: Mapping[str, str] = os.environ) -> int:
    """Return how many bytes of an attempt's log are kept."""
    return KEPT_LOG_BYTES.read(environment)


def whole_number(environment: Mapping[str, str], name: str, *, default: int, least: int = 0) -> int:
    """Return a variable's whole number, or say what it must be."""
    text = environment.get(name, "").strip()
    if not text:
        return default
    if not text.isdecimal() or int(text) < least:
        raise SettingsError(f"{name} is {text!r}; it must be a whole number of {least} or more")
    return int(text)
