"""A pod that has lost its attempt, or that names objects of others, changes nothing."""

from __future__ import annotations

from penstock_operator.errors import Refused
from penstock_sdk import protocol as wire

from tests.adversarial.attacks import StartAttack
from tests.integration.world import STREAM, World, checkpoint


async def test_a_superseded_pod_writes_nothing(world: World, attack: StartAttack) -> None:
    await world.new_run()
    run_id, attempt, stale = await world.attempt("pod1")
    uploaded = await world.upload(stale)
    await world.fail(run_id, attempt)
    await world.attempt("pod2")
    calls = {
        "checkpoint": lambda: world.protocol.checkpoint(stale, checkpoint(1, uploaded)),
        "heartbeat": lambda: world.protocol.heartbeat(stale, wire.HeartbeatRequest()),
        "streams": lambda: world.protocol.streams(stale, wire.StreamsRequest(streams=[STREAM])),
        "finish": lambda: world.protocol.finish(stale, wire.FinishRequest(outcome="succeeded")),
    }
    with attack("calls of a superseded attempt", actor="hostile image", invariant=3) as tries:
        for name, call in calls.items():
            try:
                await call()
            except Refused as refused:
                tries.record(succeeded=False, detail=refused)
            else:
                tries.record(succeeded=True, detail=name)
