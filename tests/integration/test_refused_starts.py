"""A pod that may not run: the connection's owner reads why, and nothing of it is tried again."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from penstock_operator.errors import Fenced, Invalid, Unauthenticated
from penstock_operator.registry.database import Row, execute, one
from penstock_operator.runs import attempt_store
from penstock_operator.runs.protocol import PodIdentity
from penstock_operator.scheduling import fairness
from penstock_sdk import protocol as wire

from tests.integration.world import IDENTITY, World
from tests.run_api.pods import START_KEY


async def _launched(world: World) -> tuple[str, int]:
    async with world.pool.connection() as db:
        (taken,) = await fairness.claim_runs(db, datetime.now(UTC) + timedelta(hours=1), 1)
        await attempt_store.record_job(db, taken.run_id, taken.attempt, "job")
    return taken.run_id, taken.attempt


async def _row(world: World, run_id: str) -> Row:
    async with world.pool.connection() as db:
        row = await one(db, "SELECT * FROM penstock.connector_runs WHERE id = %(id)s", id=run_id)
    assert row is not None
    return row


async def test_an_image_with_another_connector_fails_the_run_with_the_remedy(world: World) -> None:
    await world.new_run()
    run_id, attempt = await _launched(world)
    other = IDENTITY.model_copy(update={"version": "9.9.9"})
    request = wire.StartRequest(run=run_id, attempt=attempt, connector=other, sdk_version="0", key=START_KEY)
    with pytest.raises(Unauthenticated):
        await world.protocol.start(PodIdentity("pod", "another Job"), request)
    assert (await _row(world, run_id))["phase"] == "running"
    with pytest.raises(Invalid):
        await world.protocol.start(PodIdentity("pod", "job"), request)
    row = await _row(world, run_id)
    assert (row["phase"], row["reason"], row["error_class"]) == ("failed", "ConfigError", "ConfigError")
    assert "the image holds faker-generate-9.9.9" in row["message"]
    assert "publish the definition with its own image" in row["message"]
    with pytest.raises(Fenced):
        await world.protocol.start(PodIdentity("pod", "job"), request)


async def test_state_of_another_version_fails_the_run_with_the_remedy(world: World) -> None:
    await world.new_run()
    _, _, token = await world.attempt()
    uploaded = await world.upload(token)
    done = wire.CheckpointRequest(stream="people", checkpoint=1, cursor={"n": 3}, objects=[uploaded], done=True)
    await world.protocol.checkpoint(token, done)
    await world.protocol.finish(token, wire.FinishRequest(outcome="succeeded", records={"people": 3}))
    async with world.pool.connection() as db:
        await execute(db, "UPDATE penstock.connector_run_state SET state_version = 7")
    await world.new_run("run2")
    run_id, attempt = await _launched(world)
    request = wire.StartRequest(run=run_id, attempt=attempt, connector=IDENTITY, sdk_version="0", key=START_KEY)
    with pytest.raises(Invalid):
        await world.protocol.start(PodIdentity("pod", "job"), request)
    row = await _row(world, run_id)
    assert row["phase"] == "failed"
    assert "the state of people was written by another state version than 1" in row["message"]
    assert "reset the state" in row["message"]
