"""A checkpoint: objects and the state that covers them, committed together, in order, once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from penstock_sdk.protocol import CheckpointRequest, Op, UploadedObject

from penstock_operator.errors import Mismatch
from penstock_operator.ids import StreamName
from penstock_operator.registry.database import DatabaseConnection
from penstock_operator.runs import attempt_states, bronze_objects, upload_grants
from penstock_operator.runs.attempt_store import HeldAttempt
from penstock_operator.runs.bronze_objects import CheckpointKey
from penstock_operator.runs.state_store import NewState, ReadState


@dataclass(frozen=True, slots=True)
class ObjectProof:
    """What the bucket says of a checkpoint's objects: which were compared with their grants, and how some differ."""

    compared: frozenset[str] = frozenset()
    differences: Mapping[str, str] = field(default_factory=dict)


async def commit(db: DatabaseConnection, attempt: HeldAttempt, request: CheckpointRequest, proof: ObjectProof) -> None:
    """Commit in the caller's transaction, which holds the attempt's run.

    The checkpoint must follow the last one, whoever committed that; or be that one again, with the same content. Its stream
    must have a verdict that allows it, and the bucket must hold its objects as they were granted.
    """
    upload_grants.check_allowed(attempt, request.stream)
    new = _new_state(attempt, request)
    state = await attempt_states.lock(db, attempt, new)
    committed = state.checkpoint
    ours = (state.run_id, state.attempt) == (attempt.run_id, attempt.attempt)
    if ours and request.checkpoint == committed:
        await _check_repeated(db, attempt, request, state)
        return
    if request.checkpoint != committed + 1:
        message = f"checkpoint {request.checkpoint} of {request.stream!r} does not follow {committed}"
        raise Mismatch(message)
    if state.done and state.run_id == attempt.run_id:
        message = f"stream {request.stream!r} is done in this run"
        raise Mismatch(message)
    _check_counts(request)
    _check_proof(request, proof)
    await _commit_objects(db, attempt, request)
    await attempt_states.put(db, attempt, new)


async def _check_repeated(
    db: DatabaseConnection, attempt: HeldAttempt, request: CheckpointRequest, state: ReadState
) -> None:
    """Raise Mismatch when a checkpoint that is committed comes again with something else: that would be lost in silence."""
    committed = await bronze_objects.committed_by(db, _key(attempt, request))
    repeated = (request.cursor, request.done, {uploaded.key for uploaded in request.objects})
    if repeated != (state.cursor, state.done, committed):
        message = f"checkpoint {request.checkpoint} of {request.stream!r} is committed already, with other content"
        raise Mismatch(message)


def _check_counts(request: CheckpointRequest) -> None:
    """Raise Mismatch unless the objects hold exactly the records that the pod has read, by operation."""
    for uploaded in request.objects:
        if uploaded.by_op is not None and sum(uploaded.by_op.values()) != uploaded.records:
            message = f"object {uploaded.key} has {uploaded.records} records, and {_words(uploaded.by_op)}"
            raise Mismatch(message)
    if request.read is None or any(uploaded.by_op is None for uploaded in request.objects):
        return
    held = {kind: Counter[Op]() for kind in ("data", "rejected")}
    for uploaded in request.objects:
        held[uploaded.kind].update(uploaded.by_op or {})
    if +Counter(request.read) != +(held["data"] + held["rejected"]):
        message = (
            f"stream {request.stream!r}: {_words(request.read)} were read, {_words(held['data'])} are to be committed and"
            f" {_words(held['rejected'])} were rejected"
        )
        raise Mismatch(message)


def _check_proof(request: CheckpointRequest, proof: ObjectProof) -> None:
    """Raise Mismatch unless the bucket holds each object with the size and the checksum of its grant."""
    for uploaded in request.objects:
        if uploaded.key not in proof.compared:
            raise _not_granted(uploaded)
        if uploaded.key in proof.differences:
            message = f"object {uploaded.key} is not as it was granted: {proof.differences[uploaded.key]}"
            raise Mismatch(message)


def _not_granted(uploaded: UploadedObject) -> Mismatch:
    return Mismatch(
        f"object {uploaded.key} was not granted to this attempt with this size and checksum, or is committed already"
    )


def _words(by_op: Mapping[Op, int]) -> str:
    return f"{by_op.get('upsert', 0)} upserts and {by_op.get('delete', 0)} deletes"


async def _commit_objects(db: DatabaseConnection, attempt: HeldAttempt, request: CheckpointRequest) -> None:
    key = _key(attempt, request)
    for uploaded in request.objects:
        if not await bronze_objects.commit_object(db, key, uploaded, request.schema_version):
            raise _not_granted(uploaded)


def _key(attempt: HeldAttempt, request: CheckpointRequest) -> CheckpointKey:
    return CheckpointKey(
        run_id=attempt.run_id,
        attempt=attempt.attempt,
        stream=StreamName(request.stream),
        checkpoint=request.checkpoint,
    )


def _new_state(attempt: HeldAttempt, request: CheckpointRequest) -> NewState:
    return NewState(
        connection_uid=attempt.connection_uid,
        stream=request.stream,
        cursor=request.cursor,
        state_version=attempt.state_version,
        checkpoint=request.checkpoint,
        run_id=attempt.run_id,
        attempt=attempt.attempt,
        done=request.done,
    )
