"""What is broken, how often, and what must be true afterwards."""

from __future__ import annotations

import os
import random
import signal
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from penstock_operator.failpoints import OPERATOR_FAILPOINTS, SERVER_FAILPOINTS
from penstock_sdk.failpoints import FAILPOINTS

from tests.chaos.cluster import Cluster, Pod
from tests.chaos.oracle import Verdict, read_back
from tests.patience import PATIENCE

FENCED = (32, 33)
AT_ONCE = 8
RECORDS = 3000
LIFE_SECONDS = 5.0


@dataclass
class Outcome:
    """One line of the table."""

    fault: str
    tried: int = 0
    verdict: Verdict = field(default_factory=Verdict)
    recoveries: list[float] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    refused: bool = True

    def add(self, verdict: Verdict) -> None:
        """Add what a round found."""
        for name, value in vars(verdict).items():
            setattr(self.verdict, name, getattr(self.verdict, name) + value)

    @property
    def good(self) -> bool:
        """Say whether nothing is wrong."""
        found = self.verdict
        return self.refused and not (found.lost or found.doubled or found.failed or found.disagreeing)

    def recovered(self) -> tuple[str, str]:
        """Median and longest time to recover."""
        if not self.recoveries:
            return "-", "-"
        return f"{statistics.median(self.recoveries):.1f} s", f"{max(self.recoveries):.1f} s"


@dataclass
class Chaos:
    """A cluster, a source of chance that can be repeated, and how much to break."""

    cluster: Cluster
    random: random.Random
    rounds: int = 0

    def begin(self, name: str, count: int, records: int, delay: float) -> str:
        """Add connections that are due now, and return their prefix."""
        self.rounds += 1
        prefix = f"{name}{self.rounds}"
        self.cluster.apply(count, prefix, records=records, batchSize=100, delaySeconds=delay, seed=self.rounds)
        self.cluster.make_due(prefix)
        return prefix

    def end(self, outcome: Outcome, prefix: str, count: int, records: int) -> None:
        """Wait for the runs' ends and their manifests, and read Bronze back."""
        cluster = self.cluster
        cluster.wait(lambda: cluster.all_ended(prefix, count), f"every run of {prefix} has ended")
        waiting = "SELECT count(*) AS n FROM penstock.outbox WHERE kind = 'commit'"
        cluster.wait(lambda: not cluster.query(waiting)[0]["n"], "every commit manifest is written")
        outcome.add(read_back(cluster, prefix, count, records))

    def pause(self, longest: float) -> None:
        """Wait for a random time, so that the fault comes at another moment in each round. Ends early with the cluster."""
        self.cluster.closing.wait(self.random.uniform(0, longest))

    def recovery_of(self, run: str, attempt: int, since: float) -> list[float]:
        """Return how long it took until a later attempt committed, or the run had ended."""
        rows = self.cluster.query(
            "SELECT extract(epoch FROM least((SELECT min(committed_at) FROM penstock.bronze_objects"
            " WHERE run_id = r.id AND attempt > %s), r.finished_at))::float8 AS at"
            " FROM penstock.connector_runs r WHERE id = %s",
            attempt,
            run,
        )
        return [max(0.0, rows[0]["at"] - since)] if rows and rows[0]["at"] else []

    def recovery(self, since: float) -> float:
        """Wait until any attempt gives a sign of life that is newer, and return how long it took."""
        newer = (
            "SELECT 1 FROM penstock.run_attempts WHERE greatest(heartbeat_at, finished_at) > to_timestamp(%s) LIMIT 1"
        )
        self.cluster.wait(lambda: self.cluster.query(newer, since), "life goes on")
        return time.time() - since


def connectors_killed(chaos: Chaos, count: int) -> Outcome:
    """Kill connectors at every named failpoint, and as often at any moment."""
    outcome, cluster = Outcome("connector killed, at failpoints and at random"), chaos.cluster
    cluster.deaths.clear()
    cluster.given_again = 0
    orders = [_order(name, chaos.random) for name in FAILPOINTS * max(1, round(count / 2 / len(FAILPOINTS)))]
    asked = len(orders)
    _killed_at(chaos, outcome, orders)
    fired = len(cluster.deaths)
    outcome.refused = fired == asked
    _killed_at_random(chaos, outcome, fired + count // 2)
    outcome.tried = len(cluster.deaths)
    outcome.notes.append(f"{fired} of {asked} orders to die at a failpoint were carried out")
    for run, attempt, since in cluster.deaths:
        outcome.recoveries += chaos.recovery_of(run, attempt, since)
    return outcome


def _killed_at(chaos: Chaos, outcome: Outcome, orders: list[str]) -> None:
    chaos.random.shuffle(orders)
    chaos.cluster.failpoints += orders
    while chaos.cluster.failpoints:
        prefix = chaos.begin("point", AT_ONCE, RECORDS, 0.02)
        chaos.end(outcome, prefix, AT_ONCE, RECORDS)


def _killed_at_random(chaos: Chaos, outcome: Outcome, deaths: int) -> None:
    """Each pod has its own time to live, some less than a start takes: runs that never get on would pause ever longer."""
    cluster, ends = chaos.cluster, dict[tuple[str, int], float]()
    while len(cluster.deaths) < deaths:
        prefix = chaos.begin("kill", AT_ONCE, RECORDS, 0.02)
        while len(cluster.deaths) < deaths and not cluster.all_ended(prefix, AT_ONCE):
            chaos.pause(0.1)
            for pod in cluster.running():
                key = (pod.run_id, pod.attempt)
                if time.time() > ends.setdefault(key, time.time() + chaos.random.expovariate(1 / LIFE_SECONDS)):
                    pod.kill()
        chaos.end(outcome, prefix, AT_ONCE, RECORDS)


def _order(name: str, chance: random.Random) -> str:
    """Return a failpoint, and at which time of coming there; each of the two streams comes to most of them."""
    again = name.split(".", maxsplit=1)[0] in ("uploads", "object", "checkpoints")
    return f"{name}:{chance.randint(1, 2) if again else 1}"


def zombies_woken(chaos: Chaos, count: int) -> Outcome:
    """Pause connectors past their lease, let their successors end the runs, and wake them."""
    outcome, left, codes = Outcome("zombie woken after its successor was done"), count, list[int]()
    while left > 0:
        codes += _zombies(chaos, outcome, min(AT_ONCE, left))
        left -= AT_ONCE
    outcome.tried = len(codes)
    outcome.refused = all(code in FENCED for code in codes)
    outcome.notes.append(f"{sum(code in FENCED for code in codes)} of {len(codes)} were refused every write")
    return outcome


def _zombies(chaos: Chaos, outcome: Outcome, count: int) -> list[int]:
    cluster, records = chaos.cluster, 3000
    prefix = chaos.begin("zombie", count, records, 0.05)
    paused: dict[str, tuple[Pod, float]] = {}
    begun = "SELECT DISTINCT run_id FROM penstock.bronze_objects WHERE committed_at IS NOT NULL AND attempt = 1"
    while len(paused) < count:
        reading = {row["run_id"] for row in cluster.query(begun)}
        for pod in cluster.running():
            if pod.run_id in reading and pod.attempt == 1 and pod.run_id not in paused:
                pod.cut_off = True
                os.killpg(pod.process.pid, signal.SIGSTOP)
                paused[pod.run_id] = (pod, time.time())
        time.sleep(0.05)
    chaos.end(outcome, prefix, count, records)
    for pod, since in paused.values():
        outcome.recoveries += chaos.recovery_of(pod.run_id, pod.attempt, since)
        os.killpg(pod.process.pid, signal.SIGCONT)
    codes = [pod.process.wait(timeout=PATIENCE) for pod, _ in paused.values()]
    again = read_back(cluster, prefix, count, records)
    outcome.add(Verdict(lost=again.lost, doubled=again.doubled, disagreeing=again.disagreeing))
    return codes


def postgres_broken(chaos: Chaos, count: int) -> Outcome:
    """Stop and start Postgres, end its sessions, lose the answers to commits."""
    cluster, records, outcome = (
        chaos.cluster,
        4000,
        Outcome("Postgres restarted, sessions ended, answers to COMMIT lost"),
    )
    faults: list[Callable[[], None]] = [lambda: _restart(cluster), lambda: _end_sessions(cluster), lambda: _lose(chaos)]
    while outcome.tried < count:
        prefix = chaos.begin("postgres", AT_ONCE, records, 0.05)
        while outcome.tried < count and not cluster.all_ended(prefix, AT_ONCE):
            chaos.pause(0.5)
            since = time.time()
            faults[outcome.tried % len(faults)]()
            outcome.tried += 1
            if not cluster.all_ended(prefix, AT_ONCE):
                outcome.recoveries.append(chaos.recovery(since))
        chaos.end(outcome, prefix, AT_ONCE, records)
    outcome.notes.append(f"{cluster.database.counted['commit answered, answer lost']} answers to COMMIT lost")
    return outcome


def _restart(cluster: Cluster) -> None:
    os.kill(cluster.postgres.pid, signal.SIGQUIT)  # no goodbye: recovery from the log at the next start
    cluster.postgres.stop()
    cluster.postgres.start()


def _end_sessions(cluster: Cluster) -> None:
    cluster.query("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'penstock'")


def _lose(chaos: Chaos) -> None:
    for _ in range(chaos.random.randint(1, 4)):
        chaos.cluster.database.lose_next_commit()


def bucket_spoiled(chaos: Chaos, count: int) -> Outcome:
    """Spoil a fifth of the requests to S3."""
    cluster, records, outcome = chaos.cluster, 4000, Outcome("S3: 503, reset, stalled, answer lost")
    cluster.bucket.faults.set()
    while outcome.tried < count:
        prefix = chaos.begin("bucket", AT_ONCE, records, 0.0)
        cluster.wait(lambda prefix=prefix: cluster.all_ended(prefix, AT_ONCE), "every run has ended")
        chaos.end(outcome, prefix, AT_ONCE, records)
        outcome.tried = sum(cluster.bucket.counted[name] for name, _ in cluster.bucket.RATES)
    cluster.bucket.faults.clear()
    counted = ", ".join(f"{cluster.bucket.counted[name]} {name}" for name, _ in cluster.bucket.RATES)
    outcome.notes.append(f"{counted}, of {cluster.bucket.counted['requests']} requests")
    return outcome


def processes_killed(chaos: Chaos, runs: int, kills: int) -> Outcome:
    """Kill operators and servers, two of each, at failpoints and at any moment, over many due runs."""
    cluster, records, outcome = chaos.cluster, 100, Outcome(f"operator or server killed, over {runs} due runs")
    prefix = chaos.begin("due", runs, records, 0.0)
    points = {"operate": OPERATOR_FAILPOINTS, "serve": SERVER_FAILPOINTS}
    orders = {kind: chaos.random.sample(names, len(names)) * (kills // 4 + 1) for kind, names in points.items()}
    before = cluster.died_at_failpoints
    for number in range(kills):
        ended = round(0.9 * runs * number / kills)
        cluster.wait(lambda ended=ended: cluster.ended(prefix) >= ended, f"{ended} runs have ended")
        chaos.pause(1.0)
        name = chaos.random.choice(list(cluster.processes))
        since = time.time()
        cluster.kill_process(name, orders[name.split("-")[0]].pop())
        outcome.tried += 1
        if not cluster.all_ended(prefix, runs):
            outcome.recoveries.append(chaos.recovery(since))
    chaos.end(outcome, prefix, runs, records)
    died = cluster.died_at_failpoints - before
    outcome.tried += died
    outcome.notes.append(f"{died} of them at failpoints; {outcome.verdict.runs} runs")
    return outcome
