"""Drift against a real registry: versions, alerts opened, resolved and acknowledged, and runs that may not be green."""

from __future__ import annotations

import time
from typing import Any

import pytest
from penstock_operator import alerts
from penstock_operator.errors import Fenced, Invalid
from penstock_operator.registry.database import Row, many, one
from penstock_sdk import protocol as wire

from tests.integration.world import EVENTS, STREAM, World, checkpoint
from tests.reconciling import reconcile

TEXT = {"type": "string"}


def people(**properties: Any) -> wire.DiscoveredStream:
    schema = {"type": "object", "properties": {"n": {"type": "integer"}, **properties}}
    return STREAM.model_copy(update={"schema_": schema})


async def post(
    world: World,
    *streams: wire.DiscoveredStream,
    abilities: tuple[str, ...] = ("drop", "care"),
    drift: list[wire.AnnouncedDrift] | None = None,
) -> tuple[str, list[wire.StreamVerdict]]:
    """Begin a run, post the streams, and return the attempt's token and its verdicts."""
    number = time.monotonic_ns()
    await world.new_run(f"run{number}", token=str(number))
    _, _, token = await world.attempt(f"pod{number}", discover=False)
    request = wire.StreamsRequest(streams=list(streams), abilities=list(abilities), drift=drift or [])
    return token, (await world.protocol.streams(token, request)).verdicts


async def finish(world: World, token: str, *done: str) -> Row:
    """Read the streams named, finish as a pod that knows nothing of refusals, and return the run."""
    states = {row["stream"]: row["checkpoint"] for row in await rows(world, "connector_run_state")}
    for stream in done:
        await world.protocol.checkpoint(token, checkpoint(states.get(stream, 0) + 1, done=True, stream=stream))
    await world.protocol.finish(token, wire.FinishRequest(outcome="succeeded"))
    return (await rows(world, "connector_runs", "ORDER BY id DESC LIMIT 1"))[0]


async def rows(world: World, table: str, more: str = "") -> list[Row]:
    async with world.pool.connection() as db:
        return await many(db, f"SELECT * FROM penstock.{table} {more}")


async def open_kinds(world: World) -> list[tuple[str, str]]:
    async with world.pool.connection() as db:
        return [(alert.kind, alert.path) for alert in await alerts.open_alerts_of(db, "c1")]


async def acknowledge_all(world: World) -> None:
    async with world.pool.connection() as db:
        for alert in await alerts.open_alerts_of(db, "c1"):
            assert await alerts.acknowledge_alert(db, alert.id, "ada", "seen")


def select(world: World, **spec: Any) -> None:
    world.spec.clear()
    world.spec.update({"connector": {"name": "faker", "method": "generate"}, **spec})


async def test_evolve_makes_a_version_and_alerts_where_a_reader_may_fail(world: World) -> None:
    token, _ = await post(world, people(a=TEXT, b=TEXT))
    await finish(world, token, "people")
    token, (verdict,) = await post(world, people(b={"type": "integer"}, c=TEXT))
    assert (verdict.read, verdict.schema_version) == (True, 2)
    assert await open_kinds(world) == [("FieldRemoved", "a"), ("TypeChanged", "b")]
    assert (await finish(world, token, "people"))["phase"] == "succeeded"


async def test_an_alert_is_resolved_when_the_schema_goes_back(world: World) -> None:
    for schema in (people(a=TEXT), people(), people()):
        token, _ = await post(world, schema)
        await finish(world, token, "people")
    assert await open_kinds(world) == [("FieldRemoved", "a")]
    token, (verdict,) = await post(world, people(a=TEXT))
    assert await open_kinds(world) == []
    assert verdict.schema_version == 3
    (alert,) = await rows(world, "compat_alerts")
    assert (alert["resolved_at"] is not None, alert["acknowledged_by"]) == (True, None)


async def test_other_words_make_no_version_and_are_kept(world: World) -> None:
    for title in ("A", "B"):
        token, (verdict,) = await post(world, people(a={**TEXT, "title": title}))
        await finish(world, token, "people")
        assert verdict.schema_version == 1
    (row,) = await rows(world, "stream_registry")
    assert row["schema"]["properties"]["a"]["title"] == "B"


async def test_a_frozen_stream_holds_up_no_other_and_the_run_is_not_green(world: World) -> None:
    select(world, streams=[{"name": "people", "schemaPolicy": "freeze"}, {"name": "events"}])
    token, _ = await post(world, people(a=TEXT), EVENTS)
    assert (await finish(world, token, "people", "events"))["phase"] == "succeeded"
    token, verdicts = await post(world, people(), EVENTS)
    assert [(verdict.name, verdict.read, verdict.refused) for verdict in verdicts] == [
        ("people", False, True),
        ("events", True, False),
    ]
    run = await finish(world, token, "events")
    assert (run["phase"], run["error_class"]) == ("failed", "SourceContractError")
    assert "'people' is frozen" in run["message"]
    assert "field 'a' is gone" in run["message"]
    assert len(await rows(world, "stream_registry", "WHERE stream = 'people'")) == 1

    await acknowledge_all(world)
    token, verdicts = await post(world, people(), EVENTS)
    assert [(verdict.read, verdict.schema_version) for verdict in verdicts] == [(True, 2), (True, 1)]
    assert (await finish(world, token, "people", "events"))["phase"] == "succeeded"
    assert await open_kinds(world) == []


async def test_discard_new_names_the_fields_to_drop_and_an_old_sdk_may_not_read(world: World) -> None:
    select(world, schemaPolicy="discard-new", streams=[{"name": "people"}])
    token, _ = await post(world, people())
    await finish(world, token, "people")
    token, (verdict,) = await post(world, people(a=TEXT))
    assert (verdict.read, verdict.schema_version, verdict.drop) == (True, 1, [["a"]])
    await finish(world, token, "people")
    token, (verdict,) = await post(world, people(a=TEXT), abilities=())
    assert (verdict.read, verdict.refused) == (False, True)
    assert (await finish(world, token))["phase"] == "failed"
    assert await open_kinds(world) == [("FieldDiscarded", "a")]


async def test_block_pii_reads_nothing_until_somebody_accepts(world: World) -> None:
    select(world, schemaPolicy="block-pii", streams=[{"name": "people"}])
    stream = people(email=TEXT).model_copy(update={"pii": ["email"]})
    token, (verdict,) = await post(world, stream)
    assert (verdict.read, verdict.schema_version) == (False, 1)
    assert (await finish(world, token))["error_class"] == "SourceContractError"
    await acknowledge_all(world)
    token, (verdict,) = await post(world, stream)
    assert verdict.read
    assert (await finish(world, token, "people"))["phase"] == "succeeded"
    assert await open_kinds(world) == []


async def test_what_values_gave_away_is_blocked_from_the_next_run_on(world: World) -> None:
    select(world, schemaPolicy="block-pii", streams=[{"name": "people"}])
    token, (verdict,) = await post(world, people(c1=TEXT))
    assert verdict.read
    await world.protocol.checkpoint(token, checkpoint(1, done=True))
    found = {"people": {"c1": "email", "gone": "phone"}, "nobody": {"x": "email"}}
    await world.protocol.finish(token, wire.FinishRequest(outcome="succeeded", pii_suggested=found))
    for schema in (people(c1=TEXT), people(c1=TEXT, c2=TEXT)):  # also across versions
        token, (verdict,) = await post(world, schema)
        assert (verdict.read, await open_kinds(world)) == (False, [("PiiAdded", "c1")])
        await finish(world, token)
    await acknowledge_all(world)
    _, (verdict,) = await post(world, people(c1=TEXT, c2=TEXT))
    assert verdict.read


async def test_a_stream_that_vanishes_is_noticed_where_all_are_selected(world: World) -> None:
    select(world)
    token, _ = await post(world, STREAM, EVENTS)
    await finish(world, token, "people", "events")
    token, verdicts = await post(world, STREAM)
    assert [verdict.name for verdict in verdicts] == ["people"]
    assert await open_kinds(world) == [("StreamRemoved", "")]
    await finish(world, token, "people")
    await post(world, STREAM, EVENTS)
    assert await open_kinds(world) == []


async def test_a_stream_keeps_its_identity_when_its_name_changes(world: World) -> None:
    select(world, streams=[{"name": "Customers", "mode": "incremental"}])
    named = STREAM.model_copy(update={"name": "Customers", "id": "obj-7"})
    token, (verdict,) = await post(world, named)
    assert verdict.name == "obj-7"
    await world.protocol.checkpoint(token, checkpoint(1, done=True, stream="obj-7"))
    await world.protocol.finish(token, wire.FinishRequest(outcome="succeeded"))
    for _ in range(2):  # the registry knows what it was called, and goes on knowing
        token, (verdict,) = await post(world, named.model_copy(update={"name": "Clients"}))
        assert (verdict.name, verdict.selected.cursor, verdict.schema_version) == ("obj-7", {"n": 1}, 1)
        await finish(world, token, "obj-7")
        await put_cursor(world)
    assert {row["display_name"] for row in await rows(world, "stream_registry")} == {"Clients"}


async def put_cursor(world: World) -> None:
    async with world.pool.connection() as db:
        await db.execute(b"UPDATE penstock.connector_run_state SET cursor = '{\"n\": 1}'")


async def test_what_the_connector_announces_is_an_alert_for_as_long_as_it_says_so(world: World) -> None:
    said = [wire.AnnouncedDrift(stream="people", field="a", message="it ends in May")]
    token, _ = await post(world, STREAM, drift=said)
    assert await open_kinds(world) == [("DriftAnnounced", "a")]
    assert (await finish(world, token, "people"))["phase"] == "succeeded"
    token, _ = await post(world, STREAM, drift=said)
    assert await open_kinds(world) == [("DriftAnnounced", "a")]
    await finish(world, token, "people")
    token, _ = await post(world, STREAM)
    assert await open_kinds(world) == []
    await finish(world, token, "people")
    token, _ = await post(world, STREAM, drift=said)
    await finish(world, token, "people")
    await acknowledge_all(world)
    await post(world, STREAM, drift=said)
    assert await open_kinds(world) == [], "it is known"


async def test_a_run_keeps_its_estimate_and_is_refused_over_its_budget(world: World) -> None:
    world.spec["budget"] = {"records": 100}
    token, _ = await post(world, STREAM)
    within = wire.EstimateRequest(streams={"people": wire.StreamEstimate(records=100)})
    await world.protocol.estimate(token, within)
    over = wire.EstimateRequest(streams={"people": wire.StreamEstimate(records=101)})
    with pytest.raises(Invalid, match="expected to take 101 records"):
        await world.protocol.estimate(token, over)
    (run,) = await rows(world, "connector_runs")
    assert run["estimate"] == {"records": 100, "streams": {"people": {"records": 100}}}, "the first one is kept"
    await world.fail(run["id"], run["attempt"])
    with pytest.raises(Fenced):
        await world.protocol.estimate(token, within)


async def test_two_streams_of_one_identity_are_refused(world: World) -> None:
    _, (verdict,) = await post(world, STREAM, STREAM, EVENTS)
    assert (verdict.read, verdict.refused, verdict.error_class) == (False, True, "ConfigError")
    assert "two streams of the name or id 'people'" in verdict.reason


async def test_two_streams_of_one_identity_are_no_concern_of_who_selects_another(world: World) -> None:
    select(world, streams=[{"name": "events"}])
    _, (verdict,) = await post(world, STREAM, STREAM, EVENTS)
    assert (verdict.name, verdict.read) == ("events", True)


async def test_open_alerts_are_in_the_status_and_name_stream_and_class(world: World) -> None:
    document = {
        "apiVersion": "penstock.io/v1alpha1",
        "kind": "TenantConnection",
        "metadata": {"uid": "c1", "namespace": "team", "name": "orders", "generation": 1},
        "spec": {"connector": {"name": "faker", "method": "generate"}},
    }
    assert (await reconcile(world.pool, document))["alerts"] == 0
    for schema in (people(a=TEXT), people()):
        token, _ = await post(world, schema)
        await finish(world, token, "people")
    status = await reconcile(world.pool, document)
    assert status["alerts"] == 1
    (condition,) = [condition for condition in status["conditions"] if condition["type"] == "SchemaDrift"]
    assert condition["message"] == "people: FieldRemoved: field 'a' is gone (`penstock alerts list`)"
    await acknowledge_all(world)
    status = await reconcile(world.pool, document)
    assert (status["alerts"], [condition["type"] for condition in status["conditions"]]) == (0, ["Ready"])


async def test_five_thousand_streams_are_posted_at_once(world: World) -> None:
    select(world)
    schema = {"type": "object", "properties": {f"column_{n}": {"type": ["string", "null"]} for n in range(50)}}
    wide = [
        wire.DiscoveredStream(name=f"schema.table_{n}", schema_=schema, primary_key=["column_0"]) for n in range(5000)
    ]
    _, verdicts = await post(world, *wide)
    assert len(verdicts) == 5000
    async with world.pool.connection() as db:
        row = await one(db, "SELECT count(*) AS n FROM penstock.stream_registry")
    assert row == {"n": 5000}


async def test_a_cursor_that_can_lose_records_is_an_alert_until_it_is_taken_care_of(world: World) -> None:
    select(world, streams=[{"name": "people", "mode": "incremental"}])
    unsafe = people(at={"type": ["string", "null"], "format": "date-time"}).model_copy(update={"cursor_field": "at"})
    token, (verdict,) = await post(world, unsafe, abilities=("drop",))
    assert await open_kinds(world) == [], "an SDK that cannot declare anything is not judged"
    await finish(world, token, "people")
    token, (verdict,) = await post(world, unsafe)
    assert (verdict.read, await open_kinds(world)) == (True, [("CursorUnsafe", "at")])
    (alert,) = await rows(world, "compat_alerts")
    assert "no cursor finds a record without a value; follow a `required` field that is never null" in alert["message"]
    assert (await finish(world, token, "people"))["phase"] == "succeeded"
    token, _ = await post(world, unsafe, abilities=("drop",))
    assert await open_kinds(world) == [("CursorUnsafe", "at")], "nor does it clear what is known"
    await finish(world, token, "people")
    token, _ = await post(world, unsafe.model_copy(update={"cursor_care": ["nulls"]}))
    assert await open_kinds(world) == []
    await finish(world, token, "people")
    for _ in range(2):
        token, _ = await post(world, unsafe)
        await finish(world, token, "people")
        await acknowledge_all(world)
    assert await open_kinds(world) == [], "it is known"


async def test_a_stream_that_is_read_in_full_has_no_cursor_to_lose_records_by(world: World) -> None:
    unsafe = people().model_copy(update={"primary_key": [], "cursor_field": "n"})
    select(world, streams=[{"name": "people", "mode": "incremental"}])
    token, _ = await post(world, unsafe)
    assert ("CursorUnsafe", "n") in await open_kinds(world)
    await finish(world, token, "people")
    select(world, streams=[{"name": "people", "mode": "full"}])
    await post(world, unsafe)
    assert await open_kinds(world) == []
