"""A checkpoint: objects and the state that covers them, committed together, in order, once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from penstock_sdk.protocol import CheckpointRequest, Op, UploadedObject

from penstock_operator.errors import Mismatch
from penstock_operator.registry.database import DatabaseConnection, Row
from penstock_operator.runs import attempt_states, bronze_objects
from penstock_operator.runs.state_store import NewState


async def commit(db: DatabaseConnection, attempt: Row, request: CheckpointRequest) -> None:
    """Commit in the caller's transaction, which holds the attempt's run.

    The checkpoint must follow the last one, whoever committed that; or be that one again, with the same content.
    """
    new = _new_state(attempt, request)
    state = await attempt_states.lock(db, attempt, new)
    committed = state["checkpoint"]
    ours = (state["run_id"], state["attempt"]) == (attempt["run_id"], attempt["attempt"])
    if ours and request.checkpoint == committed:
        await _check_repeated(db, attempt, request, state)
        return
    if request.checkpoint != committed + 1:
        message = f"checkpoint {request.checkpoint} of {request.stream!r} does not follow {committed}"
        raise Mismatch(message)
    _check_counts(request)
    await _commit_objects(db, attempt, request)
    await attempt_states.put(db, attempt, new)


async def _check_repeated(db: DatabaseConnection, attempt: Row, request: CheckpointRequest, state: Row) -> None:
    """Raise Mismatch when a checkpoint that is committed comes again with something else: that would be lost in silence."""
    holder = (attempt["run_id"], attempt["attempt"], request.stream)
    committed = await bronze_objects.committed_by(db, holder, request.checkpoint)
    told = (request.cursor, request.done, {each.key for each in request.objects})
    if told != (state["cursor"], state["done"], committed):
        message = f"checkpoint {request.checkpoint} of {request.stream!r} is committed already, with other content"
        raise Mismatch(message)


def _check_counts(request: CheckpointRequest) -> None:
    """Raise Mismatch unless the objects hold exactly the records that the pod has read, by operation."""
    for each in request.objects:
        if each.by_op is not None and sum(each.by_op.values()) != each.records:
            message = f"object {each.key} has {each.records} records, and {_words(each.by_op)}"
            raise Mismatch(message)
    if request.read is None or any(each.by_op is None for each in request.objects):
        return
    held = {kind: Counter[Op]() for kind in ("data", "rejected")}
    for each in request.objects:
        held[each.kind].update(each.by_op or {})
    if +Counter(request.read) != +(held["data"] + held["rejected"]):
        message = (
            f"stream {request.stream!r}: {_words(request.read)} were read, {_words(held['data'])} are to be committed and"
            f" {_words(held['rejected'])} were rejected"
        )
        raise Mismatch(message)


def _words(by_op: Mapping[Op, int]) -> str:
    return f"{by_op.get('upsert', 0)} upserts and {by_op.get('delete', 0)} deletes"


def _deletes(uploaded: UploadedObject) -> int | None:
    return None if uploaded.by_op is None else uploaded.by_op.get("delete", 0)


async def _commit_objects(db: DatabaseConnection, attempt: Row, request: CheckpointRequest) -> None:
    holder = (attempt["run_id"], attempt["attempt"], request.stream)
    for each in request.objects:
        counts = (each.records, _deletes(each), each.bytes, each.sha256)
        numbers = (request.checkpoint, request.schema_version)
        if not await bronze_objects.commit_object(db, holder, each.key, each.sequence, counts, numbers):
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
