"""The states that an attempt reads from and writes: its connection's, or those of a run that reads a window again.

Such a run has states of its own. It continues them after a kill, and never changes those of incremental reads.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict

from penstock_operator.ids import AttemptNumber, StreamName
from penstock_operator.registry.database import DatabaseConnection
from penstock_operator.runs import state_store, window_states
from penstock_operator.runs.attempt_store import CarriedAttempt, HeldAttempt
from penstock_operator.runs.selection import BEFORE_THE_FIRST
from penstock_operator.runs.state_store import NewState, ReadState, State


async def of_attempt(db: DatabaseConnection, attempt: HeldAttempt | CarriedAttempt) -> dict[str, State]:
    """Return the states that an attempt reads from and writes, by stream."""
    states = await state_store.states_of(db, attempt.connection_uid)
    if attempt.spec.window is None:
        return states
    own = await window_states.states_of_run(db, attempt.run_id)
    first = await state_store.generation_of(db, attempt.connection_uid, "")
    return {name: _of_window(attempt, name, own.get(name), states.get(name), first) for name in own | states}


def _of_window(
    attempt: HeldAttempt | CarriedAttempt, stream: str, own: ReadState | None, state: State | None, first: int
) -> State:
    generation = state.generation if state else first
    if own:
        return State(**asdict(own), generation=generation)
    return State(
        stream=StreamName(stream),
        cursor=None,
        state_version=state.state_version if state else 1,
        checkpoint=BEFORE_THE_FIRST,
        generation=generation,
        run_id=attempt.run_id,
        attempt=AttemptNumber(0),
        done=False,
    )


def is_done(states: Mapping[str, State], stream: str, run_id: str) -> bool:
    """Return True if an attempt of this run has committed the end of the stream."""
    state = states.get(stream)
    return state is not None and state.done and state.run_id == run_id


async def lock(db: DatabaseConnection, attempt: HeldAttempt, new: NewState) -> ReadState:
    """Lock the state of one stream. Two calls that both bring its first checkpoint wait for each other too."""
    state = await _locked(db, attempt, new.stream)
    if state is None:
        await _begin(db, attempt, new)
        state = await _locked(db, attempt, new.stream)
    assert state is not None  # noqa: S101 - it was just made, and is removed only with its connection, or its run
    return state


async def _locked(db: DatabaseConnection, attempt: HeldAttempt, stream: str) -> ReadState | None:
    if attempt.spec.window:
        return await window_states.lock_state(db, attempt.run_id, stream)
    return await state_store.lock_state(db, attempt.connection_uid, stream)


async def _begin(db: DatabaseConnection, attempt: HeldAttempt, new: NewState) -> None:
    if attempt.spec.window:
        await window_states.begin_state(db, new, BEFORE_THE_FIRST)
    else:
        await state_store.begin_state(db, new)


async def put(db: DatabaseConnection, attempt: HeldAttempt, state: NewState) -> None:
    """Write the state of one stream."""
    if attempt.spec.window:
        await window_states.put_state(db, state)
    else:
        await state_store.put_state(db, state)
