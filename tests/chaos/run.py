"""`make chaos`: break everything, and read Bronze back. SEED=… repeats a run's chances, ONLY=zombies,bucket some faults."""

from __future__ import annotations

import os
import random
import secrets
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.chaos import scenarios
from tests.chaos.cluster import cluster
from tests.chaos.scenarios import Chaos, Outcome

SCALE = float(os.environ.get("SCALE", "1"))
SEED = int(os.environ.get("SEED") or secrets.randbelow(1_000_000))
ONLY = os.environ.get("ONLY", "")


def scaled(count: int) -> int:
    """Return a count of faults at this scale."""
    return max(1, round(count * SCALE))


SCENARIOS: dict[str, Callable[[Chaos], Outcome]] = {
    "connectors": lambda chaos: scenarios.connectors_killed(chaos, scaled(100)),
    "zombies": lambda chaos: scenarios.zombies_woken(chaos, scaled(20)),
    "postgres": lambda chaos: scenarios.postgres_broken(chaos, scaled(50)),
    "bucket": lambda chaos: scenarios.bucket_spoiled(chaos, scaled(50)),
    "processes": lambda chaos: scenarios.processes_killed(chaos, scaled(100), scaled(10)),
}


def main() -> int:
    """Run the scenarios, one after the other on one cluster, and print the table."""
    outcomes = []
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # whoever is told to stop stops what it started
    chosen = {name: scenario for name, scenario in SCENARIOS.items() if not ONLY or name in ONLY.split(",")}
    with (
        tempfile.TemporaryDirectory(prefix="penstock-chaos-") as directory,
        cluster(Path(directory) / "c", SEED) as made,
    ):
        print(f"seed {SEED}, scale {SCALE:g}", flush=True)
        for name, scenario in chosen.items():
            began = time.monotonic()
            outcome = scenario(Chaos(made, random.Random(f"{SEED}/{name}")))
            outcome.notes.append(f"{time.monotonic() - began:.0f} s")
            outcomes.append(outcome)
            print(f"{name}: {'good' if outcome.good else 'BAD'}: {'; '.join(outcome.notes)}", flush=True)
    show(outcomes)
    return 0 if all(outcome.good for outcome in outcomes) else 1


def show(outcomes: list[Outcome]) -> None:
    """Print the table."""
    table = Table(
        *(
            "fault",
            "tried",
            "runs",
            "records",
            "lost",
            "doubled",
            "failed",
            "disagree",
            "recovery: median",
            "longest",
            "notes",
        ),
        title=f"seed {SEED}, scale {SCALE:g}",
    )
    for outcome in outcomes:
        found = outcome.verdict
        numbers = (found.runs, found.records, found.lost, found.doubled, found.failed, found.disagreeing)
        table.add_row(
            outcome.fault,
            str(outcome.tried),
            *(f"{number:,}" for number in numbers),
            *outcome.recovered(),
            "; ".join(outcome.notes),
        )
    Console(width=200).print(table)


if __name__ == "__main__":
    sys.exit(main())
