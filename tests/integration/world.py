"""A registry with one connection, and the run protocol over it, for tests to play pods and takeovers on."""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from importlib import resources
from typing import Any

import httpx
import yaml
from penstock_operator import definitions
from penstock_operator.bronze.store import BronzeStore
from penstock_operator.connections import connection_records
from penstock_operator.connections.connection_records import ConnectionRecord
from penstock_operator.ids import ConnectionName, ConnectionUid, DefinitionName, DefinitionUid, Namespace
from penstock_operator.registry.database import Pool, one
from penstock_operator.resources.models import ConnectionSpec, DefinitionSpec
from penstock_operator.runs import attempt_store, run_store, transitions
from penstock_operator.runs.attempt_store import AttemptOutcome
from penstock_operator.runs.protocol import PodIdentity, RunProtocol
from penstock_operator.runs.run_store import NewRun
from penstock_operator.scheduling import fairness
from penstock_sdk import protocol as wire

from tests.patience import PATIENCE
from tests.run_api.pods import START_KEY

MANIFEST = yaml.safe_load((resources.files("penstock_faker_generate") / "connector.yaml").read_text())
IDENTITY = wire.ConnectorIdentity(name="faker", method="generate", version="0.1.0")
STREAM = wire.DiscoveredStream(
    name="people", schema_={"type": "object"}, primary_key=["n"], modes=["full", "incremental"]
)


EVENTS = STREAM.model_copy(update={"name": "events"})


@dataclass
class World:
    """A registry with one connection, and the protocol over it."""

    pool: Pool
    protocol: RunProtocol
    store: BronzeStore
    spec: dict[str, Any]

    async def new_connection(self, uid: str) -> None:
        """Record another connection, named as its uid: the runs of one take turns, those of several do not."""
        record = connection_record(uid, uid, self.spec)
        async with self.pool.connection() as db:
            await connection_records.upsert_connection(db, record)

    async def waiting(self, statements: int = 1) -> None:
        """Return once so many statements on this database wait for a lock that another transaction holds."""
        query = (
            "SELECT count(*) AS n FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        )
        async with asyncio.timeout(PATIENCE), self.pool.connection() as db:
            while (await one(db, query) or {"n": 0})["n"] < statements:
                await asyncio.sleep(0.01)

    async def new_run(self, run_id: str = "run1", connection: str = "c1", **due: Any) -> bool:
        """Insert a run."""
        async with self.pool.connection() as opened:
            return await run_store.insert_run(opened, NewRun(run_id, connection, "d1", self.spec, **due))

    async def claim(self, job_uid: str) -> tuple[str, int]:
        """Claim the next attempt, bind it to a Job, and return run and attempt."""
        async with self.pool.connection() as db:
            (taken,) = await fairness.claim_runs(db, datetime.now(UTC) + timedelta(hours=1), 1)
            await attempt_store.record_job(db, taken.run_id, taken.attempt, job_uid)
        return taken.run_id, taken.attempt

    async def attempt(self, pod: str = "pod1", *, discover: bool = True) -> tuple[str, int, str]:
        """Claim the next attempt, bind it to a Job, start it as a pod, and return run, attempt and token."""
        run_id, number = await self.claim(f"job-{pod}")
        request = wire.StartRequest(run=run_id, attempt=number, connector=IDENTITY, sdk_version="0", key=START_KEY)
        start = await self.protocol.start(PodIdentity(pod, f"job-{pod}"), request)
        if discover:
            await self.protocol.streams(start.run_token, wire.StreamsRequest(streams=[STREAM, EVENTS]))
        return run_id, number, start.run_token

    async def granted(
        self, token: str, body: bytes = b"body", after: int = 0, stream: str = "people", kind: wire.ObjectKind = "data"
    ) -> wire.UploadGrant:
        """Return the grant of the object with this content that follows the sequence number `after`."""
        digest = hashlib.sha256(body).hexdigest()
        wanted = wire.ObjectToUpload(sequence=after + 1, bytes=len(body), sha256=digest)
        (grant,) = (
            await self.protocol.uploads(token, wire.UploadsRequest(stream=stream, kind=kind, objects=[wanted]))
        ).grants
        return grant

    async def upload(
        self,
        token: str,
        after: int = 0,
        records: int = 3,
        stream: str = "people",
        kind: wire.ObjectKind = "data",
        body: bytes = b"body",
    ) -> wire.UploadedObject:
        """Upload one object."""
        grant = await self.granted(token, body, after, stream, kind)
        answer = await asyncio.to_thread(httpx.put, grant.url, content=body, headers=grant.headers)
        assert answer.status_code == 200, answer.text
        digest = hashlib.sha256(body).hexdigest()
        return wire.UploadedObject(
            key=grant.key, sequence=grant.sequence, records=records, bytes=len(body), sha256=digest, kind=kind
        )

    async def fail(self, run_id: str, attempt: int) -> None:
        """Have the platform give the attempt up, so that another can take over."""
        async with self.pool.connection() as db:
            assert await transitions.fail_current(
                db, run_id, attempt, AttemptOutcome("lost", "AttemptLost"), disrupted=True
            )


def connection_record(uid: str, name: str, spec: dict[str, Any]) -> ConnectionRecord:
    """Return a connection of the namespace `team` that uses the definition d1."""
    parsed = ConnectionSpec.parse(spec)
    return ConnectionRecord(
        ConnectionUid(uid), Namespace("team"), ConnectionName(name), 1, parsed, DefinitionUid("d1"), ready=True
    )


async def new_world(pool: Pool, store: BronzeStore) -> World:
    """Record a definition and a connection."""
    spec = {
        "connector": {"name": "faker", "method": "generate"},
        "streams": [{"name": "people", "mode": "incremental"}],
    }
    async with pool.connection() as db:
        await definitions.upsert_definition(
            db,
            DefinitionUid("d1"),
            DefinitionName("faker-generate-0.1.0"),
            1,
            DefinitionSpec.model_validate({"image": "i@sha256:0", "stage": "certified", "manifest": MANIFEST}),
        )
        await connection_records.upsert_connection(db, connection_record("c1", "orders", spec))
    return World(pool, RunProtocol(pool, store), store, spec)


def checkpoint(
    number: int, *objects_: wire.UploadedObject, done: bool = False, stream: str = "people"
) -> wire.CheckpointRequest:
    """A checkpoint request whose cursor tells its number."""
    return wire.CheckpointRequest(
        stream=stream, checkpoint=number, cursor={"n": number}, objects=list(objects_), done=done
    )
