"""Where the streams of an attempt stand: the connection's states, or those of a run that reads a window again.

Such a run has states of its own, so that it goes on after a kill and never touches where an incremental read stands.
"""

from __future__ import annotations

from typing import Any

from penstock_sdk.protocol import ReadWindow

from penstock_operator.registry import streams, windows
from penstock_operator.registry.database import Connection, Row
from penstock_operator.registry.streams import NewState
from penstock_operator.runs.selection import BEFORE_THE_FIRST


def window_of(spec: dict[str, Any]) -> ReadWindow | None:
    """Return the window that a run reads again, None for every other run."""
    return ReadWindow.model_validate(spec["window"]) if "window" in spec else None


async def of_attempt(connection: Connection, attempt: Row) -> dict[str, Row]:
    """Return the states that an attempt reads from and writes, by stream."""
    states = await streams.states_of(connection, attempt["connection_uid"])
    if "window" not in attempt["spec"]:
        return states
    own = await windows.states_of_run(connection, attempt["run_id"])
    first = await streams.generation_of(connection, attempt["connection_uid"], "")
    before = {"run_id": attempt["run_id"], "attempt": 0, "cursor": None, "checkpoint": BEFORE_THE_FIRST, "done": False}
    return {name: {"generation": first} | states.get(name, {}) | own.get(name, before) for name in own | states}


def is_done(state: Row | None, run_id: str) -> bool:
    """Return True if an attempt of this run has committed a stream's end."""
    return state is not None and state["done"] and state["run_id"] == run_id


async def lock(connection: Connection, attempt: Row, new: NewState) -> Row:
    """Lock the state of one stream; two calls that both bring its first checkpoint wait for each other too."""
    state = await _locked(connection, attempt, new.stream)
    if state is None:
        await _begin(connection, attempt, new)
        state = await _locked(connection, attempt, new.stream)
    assert state is not None  # noqa: S101 - it was just made, and is removed only with its connection, or its run
    return state


async def _locked(connection: Connection, attempt: Row, stream: str) -> Row | None:
    if "window" in attempt["spec"]:
        return await windows.lock_state(connection, attempt["run_id"], stream)
    return await streams.lock_state(connection, attempt["connection_uid"], stream)


async def _begin(connection: Connection, attempt: Row, new: NewState) -> None:
    if "window" in attempt["spec"]:
        await windows.begin_state(connection, new, BEFORE_THE_FIRST)
    else:
        await streams.begin_state(connection, new)


async def put(connection: Connection, attempt: Row, state: NewState) -> None:
    """Write the state of one stream."""
    if "window" in attempt["spec"]:
        await windows.put_state(connection, state)
    else:
        await streams.put_state(connection, state)
