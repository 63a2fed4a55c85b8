"""A registry that is older than its bucket is brought forward, and nothing is read twice: any history, against an oracle."""

from __future__ import annotations

import json
import os
import random
import uuid
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from penstock_operator import definitions, outbox
from penstock_operator.api.paging import PageRequest
from penstock_operator.api.queries import ObjectFilter, list_objects
from penstock_operator.bronze.store import BronzeStore
from penstock_operator.connections import connection_store
from penstock_operator.controller.retirement import retire_connection
from penstock_operator.ids import Namespace, new_run_id
from penstock_operator.registry.database import Pool, create_pool, many, one
from penstock_operator.registry.installation import CONTROLLER
from penstock_operator.registry.migrate import migrate
from penstock_operator.resources.models import DefinitionSpec
from penstock_operator.restore.reconcile import ReconcileError, reconcile_registry
from penstock_operator.runs import attempt_store, run_store, transitions
from penstock_operator.runs.commit_store import commit_manifest
from penstock_operator.runs.protocol import PodIdentity, RunProtocol
from penstock_operator.scheduling import fairness
from penstock_operator.state.admin import Author, Reset, change_state
from penstock_sdk import protocol as wire

from tests.integration.world import IDENTITY, MANIFEST, STREAM, World
from tests.reconciling import reconcile
from tests.run_api.pods import START_KEY

HISTORIES = int(os.environ.get("PENSTOCK_RESTORE_HISTORIES", "8"))
STEPS = 9


@dataclass
class History:
    """A platform whose registry can be copied and put back; `known` is what the bucket can prove: generation and numbers."""

    url: str
    store: BronzeStore
    chance: random.Random
    pool: Pool
    uid: str = "c1"
    applied: int = 1
    read: dict[str, list[int]] = field(default_factory=dict)
    generation: int = 1
    numbers: list[int] = field(default_factory=list)
    known: tuple[int, list[int]] = (1, [])
    backups: int = 0
    in_flight: bool = False

    @property
    def world(self) -> World:
        return World(self.pool, RunProtocol(self.pool, self.store), self.store, self.document()["spec"])

    def document(self) -> dict[str, Any]:
        spec = {
            "connector": {"name": "faker", "method": "generate"},
            "streams": [{"name": "people", "mode": "incremental"}],
        }
        metadata = {"uid": self.uid, "namespace": "team", "name": "orders", "generation": self.applied}
        return {"apiVersion": "penstock.io/v1alpha1", "kind": "TenantConnection", "metadata": metadata, "spec": spec}

    async def apply(self) -> None:
        await reconcile(self.pool, self.document())

    async def start(self) -> tuple[str, wire.StreamVerdict, str]:
        run_id, world = new_run_id(), self.world
        async with self.pool.connection() as db:
            row = await connection_store.connection_by_name(db, "team", "orders")
            assert row is not None
            new = run_store.NewRun(run_id, row.uid, row.definition_uid, row.spec.document(), token=run_id)
            assert await run_store.insert_run(db, new)
            (taken,) = await fairness.claim_runs(db, datetime.now(UTC) + timedelta(hours=1), 1)
            assert taken.run_id == run_id
            await attempt_store.record_job(db, run_id, 1, f"job-{run_id}")
        request = wire.StartRequest(run=run_id, attempt=1, connector=IDENTITY, sdk_version="0", key=START_KEY)
        started = await world.protocol.start(PodIdentity(f"pod-{run_id}", f"job-{run_id}"), request)
        answer = await world.protocol.streams(started.run_token, wire.StreamsRequest(streams=[STREAM]))
        return started.run_token, answer.verdicts[0], run_id

    async def commit(self, token: str, verdict: wire.StreamVerdict, *, done: bool = True) -> None:
        cursor = (verdict.selected.cursor or {"n": 0})["n"]
        assert cursor == len(self.numbers), "reads on where the last committed read ended"
        uploaded = await self.world.upload(token)
        await self.world.protocol.checkpoint(
            token,
            wire.CheckpointRequest(
                stream="people",
                checkpoint=verdict.selected.checkpoint + 1,
                cursor={"n": cursor + 3},
                objects=[uploaded],
                done=done,
            ),
        )
        self.read[uploaded.key] = list(range(cursor + 1, cursor + 4))
        self.numbers = [*self.numbers, *self.read[uploaded.key]]

    async def run(self) -> None:
        await self.apply()
        token, verdict, _ = await self.start()
        await self.commit(token, verdict)
        if self.chance.random() < 0.3:
            error = wire.RunError(error_class="ConfigError", message="m")
            finish = wire.FinishRequest(outcome="failed", error=error, records={"people": 3})
        else:
            finish = wire.FinishRequest(outcome="succeeded", records={"people": 3})
        await self.world.protocol.finish(token, finish)
        await self.deliver()
        self.known = (self.generation, self.numbers)

    async def deliver(self) -> None:
        """Write the commit manifests that are due."""
        async with self.pool.connection() as db:
            for message in await outbox.take(db, 1000):
                if isinstance(message.task, outbox.WriteCommit):
                    manifest = await commit_manifest(db, message.task.run)
                    if manifest:
                        await self.store.put_once(manifest.key(self.store.settings.prefix), manifest.document())
                await outbox.delete(db, [message.id])

    async def reset(self) -> None:
        async with self.pool.connection() as db:
            row = await connection_store.connection_by_name(db, "team", "orders")
            if row and self.numbers:
                await change_state(db, row.uid, Reset(), Author("test"))
                self.generation, self.numbers = self.generation + 1, []

    async def again(self) -> None:
        """Delete the connection and apply it again."""
        await retire_connection(self.pool, "team", "orders")
        self.applied += 1
        self.uid = f"c{self.applied}"
        await self.apply()

    async def begin(self) -> None:
        """Begin a run that commits something and does not end."""
        await self.apply()
        token, verdict, _ = await self.start()
        await self.commit(token, verdict, done=False)
        self.in_flight = True

    async def backup(self) -> str:
        """Copy the registry as it is now; it can prove all that is committed."""
        name = f"b{uuid.uuid4().hex}"
        await self.copy(self.url, name)
        self.known = (self.generation, self.numbers)
        return name

    async def copy(self, source: str, name: str) -> None:
        await self.pool.close()
        with psycopg.connect(self.url.rsplit("/", 1)[0] + "/postgres", autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name} TEMPLATE {source.rsplit('/', 1)[1]}".encode())
        self.pool = create_pool(self.url, size=4)
        await self.pool.open(wait=True)

    async def restore(self, name: str) -> None:
        await self.pool.close()
        self.url = self.url.rsplit("/", 1)[0] + f"/{name}"
        self.pool = create_pool(self.url, size=4)
        await self.pool.open(wait=True)
        self.generation, self.numbers = self.known

    async def check(self) -> None:
        """Each record is once among what is committed, and in each prefix but for what the collector was left."""
        async with self.pool.connection() as db:
            shown = (await list_objects(db, PageRequest(1000), ObjectFilter(Namespace("team"), "orders"))).items
            left = await many(db, "SELECT key FROM penstock.bronze_objects WHERE committed_at IS NULL")
        assert sorted(number for row in shown for number in self.read[row.key]) == self.numbers
        prefixes: dict[str, list[int]] = defaultdict(list)
        for key in self.read.keys() - {row["key"] for row in left}:
            prefixes[key.split("/run=")[0]] += self.read[key]
        for prefix, numbers in prefixes.items():
            assert len(numbers) == len(set(numbers)), f"twice in {prefix}: {sorted(numbers)}"


@asynccontextmanager
async def history(url: str, store: BronzeStore, seed: int) -> AsyncIterator[History]:
    await migrate(url)
    pool = create_pool(url, size=4)
    await pool.open(wait=True)
    async with pool.connection() as db:
        spec = {"image": f"i@sha256:{'0' * 64}", "stage": "certified", "manifest": MANIFEST}
        await definitions.upsert_definition(db, "d1", "faker-generate-0.1.0", 1, DefinitionSpec.model_validate(spec))
    made = History(url, store, random.Random(seed), pool)
    try:
        yield made
    finally:
        await made.pool.close()
        with psycopg.connect(url.rsplit("/", 1)[0] + "/postgres", autocommit=True) as connection_:
            for (name,) in connection_.execute("SELECT datname FROM pg_database WHERE datname ~ '^b[0-9a-f]{32}$'"):
                connection_.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


async def everything(pool: Pool) -> Any:
    async with pool.connection() as db:
        return [
            await many(db, f"SELECT * FROM penstock.{table} ORDER BY 1, 2, 3")
            for table in (
                "connector_run_state",
                "bronze_objects",
                "connector_runs",
                "tenant_connections",
                "run_attempts",
            )
        ]


@pytest.mark.parametrize("seed", range(HISTORIES))
async def test_after_a_restore_and_a_reconcile_nothing_is_read_twice(
    database_url: str, store: BronzeStore, seed: int
) -> None:
    async with history(database_url, store, seed) as life:
        before = life.chance.randrange(STEPS)
        name = await life.backup() if before == 0 else ""
        for step in range(1, STEPS):
            if step == before:
                name = await life.backup()
            if not life.in_flight:
                await life.chance.choice([life.run, life.run, life.run, life.reset, life.again])()
            if life.chance.random() < 0.1 and not life.in_flight:
                await life.begin()
        await life.restore(name)
        as_it_was = await everything(life.pool)
        told = await reconcile_registry(life.pool, store, dry_run=True)
        assert await everything(life.pool) == as_it_was, "a dry run changes nothing"
        assert await reconcile_registry(life.pool, store) == told
        await life.deliver()
        assert await reconcile_registry(life.pool, store) == [], "once more, and there is nothing to do"
        await life.check()
        await life.apply()
        async with life.pool.connection() as db:
            for active in await run_store.active_runs(db, life.uid):
                held = await run_store.lock_run(db, active.id)
                assert held is not None
                await transitions.stop(db, held)
        for _ in range(2):
            await life.run()
            await life.check()


async def test_it_refuses_beside_a_controller_and_with_another_bucket(
    database_url: str, store: BronzeStore, s3_server: Any
) -> None:
    async with history(database_url, store, 0) as life:
        await life.run()
        controller = create_pool(database_url, size=1, name=CONTROLLER)
        await controller.open(wait=True)
        with pytest.raises(ReconcileError, match="stop it first"):
            await reconcile_registry(life.pool, store)
        await controller.close()
        other = BronzeStore(store.settings.__class__(**{**vars(store.settings), "prefix": uuid.uuid4().hex}))
        with pytest.raises(ReconcileError, match="PENSTOCK_S3_BUCKET"):
            await reconcile_registry(life.pool, other)


BROKEN: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "it is not JSON"),
    "truncated": (b'{"version": 2, "run": "', "it is not JSON"),
    "not UTF-8": (b"\xff\xfe", "it is not JSON"),
    "another document": (b"[1]", "it is not a commit manifest"),
    "without states": (b'{"version": 2, "run": "r", "objects": [], "rejected": []}', "phase is missing"),
    "of the future": (b'{"version": 99}', "a newer version of Penstock wrote it"),
}


@pytest.mark.parametrize("broken", BROKEN)
async def test_a_manifest_that_cannot_be_read_leaves_its_connection_as_it_is(
    database_url: str, store: BronzeStore, broken: str
) -> None:
    """Without it, its run's objects would count as never committed, and the collector would delete them."""
    body, why = BROKEN[broken]
    async with history(database_url, store, 3) as life:
        await life.run()
        name = await life.backup()
        await life.run()
        await life.run()
        (page,) = [await store.list_page(f"{store.settings.prefix}/tenant=team/connection=orders/_commits/", None)]
        key = max(key for key, _ in page.objects)
        good = store.read(key)
        await store.put(key, body, "application/json")
        await life.restore(name)
        as_it_was = await everything(life.pool)
        (told,) = await reconcile_registry(life.pool, store)
        assert await everything(life.pool) == as_it_was
        assert told.left_alone
        assert f"{key}: {why}" in told.notes[0]
        await store.put(key, good, "application/json")
        (told,) = await reconcile_registry(life.pool, store)
        assert (told.runs, told.left_alone) == (2, False)
        life.known = (life.generation, life.numbers)


async def test_runs_of_another_installation_below_the_same_prefix_are_left_alone(
    database_url: str, store: BronzeStore
) -> None:
    async with history(database_url, store, 4) as life:
        await life.run()
        name = await life.backup()
        await life.run()
        (page,) = [await store.list_page(f"{store.settings.prefix}/tenant=team/connection=orders/_commits/", None)]
        for key in sorted(key for key, _ in page.objects)[1:]:
            manifest = json.loads(store.read(key))
            manifest["registry"]["installation"] = "another"
            await store.put(key, json.dumps(manifest).encode(), "application/json")
        await life.restore(name)
        as_it_was = await everything(life.pool)
        (told,) = await reconcile_registry(life.pool, store)
        assert told.notes == ["1 runs are of another installation, which writes below the same prefix; left alone"]
        assert await everything(life.pool) == as_it_was


async def test_what_was_deleted_from_the_bucket_is_not_there_again(database_url: str, store: BronzeStore) -> None:
    async with history(database_url, store, 1) as life:
        await life.run()
        await life.run()
        name = await life.backup()
        doomed = min(life.read)
        await store.delete([doomed])
        await life.restore(name)
        (told,) = await reconcile_registry(life.pool, store)
        assert told.deleted == 1
        async with life.pool.connection() as db:
            gone = await one(db, "SELECT 1 FROM penstock.bronze_objects WHERE key = %(key)s", key=doomed)
        assert gone is None


async def test_a_registry_that_was_lost_knows_its_connections_again(database_url: str, store: BronzeStore) -> None:
    async with history(database_url, store, 2) as life:
        name = await life.backup()
        await life.run()
        await life.again()
        await life.run()
        await life.restore(name)
        (told,) = await reconcile_registry(life.pool, store)
        assert (told.runs, told.objects, told.streams) == (2, 2, 2)
        assert told.notes == ["recorded again; it goes on when it is applied"]
        await life.run()
        await life.check()
