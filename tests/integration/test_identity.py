"""Who goes on with whose state: any sequence of applying, deleting, renaming and running, against an oracle."""

from __future__ import annotations

import os
import random
from collections import defaultdict
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from penstock_operator import definitions
from penstock_operator.api.paging import PageRequest
from penstock_operator.api.queries import ObjectFilter, list_objects
from penstock_operator.connections import connection_records, connection_store
from penstock_operator.controller.retirement import retire_connection
from penstock_operator.errors import Fenced
from penstock_operator.ids import Namespace, new_run_id
from penstock_operator.registry.database import many
from penstock_operator.resources.models import DefinitionSpec
from penstock_operator.retention import purge
from penstock_operator.runs import attempt_store, run_store
from penstock_operator.runs.protocol import PodIdentity
from penstock_operator.scheduling import fairness
from penstock_sdk import protocol as wire

from tests.integration.world import MANIFEST, STREAM, World
from tests.reconciling import reconcile
from tests.run_api.pods import START_KEY

SEQUENCES = int(os.environ.get("PENSTOCK_IDENTITY_SEQUENCES", "12"))
STEPS = 16
OTHER = {**MANIFEST, "name": "other"}
IMAGE = f"i@sha256:{'0' * 64}"


@dataclass
class Apart:
    """One connection's life: what stands in the cluster, and what the oracle knows of the records in each prefix."""

    world: World
    chance: random.Random
    name: str
    uid: str | None = None
    numbers: int = 0
    namespace: int = 1
    connector: str = "faker"
    read: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    retired: list[tuple[int, str, int]] = field(default_factory=list)
    cursor: int = 0

    def document(self) -> dict[str, Any]:
        spec = {
            "connector": {"name": self.connector, "method": "generate"},
            "streams": [{"name": "people", "mode": "incremental"}],
            "bronze": {"deletionPolicy": "Delete"},
        }
        metadata = {"uid": self.uid, "namespace": "team", "name": self.name, "generation": self.numbers}
        return {"apiVersion": "penstock.io/v1alpha1", "kind": "TenantConnection", "metadata": metadata, "spec": spec}

    async def step(self) -> None:
        choices = [self.run, self.run, self.delete, self.missed, self.rename, self.recreate, self.purge, self.overlap]
        await self.chance.choice(choices)()
        await self.check()

    async def apply(self) -> None:
        self.numbers += 1
        if self.uid is None:
            self.uid = f"{self.name}-{self.numbers}"
            same = [attempt for attempt in self.retired if attempt[:2] == (self.namespace, self.connector)]
            self.cursor = same[-1][2] if same else 0
            if same:
                self.retired.remove(same[-1])

        async def namespace_uid(_: str) -> str | None:
            return f"namespace-{self.namespace}"

        status = await reconcile(self.world.pool, self.document(), namespace_uid)
        assert status["definition"], status["conditions"]

    async def delete(self) -> None:
        if self.uid:
            await retire_connection(self.world.pool, "team", self.name)
            self.gone()

    def gone(self) -> None:
        if self.uid:
            self.retired.append((self.namespace, self.connector, self.cursor))
            self.uid = None

    async def missed(self) -> None:
        """Delete and apply again before anybody looks."""
        self.gone()
        await self.apply()

    async def rename(self) -> None:
        """Use the other connector, in place or not; what either left behind stays its own."""
        if self.chance.random() < 0.5:
            await self.delete()
        self.cursor = 0
        self.connector = "other" if self.connector == "faker" else "faker"
        await self.apply()

    async def recreate(self) -> None:
        """Delete the namespace, and make one of the same name."""
        await self.delete()
        self.namespace += 1

    async def purge(self) -> None:
        if self.uid is None:
            async with self.world.pool.connection() as db:
                await purge.begin_purges(db, datetime.now(UTC) + timedelta(hours=1), 1000)
            self.retired.clear()

    async def started(self) -> tuple[str, str, wire.StreamVerdict]:
        await self.apply()
        run_id = new_run_id()
        async with self.world.pool.connection() as db:
            row = await connection_store.connection_by_name(db, "team", self.name)
            assert row is not None
            new = run_store.NewRun(run_id, row.uid, row.definition_uid, row.spec.document(), token=run_id)
            assert await run_store.insert_run(db, new)
            taken = await fairness.claim_runs(db, datetime.now(UTC) + timedelta(hours=1), 1)
            assert [claimed.run_id for claimed in taken] == [run_id]
            await attempt_store.record_job(db, run_id, 1, f"job-{run_id}")
        identity = wire.ConnectorIdentity(name=self.connector, method="generate", version="0.1.0")
        request = wire.StartRequest(run=run_id, attempt=1, connector=identity, sdk_version="0", key=START_KEY)
        start = await self.world.protocol.start(PodIdentity(f"pod-{run_id}", f"job-{run_id}"), request)
        answer = await self.world.protocol.streams(start.run_token, wire.StreamsRequest(streams=[STREAM]))
        (verdict,) = answer.verdicts
        return run_id, start.run_token, verdict

    async def commit(self, token: str, verdict: wire.StreamVerdict) -> None:
        """Read three records after the cursor, and commit them."""
        selected = verdict.selected
        cursor = (selected.cursor or {"n": 0})["n"]
        assert cursor == self.cursor, "goes on where it was, or begins anew"
        uploaded = await self.world.upload(token)
        await self.world.protocol.checkpoint(
            token,
            wire.CheckpointRequest(
                stream="people",
                checkpoint=selected.checkpoint + 1,
                cursor={"n": cursor + 3},
                objects=[uploaded],
                done=True,
            ),
        )
        self.read[uploaded.key] = list(range(cursor + 1, cursor + 4))
        self.cursor = cursor + 3

    async def run(self) -> None:
        _, token, verdict = await self.started()
        await self.commit(token, verdict)
        finish = wire.FinishRequest(outcome="succeeded", records={"people": 3})
        await self.world.protocol.finish(token, finish)

    async def overlap(self) -> None:
        """Apply it again under another uid while its run is under way: that run commits nothing any more."""
        _, token, verdict = await self.started()
        await self.missed()
        with pytest.raises(Fenced):
            await self.commit(token, verdict)

    async def check(self) -> None:
        prefixes: dict[str, list[int]] = defaultdict(list)
        async with self.world.pool.connection() as db:
            rows = await many(
                db,
                "SELECT key FROM penstock.bronze_objects WHERE committed_at IS NOT NULL AND key = ANY(%(keys)s)",
                keys=list(self.read),
            )
            for row in rows:
                prefixes[row["key"].split("/run=")[0]] += self.read[row["key"]]
            shown = (await list_objects(db, PageRequest(1000), ObjectFilter(Namespace("team"), self.name))).items
        for prefix, numbers in prefixes.items():
            assert len(numbers) == len(set(numbers)), f"twice in {prefix}: {sorted(numbers)}"
        if self.uid:
            seen = sorted(number for row in shown for number in self.read[row.key])
            assert seen == list(range(1, self.cursor + 1)), (seen, self.cursor)


@pytest.mark.parametrize("seed", range(SEQUENCES))
async def test_no_record_is_twice_in_a_generation_and_none_is_lost(world: World, seed: int) -> None:
    async with world.pool.connection() as db:
        for uid, manifest in (("d1", MANIFEST), ("d2", OTHER)):
            spec = {"image": IMAGE, "stage": "certified", "manifest": manifest}
            await definitions.upsert_definition(
                db, uid, f"{manifest['name']}-generate-0.1.0", 1, DefinitionSpec.model_validate(spec)
            )
    life = Apart(world, random.Random(seed), f"people-{seed}")
    for _ in range(STEPS):
        await life.step()


async def test_the_tables_that_refer_to_a_connection_follow_its_uid(world: World) -> None:
    async with world.pool.connection() as db:
        rows = await many(
            db,
            "SELECT conrelid::regclass::text AS owner FROM pg_constraint WHERE contype = 'f' AND confupdtype <> 'c'"
            " AND confrelid = 'penstock.tenant_connections'::regclass",
        )
        assert rows == [], "add ON UPDATE CASCADE: a connection that is applied again has another uid"


async def test_a_namespace_that_nobody_may_read_is_nobodys(world: World) -> None:
    async def unreadable(_: str) -> str | None:
        return None

    async with world.pool.connection() as db:
        await connection_records.retire_connection(db, "team", "orders")
    life = Apart(world, random.Random(0), "orders", uid="c2", numbers=1)
    await reconcile(world.pool, life.document(), unreadable)
    async with world.pool.connection() as db:
        row = await connection_store.connection_by_uid(db, "c2")
    assert row is not None
    assert row.first_generation == 2, "another one's objects are in the first"
