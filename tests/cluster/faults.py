"""Breaks several runs at once, each after its first commit, and looks for gaps, doubles, and how long each was away."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import median

from penstock_operator.launchers.jobs import LABEL_CONNECTION

from tests.cluster.kubernetes import Cluster
from tests.cluster.runs import Records, Row, faker
from tests.patience import PATIENCE

COUNT = int(os.environ.get("FAULTS") or "3")
RECORDS, BATCH, PAUSE = 120_000, 10_000, 70_000  # the first checkpoint comes after 50,000 records; then it stands still
LIMITS = {"limits": {"memory": "192Mi", "cpu": "1"}}


@dataclass
class RejectCounts:
    """What one kind of fault did."""

    fault: str
    tried: int
    lost: int
    doubled: int
    away: list[float]

    def __str__(self) -> str:
        away = f"{median(self.away):6.1f} {max(self.away):6.1f}" if self.away else "     -      -"
        return f"{self.fault:<14} {self.tried:>5} {self.lost:>5} {self.doubled:>8} {away}"


@dataclass
class Faults:
    """Connections to break, and the table of what came of it."""

    cluster: Cluster
    records: Records
    namespace: str
    tallies: list[RejectCounts] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def under_way(self, fault: str) -> dict[str, str]:
        """Start runs, wait until each has committed something, and return each connection's pod."""
        names = [f"{fault}-{number}" for number in range(COUNT)]
        self.cluster.apply(*(faker(name, RECORDS, batch=BATCH, pause=PAUSE, resources=LIMITS) for name in names))

        def committed() -> bool:
            return len(self.records.committing(*names)) == len(names)

        self.cluster.until("each has committed", committed, seconds=PATIENCE + 5 * COUNT)
        return {
            pod["metadata"]["labels"][LABEL_CONNECTION]: pod["metadata"]["name"]
            for pod in self.cluster.list("pods", self.namespace, f"{LABEL_CONNECTION} in ({','.join(names)})")
        }

    def attempted(self, number: int, names: list[str], seconds: float = PATIENCE) -> None:
        """Wait until each connection's run has so many attempts."""
        end = time.monotonic() + seconds
        while len(found := self.records.attempts(*names)) != number * len(names):
            assert time.monotonic() < end, shown(found)
            time.sleep(0.3)

    def disrupt(self, fault: str, inflict: Callable[[list[str]], object]) -> list[Row]:
        """Inflict it on each run's pod: each run succeeds in its second attempt, no failure counted; return the first ones."""
        pods = self.under_way(fault)
        began = time.time()
        inflict(list(pods.values()))
        runs, attempts = self.records.ended(*pods, seconds=PATIENCE + 5 * COUNT), self.records.attempts(*pods)
        assert {(run["phase"], run["attempt"], run["streak"]) for run in runs} == {("succeeded", 2, 0)}, shown(attempts)
        again = [attempt["started_at"].timestamp() - began for attempt in attempts if attempt["attempt"] == 2]
        self.whole(fault, list(pods), RECORDS, again)
        first = [attempt for attempt in attempts if attempt["attempt"] == 1]
        assert {attempt["reason"] for attempt in first} == {"AttemptLost"}, shown(attempts)
        assert all(attempt["message"] for attempt in first), shown(attempts)
        return first

    def whole(self, fault: str, names: list[str], count: int, away: list[float]) -> None:
        """Look for gaps and doubles in what each connection's runs committed, and put a line in the table."""
        numbers = [sorted(stored["data"]["n"] for stored in self.records.committed(name)) for name in names]
        lost = sum(count - len(set(number)) for number in numbers)
        doubled = sum(len(number) - len(set(number)) for number in numbers)
        self.tallies.append(RejectCounts(fault, len(names), lost, doubled, away))
        assert (lost, doubled) == (0, 0)


def shown(attempts: list[Row]) -> list[tuple[object, ...]]:
    """Return what tells how attempts went."""
    fields = ("name", "attempt", "phase", "reason", "message", "launched_at", "started_at", "finished_at")
    return [tuple(str(attempt[field]) for field in fields) for attempt in attempts]
