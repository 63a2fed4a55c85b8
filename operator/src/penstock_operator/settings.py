"""What the environment says: `PENSTOCK_*` and `AWS_*`. Read once, at the edge."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from penstock_sdk.json_types import JsonObject

from penstock_operator.resources.scope import LABEL_VALUE, NAMESPACE, Scope, SelectorError

SHORTEST_KEY = 32
SHORTEST_SWEEP = 5


LOG_BYTES = 4 * 1024 * 1024
"""How much of an attempt's log is kept, before compression."""


@dataclass(frozen=True)
class Variable:
    """One variable of the environment. `readers` are the commands that look at it."""

    name: str
    readers: str
    default: str
    meaning: str


VARIABLES = (
    Variable("PENSTOCK_DATABASE_URL", "operate, serve, migrate, up", "", "The registry's Postgres, as a URL."),
    Variable("PENSTOCK_S3_BUCKET", "operate, serve, up", "", "The bucket that Bronze is in."),
    Variable("PENSTOCK_S3_PREFIX", "operate, serve, up", "bronze", "What every key begins with."),
    Variable("PENSTOCK_S3_ENDPOINT", "operate, serve, up", "", "The S3 server; without it, AWS's own."),
    Variable(
        "PENSTOCK_S3_PUBLIC_ENDPOINT", "operate, serve", "", "The S3 server as pods reach it, where that differs."
    ),
    Variable("AWS_REGION", "operate, serve, up", "us-east-1", "The bucket's region; `AWS_DEFAULT_REGION` after it."),
    Variable(
        "AWS_ACCESS_KEY_ID", "operate, serve, up", "", "The key; without it boto3's own chain, as a role of the pod."
    ),
    Variable("AWS_SECRET_ACCESS_KEY", "operate, serve, up", "", "Its secret."),
    Variable(
        "PENSTOCK_CREDENTIALS_KEY", "serve", "", "What replaced credentials are encrypted with, the newest first."
    ),
    Variable("PENSTOCK_API_URL", "operate", "", "The run API as pods reach it."),
    Variable("PENSTOCK_NAMESPACE", "operate", "default", "The operator's own namespace, where its Lease is."),
    Variable("PENSTOCK_LEASE", "operate", "penstock-operate", "The Lease's name, one for each release."),
    Variable(
        "PENSTOCK_WATCH_NAMESPACES", "operate", "", "The namespaces to work on, with commas between them; none: all."
    ),
    Variable(
        "PENSTOCK_WATCH_SELECTOR",
        "operate",
        "",
        "The label selector of the connections to work on, as kubectl takes it; none: all.",
    ),
    Variable(
        "PENSTOCK_INSTALLATION",
        "operate",
        "made with the registry",
        "The installation's id; set it to take over what another one, which is gone, has marked as its own.",
    ),
    Variable("PENSTOCK_MAX_RUNS_PER_TENANT", "operate, up", "0", "Runs of one namespace at once; 0: any number."),
    Variable("PENSTOCK_TENANT_MAX_RUNS", "operate, up", "", "The same for single namespaces: `team-a=50,team-b=5`."),
    Variable("PENSTOCK_MAX_RUNS_PER_HOST", "operate, up", "0", "Runs that read from one host at once; 0: any number."),
    Variable("PENSTOCK_LAUNCH_RATE", "operate, up", "0", "Jobs made a second; 0: no limit."),
    Variable("PENSTOCK_LAUNCH_BURST", "operate, up", "twice the rate", "Jobs made at once before the rate holds."),
    Variable("PENSTOCK_LOG_BYTES", "operate, up", str(LOG_BYTES), "How much of an attempt's log is kept, in bytes."),
    Variable(
        "PENSTOCK_GENERATION_DAYS", "operate, up", "0", "How long data of former generations is kept; 0: for ever."
    ),
    Variable(
        "PENSTOCK_PURGE_DELAY_MINUTES", "operate, up", "60", "How long a deleted connection's data waits for its end."
    ),
    Variable(
        "PENSTOCK_SWEEP_SECONDS",
        "operate",
        "180",
        "How often all connections and definitions are listed, for what the watch missed; 5 or more.",
    ),
    Variable(
        "PENSTOCK_RECHECK_MINUTES",
        "operate, up",
        "2",
        "How long after a run failed for its Secret, its credentials or its pod another one looks again; 0: never.",
    ),
    Variable(
        "PENSTOCK_BUCKET_SWEEP_HOURS", "operate, up", "24", "How often the whole bucket is looked through; 0: never."
    ),
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
        "PENSTOCK_EGRESS_PRIVATE_RANGES",
        "egress",
        "",
        "The private addresses of sources, such as 10.0.0.0/8,fd12:3456::/32; none: public addresses only.",
    ),
    Variable(
        "PENSTOCK_SERVER", "runs, bronze, state, alerts", "", "The read API's URL; without it the data directory."
    ),
    Variable("PENSTOCK_TOKEN", "runs, bronze, state, alerts", "", "A Kubernetes token for it."),
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


class SettingsError(Exception):
    """A variable is missing or cannot be used; the message names it."""


@dataclass(frozen=True)
class S3Settings:
    """Where Bronze objects go. `public_endpoint` is what pods use, where it differs. Keys never show in a repr."""

    endpoint: str | None
    bucket: str
    prefix: str = "bronze"
    region: str = "us-east-1"
    access_key: str | None = field(default=None, repr=False)
    secret_key: str | None = field(default=None, repr=False)
    public_endpoint: str | None = None


@dataclass(frozen=True)
class Timings:
    """How long the orchestrator waits for what, in seconds."""

    poll: float = 0.5
    observe: float = 5.0
    sweep: float = 180.0
    start_deadline: float = 300.0
    image_deadline: float = 120.0
    heartbeat_deadline: float = 90.0
    cancel_deadline: float = 30.0
    collect: float = 600.0
    recheck: float = 120.0


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
    url = environment.get("PENSTOCK_EGRESS_URL", "").strip()
    if not url:
        return None
    direct = environment.get("PENSTOCK_EGRESS_BUCKET", "").strip()
    if direct not in ("", "direct", "gateway"):
        raise SettingsError(f"PENSTOCK_EGRESS_BUCKET is {direct!r}; it must be direct or gateway")
    urls = [url, required(environment, "PENSTOCK_API_URL")]
    if direct == "direct":
        bucket = environment.get("PENSTOCK_S3_PUBLIC_ENDPOINT") or environment.get("PENSTOCK_S3_ENDPOINT")
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


def private_networks(environment: Mapping[str, str] = os.environ) -> str:
    """Return the private ranges that runs may reach, with commas between them."""
    return environment.get("PENSTOCK_EGRESS_PRIVATE_RANGES", "")


def timings(environment: Mapping[str, str] = os.environ) -> Timings:
    """Return how long the orchestrator waits, as the platform has it."""
    sweep = whole_number(environment, "PENSTOCK_SWEEP_SECONDS", default=int(Timings.sweep), least=SHORTEST_SWEEP)
    recheck = whole_number(environment, "PENSTOCK_RECHECK_MINUTES", default=int(Timings.recheck) // 60)
    return Timings(sweep=float(sweep), recheck=60.0 * recheck)


def watch_scope(environment: Mapping[str, str] = os.environ) -> Scope:
    """Return which connections the platform has this installation work on."""
    listed = environment.get("PENSTOCK_WATCH_NAMESPACES", "")
    namespaces = tuple(dict.fromkeys(each.strip() for each in listed.split(",") if each.strip()))
    wrong = [each for each in namespaces if not NAMESPACE.fullmatch(each)]
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
    """What is kept, and for how long. `generation_days` and `sweep_hours`: 0 is never."""

    checkpoints: int = 200
    schema_versions: int = 50
    generation_days: int = 0
    purge_delay: int = 3600
    sweep_hours: int = 24


def retention(environment: Mapping[str, str] = os.environ) -> Retention:
    """Return what the platform keeps."""
    return Retention(
        generation_days=whole_number(environment, "PENSTOCK_GENERATION_DAYS", default=0),
        purge_delay=60 * whole_number(environment, "PENSTOCK_PURGE_DELAY_MINUTES", default=60),
        sweep_hours=whole_number(environment, "PENSTOCK_BUCKET_SWEEP_HOURS", default=24),
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
TENANT = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")


def quotas(environment: Mapping[str, str] = os.environ) -> Quotas:
    """Return what the platform allows; 0 is no limit."""
    rate = _rate(environment, "PENSTOCK_LAUNCH_RATE")
    return Quotas(
        runs_per_tenant=whole_number(environment, "PENSTOCK_MAX_RUNS_PER_TENANT", default=0) or None,
        tenants=_by_tenant(environment, "PENSTOCK_TENANT_MAX_RUNS"),
        runs_per_host=whole_number(environment, "PENSTOCK_MAX_RUNS_PER_HOST", default=0) or None,
        launch_rate=rate,
        launch_burst=whole_number(environment, "PENSTOCK_LAUNCH_BURST", default=0) or max(1, int(2 * (rate or 0))),
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
    for entry in filter(None, (each.strip() for each in environment.get(name, "").split(","))):
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
        message = f"{name} is not set; the chart takes it from the existing Secret that values.yaml names"
        raise SettingsError(message)
    return value


def s3_settings(environment: Mapping[str, str] = os.environ) -> S3Settings:
    """Return the S3 settings; without a key in the environment, boto3's own chain of credentials applies."""
    return S3Settings(
        endpoint=environment.get("PENSTOCK_S3_ENDPOINT") or None,
        bucket=required(environment, "PENSTOCK_S3_BUCKET"),
        prefix=environment.get("PENSTOCK_S3_PREFIX", "bronze"),
        region=environment.get("AWS_REGION", environment.get("AWS_DEFAULT_REGION", "us-east-1")),
        access_key=environment.get("AWS_ACCESS_KEY_ID") or None,
        secret_key=environment.get("AWS_SECRET_ACCESS_KEY") or None,
        public_endpoint=environment.get("PENSTOCK_S3_PUBLIC_ENDPOINT") or None,
    )


def database_url(environment: Mapping[str, str] = os.environ) -> str:
    """Return the registry's address."""
    return required(environment, "PENSTOCK_DATABASE_URL")


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
    return whole_number(environment, "PENSTOCK_LOG_BYTES", default=LOG_BYTES, least=64 * 1024)


def whole_number(environment: Mapping[str, str], name: str, *, default: int, least: int = 0) -> int:
    """Return a variable's whole number, or say what it must be."""
    text = environment.get(name, "").strip()
    if not text:
        return default
    if not text.isdecimal() or int(text) < least:
        raise SettingsError(f"{name} is {text!r}; it must be a whole number of {least} or more")
    return int(text)
