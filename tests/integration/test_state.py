"""State in hand: what a person may do to a stream's state, whatever runs meanwhile."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from penstock_operator.api.paging import PageRequest
from penstock_operator.api.queries import list_state_changes
from penstock_operator.connections import connection_records, connection_store
from penstock_operator.connections.connection_records import ConnectionRecord
from penstock_operator.definitions import manifest_of
from penstock_operator.errors import Fenced, Invalid
from penstock_operator.ids import ConnectionUid, RunId
from penstock_operator.registry.database import many
from penstock_operator.resources.models import RESET_STATE, REWIND_STATE, ConnectionSpec
from penstock_operator.runs import run_store, state_store
from penstock_operator.runs.state_store import State
from penstock_operator.state import history
from penstock_operator.state.admin import (
    Author,
    Import,
    Order,
    Reset,
    RewindToCheckpoint,
    RewindToCursor,
    RewindToRun,
    change_state,
    document_of,
)
from penstock_operator.state.document import ExportedState, StateDocument
from penstock_sdk import protocol as wire

from tests.integration.world import EVENTS, STREAM, World, checkpoint
from tests.reconciling import reconcile

ANNA = Author("anna", "the source was corrected")


@pytest.fixture
async def both(world: World) -> World:
    """The connection reads two streams by cursor."""
    world.spec["streams"].append({"name": "events", "mode": "incremental"})
    record = ConnectionRecord("c1", "team", "orders", 2, ConnectionSpec.parse(world.spec), "d1", ready=True)
    async with world.pool.connection() as db:
        await connection_records.upsert_connection(db, record)
    return world


async def change(world: World, order: Order, author: Author = ANNA) -> list[State]:
    async with world.pool.connection() as db:
        return await change_state(db, ConnectionUid("c1"), order, author)


async def state(world: World) -> dict[str, State]:
    async with world.pool.connection() as db:
        return await state_store.states_of(db, "c1")


async def finished_run(world: World, run_id: str, *names: str) -> None:
    """Run once: one checkpoint and one object for each stream."""
    await world.new_run(run_id, token=run_id)
    known = await state(world)
    _, _, token = await world.attempt(f"pod-{run_id}")
    for name in names:
        number = known[name].checkpoint + 1 if name in known else 1
        uploaded = await world.upload(token, stream=name)
        await world.protocol.checkpoint(token, checkpoint(number, uploaded, done=True, stream=name))
    counts = dict.fromkeys(names, 3)
    await world.protocol.finish(token, wire.FinishRequest(outcome="succeeded", records=counts))


async def verdicts(world: World, token: str) -> dict[str, wire.StreamVerdict]:
    answer = await world.protocol.streams(token, wire.StreamsRequest(streams=[STREAM, EVENTS]))
    return {verdict.name: verdict for verdict in answer.verdicts}


async def test_a_reset_of_one_stream_starts_its_next_generation_and_leaves_the_others(both: World) -> None:
    await finished_run(both, "run1", "people", "events")
    await change(both, Reset(("people",)))
    found = await state(both)
    assert (found["people"].cursor, found["people"].generation, found["people"].run_id) == (None, 2, None)
    assert (found["events"].cursor, found["events"].generation) == ({"n": 1}, 1)
    await both.new_run("run2", token="t2")
    _, _, token = await both.attempt("pod2")
    seen = await verdicts(both, token)
    assert seen["people"].selected.cursor is None
    assert seen["events"].selected.cursor == {"n": 1}
    assert "/generation=000002/" in (await both.upload(token)).key
    assert "/generation=000001/" in (await both.upload(token, stream="events")).key


async def test_3_a_running_attempt_cannot_commit_over_a_reset_and_its_run_goes_on(both: World) -> None:
    await both.new_run()
    run_id, attempt, stale = await both.attempt("pod1")
    await both.protocol.checkpoint(
        stale, checkpoint(1, await both.upload(stale, stream="events"), done=True, stream="events")
    )
    await both.protocol.checkpoint(stale, checkpoint(1, await both.upload(stale)))
    uploaded = await both.upload(stale, after=1)
    await change(both, Reset(("people",)))
    for refused in (
        both.protocol.checkpoint(stale, checkpoint(2, uploaded)),
        both.protocol.checkpoint(stale, checkpoint(3, uploaded)),
        both.protocol.finish(stale, wire.FinishRequest(outcome="succeeded", records={"people": 3})),
    ):
        with pytest.raises(Fenced):
            await refused
    assert (await state(both))["people"].cursor is None
    again, second, token = await both.attempt("pod2")
    assert (again, second) == (run_id, attempt + 1)
    seen = await verdicts(both, token)
    assert seen["people"].selected.cursor is None
    assert not seen["events"].read, "a stream that the run had finished is not read again"
    await both.protocol.checkpoint(token, checkpoint(3, await both.upload(token), done=True))
    ended = await both.protocol.finish(token, wire.FinishRequest(outcome="succeeded", records={"people": 3}))
    assert ended.phase == "succeeded"


async def test_a_reset_waits_for_the_checkpoint_that_holds_the_run(world: World) -> None:
    await world.new_run()
    run_id, attempt, _ = await world.attempt()
    async with world.pool.connection() as holder, holder.transaction():
        assert await run_store.hold_run(holder, run_id, attempt)
        resetting = asyncio.create_task(change(world, Reset(("people",))))
        await world.waiting()
        assert not resetting.done()
    await resetting


async def test_a_run_that_begins_meanwhile_waits_and_reads_the_changed_state(world: World) -> None:
    await finished_run(world, "run1", "people")
    async with world.pool.connection() as holder, holder.transaction():
        assert await history.lock_connection(holder, ConnectionUid("c1"))
        inserting = asyncio.create_task(world.new_run("run2", token="t2"))
        await world.waiting()
        assert not inserting.done(), "no run begins between the look at the runs and the change"
    assert await inserting


async def test_resets_checkpoints_and_ends_at_the_same_time_neither_hang_nor_mix(world: World) -> None:
    for number in range(12):
        await world.new_run(f"run{number:02}", token=f"t{number}")
        _, _, token = await world.attempt(f"pod{number}")
        known = (await state(world)).get("people")
        following = known.checkpoint + 1 if known else 1
        done = checkpoint(following, await world.upload(token), done=True)

        async def end(token: str = token, done: wire.CheckpointRequest = done) -> str:
            await world.protocol.checkpoint(token, done)
            finish = wire.FinishRequest(outcome="succeeded", records={"people": 3})
            return (await world.protocol.finish(token, finish)).phase

        results = await asyncio.gather(end(), change(world, Reset(("people",))), return_exceptions=True)
        assert not isinstance(results[1], BaseException), results[1]
        assert results[0] == "succeeded" or isinstance(results[0], Fenced), results[0]
        found = (await state(world))["people"]
        assert found.cursor is None, "the reset came after the checkpoint, or instead of it"
        async with world.pool.connection() as db:
            for run in await run_store.active_runs(db, "c1"):
                await db.execute(b"UPDATE penstock.connector_runs SET phase = 'cancelled' WHERE id = %s", [run.id])


async def test_a_stream_goes_back_to_a_run_a_checkpoint_or_a_cursor(both: World) -> None:
    for number in (1, 2, 3):
        await finished_run(both, f"run{number}", "people", "events")
    await change(both, RewindToRun(RunId("run1")))
    found = await state(both)
    assert {name: row.cursor for name, row in found.items()} == {"people": {"n": 1}, "events": {"n": 1}}
    assert {row.generation for row in found.values()} == {1}
    assert {row.checkpoint for row in found.values()} == {4}, "numbers only grow, so that nothing stale fits"
    await change(both, RewindToCheckpoint("people", 2))
    await change(both, RewindToCursor("events", {"n": 77}))
    found = await state(both)
    assert {name: row.cursor for name, row in found.items()} == {"people": {"n": 2}, "events": {"n": 77}}
    await finished_run(both, "run4", "people", "events")
    assert (await state(both))["people"].cursor == {"n": 6}


async def test_every_change_is_audited_with_who_when_before_and_after(world: World) -> None:
    await finished_run(world, "run1", "people")
    await world.new_run("run2", token="t2")
    await world.attempt("pod2")
    await change(world, Reset(("people",)))
    async with world.pool.connection() as db:
        (entry,) = (await list_state_changes(db, PageRequest(10), ConnectionUid("c1"))).items
    assert (entry.action, entry.stream, entry.changed_by) == ("reset", "people", "anna")
    assert entry.reason == "the source was corrected"
    assert entry.before is not None
    assert entry.before.model_dump() == {
        "cursor": {"n": 1},
        "state_version": 1,
        "generation": 1,
        "checkpoint": 1,
        "run_id": "run1",
    }
    assert entry.after.model_dump() == {
        "cursor": None,
        "state_version": 1,
        "generation": 2,
        "checkpoint": 2,
        "run_id": None,
    }
    assert entry.fenced_runs == ("run2",)
    assert entry.changed_at.tzinfo is not None


async def test_what_cannot_be_carried_out_changes_nothing_and_says_why(both: World) -> None:
    await finished_run(both, "run1", "people", "events")
    before = await state(both)
    full = {**both.spec, "streams": [{"name": "people", "mode": "full"}, {"name": "events", "mode": "incremental"}]}
    for order, words in (
        (Reset(("poeple",)), "no stream poeple; it has: events, people"),
        (RewindToRun(RunId("run9")), "no checkpoint of run run9"),
        (RewindToCheckpoint("people", 5), "no checkpoint 5 of people"),
        (Import(_document(people=({"n": 1}, 2))), "streams[0].stateVersion: people is in version 2"),
        (Import(_document(connector="postgres-sql", people=({}, 1))), "connector: the document is of postgres-sql"),
        (Import(_document(people=({}, 1), strange=({}, 1))), "no stream strange"),
    ):
        with pytest.raises(Invalid) as refused:
            await change(both, order)
        assert words in refused.value.message
    async with both.pool.connection() as db:
        record = ConnectionRecord("c1", "team", "orders", 3, ConnectionSpec.parse(full), "d1", ready=True)
        await connection_records.upsert_connection(db, record)
    with pytest.raises(Invalid, match="people is read in full"):
        await change(both, RewindToCursor("people", {"n": 1}))
    assert await state(both) == before
    async with both.pool.connection() as db:
        assert (await list_state_changes(db, PageRequest(10), ConnectionUid("c1"))).items == []


def _document(connector: str = "faker-generate", **cursors: tuple[Any, int]) -> StateDocument:
    listed = [
        ExportedState(name=name, cursor=cursor, state_version=version) for name, (cursor, version) in cursors.items()
    ]
    return StateDocument(connector=connector, streams=listed)


async def test_an_export_can_be_imported_again(both: World) -> None:
    await finished_run(both, "run1", "people", "events")
    async with both.pool.connection() as db:
        row = await connection_store.connection_by_uid(db, ConnectionUid("c1"))
        assert row is not None
        exported = await document_of(db, row, await manifest_of(db, row.definition_uid))
    text = exported.model_dump_json(by_alias=True)
    await change(both, Reset())
    await change(both, Import(StateDocument.model_validate_json(text)))
    found = await state(both)
    assert {name: (row.cursor, row.generation) for name, row in found.items()} == {
        "people": ({"n": 1}, 2),
        "events": ({"n": 1}, 2),
    }


async def test_an_annotation_is_carried_out_once_and_answered_in_the_status(both: World) -> None:
    await finished_run(both, "run1", "people", "events")
    await finished_run(both, "run2", "people", "events")

    async def reconciled(**annotations: str) -> dict[str, Any]:
        managed = {
            "manager": "kubectl-annotate",
            "fieldsV1": {"f:metadata": {"f:annotations": {f"f:{RESET_STATE}": {}}}},
        }
        metadata = {"uid": "c1", "namespace": "team", "name": "orders", "annotations": annotations}
        document = {"apiVersion": "penstock.io/v1alpha1", "kind": "TenantConnection", "spec": both.spec}
        status = await reconcile(both.pool, {**document, "metadata": {**metadata, "managedFields": [managed]}})
        return dict(status.get("lastStateChange", {}))

    assert await reconciled() == {}
    answer = await reconciled(**{RESET_STATE: "2026-11-24T10:00:00Z people"})
    assert (answer["action"], answer["token"], answer["outcome"]) == ("reset", "2026-11-24T10:00:00Z", "applied")
    await reconciled(**{RESET_STATE: "2026-11-24T10:00:00Z people"})
    found = await state(both)
    assert (found["people"].generation, found["events"].generation) == (2, 1)
    assert (await reconciled(**{REWIND_STATE: "t2 run1 events"}))["outcome"] == "applied"
    assert (await state(both))["events"].cursor == {"n": 1}
    answer = await reconciled(**{RESET_STATE: "t3 nothing-like-it"})
    assert answer["outcome"] == "refused"
    assert "no stream nothing-like-it" in answer["message"]
    answer = await reconciled(**{REWIND_STATE: "t4"})
    assert "write 'TOKEN RUN'" in answer["message"]
    async with both.pool.connection() as db:
        audited = await many(db, "SELECT changed_by, reason FROM penstock.state_changes ORDER BY id")
    assert [tuple(change.values()) for change in audited] == [
        ("annotation (by kubectl-annotate)", "token 2026-11-24T10:00:00Z"),
        ("annotation", "token t2"),
    ]
