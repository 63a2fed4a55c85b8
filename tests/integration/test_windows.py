"""A window that is read again: by the same fencing, with states of its own, and nothing of an incremental read touched."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from penstock_operator.errors import Fenced, Invalid, Mismatch
from penstock_operator.registry.database import Row, many
from penstock_operator.runs import run_store, transitions
from penstock_operator.runs.commit_store import commit_manifest
from penstock_operator.runs.run_spec import RunSpec
from penstock_operator.runs.selection import BEFORE_THE_FIRST
from penstock_operator.scheduling.backfill import BackfillWindow
from penstock_operator.scheduling.reread import reread
from penstock_sdk import protocol as wire

from tests.integration.world import EVENTS, STREAM, World, checkpoint

START, END = datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 8, tzinfo=UTC)
ABLE = STREAM.model_copy(update={"windows": True})
SUCCEEDED = wire.FinishRequest(outcome="succeeded")


async def ask(world: World, start: datetime = START, end: datetime = END, *names: str) -> str:
    async with world.pool.connection() as db:
        return await reread(db, "c1", BackfillWindow(start, end, names), datetime.now(UTC))


async def begin(
    world: World, pod: str, *offered: wire.DiscoveredStream, abilities: tuple[str, ...] = ("window",)
) -> tuple[tuple[str, int, str], wire.StreamVerdict]:
    attempt = await world.attempt(pod, discover=False)
    request = wire.StreamsRequest(streams=list(offered or (ABLE,)), abilities=list(abilities))
    (verdict,) = (await world.protocol.streams(attempt[2], request)).verdicts
    return attempt, verdict


async def rows(world: World, table: str) -> list[Row]:
    async with world.pool.connection() as db:
        return await many(db, f"SELECT * FROM penstock.{table}")


async def an_incremental_run(world: World) -> Row:
    """Read incrementally once, and return where that stands."""
    await world.new_run("before", token="before")
    _, _, token = await world.attempt("before")
    await world.protocol.checkpoint(token, checkpoint(1, await world.upload(token), done=True))
    await world.protocol.finish(token, SUCCEEDED.model_copy(update={"records": {"people": 3}}))
    return (await rows(world, "connector_run_state"))[0]


async def test_4_a_window_commits_beside_and_leaves_the_incremental_read_where_it_stands(world: World) -> None:
    before = await an_incremental_run(world)
    run_id = await ask(world)
    (_, _, token), verdict = await begin(world, "again")
    window = wire.ReadWindow(start=START, end=END)
    assert (verdict.selected.window, verdict.selected.cursor, verdict.read) == (window, None, True)
    number = verdict.selected.checkpoint
    uploaded = await world.upload(token)
    await world.protocol.checkpoint(token, checkpoint(number + 1, uploaded))
    await world.protocol.checkpoint(token, checkpoint(number + 1, uploaded))  # its reply was lost
    await world.protocol.checkpoint(token, checkpoint(number + 2, done=True))
    assert (await rows(world, "connector_run_state"))[0] == before
    assert len(await rows(world, "stream_checkpoints")) == 1, "nothing to rewind to"
    finished = await world.protocol.finish(token, SUCCEEDED.model_copy(update={"records": {"people": 3}}))
    assert finished.phase == "succeeded"
    async with world.pool.connection() as db:
        manifest = await commit_manifest(db, run_id)
    assert manifest is not None
    document = manifest.document()
    assert document["window"] == {"start": START.isoformat(), "end": END.isoformat()}
    assert [(stored["stream"], stored["generation"], stored["records"]) for stored in document["objects"]] == [
        ("people", 1, 3)
    ]
    (state,) = [row for row in await rows(world, "stream_reads") if row["stream"] == "people"]
    assert state["recent"] == [3], "an ordinary read is not judged by it"


async def test_4_a_killed_attempt_is_followed_by_one_that_goes_on_within_the_window(world: World) -> None:
    run_id = await ask(world)
    (_, number, token), verdict = await begin(world, "first")
    first = verdict.selected.checkpoint + 1
    await world.protocol.checkpoint(token, checkpoint(first, await world.upload(token)))
    await world.fail(run_id, number)
    (_, _, later), verdict = await begin(world, "second")
    assert (verdict.selected.cursor, verdict.selected.checkpoint) == ({"n": first}, first)
    with pytest.raises(Fenced):
        await world.protocol.checkpoint(token, checkpoint(first + 1))
    await world.protocol.checkpoint(later, checkpoint(first + 1, done=True))
    assert (await world.protocol.finish(later, SUCCEEDED)).phase == "succeeded"
    assert await rows(world, "connector_run_state") == []


async def test_4_two_first_checkpoints_at_once_are_one(world: World) -> None:
    await ask(world)
    (_, _, token), verdict = await begin(world, "again")
    wanted = checkpoint(verdict.selected.checkpoint + 1, await world.upload(token))
    answers = await asyncio.gather(*(world.protocol.checkpoint(token, wanted) for _ in range(4)))
    assert {answer.checkpoint for answer in answers} == {wanted.checkpoint}
    (state,) = await rows(world, "window_states")
    assert (state["checkpoint"], state["cursor"]) == (wanted.checkpoint, wanted.cursor)


async def test_6_it_is_no_success_before_the_window_is_done(world: World) -> None:
    await an_incremental_run(world)
    await ask(world)
    (_, _, token), _ = await begin(world, "again")
    with pytest.raises(Mismatch, match="without a final checkpoint: people"):
        await world.protocol.finish(token, SUCCEEDED)


async def test_a_replica_that_knows_no_windows_commits_nothing_of_one(world: World) -> None:
    """Its checkpoints would go to the stream's own state: the numbers do not follow, whichever there are."""
    await ask(world)
    (run_id, attempt, token), verdict = await begin(world, "again")
    assert verdict.selected.checkpoint == BEFORE_THE_FIRST
    async with world.pool.connection() as db:
        await db.execute(b"UPDATE penstock.connector_runs SET spec = spec - 'window'")  # as that one sees it
    with pytest.raises(Mismatch, match="does not follow 0"):
        await world.protocol.checkpoint(token, checkpoint(BEFORE_THE_FIRST + 1))
    assert await rows(world, "connector_run_state") == []
    del run_id, attempt


async def test_a_stream_or_an_sdk_that_knows_no_windows_is_refused_with_words(world: World) -> None:
    await ask(world)
    (run_id, number, _), _ = await begin(world, "able")
    await world.fail(run_id, number)
    with pytest.raises(Invalid, match=r"cannot read people by a span of time; .*\(--stream\), of: events"):
        await begin(world, "unable", STREAM, EVENTS.model_copy(update={"windows": True}))
    await world.fail(run_id, number + 1)
    with pytest.raises(Invalid, match="SDK is too old to read a window again"):
        await begin(world, "old", abilities=("drop",))


async def test_its_states_go_with_the_run(world: World) -> None:
    await ask(world)
    (_, _, token), verdict = await begin(world, "again")
    await world.protocol.checkpoint(token, checkpoint(verdict.selected.checkpoint + 1, done=True))
    await world.protocol.finish(token, SUCCEEDED)
    assert len(await rows(world, "window_states")) == 1
    async with world.pool.connection() as db:
        await db.execute(b"DELETE FROM penstock.connector_runs")
    assert await rows(world, "window_states") == []


async def test_a_window_is_asked_for_once_at_a_time_and_again_when_it_has_ended(world: World) -> None:
    first = await ask(world)
    paris = timezone(timedelta(hours=1))
    for start, end in ((START, END), (START.astimezone(paris), END.astimezone(paris))):
        with pytest.raises(Invalid, match=f"run {first} reads this window again already"):
            await ask(world, start, end)
    second = await ask(world, START, END - timedelta(days=1))
    async with world.pool.connection() as db, db.transaction():
        for run_id in (first, second):
            row = await run_store.lock_run(db, run_id)
            assert row is not None
            assert (row.trigger, row.scheduled_at) == ("backfill", None)
            await transitions.cancel(db, row)
    assert await ask(world) not in (first, second)


@pytest.mark.parametrize(
    ("start", "end", "names", "said"),
    [
        (END, START, (), "from: must be before to"),
        (START, datetime.now(UTC) + timedelta(days=1), (), "to: lies in the future"),
        (datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=2))), END, (), "from: lies before what a calendar has"),
        (START, END, ("poeple",), "does not select poeple; it does people"),
    ],
)
async def test_what_cannot_be_read_again_is_refused(
    world: World, start: datetime, end: datetime, names: tuple[str, ...], said: str
) -> None:
    with pytest.raises(Invalid, match=said):
        await ask(world, start, end, *names)


async def test_a_connector_that_declares_no_windows_is_refused_before_anything_runs(world: World) -> None:
    async with world.pool.connection() as db:
        await db.execute(b"UPDATE penstock.connector_definitions SET manifest = manifest #- '{capabilities,windows}'")
    with pytest.raises(Invalid, match=r"faker-generate 0\.1\.0 cannot read a span of time again"):
        await ask(world)
    assert await rows(world, "connector_runs") == []


def test_only_a_run_of_a_window_has_one() -> None:
    connector = {"connector": {"name": "faker", "method": "generate"}}
    spec: dict[str, Any] = {
        **connector,
        "window": {"start": "2026-01-01T00:00:00+00:00", "end": "2026-01-08T00:00:00+00:00"},
    }
    assert RunSpec.parse(spec).window == wire.ReadWindow(start=START, end=END)
    assert RunSpec.parse(connector).window is None
