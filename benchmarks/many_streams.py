"""POST /streams with 5,000 streams of 50 columns against a real Postgres: the first time, unchanged, and all changed."""

from __future__ import annotations

import asyncio
import json
import tempfile
import time
from pathlib import Path

from penstock_operator.embedded.postgres import EmbeddedPostgres
from penstock_operator.ids import AttemptNumber, ConnectionName, ConnectionUid, Namespace, RunId
from penstock_operator.registry.database import Pool, create_pool
from penstock_operator.registry.migrate import migrate
from penstock_operator.runs import stream_verdicts
from penstock_operator.runs.attempt_store import HeldAttempt
from penstock_operator.runs.run_spec import RunSpec
from penstock_sdk.json_types import JsonSchema
from penstock_sdk.pii import suggest_fields
from penstock_sdk.protocol import DiscoveredStream, StreamsRequest

STREAMS, COLUMNS = 5000, 50


def posted(columns: int) -> bytes:
    """Return the request's body, as a pod sends it."""
    properties: dict[str, JsonSchema] = {
        f"column_{n}": {"type": ["string", "null"], "x-sql-type": "text"} for n in range(columns)
    }
    schema: JsonSchema = {"type": "object", "properties": properties, "required": list(properties)}
    streams = [
        DiscoveredStream(
            name=f"schema.table_{n}",
            schema_=schema,
            primary_key=["column_0"],
            pii_suggested=dict(suggest_fields(schema)),
        )
        for n in range(STREAMS)
    ]
    return StreamsRequest(streams=streams, abilities=["drop"]).model_dump_json(by_alias=True).encode()


async def judged(pool: Pool, body: bytes) -> float:
    """Return how long the server takes from the body to the answer's bytes."""
    attempt = HeldAttempt(
        run_id=RunId("r"),
        attempt=AttemptNumber(1),
        phase="running",
        finished_at=None,
        streams=[],
        incremental=[],
        refused={},
        run_phase="running",
        connection_uid=ConnectionUid("c"),
        spec=RunSpec.parse({"connector": {"name": "faker", "method": "generate"}}),
        namespace=Namespace("team"),
        name=ConnectionName("many"),
        first_generation=1,
        state_version=1,
        credentials=[],
        job_name="job",
        pod_uid=None,
    )
    began = time.perf_counter()
    offer = await stream_verdicts.read_offer(StreamsRequest.model_validate_json(body))
    async with pool.connection() as db, db.transaction():
        verdicts = await stream_verdicts.judge_streams(db, attempt, offer, "bronze")
    json.dumps([each.model_dump() for each in verdicts])
    return time.perf_counter() - began


async def measure(url: str) -> None:
    """Print the three."""
    await migrate(url)
    pool = create_pool(url, size=4)
    await pool.open(wait=True)
    async with pool.connection() as db:
        await db.execute(
            b"INSERT INTO penstock.tenant_connections (uid, namespace, name, generation, spec, ready, suspended, time_zone)"
            b" VALUES ('c', 'team', 'many', 1, '{}', true, false, 'Etc/UTC')"
        )
    began = time.perf_counter()
    bodies = [posted(COLUMNS), posted(COLUMNS), posted(COLUMNS - 1)]
    print(f"made by the SDK: {(time.perf_counter() - began) / 3:.1f} s, {len(bodies[0]) / 1e6:.1f} MB")
    for what, body in zip(("the first time", "unchanged", "a column gone from each"), bodies, strict=True):
        print(f"{STREAMS:,} streams of {COLUMNS} columns, {what}: {await judged(pool, body):.1f} s")
    await pool.close()


if __name__ == "__main__":
    with EmbeddedPostgres(Path(tempfile.mkdtemp()) / "server") as server:
        asyncio.run(measure(server.url))
