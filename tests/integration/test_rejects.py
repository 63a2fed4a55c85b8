"""Rejected records and empty reads against a real registry: places, counts, alerts, and runs that are not merely green."""

from __future__ import annotations

import pytest
from penstock_operator.api.paging import PageRequest
from penstock_operator.api.queries import ObjectFilter, list_objects
from penstock_operator.errors import Fenced
from penstock_operator.ids import Namespace, RunId
from penstock_operator.registry.database import Row, many
from penstock_operator.runs.commit_store import commit_manifest
from penstock_operator.scheduling import fairness
from penstock_sdk import protocol as wire

from tests.integration.world import World, checkpoint
from tests.reconciling import reconcile
from tests.run_api.pods import START_KEY

DOCUMENT = {
    "apiVersion": "penstock.io/v1alpha1",
    "kind": "TenantConnection",
    "metadata": {"uid": "c1", "namespace": "team", "name": "orders", "generation": 1},
    "spec": {"connector": {"name": "faker", "method": "generate"}},
}


async def put_aside(world: World, token: str, records: int, after: int = 0) -> wire.UploadedObject:
    return await world.upload(token, after, records, kind="rejected")


async def rows(world: World, table: str, more: str = "") -> list[Row]:
    async with world.pool.connection() as db:
        return await many(db, f"SELECT * FROM penstock.{table} {more}")


async def read(world: World, run: str, records: int, rejected: int = 0) -> Row:
    """Carry a run that commits so many records of `people` and puts so many aside."""
    await world.new_run(run, token=run)
    _, _, token = await world.attempt(f"pod-{run}")
    made = [await world.upload(token, records=records)] if records else []
    made += [await put_aside(world, token, rejected)] if rejected else []
    states = {row["stream"]: row["checkpoint"] for row in await rows(world, "connector_run_state")}
    await world.protocol.checkpoint(token, checkpoint(states.get("people", 0) + 1, *made, done=True))
    said = wire.FinishRequest(
        outcome="succeeded",
        records={"people": records} if records else {},
        rejected={"people": rejected} if rejected else {},
    )
    await world.protocol.finish(token, said)
    return (await rows(world, "connector_runs", f"WHERE id = '{run}'"))[0]


async def open_alerts(world: World) -> list[tuple[str, str]]:
    return [(row["kind"], row["message"]) for row in await rows(world, "compat_alerts", "WHERE resolved_at IS NULL")]


async def test_rejected_records_have_places_and_numbers_of_their_own(world: World) -> None:
    await world.new_run()
    _, _, token = await world.attempt()
    data, rejected = await world.upload(token), await put_aside(world, token, 2)
    assert (data.sequence, rejected.sequence) == (1, 1)
    assert "/connection=orders/_rejected/stream=people/" in rejected.key
    await world.protocol.checkpoint(token, checkpoint(1, data, rejected))
    async with world.pool.connection() as db:
        found = (await list_objects(db, PageRequest(1000), ObjectFilter(Namespace("team")))).items
        aside = (await list_objects(db, PageRequest(1000), ObjectFilter(Namespace("team"), kind="rejected"))).items
    assert ([row.key for row in found], [row.key for row in aside]) == ([data.key], [rejected.key])


async def test_3_an_attempt_that_was_taken_over_puts_nothing_aside(world: World) -> None:
    await world.new_run()
    run_id, attempt, token = await world.attempt()
    rejected = await put_aside(world, token, 2)
    await world.fail(run_id, attempt)
    with pytest.raises(Fenced):
        await world.protocol.checkpoint(token, checkpoint(1, rejected))
    assert [row["committed_at"] for row in await rows(world, "bronze_objects")] == [None]


WRONG = {
    "nothing": ({}, {}, "the pod counted 0 records that it rejected, the registry 2"),
    "too few": ({"people": 1}, {}, "the pod counted 1 records that it rejected, the registry 2"),
    "read more": ({"people": 2}, {"upsert": 1, "delete": 2}, "3 records were read, and 2 committed or rejected"),
    "another op": ({"people": 2}, {"upsert": 1, "delete": 1}, "1 records of op 'delete' were read, and 0 committed or"),
}


@pytest.mark.parametrize("said", WRONG)
async def test_6_the_counts_of_what_was_put_aside_must_agree_too(world: World, said: str) -> None:
    rejected, read_, message = WRONG[said]
    await world.new_run()
    _, _, token = await world.attempt()
    put = (await put_aside(world, token, 2)).model_copy(update={"by_op": {"upsert": 2}})
    await world.protocol.checkpoint(token, checkpoint(1, put, done=True))
    told = wire.FinishRequest(outcome="succeeded", rejected=rejected, read={"people": read_} if read_ else {})
    assert (await world.protocol.finish(token, told)).phase == "failed"
    (run,) = await rows(world, "connector_runs")
    assert message in run["message"]


async def test_a_run_with_rejected_records_is_green_and_says_so_everywhere(world: World) -> None:
    run = await read(world, "run1", 8, 2)
    assert (run["phase"], run["records"], run["rejected"], run["objects"]) == ("succeeded", 8, 2, 1)
    assert run["message"] == "people: 2 of 10 records were rejected"
    assert await open_alerts(world) == [("RecordsRejected", "2 of 10 records were rejected")]
    async with world.pool.connection() as db:
        made = await commit_manifest(db, RunId("run1"))
    assert made is not None
    assert (len(made.objects), [written.records for written in made.rejected]) == (1, [2])
    status = await reconcile(world.pool, DOCUMENT)
    assert status["lastRun"]["rejected"] == 2
    assert {condition["type"]: condition["message"] for condition in status["conditions"]} == {
        "Ready": "run run1 committed 8 records; people: 2 of 10 records were rejected",
        "RecordsRejected": "people: RecordsRejected: 2 of 10 records were rejected (`penstock alerts list`)",
    }
    await read(world, "run2", 1)
    assert await open_alerts(world) == []


async def test_past_a_threshold_over_all_attempts_the_run_fails(world: World) -> None:
    world.spec["rejects"] = {"maxRecords": 3}
    await world.new_run()
    run_id, attempt, token = await world.attempt("pod1")
    await world.protocol.checkpoint(token, checkpoint(1, await put_aside(world, token, 2)))
    await world.fail(run_id, attempt)
    _, _, token = await world.attempt("pod2")
    await world.protocol.checkpoint(token, checkpoint(2, await put_aside(world, token, 2), done=True))
    await world.protocol.finish(token, wire.FinishRequest(outcome="succeeded", rejected={"people": 2}))
    (run,) = await rows(world, "connector_runs")
    assert (run["phase"], run["error_class"], run["rejected"]) == ("failed", "SourceContractError", 4)
    assert "4 of 4 records were rejected, more than spec.rejects.maxRecords (3) allows" in run["message"]


async def test_a_pod_is_told_the_rules(world: World) -> None:
    world.spec.update({"rejects": {"maxShare": 0.5}, "validation": "strict"})
    await world.new_run()
    from datetime import UTC, datetime, timedelta

    from penstock_operator.runs import attempt_store
    from penstock_operator.runs.protocol import PodIdentity

    from tests.integration.world import IDENTITY

    async with world.pool.connection() as db:
        (taken,) = await fairness.claim_runs(db, datetime.now(UTC) + timedelta(hours=1), 1)
        await attempt_store.record_job(db, taken.run_id, taken.attempt, "job")
    request = wire.StartRequest(run="run1", attempt=1, connector=IDENTITY, sdk_version="0", key=START_KEY)
    start = await world.protocol.start(PodIdentity("pod", "job"), request)
    assert start.rejects == wire.RejectRules(max_share=0.5, strict=True)


async def test_a_full_read_that_comes_empty_is_told_until_something_comes(world: World) -> None:
    world.spec["streams"] = [{"name": "people", "mode": "full"}]
    assert (await read(world, "run1", 7))["message"] == ""
    empty = await read(world, "run2", 0)
    assert empty["message"] == "people: a full read brought no records, the one before it brought 7"
    assert [kind for kind, _ in await open_alerts(world)] == ["EmptyRead"]
    status = await reconcile(world.pool, DOCUMENT)
    assert "EmptyRead" in {condition["type"] for condition in status["conditions"]}
    assert (await read(world, "run3", 0))["message"] == ""
    assert [kind for kind, _ in await open_alerts(world)] == ["EmptyRead"], "it is still empty"
    await read(world, "run4", 7)
    assert await open_alerts(world) == []


async def test_an_incremental_read_may_be_empty_unless_none_of_many_was(world: World) -> None:
    for number in range(10):
        await read(world, f"run{number:02d}", 1)
    assert "none of the 10 reads before it was empty" in (await read(world, "run10", 0))["message"]
    assert (await read(world, "run11", 0))["message"] == ""
    (kept,) = await rows(world, "stream_reads")
    assert (kept["mode"], kept["recent"]) == ("incremental", [1] * 10 + [0, 0])


async def test_only_the_last_reads_are_kept(world: World) -> None:
    from penstock_operator.runs.stream_reads import StreamRead, add_reads

    async with world.pool.connection() as db:
        for number in range(105):
            await add_reads(db, "c1", "r", [StreamRead("people", "full", number)])
    (kept,) = await rows(world, "stream_reads")
    assert kept["recent"] == list(range(5, 105))
