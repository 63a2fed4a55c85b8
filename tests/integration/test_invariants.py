"""The invariants of the design that the registry and the run protocol hold, each with what would break it."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from penstock_operator.connections import connection_records, connection_store
from penstock_operator.connections.connection_records import Timing
from penstock_operator.errors import Fenced, Mismatch, NotReady, Unauthenticated
from penstock_operator.registry.database import many, one
from penstock_operator.resources.schedules import UTC_ZONE, CronSchedule
from penstock_operator.runs import attempt_store, bronze_objects, run_store
from penstock_operator.runs.protocol import PodIdentity
from penstock_operator.scheduling import fairness
from penstock_operator.scheduling.due import request_run, schedule_due
from penstock_sdk import protocol as wire

from tests.integration.world import IDENTITY, STREAM, World, checkpoint
from tests.patience import PATIENCE
from tests.run_api.pods import START_KEY


async def test_1_a_due_time_and_a_token_make_one_run_each(world: World) -> None:
    at = datetime(2026, 1, 1, tzinfo=UTC)
    assert await world.new_run("a", scheduled_at=at)
    assert not await world.new_run("b", scheduled_at=at)
    assert await world.new_run("c", token="t")
    assert not await world.new_run("d", token="t")


async def test_1_two_schedulers_make_one_run_of_one_tick(world: World) -> None:
    async with world.pool.connection() as db:
        past = datetime.now(UTC) - timedelta(minutes=90)
        await connection_records.set_timing(db, "c1", Timing(CronSchedule("*/15 * * * *"), UTC_ZONE, 0, past))
    now = datetime.now(UTC)
    await asyncio.gather(*(schedule_due(world.pool, now) for _ in range(6)))
    async with world.pool.connection() as db:
        rows = await many(db, "SELECT * FROM penstock.connector_runs")
        row = await connection_store.connection_by_uid(db, "c1")
    assert len(rows) == 1, "missed ticks collapse to one"
    assert row is not None
    assert row.next_run_at > now


async def test_1_a_request_waits_for_the_run_under_way(world: World) -> None:
    await world.new_run("a", token="first")
    async with world.pool.connection() as db:
        row = await connection_store.connection_by_uid(db, "c1")
        assert row is not None
        assert await request_run(db, row.uid, "second") is None
        assert row.handled_request is None


async def test_2_two_launchers_take_a_run_once(world: World) -> None:
    await world.new_run()

    async def claim() -> int:
        async with world.pool.connection() as db:
            return len(await fairness.claim_runs(db, datetime.now(UTC) + timedelta(hours=1), 10))

    assert sum(await asyncio.gather(*(claim() for _ in range(6)))) == 1


async def test_3_a_superseded_attempt_can_change_nothing(world: World) -> None:
    await world.new_run()
    run_id, attempt, stale = await world.attempt("pod1")
    uploaded = await world.upload(stale)
    await world.fail(run_id, attempt)
    with pytest.raises(Fenced):
        await world.protocol.checkpoint(stale, checkpoint(1, uploaded))
    _, second, current = await world.attempt("pod2")
    assert second == attempt + 1
    for refused in (
        world.protocol.checkpoint(stale, checkpoint(1, uploaded)),
        world.granted(stale, after=1),
        world.protocol.heartbeat(stale, wire.HeartbeatRequest()),
        world.protocol.streams(stale, wire.StreamsRequest(streams=[STREAM])),
    ):
        with pytest.raises(Fenced):
            await refused
    await world.protocol.checkpoint(current, checkpoint(1, await world.upload(current), done=True))
    phase = await world.protocol.finish(current, wire.FinishRequest(outcome="succeeded", records={"people": 3}))
    assert phase.phase == "succeeded"


async def test_3_a_takeover_waits_for_the_checkpoint_that_holds_the_run(world: World) -> None:
    await world.new_run()
    run_id, attempt, _ = await world.attempt()
    async with world.pool.connection() as holder, holder.transaction():
        assert await run_store.hold_run(holder, run_id, attempt)
        takeover = asyncio.create_task(world.fail(run_id, attempt))
        await world.waiting()
        assert not takeover.done()
    await takeover


async def test_4_state_and_objects_commit_together_or_not_at_all(world: World) -> None:
    await world.new_run()
    run_id, attempt, token = await world.attempt()
    good = await world.upload(token)
    strange = good.model_copy(update={"key": "elsewhere", "sequence": 2})
    with pytest.raises(Mismatch):
        await world.protocol.checkpoint(token, checkpoint(1, good, strange))
    async with world.pool.connection() as db:
        assert await one(db, "SELECT * FROM penstock.connector_run_state") is None
        assert not await bronze_objects.has_progressed(db, run_id, attempt)


async def test_4_a_repeated_checkpoint_commits_once(world: World) -> None:
    await world.new_run()
    run_id, attempt, token = await world.attempt()
    uploaded = await world.upload(token)
    for _ in range(3):
        assert (await world.protocol.checkpoint(token, checkpoint(1, uploaded))).checkpoint == 1
    for refused in (checkpoint(3), checkpoint(2, uploaded), checkpoint(1), checkpoint(1, uploaded, done=True)):
        with pytest.raises(Mismatch):
            await world.protocol.checkpoint(token, refused)
    async with world.pool.connection() as db:
        assert await bronze_objects.committed_counts(db, run_id, attempt) == {"people": 3}


async def test_5_a_committed_object_is_never_overwritten(world: World) -> None:
    await world.new_run()
    _, _, token = await world.attempt()
    grant = await world.granted(token, b"first")
    assert httpx.put(grant.url, content=b"first", headers=grant.headers).status_code == 200
    assert httpx.put(grant.url, content=b"first", headers=grant.headers).status_code == 412
    assert httpx.put(grant.url, content=b"other", headers=grant.headers).status_code in (400, 412)
    assert httpx.put(grant.url, content=b"other").status_code == 403
    assert world.store.read(grant.key) == b"first"


async def test_6_success_is_believed_only_when_the_counts_agree(world: World) -> None:
    await world.new_run()
    _, _, token = await world.attempt()
    await world.protocol.checkpoint(token, checkpoint(1, await world.upload(token), done=True))
    good = wire.FinishRequest(outcome="succeeded", records={"people": 3})
    assert (await world.protocol.finish(token, good)).phase == "succeeded"
    assert (await world.protocol.finish(token, good)).phase == "succeeded", (
        "a lost reply is followed by the same request"
    )


async def test_6_a_run_whose_counts_differ_fails_and_is_not_tried_again(world: World) -> None:
    await world.new_run()
    _, _, token = await world.attempt()
    await world.protocol.checkpoint(token, checkpoint(1, await world.upload(token), done=True))
    told = wire.FinishRequest(outcome="succeeded", records={"people": 4})
    assert (await world.protocol.finish(token, told)).phase == "failed"
    async with world.pool.connection() as db:
        run = await one(db, "SELECT * FROM penstock.connector_runs")
    assert run is not None
    assert run["message"].startswith(
        "stream 'people': the pod counted 4 records that it committed, the registry 3; report"
    )
    assert "`penstock state rewind`" in run["message"]


@pytest.mark.parametrize("outcome", ["succeeded", "cancelled"])
async def test_9_a_finish_that_is_repeated_while_the_first_is_carried_out_gets_its_answer(
    world: World, outcome: Any
) -> None:
    """A pod repeats a call whose answer does not come in time: to be called fenced, it would end as if taken over."""
    await world.new_run()
    run_id, _, token = await world.attempt()
    await world.protocol.checkpoint(token, checkpoint(1, await world.upload(token), done=True))
    finish = wire.FinishRequest(outcome=outcome, records={"people": 3})
    async with world.pool.connection() as db, db.transaction():
        await run_store.lock_run(db, run_id)
        both = [asyncio.create_task(world.protocol.finish(token, finish)) for _ in range(2)]
        async with asyncio.timeout(PATIENCE):
            while await _waiting_locks(world) < len(both):
                await asyncio.sleep(0.01)
    assert [answer.phase for answer in await asyncio.gather(*both)] == [outcome, outcome]


async def _waiting_locks(world: World) -> int:
    async with world.pool.connection() as db:
        return len(await many(db, "SELECT 1 FROM pg_locks WHERE NOT granted"))


async def test_6_success_needs_every_stream_to_be_done(world: World) -> None:
    await world.new_run()
    _, _, token = await world.attempt()
    await world.protocol.checkpoint(token, checkpoint(1, await world.upload(token)))
    with pytest.raises(Mismatch):
        await world.protocol.finish(token, wire.FinishRequest(outcome="succeeded", records={"people": 3}))


async def test_7_only_the_pod_of_the_attempts_job_can_start_it(world: World) -> None:
    await world.new_run()
    request = wire.StartRequest(run="run1", attempt=1, connector=IDENTITY, sdk_version="0", key=START_KEY)
    with pytest.raises(Fenced):
        await world.protocol.start(PodIdentity("pod", "job"), request)
    async with world.pool.connection() as db:
        await fairness.claim_runs(db, datetime.now(UTC) + timedelta(hours=1), 1)
    with pytest.raises(NotReady):
        await world.protocol.start(PodIdentity("pod", "job"), request)
    async with world.pool.connection() as db:
        await attempt_store.record_job(db, "run1", 1, "job")
    with pytest.raises(Unauthenticated):
        await world.protocol.start(PodIdentity("pod", "other"), request)
    first = await world.protocol.start(PodIdentity("pod", "job"), request)
    again = await world.protocol.start(PodIdentity("pod", "job"), request)
    with pytest.raises(Fenced):
        await world.protocol.start(PodIdentity("second-pod", "job"), request)
    other = request.model_copy(update={"key": START_KEY[::-1]})
    with pytest.raises(Fenced):
        await world.protocol.start(PodIdentity("pod", "job"), other)
    assert again.run_token == first.run_token
    assert not (await world.protocol.heartbeat(again.run_token, wire.HeartbeatRequest())).cancel


async def test_11_the_registry_keeps_no_token(world: World) -> None:
    await world.new_run()
    _, _, token = await world.attempt()
    async with world.pool.connection() as db:
        for table in ("run_attempts", "connector_runs", "outbox"):
            text = str(await many(db, f"SELECT * FROM penstock.{table}"))
            assert token not in text
            assert START_KEY not in text


async def test_a_resumed_attempt_goes_on_from_the_committed_cursor(world: World) -> None:
    await world.new_run()
    run_id, attempt, token = await world.attempt("pod1")
    await world.protocol.checkpoint(token, checkpoint(1, await world.upload(token)))
    await world.fail(run_id, attempt)
    _, _, token = await world.attempt("pod2")
    answer = await world.protocol.streams(token, wire.StreamsRequest(streams=[STREAM]))
    assert answer.verdicts[0].selected.cursor == {"n": 1}
    assert answer.verdicts[0].selected.checkpoint == 1


async def test_6_success_is_not_believed_before_the_streams_were_looked_at(world: World) -> None:
    await world.new_run()
    async with world.pool.connection() as db:
        await fairness.claim_runs(db, datetime.now(UTC) + timedelta(hours=1), 1)
        await attempt_store.record_job(db, "run1", 1, "job")
    request = wire.StartRequest(run="run1", attempt=1, connector=IDENTITY, sdk_version="0", key=START_KEY)
    token = (await world.protocol.start(PodIdentity("pod", "job"), request)).run_token
    with pytest.raises(Mismatch, match="streams without a final checkpoint: people"):
        await world.protocol.finish(token, wire.FinishRequest(outcome="succeeded"))


async def test_3_an_end_that_somebody_else_gave_is_not_the_zombies_to_confirm(world: World) -> None:
    await world.new_run()
    run_id, attempt, stale = await world.attempt("pod1")
    await world.protocol.checkpoint(stale, checkpoint(1, await world.upload(stale), done=True))
    await world.fail(run_id, attempt)
    with pytest.raises(Fenced):
        await world.protocol.finish(stale, wire.FinishRequest(outcome="succeeded", records={"people": 3}))


async def test_1_a_deleted_connection_gets_no_run(world: World) -> None:
    async with world.pool.connection() as db:
        row = await connection_store.connection_by_uid(db, "c1")
        assert row is not None
        assert await connection_records.retire_connection(db, "team", "orders")
        assert await request_run(db, row.uid, "late") is None


async def test_two_requests_at_once_make_one_run_where_only_one_may_be_under_way(world: World) -> None:
    async with world.pool.connection() as db:
        row = await connection_store.connection_by_uid(db, "c1")
    assert row is not None

    async def ask(token: str) -> None:
        async with world.pool.connection() as db:
            await request_run(db, row.uid, token)

    async with world.pool.connection() as holder:
        async with holder.transaction():
            await holder.execute(b"SELECT 1 FROM penstock.tenant_connections FOR UPDATE")
            asking = [asyncio.create_task(ask(f"t{number}")) for number in range(4)]
            await world.waiting(len(asking))
            assert not any(item.done() for item in asking), "all wait for the connection"
        await asyncio.gather(*asking)
        assert len(await run_store.active_runs(holder, "c1")) == 1
