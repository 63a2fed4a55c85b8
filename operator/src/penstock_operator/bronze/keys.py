"""The names of Bronze objects: they carry everything that makes them unique, so nothing is ever overwritten."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import quote, unquote

from penstock_sdk.protocol import ObjectKind

from penstock_operator.ids import RunId
from penstock_operator.limits import MAX_ATTEMPT_OBJECTS, MAX_KEY_BYTES

MAX_ATTEMPT, MAX_GENERATION = 999_999, 999_999  # more than a run or a stream comes to: each run has its own attempts
PLACE = re.compile(
    r"tenant=(?P<tenant>[^/]+)/connection=(?P<connection>[^/]+)/"
    r"(?:(?P<rejected>_rejected/)?stream=(?P<stream>[^/]+)/generation=(?P<generation>\d{6})/run=(?P<run>[0-9a-z]+)"
    r"/attempt-(?P<attempt>\d{2,})-(?P<sequence>\d{6,})\.[a-z.]+"
    r"|_logs/run=(?P<log>[0-9a-z]+)/attempt-\d{2,}\.log\.zst)"
)


@dataclass(frozen=True)
class ObjectLocation:
    """What the key of an object says beside its run."""

    kind: ObjectKind
    stream: str
    generation: int
    attempt: int
    sequence: int


@dataclass(frozen=True)
class ParsedKey:
    """What a key says of itself; `object` is of an object alone."""

    kind: str
    tenant: str
    connection: str
    run: str
    object: ObjectLocation | None = None

    @property
    def begun_at(self) -> datetime:
        """When the run was made: its id begins with the millisecond. An id of another form is older than everything."""
        try:
            return datetime.fromtimestamp(int(self.run[:12], 16) / 1000, UTC)
        except (ValueError, OverflowError):
            return datetime.min.replace(tzinfo=UTC)


def place_of(prefix: str, key: str) -> ParsedKey | None:
    """Return what a key says when it has the form of an object or a log; None for a manifest or anything else."""
    found = PLACE.fullmatch(key.removeprefix(f"{prefix}/") if prefix else key)
    if not found:
        return None
    owner = (unquote(found["tenant"]), unquote(found["connection"]))
    if not found["run"]:
        return ParsedKey("log", *owner, found["log"])
    kind: ObjectKind = "rejected" if found["rejected"] else "data"
    numbers = (int(found[part]) for part in ("generation", "attempt", "sequence"))
    return ParsedKey("object", *owner, found["run"], ObjectLocation(kind, unquote(found["stream"]), *numbers))


COMMIT = re.compile(r"tenant=(?P<tenant>[^/]+)/connection=(?P<connection>[^/]+)/_commits/(?P<run>[0-9a-z]+)\.json")


def commit_of(prefix: str, key: str) -> ParsedKey | None:
    """Return what a key says when it has the form of a commit manifest's."""
    found = COMMIT.fullmatch(key.removeprefix(f"{prefix}/") if prefix else key)
    return ParsedKey("commit", unquote(found["tenant"]), unquote(found["connection"]), found["run"]) if found else None


def object_key(
    prefix: str, path: tuple[str, str, str], generation: int, run: tuple[str, int, int], kind: ObjectKind = "data"
) -> str:
    """Return an object's key; `path` is tenant, connection and stream, `run` is run, attempt and sequence.

    Rejected records lie in a folder that begins with an underscore, which readers of a data lake pass over.
    """
    tenant, connection, stream = (quote(part, safe="") for part in path)
    run_id, attempt, sequence = run
    parts = [
        prefix,
        f"tenant={tenant}",
        f"connection={connection}",
        "_rejected" if kind == "rejected" else "",
        f"stream={stream}",
        f"generation={generation:06d}",
        f"run={run_id}",
        f"attempt-{attempt:02d}-{sequence:06d}.jsonl.zst",
    ]
    return "/".join(part for part in parts if part)


def stream_name_bytes(stream: str) -> int:
    """Return how many bytes a stream's name takes in a key: a letter beyond ASCII takes three for each byte."""
    return len(quote(stream, safe=""))


def room_for_stream_name(prefix: str, tenant: str, connection: str, run_id: RunId) -> int:
    """Return how many bytes a stream's name may take in the longest key of a run, that of rejected records."""
    last = (run_id, MAX_ATTEMPT, MAX_ATTEMPT_OBJECTS)
    return MAX_KEY_BYTES - len(object_key(prefix, (tenant, connection, ""), MAX_GENERATION, last, "rejected").encode())


def commit_key(prefix: str, tenant: str, connection: str, run_id: str) -> str:
    """Return the key of a run's commit manifest."""
    parts = [prefix, f"tenant={quote(tenant, safe='')}", f"connection={quote(connection, safe='')}", "_commits"]
    return "/".join([*(part for part in parts if part), f"{run_id}.json"])


def log_key(prefix: str, tenant: str, connection: str, run: tuple[str, int]) -> str:
    """Return the key of an attempt's log; `run` is run and attempt."""
    parts = [prefix, f"tenant={quote(tenant, safe='')}", f"connection={quote(connection, safe='')}", "_logs"]
    return "/".join([*(part for part in parts if part), f"run={run[0]}", f"attempt-{run[1]:02d}.log.zst"])
