"""Each stream of a run has its own outcome, which the registry decides by what is committed (invariants 6 and 18)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from penstock_operator.errors import Invalid
from penstock_operator.registry.database import one
from penstock_operator.runs import bronze_objects, stream_outcomes
from penstock_operator.runs.stream_outcomes import RunStream
from penstock_sdk import protocol as wire

from tests.installed import install
from tests.integration.test_up import User, numbers
from tests.integration.world import EVENTS, STREAM, World, checkpoint

BOTH = [{"name": "people"}, {"name": "events"}]
FAILED = wire.StreamOutcome(
    outcome="failed", error=wire.RunError(error_class="TransientError", message="stream 'events': 503")
)
SUCCEEDED = wire.StreamOutcome(outcome="succeeded")


async def begin(world: World, *selected: dict[str, Any]) -> tuple[str, int, str]:
    world.spec["streams"] = list(selected)
    await world.new_run()
    return await world.attempt()


async def streams(world: World) -> dict[str, RunStream]:
    async with world.pool.connection() as db:
        return {outcome.stream: outcome for outcome in await stream_outcomes.of_run(db, "run1")}


def failing(*told: tuple[str, wire.StreamOutcome], message: str = "stream 'events': 503") -> wire.FinishRequest:
    error = wire.RunError(error_class="TransientError", message=message)
    return wire.FinishRequest(outcome="failed", error=error, streams=dict(told))


@pytest.mark.parametrize(
    ("cursors", "progressed"),
    [((1, 1, 1), (True, False, False)), ((1, 2, 1), (True, True, False)), ((1, 2, 3), (True,) * 3)],
)
async def test_an_attempt_that_comes_no_further_than_one_before_it_has_not_progressed(
    world: World, cursors: tuple[int, ...], progressed: tuple[bool, ...]
) -> None:
    """A connector that ignores its cursor commits the same records each time, and would be tried again without end."""
    await begin_nothing(world)
    for number, cursor in enumerate(cursors, 1):
        run_id, attempt, token = await world.attempt(f"pod{number}")
        said = checkpoint(number, await world.upload(token)).model_copy(update={"cursor": {"n": cursor}})
        await world.protocol.checkpoint(token, said)
        async with world.pool.connection() as db:
            assert await bronze_objects.has_progressed(db, run_id, attempt) == progressed[number - 1]
        await world.fail(run_id, attempt)


async def begin_nothing(world: World) -> None:
    world.spec["streams"] = [{"name": "people", "mode": "incremental"}]
    await world.new_run()


async def test_18_a_stream_that_is_gone_before_it_was_read_to_its_end_fails_the_run(world: World) -> None:
    world.spec["streams"] = []
    await world.new_run()
    _, _, token = await world.attempt("pod1")
    await world.protocol.checkpoint(token, checkpoint(1, await world.upload(token)))
    await world.protocol.checkpoint(token, checkpoint(1, done=True, stream="events"))
    error = wire.RunError(error_class="TransientError", message="503")
    told = {"people": wire.StreamOutcome(outcome="failed", error=error), "events": SUCCEEDED}
    ended = wire.FinishRequest(outcome="failed", error=error, streams=told)
    assert (await world.protocol.finish(token, ended)).phase == "pending"
    _, _, token = await world.attempt("pod2", discover=False)
    await world.protocol.streams(token, wire.StreamsRequest(streams=[EVENTS]))
    assert (await world.protocol.finish(token, wire.FinishRequest(outcome="succeeded"))).phase == "failed"
    async with world.pool.connection() as db:
        run = await one(db, "SELECT * FROM penstock.connector_runs")
    assert run is not None
    assert run["error_class"] == "SourceContractError"
    assert run["message"].startswith("stream 'people' was not read to its end in attempt 1 (503); the source does not")
    assert (await streams(world))["events"].attempt == 1, "the attempt that read it"


async def test_18_a_retry_reads_only_the_streams_that_failed(world: World) -> None:
    _, attempt, token = await begin(world, *BOTH)
    await world.protocol.checkpoint(token, checkpoint(1, await world.upload(token), done=True))
    ended = await world.protocol.finish(token, failing(("people", SUCCEEDED), ("events", FAILED)))
    assert ended.phase == "pending"
    found = await streams(world)
    assert (found["people"].outcome, found["people"].records) == ("succeeded", 3)
    events = found["events"]
    assert (events.outcome, events.error_class, events.message) == ("failed", "TransientError", "stream 'events': 503")
    _, again, token = await world.attempt("pod2", discover=False)
    assert again == attempt + 1
    request = wire.StreamsRequest(streams=[STREAM, EVENTS])
    verdicts = (await world.protocol.streams(token, request)).verdicts
    assert [(verdict.name, verdict.read) for verdict in verdicts] == [("people", False), ("events", True)]
    await world.protocol.checkpoint(token, checkpoint(1, done=True, stream="events"))
    ended = await world.protocol.finish(token, wire.FinishRequest(outcome="succeeded", streams={"events": SUCCEEDED}))
    assert ended.phase == "succeeded"
    assert {name: stream.outcome for name, stream in (await streams(world)).items()} == {
        "people": "succeeded",
        "events": "succeeded",
    }


async def test_6_a_stream_has_succeeded_when_it_is_committed_and_not_when_a_pod_says_so(world: World) -> None:
    _, _, token = await begin(world, *BOTH)
    await world.protocol.checkpoint(token, checkpoint(1, await world.upload(token)))
    lie = failing(("people", SUCCEEDED), ("events", SUCCEEDED), ("nobody", SUCCEEDED), message="something")
    await world.protocol.finish(token, lie)
    found = await streams(world)
    assert found.keys() == {"people", "events"}
    assert {item.outcome for item in found.values()} == {"not_read"}


async def test_18_a_run_is_no_success_when_its_pod_says_that_a_stream_failed(world: World) -> None:
    _, _, token = await begin(world, *BOTH)
    for stream in ("people", "events"):
        await world.protocol.checkpoint(token, checkpoint(1, done=True, stream=stream))
    told = {"people": SUCCEEDED, "events": FAILED}
    assert (await world.protocol.finish(token, wire.FinishRequest(outcome="succeeded", streams=told))).phase == "failed"


async def test_the_reason_of_a_failure_outlives_an_attempt_that_is_killed(world: World) -> None:
    run_id, _, token = await begin(world, *BOTH)
    await world.protocol.finish(token, failing(("events", FAILED)))
    _, attempt, _ = await world.attempt("pod2")
    await world.fail(run_id, attempt)
    found = await streams(world)
    assert (found["events"].outcome, found["events"].message) == ("failed", "stream 'events': 503")
    assert found["people"].outcome == "not_read"


async def test_18_a_stream_that_the_source_does_not_offer_stops_no_other(world: World) -> None:
    world.spec["streams"] = [{"name": "poeple"}, {"name": "events"}, {"name": "people", "mode": "incremental"}]
    await world.new_run()
    _, _, token = await world.attempt(discover=False)
    offered = [STREAM.model_copy(update={"modes": ["full"]}), EVENTS]
    request = wire.StreamsRequest(streams=offered)
    verdicts = {verdict.name: verdict for verdict in (await world.protocol.streams(token, request)).verdicts}
    assert [name for name, verdict in verdicts.items() if verdict.read] == ["events"]
    assert verdicts["poeple"].reason == (
        "spec.streams[0].name: the source offers no stream 'poeple'; it offers: events, people (nearest: 'people')"
    )
    assert "cannot be read incremental: it can be read full" in verdicts["people"].reason
    await world.protocol.checkpoint(token, checkpoint(1, done=True, stream="events"))
    ended = await world.protocol.finish(token, wire.FinishRequest(outcome="succeeded"))
    assert ended.phase == "failed", "an SDK that knows nothing of refusals does not make it a success"
    found = await streams(world)
    assert {name: item.outcome for name, item in found.items()} == {
        "events": "succeeded",
        "poeple": "failed",
        "people": "failed",
    }
    async with world.pool.connection() as db:
        run = await one(db, "SELECT message FROM penstock.connector_runs")
    assert run is not None
    assert "'poeple'" in run["message"]


async def test_18_a_stream_that_is_unavailable_stops_no_other_and_changes_nothing_in_the_registry(world: World) -> None:
    """Its schema says nothing: no version and no alert is made of it; one that is not selected does not matter."""
    world.spec["streams"] = BOTH
    reason = wire.UnavailableReason(error_class="AuthenticationError", message="s3://b/x: the store refuses access")
    away = EVENTS.model_copy(update={"schema_": {"type": "object"}, "primary_key": [], "unavailable": reason})
    other = away.model_copy(update={"name": "unselected"})
    await world.new_run()
    _, _, token = await world.attempt(discover=False)
    await world.protocol.streams(token, wire.StreamsRequest(streams=[STREAM, EVENTS]))
    request = wire.StreamsRequest(streams=[STREAM, away, other])
    verdicts = {verdict.name: verdict for verdict in (await world.protocol.streams(token, request)).verdicts}
    assert verdicts.keys() == {"people", "events"}
    assert (verdicts["people"].read, verdicts["events"].refused) == (True, True)
    assert (verdicts["events"].error_class, verdicts["events"].reason) == (reason.error_class, reason.message)
    async with world.pool.connection() as db:
        versions = await one(db, "SELECT count(*) AS n FROM penstock.stream_registry WHERE stream = 'events'")
        alerts = await one(db, "SELECT count(*) AS n FROM penstock.compat_alerts")
    assert (versions, alerts) == ({"n": 1}, {"n": 0})


async def test_18_a_stream_that_was_read_in_this_run_does_not_fail_when_it_is_unavailable_later(world: World) -> None:
    """Its host went away after it was read: the retry reads the other one, and the run succeeds."""
    _, _, token = await begin(world, *BOTH)
    await world.protocol.checkpoint(token, checkpoint(1, await world.upload(token), done=True))
    await world.protocol.finish(token, failing(("people", SUCCEEDED), ("events", FAILED)))
    _, _, token = await world.attempt("pod2", discover=False)
    reason = wire.UnavailableReason(error_class="TransientError", message="the host is away")
    away = STREAM.model_copy(update={"schema_": {"type": "object"}, "primary_key": [], "unavailable": reason})
    verdicts = (await world.protocol.streams(token, wire.StreamsRequest(streams=[away, EVENTS]))).verdicts
    assert [(verdict.name, verdict.read) for verdict in verdicts] == [("events", True)]
    await world.protocol.checkpoint(token, checkpoint(1, done=True, stream="events"))
    ended = await world.protocol.finish(token, wire.FinishRequest(outcome="succeeded", streams={"events": SUCCEEDED}))
    assert ended.phase == "succeeded"
    assert {stream.outcome for stream in (await streams(world)).values()} == {"succeeded"}


async def test_a_stream_that_was_not_read_keeps_the_reason(world: World) -> None:
    _, _, token = await begin(world, *BOTH)
    left_out = wire.StreamOutcome(outcome="not_read", reason="the source asked for patience")
    await world.protocol.finish(token, failing(("events", FAILED), ("people", left_out)))
    found = (await streams(world))["people"]
    assert (found.outcome, found.message) == ("not_read", "the source asked for patience")


async def test_18_a_source_that_offers_nothing_is_no_success(world: World) -> None:
    world.spec.pop("streams")
    await world.new_run()
    _, _, token = await world.attempt(discover=False)
    with pytest.raises(Invalid, match="the source offers no stream to these credentials"):
        await world.protocol.streams(token, wire.StreamsRequest(streams=[]))


CONNECTOR = """
import json, os
from collections.abc import Iterator
import msgspec
from penstock_sdk import Batch, Connector, SourceContractError, Stream, TransientError


class Config(msgspec.Struct):
    allowed: int = 20
    broken: bool = False


class Throttled(Connector[Config, dict]):
    '''150 pages of 100; a session is let 20 pages through, and is told to wait then.'''

    def authenticate(self) -> None:
        self.left = self.config.allowed

    def discover(self) -> list[Stream]:
        names = ("a_broken", "pages", "small") if self.config.broken else ("pages",)
        return [
            Stream(name=n, schema={"type": "object"}, primary_key=("n",), modes=("full", "incremental")) for n in names
        ]

    def read(self, stream, since, cursor) -> Iterator[Batch]:
        if stream.name == "a_broken":
            yield Batch([{"n": n} for n in range(7)], cursor=7)
            raise SourceContractError("division by zero")
        last = 5 if stream.name == "small" else 150
        for page in range(cursor or 0, last):
            if not self.left:
                raise TransientError("429 Too Many Requests", retry_after=1)
            self.left -= 1
            yield Batch([{"n": page * 100 + n} for n in range(100)], cursor=page + 1)
"""
MANIFEST = """
name: throttled
method: rest
version: 0.1.0
title: Throttled
taxonomy: {category: test, tags: []}
capabilities: {modes: [full, incremental], discovery: dynamic}
authentication: {methods: [{type: none}]}
configSchema: {type: object, properties: {allowed: {type: integer}, broken: {type: boolean}}}
runners: [kubernetes, process]
compliance: {dataClassification: internal, pii: none}
"""


@pytest.fixture
def user(folder: Path, tmp_path: Path, backends_environment: dict[str, str]) -> User:
    installed = install(tmp_path / "site", "throttled-rest", "penstock_throttled:Throttled", CONNECTOR, MANIFEST)
    found = User(folder, tmp_path, {**backends_environment, **installed})
    found.write("definition.yaml", found.call("definition", "throttled-rest").stdout)
    return found


THROTTLED = {"name": "throttled", "method": "rest", "version": "0.1.0"}


def test_a_throttled_source_is_read_to_its_end_in_a_few_attempts(user: User) -> None:
    """With production limits: nothing hides lost progress behind a checkpoint for each record."""
    user.connection("pages", connector=THROTTLED, config={"allowed": 40})
    code, results, errors = user.up()
    assert code == 0, errors
    assert numbers(user.records(results["pages"])) == list(range(15_000))
    assert results["pages"]["attempt"] == 4


def test_one_broken_view_stops_no_other_table(user: User) -> None:
    user.connection("tables", connector=THROTTLED, config={"broken": True, "allowed": 1000})
    code, results, errors = user.up()
    assert code == 1, errors
    found = results["tables"]
    assert found["error"] == {"class": "SourceContractError", "message": "stream 'a_broken': division by zero"}
    assert {stream["stream"]: (stream["outcome"], stream["records"]) for stream in found["streams"]} == {
        "a_broken": ("failed", 7),
        "pages": ("succeeded", 15_000),
        "small": ("succeeded", 500),
    }
    shown = json.loads(user.call("runs", "show", found["run_id"], "-o", "json", "--data-dir", str(user.data)).stdout)
    assert {stream["stream"]: stream["outcome"] for stream in shown["streams"]} == {
        "a_broken": "failed",
        "pages": "succeeded",
        "small": "succeeded",
    }
