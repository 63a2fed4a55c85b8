"""1,000,000 made-up records through the embedded platform, against the raw limit in turn.

Everything is in it: generating, envelope, compression, upload, a checkpoint each 10,000 records, and the server, Postgres
and S3 on the same cores. Time is an attempt's, from its claim to its end; CPU is the connector's process, less what a
process uses that imports the same and reads nothing.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import yaml
from penstock_operator.cli.run_reporter import PlainLines
from penstock_operator.embedded.platform import DataDirectory, Platform, platform
from penstock_operator.embedded.runner import run_once
from penstock_operator.registry.database import one
from penstock_sdk.protocol import Limits
from raw import COUNT
from rich.console import Console

RECORDS, CHECKPOINT, ROUNDS = 1_000_000, 10_000, 5
HERE = Path(__file__).parent
TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Round:
    """One attempt, with the raw limit before and after it; seconds, CPU seconds, bytes."""

    seconds: float
    cpu: float
    platform_cpu: float
    peak: float
    checkpoints: float
    raw_seconds: float
    raw_cpu: float


def write_resources(folder: Path) -> None:
    """Write the definition, and the connection that reads everything at each run."""
    command = [sys.executable, "-m", "penstock_operator.cli", "definition", "faker-generate"]
    definition = subprocess.run(command, check=True, capture_output=True, text=True)
    (folder / "definition.yaml").write_text(definition.stdout)
    connection = {
        "apiVersion": "penstock.io/v1alpha1",
        "kind": "TenantConnection",
        "metadata": {"name": "fake", "namespace": "bench"},
        "spec": {
            "connector": {"name": "faker", "method": "generate"},
            "config": {"records": RECORDS},
            "streams": [{"name": "people", "mode": "full"}],
        },
    }
    (folder / "connection.yaml").write_text(yaml.safe_dump(connection))


def python(*arguments: str) -> tuple[str, float]:
    """Run a Python beside us; return what it printed and the CPU seconds that it used."""
    before = os.times()
    done = subprocess.run([sys.executable, *arguments], check=True, capture_output=True, text=True, cwd=HERE)
    after = os.times()
    return done.stdout, after.children_user - before.children_user + after.children_system - before.children_system


def raw_limit() -> tuple[float, float]:
    """Return what the raw limit takes for as many records, by the clock and in CPU seconds."""
    wall, cpu = python("raw.py")[0].split()
    return float(wall) * RECORDS / COUNT, float(cpu) * RECORDS / COUNT


def servers_cpu() -> float:
    """Return the CPU seconds that this process and the servers below it have used so far."""
    parents, used = dict[int, int](), dict[int, float]()
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rsplit(")", 1)[1].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        parents[int(path.parent.name)] = int(fields[1])
        used[int(path.parent.name)] = sum(map(int, fields[11:15])) / TICKS  # with children that have ended
    ours = {os.getpid()}
    while found := {pid for pid, parent in parents.items() if parent in ours} - ours:
        ours |= found
    return sum(used.get(pid, 0.0) for pid in ours)


async def measure(up: Platform) -> Round:
    """Run the connection once between two runs of the raw limit."""
    startup = python("-c", "import penstock_sdk._runtime.main, penstock_faker_generate.connector")[1]
    first, before = raw_limit(), servers_cpu()
    (result,) = await run_once(up, PlainLines(Console(stderr=True, quiet=True)))
    assert (result.phase, result.records) == ("succeeded", RECORDS), result
    used, second = max(servers_cpu(), servers_cpu()) - before, raw_limit()  # a child may end during one scan
    async with up.pool.connection() as db:
        row = await one(
            db,
            "SELECT extract(epoch FROM finished_at - started_at)::float AS seconds, metrics FROM penstock.run_attempts"
            " WHERE run_id = %(run)s",
            run=result.run_id,
        )
    assert row is not None
    metrics = row["metrics"]
    return Round(
        seconds=row["seconds"],
        cpu=metrics["cpu_seconds"] - startup,
        platform_cpu=used - metrics["cpu_seconds"],
        peak=metrics["rss_peak_bytes"] / 2**20,
        checkpoints=metrics["checkpoints"],
        raw_seconds=(first[0] + second[0]) / 2,
        raw_cpu=(first[1] + second[1]) / 2,
    )


async def main() -> None:
    """Measure, and print medians."""
    with tempfile.TemporaryDirectory() as directory:
        folder, data = Path(directory) / "resources", DataDirectory(Path(directory) / "data")
        folder.mkdir()
        write_resources(folder)
        async with platform(folder, data, Limits(checkpoint_records=CHECKPOINT)) as up:
            rounds = [await measure(up) for _ in range(int(os.environ.get("ROUNDS", ROUNDS)))]
    report(rounds)


def report(rounds: list[Round]) -> None:
    """Print the figures."""
    share = median(each.raw_seconds / each.seconds for each in rounds)
    cpu = median(each.cpu / each.raw_cpu for each in rounds)
    seconds, raw = median(each.seconds for each in rounds), median(each.raw_seconds for each in rounds)
    each = ", ".join(f"{each.raw_seconds / each.seconds:.2f}" for each in rounds)
    print(f"full path: {RECORDS:,} records in {seconds:.1f} s, raw limit {raw:.1f} s: {share:.2f} of it", end="")
    print(f" (median of {len(rounds)} pairs: {each})")
    print(f"           {rounds[0].checkpoints:.0f} checkpoints; the connector's CPU is {cpu:.2f} times the raw limit's")
    print(f"           peak memory of the connector {max(each.peak for each in rounds):.0f} MiB")
    busy = median((each.cpu + each.platform_cpu) / each.seconds for each in rounds)
    ours, theirs = median(each.cpu for each in rounds), median(each.platform_cpu for each in rounds)
    print(f"           limit: CPU, {ours:.1f} s of the connector beside {theirs:.1f} s of API, Postgres and S3", end="")
    print(f" keep {busy:.1f} of {os.cpu_count()} cores busy")


if __name__ == "__main__":
    asyncio.run(main())
