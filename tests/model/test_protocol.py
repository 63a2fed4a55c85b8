"""Invariants 1 to 6 against sequences of steps that Hypothesis makes up: `make model N=10000` is the long run.

After each step the whole registry is compared with the oracle. Two calls at once must end as one of their two orders
would have.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.errors import FlakyReplay, FlakyStrategyDefinition
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test
from penstock_operator.registry.database import create_pool
from penstock_operator.registry.migrate import migrate

from tests.model import snapshot
from tests.model.oracle import AGAIN_OR_OVER, MODES, Answer, Caller, Oracle, Wanted
from tests.model.reality import Reality

SEQUENCES = int(os.environ.get("PENSTOCK_MODEL_SEQUENCES", "100"))
STEPS = 30
LOT = 100  # sequences that are varied from each other
PASSING_OVER = ("schedule", "launch")  # they leave a row that somebody holds for the next time
NAMES, STREAMS = ("orders", "items"), tuple(MODES)
Step = tuple[str, dict[str, Any]]
CALLS = ("streams", "uploads", "checkpoint", "heartbeat", "finish")
OPERATOR = ("schedule", "launch", "launch", "observe", "job_ends", "give_up", "delete", "sweep")
PERSON = ("request", "request", "cancel", "reset", "rewind", "reread")


@dataclass
class Reader:
    """What a pod knows: where it reads, what it has uploaded and not committed, what it has committed."""

    position: dict[str, int]
    number: dict[str, int]
    sequence: dict[str, int] = field(default_factory=lambda: dict.fromkeys(STREAMS, 0))
    uploaded: dict[str, list[tuple[int, int, int, int]]] = field(default_factory=lambda: {name: [] for name in STREAMS})
    last: Wanted | None = None


class Protocol(RuleBasedStateMachine):
    """Steps of operators, people and pods, zombies among them, in any order."""

    runner: ClassVar[asyncio.Runner]
    reality: ClassVar[Reality]
    ended: ClassVar[int]
    failures: ClassVar[list[BaseException]]

    def __init__(self) -> None:
        super().__init__()
        self.oracle = Oracle()
        self.now = datetime(2040, 1, 1, 0, 30, tzinfo=UTC)  # no pause after failures lasts that long
        self.readers: dict[tuple[str, int], Reader] = {}
        self.rows: snapshot.Rows | None = None
        self.succeeded: set[str] = set()
        self.made = 0

    def teardown(self) -> None:
        """Count the sequence."""
        type(self).ended += 1

    def do(self, *steps: Step) -> list[Answer]:
        """Carry out one step, or several at once, and compare."""
        try:
            return self._do(*steps)
        except BaseException as error:
            self.failures.append(error)
            raise

    def _do(self, *steps: Step) -> list[Answer]:
        async def carry_out() -> tuple[list[Answer], snapshot.Rows]:
            calls = [getattr(self.reality, name)(**arguments) for name, arguments in steps]
            return list(await asyncio.gather(*calls)), await snapshot.read(self.reality.pool)

        answers, rows = self.runner.run(carry_out())
        self._compare(steps, answers, snapshot.shape_of_registry(rows))
        if len(steps) == 1:
            snapshot.check_3(rows, self.rows)
        snapshot.check_1_and_2(rows, self.rows)
        snapshot.check_4(rows)
        snapshot.check_4_of_windows(rows)
        snapshot.check_5(rows, self.rows)
        self.runner.run(snapshot.check_6(self.reality.pool, rows, self.succeeded))
        self.rows = rows
        return answers

    def _compare(self, steps: tuple[Step, ...], answers: list[Answer], found: dict[str, Any]) -> None:
        orders = [list(range(len(steps))), list(reversed(range(len(steps))))][: len(steps)]
        reasons = []
        for order in orders:
            pairs = [(steps[index], answers[index]) for index in order]
            for branch in outcomes_of(self.oracle, pairs, raced=len(steps) > 1):
                expected = snapshot.shape_of_oracle(branch)
                if expected == found:
                    self.oracle = branch
                    return
                reasons.append(f"{order}: expected {expected}")
            reasons.append(f"{order}: no answers such as {[answers[index] for index in order]}")
        raise AssertionError("\n".join([f"{steps} answered {answers}", f"found {found}", *reasons]))

    @initialize(running=st.booleans())
    def begin(self, running: bool) -> None:  # noqa: FBT001
        self.runner.run(self.reality.begin())
        for name in NAMES:
            self._create(name)
        if running:
            self.run_all()

    def _create(self, name: str) -> None:
        self.made += 1
        self.do(
            ("create", {"name": name, "uid": f"{name}-{self.made}", "next_run_at": self.now + timedelta(minutes=30)})
        )

    # Whom a step is about.

    def attempts(self) -> list[tuple[str, int]]:
        return [(name, n) for name, run in self.oracle.runs.items() for n in range(1, len(run.attempts) + 1)]

    def callers(self) -> list[Caller]:
        """Every token that was given out, the newest first."""
        found = [
            Caller(name, number, token)
            for name, number in self.attempts()
            for token in range(self.oracle.runs[name].attempts[number - 1].tokens)
        ]
        return found[::-1]

    def working(self) -> list[Caller]:
        """The tokens that nothing has taken away."""
        return [caller for caller in self.callers() if self.oracle.refusal(caller) is None]

    def draw_caller(self, data: st.DataObject) -> Caller:
        working = self.working()
        zombies = data.draw(st.integers(0, 3)) == 3 or not working
        return data.draw(st.sampled_from(self.callers() if zombies else working))

    def reader(self, caller: Caller) -> Reader:
        zero = dict.fromkeys(STREAMS, 0)
        return self.readers.get((caller.run, caller.attempt)) or Reader(dict(zero), dict(zero))

    # Everybody together, as on a good day.

    @rule()
    def run_all(self) -> None:
        """A run for every connection that has none, and a pod for every attempt that has none."""
        self.now += timedelta(hours=1)
        self.do(("schedule", {"now": self.now, "schedulers": 1}))
        self.do(("launch", {"crash": ""}))
        for run, attempt in self.attempts():
            if not self.oracle.runs[run].attempts[attempt - 1].tokens:
                self._start(run, attempt, "p1")

    @rule(name=st.sampled_from(NAMES))
    def read_again(self, name: str) -> None:
        """A pod that reads a window again, once the pods of the connection's other runs have finished."""
        uid = self.oracle.live(name)
        if uid is None:
            return
        for caller in self.working():
            if self.oracle.runs[caller.run].uid == uid:
                self._end_well(caller)
        self.do(("reread", {"uid": uid}))
        self.do(("launch", {"crash": ""}))
        for run, attempt in self.attempts():
            if self.oracle.runs[run].window and not self.oracle.runs[run].attempts[attempt - 1].tokens:
                self._start(run, attempt, "p1")

    # The operator, and the cluster under it.

    @rule(data=st.data(), name=st.sampled_from(OPERATOR))
    def operate(self, data: st.DataObject, name: str) -> None:
        getattr(self, f"_{name}")(data)

    def _schedule(self, data: st.DataObject) -> None:
        self.now += timedelta(hours=data.draw(st.integers(0, 3)))
        self.do(("schedule", {"now": self.now, "schedulers": data.draw(st.integers(1, 3))}))

    def _launch(self, data: st.DataObject) -> None:
        self.do(("launch", {"crash": data.draw(st.sampled_from(["", "", "", "before", "after"]))}))

    def _observe(self, data: st.DataObject) -> None:
        self.do(("observe", {"late": data.draw(st.sampled_from([0, 10, 10, 1000]))}))

    def _job_ends(self, data: st.DataObject) -> None:
        found = [(run, n) for run, n in self.attempts() if self.oracle.runs[run].attempts[n - 1].job]
        if found:
            run, attempt = data.draw(st.sampled_from(found))
            how = data.draw(st.sampled_from(["failed", "disrupted", "succeeded"]))
            self.do(("job_ends", {"run": run, "attempt": attempt, "how": how}))

    def _give_up(self, data: st.DataObject) -> None:
        if self.attempts():
            run, attempt = data.draw(st.sampled_from(self.attempts()[::-1]))
            self.do(("give_up", {"run": run, "attempt": attempt}))

    def _delete(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(NAMES))
        self.do(("delete", {"name": name, "crash": data.draw(st.sampled_from(["", "between its transactions"]))}))
        if data.draw(st.booleans()):
            self._create(name)

    def _sweep(self, data: st.DataObject) -> None:
        del data
        self.do(("sweep", {}))

    # A person.

    @rule(data=st.data(), name=st.sampled_from(PERSON))
    def decide(self, data: st.DataObject, name: str) -> None:
        getattr(self, f"_{name}")(data)

    def _request(self, data: st.DataObject) -> None:
        uid = self.oracle.live(data.draw(st.sampled_from(NAMES))) or next(iter(self.oracle.connections))
        self.do(("request", {"uid": uid, "token": data.draw(st.sampled_from(["t1", "t2", "t3", "t4"]))}))

    def _cancel(self, data: st.DataObject) -> None:
        if self.oracle.runs:
            self.do(("cancel", {"run": data.draw(st.sampled_from(list(self.oracle.runs)[::-1]))}))

    def _reread(self, data: st.DataObject) -> None:
        uid = self.oracle.live(data.draw(st.sampled_from(NAMES))) or next(iter(self.oracle.connections))
        self.do(("reread", {"uid": uid}))

    def _reset(self, data: st.DataObject) -> None:
        if uid := self.oracle.live(data.draw(st.sampled_from(NAMES))):
            self.do(("reset", {"uid": uid, "stream": data.draw(st.sampled_from(STREAMS))}))

    def _rewind(self, data: st.DataObject) -> None:
        if uid := self.oracle.live(data.draw(st.sampled_from(NAMES))):
            arguments = {"stream": data.draw(st.sampled_from(STREAMS)), "number": data.draw(st.integers(1, 6))}
            self.do(("rewind", {"uid": uid, **arguments}))

    # A pod.

    @precondition(lambda self: self.attempts())
    @rule(
        data=st.data(),
        pod=st.sampled_from(["p1", "p1", "p1", "p2"]),
        key=st.sampled_from(["k1", "k1", "k1", "k2"]),
        own_job=st.sampled_from([True] * 5 + [False]),
    )
    def start(self, data: st.DataObject, pod: str, key: str, own_job: bool) -> None:  # noqa: FBT001
        run, attempt = data.draw(st.sampled_from(self.attempts()[::-1]))
        self._start(run, attempt, pod, key, own_job=own_job)

    def _start(self, run: str, attempt: int, pod: str, key: str = "k1", *, own_job: bool = True) -> None:
        (answer,) = self.do(("start", {"run": run, "attempt": attempt, "pod": pod, "key": key, "own_job": own_job}))
        if answer == "ok":
            self._streams(Caller(run, attempt, self.oracle.runs[run].attempts[attempt - 1].tokens - 1))

    def _streams(self, caller: Caller) -> None:
        (answer,) = self.do(("streams", {"caller": caller}))
        if isinstance(answer, dict):
            position = {name: cursor or 0 for name, (_, cursor, _, _) in answer.items()}
            self.readers[caller.run, caller.attempt] = Reader(
                position, {name: item[2] for name, item in answer.items()}
            )

    @precondition(lambda self: self.callers())
    @rule(data=st.data(), name=st.sampled_from(CALLS))
    def call(self, data: st.DataObject, name: str) -> None:
        """Any call, by any token."""
        self.do(self._draw_call(data, self.draw_caller(data), name))

    @precondition(lambda self: self.readers)
    @rule(data=st.data(), stream=st.sampled_from(STREAMS))
    def commit_oddly(self, data: st.DataObject, stream: str) -> None:
        """A checkpoint as no SDK asks for it: again, out of turn, with somebody else's objects."""
        caller = self.draw_caller(data)
        self.do(("checkpoint", {"caller": caller, "wanted": self._draw_checkpoint(data, caller, stream)}))

    def _draw_call(self, data: st.DataObject, caller: Caller, name: str) -> Step:
        stream = data.draw(st.sampled_from(STREAMS))
        if name == "uploads":
            start = self._stands(caller, stream)
            span = (start, start + data.draw(st.sampled_from([5, 5, 6])))
            described = {"stream": stream, "sequence": data.draw(st.integers(1, 4)), "span": span}
            return name, {"caller": caller, **described, "arrives": data.draw(st.booleans())}
        if name == "checkpoint":
            return name, {"caller": caller, "wanted": self._draw_checkpoint(data, caller, stream)}
        if name == "finish":
            right = self.oracle.attempt(caller).committed()
            records = data.draw(st.sampled_from([right, {"people": 999}]))
            outcome = data.draw(st.sampled_from(["succeeded", "failed", "cancelled", "interrupted"]))
            failed = data.draw(st.sampled_from([(), (), ("events",), STREAMS]))
            return name, {"caller": caller, "outcome": outcome, "records": records, "failed": failed}
        return name, {"caller": caller}

    def _draw_checkpoint(self, data: st.DataObject, caller: Caller, stream: str) -> Wanted:
        """A checkpoint that nothing was prepared for, the last one again, or the last one's objects under the next number."""
        reader = self.reader(caller)
        if reader.last and data.draw(st.booleans()):
            cursor = 999 if reader.last.objects else self._stands(caller, reader.last.stream)
            again = Wanted(
                reader.last.stream, reader.number[reader.last.stream] + 1, reader.last.objects, cursor, done=False
            )
            return data.draw(st.sampled_from([reader.last, again]))
        number = reader.number[stream] + data.draw(st.sampled_from([1, 1, 0, 2, -1]))
        other = data.draw(st.integers(1, caller.attempt)), data.draw(st.integers(1, 3))
        start = self._stands(caller, stream)  # what no platform can know is whether a cursor tells the truth
        if data.draw(st.booleans()):
            return Wanted(stream, max(1, number), (), start, done=data.draw(st.booleans()))
        return Wanted(stream, max(1, number), ((*other, start, start + 5),), start + 5, done=False)

    def _stands(self, caller: Caller, stream: str) -> int:
        """Say where a pod of the caller's run has to read on."""
        state = self.oracle.states(caller).get(stream)
        goes_on = state and (MODES[stream] == "incremental" or state.run == caller.run)
        return state.cursor or 0 if state and goes_on else 0

    @precondition(lambda self: self.working())
    @rule(
        data=st.data(),
        stream=st.sampled_from(STREAMS),
        objects=st.integers(0, 2),
        done=st.booleans(),
        records=st.integers(1, 9),
    )
    def read_on(self, data: st.DataObject, stream: str, objects: int, done: bool, records: int) -> None:  # noqa: FBT001
        """Upload and commit, as the SDK does it."""
        self._read_on(data.draw(st.sampled_from(self.working())), stream, objects, records, done=done)

    def _read_on(self, caller: Caller, stream: str, objects: int, records: int, *, done: bool) -> None:
        reader = self.reader(caller)
        made, began = [], reader.position[stream]
        for _ in range(objects):
            sequence, start = reader.sequence[stream] + 1, reader.position[stream]
            span = (start, start + records)
            described = {"stream": stream, "sequence": sequence, "span": span}
            self.do(("uploads", {"caller": caller, **described, "arrives": True}))
            reader.sequence[stream], reader.position[stream] = sequence, start + records
            made.append((caller.attempt, sequence, *span))
        cursor = reader.position[stream]
        wanted = Wanted(stream, reader.number[stream] + 1, tuple(made), cursor, done)
        (answer,) = self.do(("checkpoint", {"caller": caller, "wanted": wanted}))
        if answer == "ok":
            reader.number[stream], reader.last = wanted.number, wanted
        else:
            reader.position[stream] = began  # a pod that is refused promises nothing more

    @precondition(lambda self: self.working())
    @rule(data=st.data())
    def end_well(self, data: st.DataObject) -> None:
        """Finish what is left, as the SDK does it."""
        self._end_well(data.draw(st.sampled_from(self.working())))

    def _end_well(self, caller: Caller) -> None:
        self._streams(caller)
        for stream in STREAMS:
            self._read_on(caller, stream, 1, 3, done=True)
        records = self.oracle.attempt(caller).committed()
        self.do(("finish", {"caller": caller, "outcome": "succeeded", "records": records, "failed": ()}))

    # Two at once.

    @rule(data=st.data(), name=st.sampled_from(NAMES), hours=st.integers(0, 2))
    def race_for_a_run(self, data: st.DataObject, name: str, hours: int) -> None:
        """Whatever makes runs, twice."""
        self.now += timedelta(hours=hours)
        uid = self.oracle.live(name) or next(iter(self.oracle.connections))
        makers: list[Step] = [
            ("request", {"uid": uid, "token": "t6"}),
            ("request", {"uid": uid, "token": "t7"}),
            ("schedule", {"now": self.now, "schedulers": 1}),
            ("reread", {"uid": uid}),
        ]
        first = data.draw(st.sampled_from(makers))
        self.do(first, data.draw(st.sampled_from([maker for maker in makers if maker is not first])))

    @precondition(lambda self: self.callers())
    @rule(data=st.data(), name=st.sampled_from(CALLS))
    def race(self, data: st.DataObject, name: str) -> None:
        """A pod's call against whatever takes its attempt away."""
        caller = self.draw_caller(data)
        uid = self.oracle.runs[caller.run].uid
        others: list[Step] = [
            ("give_up", {"run": caller.run, "attempt": caller.attempt}),
            ("reset", {"uid": uid, "stream": data.draw(st.sampled_from(STREAMS))}),
            ("cancel", {"run": caller.run}),
            ("delete", {"name": self.oracle.connections[uid].name, "crash": "between its transactions"}),
            ("request", {"uid": uid, "token": "t5"}),
            ("schedule", {"now": self.now, "schedulers": 1}),
            ("launch", {"crash": ""}),
            ("reread", {"uid": uid}),
            self._draw_call(data, caller, data.draw(st.sampled_from(CALLS))),
        ]
        self.do(self._draw_call(data, caller, name), data.draw(st.sampled_from(others)))


def outcomes_of(oracle: Oracle, pairs: list[tuple[Step, Answer]], *, raced: bool) -> Iterator[Oracle]:
    """Yield what the oracle may be after the steps, of those that agree with the answers."""
    if not pairs:
        yield oracle
        return
    ((name, arguments), answer), *rest = pairs
    for held in _held(oracle) if raced and name in PASSING_OVER else [{}]:
        after = copy.deepcopy(oracle)
        expected = getattr(after, name)(**arguments, **held)
        if expected == answer or (expected == AGAIN_OR_OVER and answer in ("pending", "failed")):
            for branch in _settled(after):
                yield from outcomes_of(branch, rest, raced=raced)


def _held(oracle: Oracle) -> list[dict[str, set[str]]]:
    """Return which connections' rows, and their runs', the other step may hold at that moment."""
    return [{}, *({"held": {uid}} for uid in oracle.connections), {"held": set(oracle.connections)}]


def _settled(oracle: Oracle) -> Iterator[Oracle]:
    """Yield the oracle with each way in which an open outcome can go."""
    open_ = next((name for name, run in oracle.runs.items() if run.phase == AGAIN_OR_OVER), None)
    if open_ is None:
        yield oracle
        return
    for phase in ("pending", "failed"):
        branch = copy.deepcopy(oracle)
        branch.runs[open_].phase = phase
        yield from _settled(branch)


@pytest.fixture
def reality(database_url: str) -> Iterator[tuple[asyncio.Runner, Reality]]:
    """A registry whose commits need not survive a power cut, which is not what is tested here."""
    with asyncio.Runner() as runner:
        runner.run(migrate(database_url))
        pool = create_pool(f"{database_url}?options=-csynchronous_commit%3Doff", size=6)
        runner.run(pool.open(wait=True))
        yield runner, Reality(pool)
        runner.run(pool.close())


def test_the_registry_is_what_the_model_says_after_every_step(reality: tuple[asyncio.Runner, Reality]) -> None:
    """A lot may end early: which of two calls came first is not Hypothesis's to repeat, and it minds that."""
    Protocol.runner, Protocol.reality = reality
    Protocol.ended, Protocol.failures = 0, []
    lots = 0
    while Protocol.ended < SEQUENCES:
        lots += 1
        wanted = settings(
            max_examples=min(LOT, SEQUENCES - Protocol.ended),
            stateful_step_count=STEPS,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            phases=(Phase.explicit, Phase.reuse, Phase.generate),
            print_blob=True,
        )
        with contextlib.suppress(FlakyStrategyDefinition, FlakyReplay):
            run_state_machine_as_test(Protocol, settings=wanted)
        assert not Protocol.failures, Protocol.failures[0]
        assert lots <= 2 * SEQUENCES / LOT + 10, f"only {Protocol.ended} sequences in {lots} lots"
