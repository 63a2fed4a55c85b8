"""Bronze, read back as a reader by commits does: every record of every run is there once, and the counts agree."""

from __future__ import annotations

import io
import json
from collections import Counter
from dataclasses import dataclass
from typing import Any

import zstandard
from botocore.exceptions import ClientError
from penstock_operator.bronze.keys import commit_key
from penstock_operator.bronze.store import BronzeStore

from tests.chaos.cluster import Cluster

STREAMS = ("people", "events")


@dataclass
class Verdict:
    """What is wrong, in numbers; all are to be 0 but `runs` and `records`."""

    runs: int = 0
    records: int = 0
    lost: int = 0
    doubled: int = 0
    failed: int = 0
    disagreeing: int = 0


def read_back(cluster: Cluster, prefix: str, expected_runs: int, records: int) -> Verdict:
    """Return what Bronze and the commit manifests hold of these connections' runs, each of which read so many records."""
    store, verdict = BronzeStore(cluster.s3.settings), Verdict()
    runs = cluster.runs(prefix)
    verdict.runs = len(runs)
    verdict.lost += max(0, expected_runs - len(runs)) * records * len(STREAMS)
    verdict.doubled += max(0, len(runs) - expected_runs)
    for run in runs:
        verdict.failed += run["phase"] != "succeeded"
        seen: dict[str, Counter[int]] = {stream: Counter() for stream in STREAMS}
        objects = cluster.query(
            "SELECT * FROM penstock.bronze_objects WHERE run_id = %s AND committed_at IS NOT NULL ORDER BY key",
            run["id"],
        )
        for stored in objects:
            lines = _lines(store, stored["key"])
            verdict.disagreeing += len(lines) != stored["records"]
            seen[stored["stream"]].update(line["data"]["n"] for line in lines)
        for stream in STREAMS:
            verdict.records += sum(seen[stream].values())
            verdict.lost += sum(1 for n in range(records) if not seen[stream][n])
            verdict.doubled += sum(count - 1 for count in seen[stream].values() if count > 1)
        verdict.disagreeing += not _commit_agrees(store, run, objects)
    return verdict


def _lines(store: BronzeStore, key: str) -> list[dict[str, Any]]:
    text = io.TextIOWrapper(zstandard.ZstdDecompressor().stream_reader(store.read(key)), encoding="utf-8")
    return [json.loads(line) for line in text]


def _commit_agrees(store: BronzeStore, run: dict[str, Any], objects: list[dict[str, Any]]) -> bool:
    """Say whether the run's commit manifest lists the same objects and counts as the registry."""
    try:
        commit = json.loads(store.read(commit_key(store.settings.prefix, "team", run["name"], run["id"])))
    except ClientError:
        return False
    listed = {stored["key"]: stored["records"] for stored in commit["objects"]}
    known = {stored["key"]: stored["records"] for stored in objects}
    return listed == known and commit["records"] == run["records"] == sum(known.values())
