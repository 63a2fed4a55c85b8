"""The names of Bronze objects: they carry everything that makes them unique, so nothing is ever overwritten."""

from __future__ import annotations

from urllib.parse import quote


def object_key(prefix: str, path: tuple[str, str, str], generation: int, run: tuple[str, int, int]) -> str:
    """Return an object's key; `path` is tenant, connection and stream, `run` is run, attempt and sequence."""
    tenant, connection, stream = (quote(part, safe="") for part in path)
    run_id, attempt, sequence = run
    parts = [
        prefix,
        f"tenant={tenant}",
        f"connection={connection}",
        f"stream={stream}",
        f"generation={generation:06d}",
        f"run={run_id}",
        f"attempt-{attempt:02d}-{sequence:06d}.jsonl.zst",
    ]
    return "/".join(part for part in parts if part)


def commit_key(prefix: str, tenant: str, connection: str, run_id: str) -> str:
    """Return the key of a run's commit manifest."""
    parts = [prefix, f"tenant={quote(tenant, safe='')}", f"connection={quote(connection, safe='')}", "_commits"]
    return "/".join([*(part for part in parts if part), f"{run_id}.json"])


def log_key(prefix: str, tenant: str, connection: str, run: tuple[str, int]) -> str:
    """Return the key of an attempt's log; `run` is run and attempt."""
    parts = [prefix, f"tenant={quote(tenant, safe='')}", f"connection={quote(connection, safe='')}", "_logs"]
    return "/".join([*(part for part in parts if part), f"run={run[0]}", f"attempt-{run[1]:02d}.log.zst"])
