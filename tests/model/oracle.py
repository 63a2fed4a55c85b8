"""What the registry must hold after each step: the run protocol in plain Python, without a database, a lock or a clock.

Every method is one step. It changes the oracle and returns the answer that the real call must give.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Literal

from penstock_operator.runs.selection import BEFORE_THE_FIRST
from penstock_operator.settings import Timings

Answer = Any
Jobs = Literal["none", "active", "failed", "disrupted", "succeeded"]
ACTIVE = ("pending", "running")
AGAIN_OR_OVER = "pending|failed"  # what a failure makes of a run is the retry policy's matter, tested by itself
MODES = {"people": "incremental", "events": "full"}
HOUR = timedelta(hours=1)
CANCEL_DEADLINE = Timings().cancel_deadline


@dataclass
class Object:
    """A granted object with the records from start to stop; `checkpoint` is None until it is committed.

    `arrived`: the bucket holds it.
    """

    generation: int
    start: int
    stop: int
    arrived: bool = False
    checkpoint: int | None = None


@dataclass
class Attempt:
    """One try of a run."""

    job: str | None = None
    job_state: Jobs = "none"
    pod: str | None = None
    key: str | None = None
    tokens: int = 0
    """1 once a process has started the attempt."""
    ended: str | None = None
    streams: tuple[str, ...] = ()
    objects: dict[tuple[str, int], Object] = field(default_factory=dict)

    def committed(self) -> dict[str, int]:
        """Return the records committed, by stream."""
        found: dict[str, int] = {}
        for (stream, _), stored in self.objects.items():
            if stored.checkpoint is not None:
                found[stream] = found.get(stream, 0) + stored.stop - stored.start
        return {stream: records for stream, records in found.items() if records}


@dataclass
class State:
    """Where a stream stands; a window's reading of it has no generation of its own."""

    cursor: int | None = None
    checkpoint: int = 0
    generation: int = 1
    run: str | None = None
    attempt: int | None = None
    done: bool = False


@dataclass
class Run:
    """One execution, named after what made it. One that reads a window again has states of its own."""

    uid: str
    phase: str = "pending"
    cancel: bool = False
    attempts: list[Attempt] = field(default_factory=list)
    window: bool = False
    states: dict[str, State] = field(default_factory=dict)
    outcomes: dict[str, tuple[int, str]] = field(default_factory=dict)
    """How each stream went, with the number of the attempt that says so."""

    @property
    def turn(self) -> tuple[bool, bool]:
        """Which of a connection's runs is next: what has begun, then what is due, then what reads a window again."""
        return not self.attempts, self.window


@dataclass
class Connection:
    """A tenant's connection; a name that is used again has another uid."""

    name: str
    next_run_at: datetime
    deleted: bool = False
    handled: str | None = None
    states: dict[str, State] = field(default_factory=dict)
    history: dict[tuple[str, int], int | None] = field(default_factory=dict)
    first: int = 1
    """The generation that its streams begin with."""

    def state(self, stream: str) -> State:
        """Return where a stream stands."""
        return self.states.get(stream, State(generation=self.first))


@dataclass(frozen=True)
class Caller:
    """A pod's token: of which attempt, and which of those that were given out for it."""

    run: str
    attempt: int
    token: int


@dataclass(frozen=True)
class Wanted:
    """A checkpoint as a pod asks for it: objects as (attempt, sequence, start, stop)."""

    stream: str
    number: int
    objects: tuple[tuple[int, int, int, int], ...]
    cursor: int | None
    done: bool


@dataclass
class Oracle:
    """The expected registry."""

    connections: dict[str, Connection] = field(default_factory=dict)
    runs: dict[str, Run] = field(default_factory=dict)

    def active(self, uid: str) -> list[Run]:
        return [run for run in self.runs.values() if run.uid == uid and run.phase in ACTIVE]

    def live(self, name: str) -> str | None:
        return next(
            (uid for uid, connection in self.connections.items() if connection.name == name and not connection.deleted),
            None,
        )

    def room(self, uid: str) -> bool:
        """Say whether another run may be made; a window that nobody reads yet takes no room."""
        return all(run.window and not run.attempts for run in self.active(uid))

    # What the operator does.

    def schedule(self, now: datetime, schedulers: int, held: Iterable[str] = ()) -> Answer:
        del schedulers  # however many there are
        for uid, connection in self.connections.items():
            if uid in held or connection.deleted or connection.next_run_at > now or not self.room(uid):
                continue
            tick = max(connection.next_run_at, now.replace(minute=0, second=0, microsecond=0))
            self.runs[f"{uid}@{tick.isoformat()}"] = Run(uid)
            connection.next_run_at = now.replace(minute=0, second=0, microsecond=0) + HOUR

    def request(self, uid: str, token: str) -> Answer:
        connection, name = self.connections[uid], f"{uid}#{token}"
        if not (connection.deleted or connection.handled == token) and self.room(uid):
            connection.handled = token
            self.runs.setdefault(name, Run(uid))

    def launch(self, crash: str, held: Iterable[str] = ()) -> Answer:
        first = [min(found, key=lambda run: run.turn) for uid in self.connections if (found := self.active(uid))]
        taken = [run for run in first if run.phase == "pending" and run.uid not in held]
        for run in taken:
            run.phase = "running"
            run.attempts.append(Attempt())
        if not crash:
            for run in taken:
                self._job(run.attempts[-1])
        return "crash" if crash and taken else len(taken)

    @staticmethod
    def _job(attempt: Attempt) -> None:
        attempt.job = "recorded"
        attempt.job_state = "active" if attempt.job_state == "none" else attempt.job_state

    def job_ends(self, run: str, attempt: int, how: Jobs) -> Answer:
        self.runs[run].attempts[attempt - 1].job_state = how

    def observe(self, late: int) -> Answer:
        for run in self.runs.values():
            for number, attempt in enumerate(run.attempts, 1):
                if attempt.ended is None:
                    self._observe(run, number, attempt, late)

    def _observe(self, run: Run, number: int, attempt: Attempt, late: int) -> None:
        if run.phase != "running" or number != len(run.attempts):
            attempt.ended = "cancelled"
        elif run.cancel and (not attempt.pod or late > CANCEL_DEADLINE):
            self._cancelled(run)
        elif attempt.job is None:
            if late > 5:
                self._job(attempt)
        elif attempt.job_state in ("failed", "disrupted", "succeeded"):
            self._failed(run, "failed", disrupted=attempt.job_state == "disrupted")
        elif attempt.pod and late > 90:
            self._failed(run, "lost")
        elif not attempt.pod and late > 300:
            self._failed(run, "failed")

    def give_up(self, run: str, attempt: int) -> Answer:
        if not self._current(run, attempt):
            return False
        self._failed(self.runs[run], "lost", disrupted=True)
        return True

    def _current(self, run: str, attempt: int) -> bool:
        return self.runs[run].phase == "running" and len(self.runs[run].attempts) == attempt

    def _record(self, run: Run, failed: Iterable[str] = ()) -> None:
        """Note how the streams of a run's newest attempt went; that one was not read takes back nothing."""
        states = run.states if run.window else self.connections[run.uid].states
        for stream in run.attempts[-1].streams if run.attempts else ():
            state = states.get(stream)
            done = state is not None and state.done and self.runs.get(state.run or "") is run
            outcome = "succeeded" if done else "failed" if stream in failed else "not_read"
            before = run.outcomes.get(stream, (0, "not_read"))[1]
            if outcome == "succeeded" == before or (outcome == "not_read" != before):
                continue
            run.outcomes[stream] = (len(run.attempts), outcome)

    def _failed(self, run: Run, ended: str, *, disrupted: bool = False) -> None:
        self._record(run)
        run.attempts[-1].ended = ended
        run.phase = "cancelled" if run.cancel else "pending" if disrupted else AGAIN_OR_OVER

    def _cancelled(self, run: Run) -> None:
        self._record(run)
        run.phase = "cancelled"
        if run.attempts and run.attempts[-1].ended is None:
            run.attempts[-1].ended = "cancelled"

    def delete(self, name: str, crash: str) -> Answer:
        uid = self.live(name)
        if uid is None:
            return
        self.connections[uid].deleted = True
        if not crash:
            self.sweep()

    def create(self, name: str, uid: str, next_run_at: datetime) -> Answer:
        if self.live(name) is None:
            self.connections[uid] = Connection(name, next_run_at, first=self._next_generation(name))

    def _next_generation(self, name: str) -> int:
        """Return one that no connection of the name has had: its objects have a prefix of their own."""
        before = {uid: connection for uid, connection in self.connections.items() if connection.name == name}
        had = {item.first for item in before.values()}
        had |= {state.generation for item in before.values() for state in item.states.values()}
        objects = (
            o for run in self.runs.values() if run.uid in before for a in run.attempts for o in a.objects.values()
        )
        had |= {stored.generation for stored in objects if stored.checkpoint is not None}
        return max(had, default=0) + 1

    def sweep(self) -> Answer:
        for uid, connection in self.connections.items():
            if connection.deleted:
                for run in self.active(uid):
                    self._cancelled(run)

    # What a person does.

    def cancel(self, run: str) -> Answer:
        found = self.runs[run]
        before = found.phase
        if before == "running":
            found.cancel = True
        elif before == "pending":
            self._cancelled(found)
            return "cancelled"
        return before

    def reread(self, uid: str) -> Answer:
        if self.connections[uid].deleted:
            return "NotFound"
        if any(run.window for run in self.active(uid)):
            return "Invalid"
        count = sum(run.window and run.uid == uid for run in self.runs.values())
        self.runs[f"{uid}~{count + 1}"] = Run(uid, window=True)
        return "ok"

    def reset(self, uid: str, stream: str) -> Answer:
        state = self._moved(uid, stream)
        state.cursor, state.generation = None, state.generation + 1
        return "ok"

    def rewind(self, uid: str, stream: str, number: int) -> Answer:
        history = self.connections[uid].history
        if (stream, number) not in history or MODES[stream] == "full":
            return "Invalid"
        self._moved(uid, stream).cursor = history[stream, number]
        return "ok"

    def _moved(self, uid: str, stream: str) -> State:
        for run in self.active(uid):
            run.phase = "pending"
        state = self.connections[uid].states.setdefault(stream, self.connections[uid].state(stream))
        state.checkpoint, state.run, state.attempt, state.done = state.checkpoint + 1, None, None, False
        return state

    # What a pod does.

    def start(self, run: str, attempt: int, pod: str, key: str, *, own_job: bool) -> Answer:
        if not self._current(run, attempt):
            return "Fenced"
        found = self.runs[run].attempts[-1]
        if found.job is None:
            return "NotReady"
        if not own_job:
            return "Unauthenticated"
        if found.pod is not None and (found.pod, found.key) != (pod, key):
            return "Fenced"
        found.pod, found.key, found.tokens = pod, key, 1
        return "ok"

    def refusal(self, caller: Caller) -> str | None:
        attempt = self.attempt(caller)
        if caller.token != attempt.tokens - 1:
            return "Unauthenticated"
        return "Fenced" if attempt.ended or not self._current(caller.run, caller.attempt) else None

    def attempt(self, caller: Caller) -> Attempt:
        return self.runs[caller.run].attempts[caller.attempt - 1]

    def states(self, caller: Caller) -> dict[str, State]:
        run = self.runs[caller.run]
        return run.states if run.window else self.connections[run.uid].states

    def _state(self, caller: Caller, stream: str) -> State:
        run = self.runs[caller.run]
        if run.window:
            return run.states.get(stream, State(checkpoint=BEFORE_THE_FIRST))
        return self.connections[run.uid].state(stream)

    def _generation(self, caller: Caller, stream: str) -> int:
        """Return the live one: what a window's reading commits goes there too."""
        return self.connections[self.runs[caller.run].uid].state(stream).generation

    def streams(self, caller: Caller) -> Answer:
        if refusal := self.refusal(caller):
            return refusal
        self.attempt(caller).streams = tuple(MODES)
        answer = {}
        for stream, mode in MODES.items():
            state, generation = self._state(caller, stream), self._generation(caller, stream)
            mine = state.run == caller.run
            cursor = state.cursor if mode == "incremental" or mine else None
            answer[stream] = (not (mine and state.done), cursor, state.checkpoint, generation)
        return answer

    def uploads(self, caller: Caller, stream: str, sequence: int, span: tuple[int, int], *, arrives: bool) -> Answer:
        """A grant, and the upload with it."""
        if refusal := self.refusal(caller):
            return refusal
        if stream not in self.attempt(caller).streams:
            return "Invalid"
        new = Object(self._generation(caller, stream), *span)
        held = self.attempt(caller).objects.setdefault((stream, sequence), new)
        if (held.start, held.stop) != span:
            return "Mismatch"
        held.arrived = held.arrived or arrives
        return "ok"

    def checkpoint(self, caller: Caller, wanted: Wanted) -> Answer:
        if refusal := self.refusal(caller):
            return refusal
        if wanted.stream not in self.attempt(caller).streams:
            return "Invalid"
        known = self._state(caller, wanted.stream)
        if wanted.number == known.checkpoint and (known.run, known.attempt) == (caller.run, caller.attempt):
            return "ok" if self._repeats(caller, wanted, known) else "Mismatch"
        done = known.done and known.run == caller.run
        if wanted.number != known.checkpoint + 1 or done or not self._committable(caller, wanted):
            return "Mismatch"
        for _, sequence, _, _ in wanted.objects:
            self.attempt(caller).objects[wanted.stream, sequence].checkpoint = wanted.number
        new = State(wanted.cursor, wanted.number, known.generation, caller.run, caller.attempt, wanted.done)
        self.states(caller)[wanted.stream] = new
        if not self.runs[caller.run].window:
            self.connections[self.runs[caller.run].uid].history[wanted.stream, wanted.number] = wanted.cursor
        return "ok"

    def _repeats(self, caller: Caller, wanted: Wanted, known: State) -> bool:
        held = self.attempt(caller).objects.items()
        committed = {
            (caller.attempt, key[1])
            for key, item in held
            if key[0] == wanted.stream and item.checkpoint == wanted.number
        }
        asked = {(attempt, sequence) for attempt, sequence, _, _ in wanted.objects}
        return (wanted.cursor, wanted.done, asked) == (known.cursor, known.done, committed)

    def _committable(self, caller: Caller, wanted: Wanted) -> bool:
        sequences = [sequence for _, sequence, _, _ in wanted.objects]
        granted = self.attempt(caller).objects
        return len(set(sequences)) == len(sequences) and all(
            attempt == caller.attempt
            and (each := granted.get((wanted.stream, sequence))) is not None
            and (each.start, each.stop) == (start, stop)
            and each.arrived
            and each.checkpoint is None
            for attempt, sequence, start, stop in wanted.objects
        )

    def heartbeat(self, caller: Caller) -> Answer:
        return self.refusal(caller) or self.runs[caller.run].cancel

    def finish(self, caller: Caller, outcome: str, records: dict[str, int], failed: tuple[str, ...]) -> Answer:
        attempt, run = self.attempt(caller), self.runs[caller.run]
        if caller.token != attempt.tokens - 1:
            return "Unauthenticated"
        if attempt.ended:
            return run.phase if attempt.ended == outcome else "Fenced"
        if not self._current(caller.run, caller.attempt):
            return "Fenced"
        if outcome == "succeeded":
            return self._succeeds(caller, records, failed)
        self._record(run, failed)
        if outcome == "cancelled":
            self._cancelled(run)
        else:
            self._failed(run, outcome, disrupted=outcome == "interrupted")
        return run.phase

    def _succeeds(self, caller: Caller, records: dict[str, int], failed: tuple[str, ...]) -> Answer:
        attempt, run = self.attempt(caller), self.runs[caller.run]
        done = [name for name, state in self.states(caller).items() if state.done and state.run == caller.run]
        if failed or records != attempt.committed():
            self._record(run, failed)
            attempt.ended, run.phase = "failed", "cancelled" if run.cancel else "failed"
        elif set(attempt.streams) != set(MODES) or set(done) != set(MODES):
            return "Mismatch"
        else:
            self._record(run)
            attempt.ended = run.phase = "succeeded"
        return run.phase
