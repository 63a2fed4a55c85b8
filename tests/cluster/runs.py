"""Connections to apply, and what the registry and Bronze say of their runs: the oracles of this tier."""

from __future__ import annotations

import io
import json
import time
from dataclasses import dataclass
from typing import Any

import psycopg
import zstandard
from penstock_operator.bronze.store import BronzeStore
from penstock_operator.resources.models import REQUESTED_AT
from penstock_operator.settings import S3Settings
from psycopg.rows import dict_row

from tests.patience import PATIENCE

FAKER = {"name": "faker", "method": "generate", "version": "^0.1"}
PEOPLE = [{"name": "people", "mode": "incremental"}]
SMALL = {"limits": {"memory": "128Mi", "cpu": "1"}}  # so that many fit on a node
Row = dict[str, Any]


def connection(name: str, token: str | None = "t1", namespace: str = "team", **spec: Any) -> dict[str, Any]:
    metadata: dict[str, Any] = {"name": name, "namespace": namespace}
    if token:
        metadata["annotations"] = {REQUESTED_AT: token}
    return {"apiVersion": "penstock.io/v1alpha1", "kind": "TenantConnection", "metadata": metadata, "spec": spec}


def faker(name: str, records: int, delay: float = 0, batch: int = 500, pause: int = 0, **spec: Any) -> dict[str, Any]:
    """Return a connection that makes records up: `delay` seconds after each batch; `pause` is where it stands still."""
    config = {"records": records, "batchSize": batch, "delaySeconds": delay}
    if pause:
        config |= {"pauseAfter": pause, "pauseSeconds": 300}
    return connection(name, **{"connector": FAKER, "config": config, "streams": PEOPLE, "resources": SMALL, **spec})


@dataclass(frozen=True)
class Records:
    """The registry and the bucket, read as the platform's owner may."""

    url: str
    bucket: S3Settings

    def query(self, sql: str, **parameters: Any) -> list[Row]:
        with psycopg.connect(self.url, row_factory=dict_row) as registry:
            return registry.execute(sql, parameters).fetchall()

    def runs(self, *names: str) -> list[Row]:
        return self.query(
            "SELECT r.*, c.name FROM penstock.connector_runs r JOIN penstock.tenant_connections c ON c.uid = r.connection_uid"
            " WHERE c.name = ANY(%(names)s) ORDER BY r.created_at",
            names=list(names),
        )

    def make_due(self, *names: str) -> None:
        """Bring the next run of each connection forward to now, as if its tick had come."""
        with psycopg.connect(self.url) as registry:
            done = registry.execute(
                "UPDATE penstock.tenant_connections SET next_run_at = now()"
                " WHERE name = ANY(%(names)s) AND ready AND next_run_at IS NOT NULL",
                {"names": list(names)},
            )
        assert done.rowcount == len(names), f"{done.rowcount} of {len(names)} connections have a next run"

    def waits(self, *names: str) -> list[float]:
        """Return how long after its due time each run's pod began, in seconds."""
        rows = self.query(
            "SELECT extract(epoch FROM a.started_at - coalesce(r.scheduled_at, r.created_at))::float8 AS waited"
            " FROM penstock.run_attempts a JOIN penstock.connector_runs r ON r.id = a.run_id"
            " JOIN penstock.tenant_connections c ON c.uid = r.connection_uid"
            " WHERE c.name = ANY(%(names)s) AND a.attempt = 1",
            names=list(names),
        )
        return [row["waited"] for row in rows]

    def attempts(self, *names: str) -> list[Row]:
        return self.query(
            "SELECT a.*, c.name FROM penstock.run_attempts a JOIN penstock.connector_runs r ON r.id = a.run_id"
            " JOIN penstock.tenant_connections c ON c.uid = r.connection_uid"
            " WHERE c.name = ANY(%(names)s) ORDER BY c.name, a.run_id, a.attempt",
            names=list(names),
        )

    def committed(self, name: str) -> list[dict[str, Any]]:
        """Read every committed record of a connection back from the bucket."""
        store, lines = BronzeStore(self.bucket), list[dict[str, Any]]()
        for row in self.query(
            "SELECT o.key FROM penstock.bronze_objects o JOIN penstock.tenant_connections c ON c.uid = o.connection_uid"
            " WHERE c.name = %(name)s AND o.committed_at IS NOT NULL",
            name=name,
        ):
            body = zstandard.ZstdDecompressor().stream_reader(store.read(row["key"]))
            lines += [json.loads(line) for line in io.TextIOWrapper(body, encoding="utf-8")]
        return lines

    def whole(self, name: str, count: int) -> None:
        """Look for gaps and doubles: the numbers 0 to count must be there once each."""
        numbers = sorted(stored["data"]["n"] for stored in self.committed(name))
        assert numbers == list(range(count)), f"{name}: {len(numbers)} records, {len(set(numbers))} of them different"

    def running(self, *names: str) -> list[str]:
        """Return which of the connections have an attempt whose pod has said that it began, and has not ended."""
        return [
            row["name"] for row in self.attempts(*names) if row["started_at"] is not None and row["finished_at"] is None
        ]

    def committing(self, *names: str) -> list[str]:
        """Return which of the connections have committed something and are still running."""
        rows = self.query(
            "SELECT DISTINCT c.name FROM penstock.bronze_objects o JOIN penstock.connector_runs r ON r.id = o.run_id"
            " JOIN penstock.tenant_connections c ON c.uid = r.connection_uid"
            " WHERE c.name = ANY(%(names)s) AND o.committed_at IS NOT NULL AND r.phase = 'running'",
            names=list(names),
        )
        return [row["name"] for row in rows]

    def ended(self, *names: str, runs: int = 1, seconds: float = PATIENCE) -> list[Row]:
        """Wait until each connection has so many runs and none is under way, and return the runs."""
        end = time.monotonic() + seconds
        found: list[Row] = []
        while time.monotonic() < end:
            found = self.runs(*names)
            if len(found) >= runs * len(names) and all(row["finished_at"] for row in found):
                return found
            time.sleep(0.3)
        shown = ("name", "phase", "attempt", "reason", "message")
        raise AssertionError(f"not ended within {seconds} s: {[{key: row[key] for key in shown} for row in found]}")
