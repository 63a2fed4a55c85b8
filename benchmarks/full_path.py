"""1,000,000 made-up records through `penstock up`: envelope, compression, upload, a checkpoint, against the raw limit."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml
from raw import COUNT, raw_seconds, sample

RECORDS = 1_000_000
PENSTOCK = [sys.executable, "-m", "penstock_operator.cli"]


def main() -> None:
    """Run it once, and print the ratio and the connector's peak memory."""
    raw = raw_seconds(sample()) * RECORDS / COUNT
    with tempfile.TemporaryDirectory() as directory:
        folder, data = Path(directory) / "resources", Path(directory) / "data"
        folder.mkdir()
        definition = subprocess.run(
            [*PENSTOCK, "definition", "faker-generate"], check=True, capture_output=True, text=True
        )
        (folder / "definition.yaml").write_text(definition.stdout)
        spec = {
            "connector": {"name": "faker", "method": "generate"},
            "config": {"records": RECORDS},
            "streams": [{"name": "people", "mode": "incremental"}],
        }
        metadata = {"name": "fake", "namespace": "bench"}
        document = {
            "apiVersion": "penstock.io/v1alpha1",
            "kind": "TenantConnection",
            "metadata": metadata,
            "spec": spec,
        }
        (folder / "connection.yaml").write_text(yaml.safe_dump(document))
        up = [*PENSTOCK, "up", str(folder), "--data-dir", str(data), "--once", "--output", "json"]
        (result,) = json.loads(
            subprocess.run(up, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True).stdout
        )["connections"]
        show = [*PENSTOCK, "runs", "show", result["run_id"], "--data-dir", str(data)]
        run = json.loads(subprocess.run(show, check=True, capture_output=True, text=True).stdout)
    report(run, raw)


def report(run: dict[str, object], raw: float) -> None:
    """Print the figures of the run's only attempt, from its start to its end."""
    from datetime import datetime

    attempt = run["attempts"][0]  # type: ignore[index]
    began, ended = (datetime.fromisoformat(attempt[key]) for key in ("started_at", "finished_at"))
    seconds = (ended - began).total_seconds()
    peak = attempt["metrics"]["rss_peak_bytes"] / 2**20
    print(f"full path: {run['records']:,} records in {seconds:.1f} s, raw limit {raw:.1f} s: {raw / seconds:.2f} of it")
    print(f"           {attempt['metrics']['checkpoints']:.0f} checkpoints, connector's peak memory {peak:.0f} MiB")


main()
