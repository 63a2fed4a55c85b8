"""Where the streams of an attempt stand: the connection's states, or those of a run that reads a window again.

Such a run has states of its own, so that it goes on after a kill and never touches where an incremental read stands.
"""

from __future__ import annotations

from typing import Any

from penstock_sdk.protocol import ReadWindow

from penstock_operator.registry.database import DatabaseConnection, Row
from penstock_operator.runs import state_store, window_states
from penstock_operator.runs.selection import BEFORE_THE_FIRST
from penstock_operator.runs.state_store import NewState


def window_of(spec: dict[str, Any]) -> ReadWindow | None:
    """Return the window that a run reads again, None for every other run."""
    return ReadWindow.model_validate(spec["window"]) if "window" in spec else None


async def of_attempt(db: DatabaseConnection, attempt: Row) -> dict[str, Row]:
    """Return the states that an attempt reads from and writes, by stream."""
    states = await state_store.states_of(db, attempt["connection_uid"])
    if "window" not in attempt["spec"]:
        return states
    own = await window_states.states_of_run(db, attempt["run_id"])
    first = await state_store.generation_of(db, attempt["connection_uid"], "")
    before = {"run_id": attempt["run_id"], "attempt": 0, "cursor": None, "checkpoint": BEFORE_THE_FIRST, "done": False}
    return {name: {"generation": first} | states.get(name, {}) | own.get(name, before) for name in own | states}


def is_done(state: Row | None, run_id: str) -> bool:
    """Return True if an attempt of this run has committed a stream's end."""
    return state is not None and state["done"] and state["run_id"] == run_id


async def lock(db: DatabaseConnection, attempt: Row, new: NewState) -> Row:
    """Lock the state of one stream; two calls that both bring its first checkpoint wait for each other too."""
    state = await _locked(db, attempt, new.stream)
    if state is None:
        await _begin(db, attempt, new)
        state = await _locked(db, attempt, new.stream)
    assert state is not None  # noqa: S101 - it was just made, and is removed only with its connection, or its run
    return state


async def _locked(db: DatabaseConnection, attempt: Row, stream: str) -> Row | None:
    if "window" in attempt["spec"]:
        return await window_states.lock_state(db, attempt["run_id"], stream)
    return await state_store.lock_state(db, attempt["connection_uid"], stream)


async def _begin(db: DatabaseConnection, attempt: Row, new: NewState) -> None:
    if "window" in attempt["spec"]:
        await window_states.begin_state(db, new, BEFORE_THE_FIRST)
    else:
        await state_store.begin_state(db, new)


async def put(db: DatabaseConnection, attempt: Row, state: NewState) -> None:
    """Write the state of one stream."""
    if "window" in attempt["spec"]:
        await window_states.put_state(db, state)
    else:
        await state_store.put_state(db, state)
