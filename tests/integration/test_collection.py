"""Collection on a real registry and a real bucket: what goes, what never does, and what a kill leaves behind."""

from __future__ import annotations

import asyncio
import hashlib
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from botocore.exceptions import ClientError
from penstock_operator.bronze.keys import commit_key, log_key, object_key, place_of
from penstock_operator.bronze.store import BronzeStore, ObjectContent
from penstock_operator.connections import connection_records, connection_store
from penstock_operator.connections.connection_records import ConnectionRecord
from penstock_operator.ids import new_run_id
from penstock_operator.launchers import LeftoverJob
from penstock_operator.registry.database import many, one
from penstock_operator.resources.models import ConnectionSpec
from penstock_operator.retention.batches import CollectionContext
from penstock_operator.retention.collector import CollectionError, Collector
from penstock_operator.runs import attempt_store, run_store
from penstock_operator.settings import Retention
from penstock_operator.state.admin import Author, Reset, change_state
from penstock_sdk import protocol as wire

from tests.fakes.launcher import FakeLauncher
from tests.integration.world import EVENTS, STREAM, World, checkpoint

LATER = timedelta(hours=3)


def collector(
    world: World,
    after: timedelta = LATER,
    *,
    store: BronzeStore | None = None,
    jobs: FakeLauncher | None = None,
    **policy: int,
) -> Collector:
    """A collector whose clock is ahead by that much."""
    context = CollectionContext(world.pool, store or world.store, Retention(**policy), datetime.now(UTC) + after)
    return Collector(lambda: context, jobs or FakeLauncher(), lambda _: None, first_sweep=timedelta(0))


def exists(store: BronzeStore, key: str) -> bool:
    try:
        store.read(key)
    except ClientError as error:
        if error.response["Error"]["Code"] != "NoSuchKey":
            raise
        return False
    return True


async def rows(world: World, sql: str, **values: Any) -> list[dict[str, Any]]:
    async with world.pool.connection() as db:
        return await many(db, sql, **values)


async def run_to(
    world: World, outcome: str = "succeeded", *, run_id: str | None = None, committed: bool = True
) -> tuple[str, str, str]:
    """Run once; return the run with a committed (or no) object's key and an uncommitted one's."""
    run_id = run_id or new_run_id()
    await world.new_run(run_id)
    _, _, token = await world.attempt(f"pod-{run_id}")
    answer = await world.protocol.streams(token, wire.StreamsRequest(streams=[STREAM, EVENTS]))
    kept, orphan = await world.upload(token, 0), await world.upload(token, 1)
    number = answer.verdicts[0].selected.checkpoint + 1
    objects = [kept] if committed else []
    await world.protocol.checkpoint(token, checkpoint(number, *objects, done=True))
    if outcome == "succeeded":
        await world.protocol.finish(token, wire.FinishRequest(outcome="succeeded", records={"people": 3 * committed}))
    elif outcome == "failed":
        error = wire.RunError(error_class="ConfigError", message="no")
        await world.protocol.finish(token, wire.FinishRequest(outcome="failed", records={}, error=error))
    return run_id, kept.key, orphan.key


async def forget_outbox(world: World) -> None:
    async with world.pool.connection() as db:
        await db.execute(b"DELETE FROM penstock.outbox")


async def test_an_uncommitted_object_goes_once_nobody_can_commit_or_upload_it(world: World) -> None:
    _, committed, orphan = await run_to(world)
    await collector(world, timedelta(minutes=20)).collect()
    assert exists(world.store, orphan), "a URL is valid for ten minutes, and a PUT that began may go on"
    await collector(world, timedelta(minutes=80)).collect()
    assert not exists(world.store, orphan)
    assert exists(world.store, committed)
    assert [row["key"] for row in await rows(world, "SELECT key FROM penstock.bronze_objects")] == [committed]


async def test_4_a_running_attempt_loses_nothing_however_old_its_grants(world: World) -> None:
    await world.new_run()
    _, _, token = await world.attempt()
    uploaded = await world.upload(token)
    await collector(world, timedelta(days=30)).collect()
    await world.protocol.checkpoint(token, checkpoint(1, uploaded, done=True))
    good = wire.FinishRequest(outcome="succeeded", records={"people": 3})
    assert (await world.protocol.finish(token, good)).phase == "succeeded"
    await collector(world, timedelta(days=30)).collect()
    assert exists(world.store, uploaded.key)


async def test_4_a_commit_and_the_collector_at_the_same_time_keep_every_committed_object(world: World) -> None:
    await world.new_run()
    run_id, attempt, token = await world.attempt()
    for number in range(1, 11):
        uploaded = await world.upload(token, number)
        ahead = collector(world, timedelta(days=1))
        await asyncio.gather(world.protocol.checkpoint(token, checkpoint(number, uploaded)), ahead.collect())
    await world.fail(run_id, attempt)
    await collector(world, timedelta(days=1)).collect()
    found = await rows(world, "SELECT key FROM penstock.bronze_objects")
    assert len(found) == 10
    assert all(exists(world.store, row["key"]) for row in found)


async def test_a_zombies_late_upload_is_found_by_the_buckets_sweep(world: World) -> None:
    run_id, committed, _ = await run_to(world)
    await collector(world).collect()
    path, store = ("team", "orders", "people"), world.store
    late = object_key(store.settings.prefix, path, 1, (run_id, 1, 3))
    url, headers = store.presign(late, ObjectContent(4, hashlib.sha256(b"late").hexdigest()))
    assert httpx.put(url, content=b"late", headers=headers).status_code == 200
    await sweep(world, timedelta(hours=12))
    assert exists(store, late), "young objects are let alone"
    await sweep(world, timedelta(days=2))
    assert not exists(store, late)
    assert exists(store, committed)


async def sweep(world: World, after: timedelta) -> None:
    sweeping = collector(world, after)
    while await sweeping.sweep_bucket():
        pass


async def test_another_registrys_sweep_empties_no_bucket(world: World) -> None:
    run_id, key, _ = await run_to(world, run_id=new_run_id())
    manifest = commit_key(world.store.settings.prefix, "team", "orders", run_id)
    await world.store.put_once(manifest, {"objects": [{"key": key}]})
    async with world.pool.connection() as db:  # restored from a backup of before the run
        await db.execute(b"TRUNCATE penstock.bronze_objects, penstock.connector_runs CASCADE")
    await sweep(world, timedelta(days=30))
    assert exists(world.store, key), "a commit manifest names it"
    await world.store.delete([manifest])
    async with world.pool.connection() as db:  # a fresh registry
        await db.execute(b"UPDATE penstock.tenant_connections SET created_at = now()")
    await sweep(world, timedelta(days=30))
    assert exists(world.store, key), "the run is older than what the registry knows of the connection"
    async with world.pool.connection() as db:
        await db.execute(b"UPDATE penstock.tenant_connections SET created_at = now() - interval '1 year'")
    await sweep(world, timedelta(days=30))
    assert not exists(world.store, key), "this is what the sweep is for"


async def test_an_older_generation_goes_after_its_time_and_the_live_one_never(world: World) -> None:
    _, first, _ = await run_to(world)
    async with world.pool.connection() as db:
        await change_state(db, "c1", Reset(("people",)), Author("somebody", ""))
    _, second, _ = await run_to(world)
    await collector(world, timedelta(days=400)).collect()
    assert exists(world.store, first), "without a policy, everything stays"
    await collector(world, timedelta(days=29), generation_days=30).collect()
    assert exists(world.store, first)
    await collector(world, timedelta(days=31), generation_days=30).collect()
    assert not exists(world.store, first)
    assert exists(world.store, second)


async def history_limit(world: World, limit: int) -> None:
    async with world.pool.connection() as db:
        record = ConnectionRecord(
            "c1", "team", "orders", 1, ConnectionSpec.parse({**world.spec, "historyLimit": limit}), "d1", ready=True
        )
        await connection_records.upsert_connection(db, record)


async def test_runs_beyond_the_history_limit_go_with_their_attempts_and_logs(world: World) -> None:
    await history_limit(world, 2)
    made = [(await run_to(world))[0] for _ in range(2)] + [(await run_to(world, "failed"))[0] for _ in range(3)]
    prefix = world.store.settings.prefix
    logs = [log_key(prefix, "team", "orders", (run_id, 1)) for run_id in made]
    for key in logs:
        await world.store.put(key, b"log", "application/zstd")
    await collector(world).collect()
    assert len(await rows(world, "SELECT id FROM penstock.connector_runs")) == 5, "manifests are still to be written"
    await forget_outbox(world)
    await collector(world, timedelta(minutes=90)).collect()
    assert len(await rows(world, "SELECT id FROM penstock.connector_runs")) == 5, "a due time could be made again"
    await collector(world).collect()
    left = {row["id"] for row in await rows(world, "SELECT id FROM penstock.connector_runs")}
    assert left == {made[1], *made[3:]}, "the newest two, and the newest success"
    assert {row["run_id"] for row in await rows(world, "SELECT run_id FROM penstock.run_attempts")} == left
    assert [exists(world.store, key) for key in logs] == [run_id in left for run_id in made]
    committed = await rows(world, "SELECT key FROM penstock.bronze_objects WHERE committed_at IS NOT NULL")
    assert len(committed) == 5, "a committed object outlives the row of its run"


async def test_a_forgotten_run_leaves_its_manifest_for_as_long_as_its_objects(world: World) -> None:
    await history_limit(world, 1)
    made = [(await run_to(world, committed=committed))[0] for committed in (True, False, True)]
    manifests = [commit_key(world.store.settings.prefix, "team", "orders", run_id) for run_id in made]
    for key in manifests:
        await world.store.put_once(key, {"objects": []})
    await forget_outbox(world)
    await collector(world).collect()
    assert {row["id"] for row in await rows(world, "SELECT id FROM penstock.connector_runs")} == {made[2]}
    assert [exists(world.store, key) for key in manifests] == [True, False, True]


async def test_a_run_that_something_needs_is_not_pruned(world: World) -> None:
    await history_limit(world, 0)
    holds_state, _, _ = await run_to(world, "failed")
    await world.new_run("active")
    await forget_outbox(world)
    await collector(world, timedelta(days=30)).collect()
    assert {row["id"] for row in await rows(world, "SELECT id FROM penstock.connector_runs")} == {holds_state, "active"}


async def test_checkpoints_and_schemas_beyond_the_newest_go_in_batches(world: World) -> None:
    _, committed, _ = await run_to(world)
    async with world.pool.connection() as db:
        await db.execute(
            b"""
            INSERT INTO penstock.stream_checkpoints
                (connection_uid, stream, checkpoint, generation, state_version, run_id, attempt, done)
            SELECT 'c1', 'people', n, 1, 1, 'r', 1, false FROM generate_series(10, 1500) n;
            INSERT INTO penstock.stream_registry
                (connection_uid, stream, version, fingerprint, schema, primary_key, modes, pii)
            SELECT 'c1', 'people', n, 'f', '{}', '[]', '[]', '[]' FROM generate_series(2, 100) n;
            """
        )
    await collector(world).collect()
    (kept,) = await rows(
        world, "SELECT count(*) AS n, min(checkpoint) AS first FROM penstock.stream_checkpoints WHERE stream = 'people'"
    )
    assert kept == {"n": 200, "first": 1301}
    versions = [
        row["version"]
        for row in await rows(world, "SELECT version FROM penstock.stream_registry WHERE stream = 'people' ORDER BY 1")
    ]
    assert versions == [1, *range(51, 101)], "version 1 is that of a committed object"
    assert exists(world.store, committed)


async def test_a_job_that_its_ttl_missed_goes_when_its_log_is_kept(world: World) -> None:
    await world.new_run()
    run_id, attempt, _ = await world.attempt()
    await world.fail(run_id, attempt)
    now = datetime.now(UTC)
    ours, strange, young = (
        LeftoverJob("team", "penstock-run1-1", now),
        LeftoverJob("team", "penstock-forgotten-1", now),
        LeftoverJob("team", "penstock-forgotten-2", now + timedelta(hours=2, minutes=50)),
    )
    running = LeftoverJob("team", "penstock-forgotten-3", None)
    jobs = FakeLauncher()
    jobs.left_over = [ours, strange, young, running]
    await forget_outbox(world)
    await collector(world, jobs=jobs).collect()
    assert jobs.left_over == [ours, young, running]
    (posted,) = await rows(world, "SELECT kind FROM penstock.outbox")
    assert posted == {"kind": "retire"}, "what nobody kept the log of is retired once more"
    async with world.pool.connection() as db:
        await attempt_store.record_no_log(db, run_id, attempt, "its pod was gone")
    await collector(world, jobs=jobs).collect()
    assert jobs.left_over == [young, running]


class Dies(BronzeStore):
    """The process is killed before or after the n-th deletion took effect."""

    def __init__(self, world: World, call: int, *, after: bool) -> None:
        super().__init__(world.store.settings)
        self._calls, self._after = call, after

    async def delete(self, keys: list[str]) -> None:
        self._calls -= bool(keys)
        if keys and self._calls < 0 and not self._after:
            raise asyncio.CancelledError
        await super().delete(keys)
        if keys and self._calls < 0:
            raise asyncio.CancelledError


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("call", [0, 1, 2, 3, 4])
async def test_9_a_collector_killed_at_any_step_is_followed_by_one_that_ends_the_work(
    world: World, call: int, moment: str
) -> None:
    await history_limit(world, 1)
    _, old, _ = await run_to(world)
    async with world.pool.connection() as db:
        await change_state(db, "c1", Reset(("people",)), Author("somebody", ""))
    _, live, orphan = await run_to(world)
    await forget_outbox(world)
    await other_connection(world, "c2", "gone")
    doomed = await doomed_connection(world, "c2", "gone")
    later, days = timedelta(days=40), 30
    dying = collector(world, later, store=Dies(world, call, after=moment == "after"), generation_days=days)
    with pytest.raises(asyncio.CancelledError):  # else there are fewer deletions than the test kills
        await dying.collect()
    await collector(world, later, generation_days=days).collect()
    assert [exists(world.store, key) for key in (live, old, orphan, *doomed)] == [True] + [False] * (2 + len(doomed))
    assert [row["key"] for row in await rows(world, "SELECT key FROM penstock.bronze_objects")] == [live]
    assert await rows(world, "SELECT uid FROM penstock.tenant_connections WHERE purged_at IS NOT NULL") == [
        {"uid": "c2"}
    ]


async def test_two_collectors_at_once_delete_the_same_and_no_more(world: World) -> None:
    await history_limit(world, 1)
    made = [await run_to(world) for _ in range(6)]
    await forget_outbox(world)
    await asyncio.gather(*(collector(world).collect() for _ in range(4)))
    assert [exists(world.store, key) for _, key, _ in made] == [True] * 6
    assert [exists(world.store, key) for _, _, key in made] == [False] * 6
    assert [row["id"] for row in await rows(world, "SELECT id FROM penstock.connector_runs")] == [made[-1][0]]


async def test_a_bucket_that_refuses_keeps_one_step_from_its_end_and_the_others_not(world: World) -> None:
    await run_to(world)
    async with world.pool.connection() as db:
        await db.execute(b"UPDATE penstock.outbox SET tries = 100 WHERE kind = 'status'")
    away = BronzeStore(world.store.settings.__class__(**{**vars(world.store.settings), "bucket": "nowhere-at-all"}))
    with pytest.raises(CollectionError, match="orphans"):
        await collector(world, store=away).collect()
    assert await rows(world, "SELECT 1 AS left FROM penstock.outbox WHERE kind = 'status'") == []
    assert len(await rows(world, "SELECT key FROM penstock.bronze_objects")) == 2, (
        "what is not deleted is not forgotten"
    )


# --- what becomes of Bronze data when its connection goes ---


async def other_connection(world: World, uid: str, name: str, policy: str = "Delete") -> None:
    spec = {**world.spec, "bronze": {"format": "jsonl", "deletionPolicy": policy}}
    async with world.pool.connection() as db:
        await connection_records.upsert_connection(
            db, ConnectionRecord(uid, "team", name, 1, ConnectionSpec.parse(spec), "d1", ready=True)
        )


async def run_of(world: World, uid: str) -> tuple[str, list[str]]:
    """Run a connection once; return the run, and the keys of its object, manifest and log."""
    run_id = new_run_id()
    async with world.pool.connection() as db:
        await run_store.insert_run(db, run_store.NewRun(run_id, uid, "d1", world.spec))
        row = await connection_store.connection_by_uid(db, uid)
        assert row is not None
        name = row.name
    _, _, token = await world.attempt(f"pod-{run_id}")
    answer = await world.protocol.streams(token, wire.StreamsRequest(streams=[STREAM, EVENTS]))
    uploaded = await world.upload(token)
    number = answer.verdicts[0].selected.checkpoint + 1
    await world.protocol.checkpoint(token, checkpoint(number, uploaded, done=True))
    await world.protocol.finish(token, wire.FinishRequest(outcome="succeeded", records={"people": 3}))
    prefix = world.store.settings.prefix
    manifest, log = commit_key(prefix, "team", name, run_id), log_key(prefix, "team", name, (run_id, 1))
    await world.store.put_once(manifest, {"objects": [{"key": uploaded.key}]})
    await world.store.put(log, b"log", "application/zstd")
    await forget_outbox(world)
    return run_id, [uploaded.key, manifest, log]


async def doomed_connection(world: World, uid: str, name: str) -> list[str]:
    _, keys = await run_of(world, uid)
    async with world.pool.connection() as db:
        await connection_records.retire_connection(db, "team", name)
    return keys


async def test_data_stays_when_a_connection_goes_unless_its_policy_says_delete(world: World) -> None:
    await other_connection(world, "c2", "kept", "Retain")
    await other_connection(world, "c3", "gone", "Delete")
    kept, gone = await doomed_connection(world, "c2", "kept"), await doomed_connection(world, "c3", "gone")
    await collector(world, timedelta(minutes=30)).collect()
    assert all(exists(world.store, key) for key in gone), "there is an hour to think again"
    await collector(world, timedelta(days=30)).collect()
    assert [exists(world.store, key) for key in (*kept, *gone)] == [True] * 3 + [False] * 3
    (row,) = await rows(
        world, "SELECT purged_at IS NOT NULL AS purged FROM penstock.tenant_connections WHERE uid = 'c3'"
    )
    assert row["purged"]


async def test_10_a_purge_never_touches_the_next_connection_of_the_same_name(world: World) -> None:
    await other_connection(world, "c2", "same")
    old = await doomed_connection(world, "c2", "same")
    await other_connection(world, "c3", "same")
    _, new = await run_of(world, "c3")
    assert old[0].split("/run=")[0] != new[0].split("/run=")[0], "each has a generation of its own"
    await collector(world).collect()
    assert [exists(world.store, key) for key in (*old, *new)] == [False] * 3 + [True] * 3


async def test_a_connection_that_is_applied_again_during_its_purge_begins_from_the_start(world: World) -> None:
    await other_connection(world, "c2", "same")
    old = await doomed_connection(world, "c2", "same")
    dying = collector(world, store=Dies(world, 0, after=True))
    with pytest.raises(asyncio.CancelledError):
        await dying.collect()
    await other_connection(world, "c2", "same")  # a folder gives the same uid again
    async with world.pool.connection() as db:
        assert await one(db, "SELECT 1 AS x FROM penstock.connector_run_state WHERE connection_uid = 'c2'") is None
    _, new = await run_of(world, "c2")
    await collector(world).collect()
    assert [exists(world.store, key) for key in (*old, *new)] == [False] * 3 + [True] * 3
    async with world.pool.connection() as db:
        await connection_records.retire_connection(db, "team", "same")
    await collector(world).collect()
    await collector(world).collect()
    assert [exists(world.store, key) for key in new] == [False] * 3, "and goes when it is deleted once more"


def test_a_key_is_known_by_its_form() -> None:
    key = object_key("bronze", ("team a", "orders", "public/x"), 3, ("019abc0000001234567890", 2, 7))
    place = place_of("bronze", key)
    assert place is not None
    assert (place.kind, place.tenant, place.connection, place.run) == (
        "object",
        "team a",
        "orders",
        "019abc0000001234567890",
    )
    log = place_of("", log_key("", "team", "orders", ("019abc0000001234567890", 2)))
    assert log is not None
    assert log.kind == "log"
    for other in (commit_key("bronze", "team", "orders", "r"), "bronze/readme.txt", key.replace("bronze/", "silver/")):
        assert place_of("bronze", other) is None
