"""The outbox: whatever is killed, each effect is there once; a slow or failing message holds up no other."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

from penstock_operator import outbox
from penstock_operator.bronze.keys import commit_key
from penstock_operator.bronze.store import BronzeStore
from penstock_operator.controller.outbox_dispatcher import OutboxDispatcher
from penstock_operator.logs.keeper import KeepingLauncher, LogKeeper
from penstock_operator.registry.database import many
from penstock_sdk import protocol as wire

from tests.integration.test_logs import Carrier
from tests.integration.world import EVENTS, STREAM, World, checkpoint
from tests.patience import PATIENCE


def dispatcher(world: World, carrier: Carrier, store: BronzeStore | None = None) -> OutboxDispatcher:
    keeper = LogKeeper(world.pool, carrier, world.store, 100_000)
    launcher = KeepingLauncher(carrier, keeper)
    return OutboxDispatcher(world.pool, store or world.store, launcher, keeper, lambda _: None)


async def finished_run(world: World, run_id: str = "run1") -> str:
    """Run to success, and return the key of its commit manifest."""
    await world.new_run(run_id)
    _, _, token = await world.attempt(f"pod-{run_id}")
    answer = await world.protocol.streams(token, wire.StreamsRequest(streams=[STREAM, EVENTS]))
    number = (answer.verdicts[0].selected.checkpoint or 0) + 1
    await world.protocol.checkpoint(token, checkpoint(number, await world.upload(token), done=True))
    await world.protocol.finish(token, wire.FinishRequest(outcome="succeeded", records={"people": 3}))
    return commit_key(world.store.settings.prefix, "team", "orders", run_id)


async def left(world: World) -> list[dict[str, Any]]:
    async with world.pool.connection() as db:
        return await many(db, "SELECT * FROM penstock.outbox ORDER BY id")


async def everything_is_due(world: World) -> None:
    ids = [message["id"] for message in await left(world)]
    async with world.pool.connection() as db:
        await outbox.release(db, ids)


class Killed(BronzeStore):
    """The process dies after the effect and before the message is deleted."""

    async def put_once(self, key: str, document: dict[str, Any]) -> None:
        await super().put_once(key, document)
        raise asyncio.CancelledError


async def test_9_a_kill_between_the_effect_and_its_record_is_harmless(world: World, tmp_path: Path) -> None:
    key = await finished_run(world)
    carrier = Carrier(tmp_path / "logs")
    await dispatcher(world, carrier, Killed(world.store.settings)).drain()
    written = world.store.read(key)
    assert [message["kind"] for message in await left(world)] == ["commit"]
    await everything_is_due(world)
    await dispatcher(world, carrier).drain()
    assert await left(world) == []
    assert world.store.read(key) == written
    assert json.loads(written)["records"] == 3


async def test_manifests_are_whole_in_whatever_order_they_are_written(world: World, tmp_path: Path) -> None:
    keys = [await finished_run(world, f"run{number}") for number in (1, 2, 3)]
    async with world.pool.connection() as db:
        await db.execute(
            b"UPDATE penstock.outbox SET available_at = now() + interval '1 h' WHERE payload ->> 'run' <> 'run3'"
        )
    await dispatcher(world, Carrier(tmp_path / "logs")).drain()
    await everything_is_due(world)
    await dispatcher(world, Carrier(tmp_path / "logs")).drain()
    assert [json.loads(world.store.read(key))["run"] for key in keys] == ["run1", "run2", "run3"]
    assert [len(json.loads(world.store.read(key))["objects"]) for key in keys] == [1, 1, 1]


async def test_12_a_slow_message_holds_up_no_other(world: World, tmp_path: Path) -> None:
    await finished_run(world, "run1")
    key = await finished_run(world, "run2")
    carrier = Carrier(tmp_path / "logs")
    carrier.print("penstock-run1-1", "still running\n")  # its log has no end, so its Job is not retired for a while
    delivering = dispatcher(world, carrier)
    async with asyncio.timeout(PATIENCE):
        while [message["kind"] for message in await left(world)] != ["retire"]:
            await delivering.step()
    assert json.loads(world.store.read(key))["run"] == "run2"
    assert carrier.retired == ["penstock-run2-1"]
    await delivering.aclose()
    carrier.end("penstock-run1-1")
    await dispatcher(world, carrier).drain()
    assert carrier.retired == ["penstock-run2-1", "penstock-run1-1"], "what was dropped is there for the next leader"


async def test_two_leaders_deliver_each_message_and_its_effect_is_there_once(world: World, tmp_path: Path) -> None:
    keys = [await finished_run(world, f"run{number}") for number in range(1, 6)]
    carrier = Carrier(tmp_path / "logs")
    await asyncio.gather(*(dispatcher(world, carrier).drain() for _ in range(2)))
    assert await left(world) == []
    assert len(carrier.retired) == len(set(carrier.retired)) == 5
    assert [json.loads(world.store.read(key))["records"] for key in keys] == [3] * 5


async def test_9_a_leader_that_is_told_to_stop_anywhere_in_a_round_leaves_no_message_to_its_lease(
    world: World, tmp_path: Path
) -> None:
    carrier = Carrier(tmp_path / "logs")
    for turns in range(25):  # the event loop's turns after which it is told: connecting, taking, giving back, acting
        await finished_run(world, f"run{turns}")
        delivering = dispatcher(world, carrier)
        round_ = asyncio.create_task(delivering.step())
        for _ in range(turns):
            await asyncio.sleep(0)
        round_.cancel()
        await asyncio.gather(round_, return_exceptions=True)
        await delivering.aclose()
        await dispatcher(world, carrier).drain()
        assert await left(world) == [], turns
