"""A checkpoint: objects and the state that covers them, committed together, in order, once."""

from __future__ import annotations

from penstock_sdk.protocol import CheckpointRequest

from penstock_operator.registry import objects
from penstock_operator.registry.database import Connection, Row
from penstock_operator.registry.streams import NewState
from penstock_operator.runs import positions
from penstock_operator.runs.refusals import Mismatch


async def commit(connection: Connection, attempt: Row, request: CheckpointRequest) -> None:
    """Commit in the caller's transaction, which holds the attempt's run.

    The checkpoint must follow the last one, whoever committed that; or be that one again, with the same content.
    """
    new = _new_state(attempt, request)
    state = await positions.lock(connection, attempt, new)
    committed = state["checkpoint"]
    ours = (state["run_id"], state["attempt"]) == (attempt["run_id"], attempt["attempt"])
    if ours and request.checkpoint == committed:
        await _check_repeated(connection, attempt, request, state)
        return
    if request.checkpoint != committed + 1:
        message = f"checkpoint {request.checkpoint} of {request.stream!r} does not follow {committed}"
        raise Mismatch(message)
    await _commit_objects(connection, attempt, request)
    await positions.put(connection, attempt, new)


async def _check_repeated(connection: Connection, attempt: Row, request: CheckpointRequest, state: Row) -> None:
    """Raise Mismatch when a checkpoint that is committed comes again with something else: that would be lost in silence."""
    holder = (attempt["run_id"], attempt["attempt"], request.stream)
    committed = await objects.committed_by(connection, holder, request.checkpoint)
    told = (request.cursor, request.done, {each.key for each in request.objects})
    if told != (state["cursor"], state["done"], committed):
        message = f"checkpoint {request.checkpoint} of {request.stream!r} is committed already, with other content"
        raise Mismatch(message)


async def _commit_objects(connection: Connection, attempt: Row, request: CheckpointRequest) -> None:
    holder = (attempt["run_id"], attempt["attempt"], request.stream)
    for each in request.objects:
        counts = (each.records, each.bytes, each.sha256)
        numbers = (request.checkpoint, request.schema_version)
        if not await objects.commit_object(connection, holder, each.key, each.sequence, counts, numbers):
            message = f"object {each.key} was not granted to this attempt, or is committed already"
            raise Mismatch(message)


def _new_state(attempt: Row, request: CheckpointRequest) -> NewState:
    return NewState(
        connection_uid=attempt["connection_uid"],
        stream=request.stream,
        cursor=request.cursor,
        state_version=attempt["manifest"].get("stateVersion", 1),
        checkpoint=request.checkpoint,
        run_id=attempt["run_id"],
        attempt=attempt["attempt"],
        done=request.done,
    )
