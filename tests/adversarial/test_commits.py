"""A hostile image has the token of its own run, and knows the protocol. It commits only what the bucket holds as granted."""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import os
import random
from datetime import timedelta
from typing import Any

import httpx
import pytest
from penstock_operator import limits
from penstock_operator.bronze import store as bronze_store
from penstock_operator.bronze.store import BronzeStore, s3_client
from penstock_operator.errors import Invalid, Unavailable
from penstock_operator.registry.database import many
from penstock_operator.runs.protocol import RunProtocol
from penstock_sdk import protocol as wire

from tests.adversarial.attacks import Attack, StartAttack
from tests.integration.test_run_api import Server
from tests.integration.world import STREAM, World
from tests.integration.world import checkpoint as made_checkpoint
from tests.run_api.contract import body_of, checkpoint, committed, discovered, granted, next_pod, object_of, uploaded
from tests.run_api.pods import Answer, Pod

IMAGE = "hostile image"
SEQUENCES = int(os.environ.get("PENSTOCK_ADVERSARIAL_SEQUENCES", "8"))
STEPS = 25


async def put(grant: dict[str, Any], body: bytes, *, signed: bool = True) -> int:
    """Upload a body with a grant; without the signed size where that is not the body's."""
    headers = dict(grant["headers"])
    if not signed:
        del headers["Content-Length"]
    return (await asyncio.to_thread(httpx.put, grant["url"], content=body, headers=headers)).status_code


def claim(grant: dict[str, Any], described: dict[str, Any], **other: Any) -> dict[str, Any]:
    """Return how a checkpoint names a granted object."""
    return {"key": grant["key"], **described, "records": 1, "by_op": {"upsert": 1}, **other}


async def try_commit(tries: Attack, pod: Pod, body: dict[str, Any]) -> None:
    answer = await pod.call("checkpoints", body)
    tries.record(succeeded=answer.status == 200, detail=body)


async def committed_keys(platform: Server) -> set[str]:
    """Return what the registry believes to be committed."""
    async with platform.world.pool.connection() as db:
        rows = await many(db, "SELECT key FROM penstock.bronze_objects WHERE committed_at IS NOT NULL")
    return {row["key"] for row in rows}


async def test_an_object_that_was_never_uploaded(pod: Pod, platform: Server, attack: StartAttack) -> None:
    await discovered(pod)
    with attack("commit an object that was never uploaded", actor=IMAGE, invariant=15) as tries:
        for number, kind in enumerate(("data", "rejected", "data"), 1):
            described = object_of(body_of(number), number)
            (grant,) = await granted(pod, described, kind=kind)
            await try_commit(tries, pod, checkpoint(1, claim(grant, described, kind=kind)))
        real = await uploaded(pod, 9, after=8)
        await try_commit(tries, pod, checkpoint(1, real, claim(grant, described)))
    assert await committed_keys(platform) == set()
    await committed(pod, 1, real)


async def test_other_bytes_than_were_granted(pod: Pod, platform: Server, attack: StartAttack) -> None:
    await discovered(pod)
    body = body_of(1, 2, 3)
    described = object_of(body)
    (grant,) = await granted(pod, described)
    with attack("upload other bytes of the same size", actor=IMAGE, invariant=15) as tries:
        for position in range(0, len(body), 3):
            other = body[:position] + bytes([body[position] ^ 1]) + body[position + 1 :]
            tries.record(succeeded=await put(grant, other) == 200, detail=position)
            await try_commit(tries, pod, checkpoint(1, claim(grant, described)))
            await try_commit(tries, pod, checkpoint(1, claim(grant, object_of(other))))
    with attack("upload another size", actor=IMAGE, invariant=15) as tries:
        for other in (b"", body[:-1], body + b"x", body * 2):
            tries.record(succeeded=await put(grant, other, signed=False) == 200, detail=len(other))
            await try_commit(tries, pod, checkpoint(1, claim(grant, described)))
            await try_commit(tries, pod, checkpoint(1, claim(grant, described, bytes=len(other))))
    assert await committed_keys(platform) == set()


async def test_a_bucket_that_verifies_nothing(pod: Pod, platform: Server, attack: StartAttack) -> None:
    """Whoever can write to the bucket past the grant does not make the server believe the object."""
    await discovered(pod)
    body = body_of(1)
    described = object_of(body)
    (grant,) = await granted(pod, described)
    settings = platform.world.store.settings
    client = s3_client(settings, settings.endpoint)
    with attack("commit an object that the bucket took unverified", actor="bucket writer", invariant=15) as tries:
        for other in (bytes(len(body)), body[:-1], body_of(2)):
            await asyncio.to_thread(client.put_object, Bucket=settings.bucket, Key=grant["key"], Body=other)
            await try_commit(tries, pod, checkpoint(1, claim(grant, described)))
            await try_commit(tries, pod, checkpoint(1, claim(grant, object_of(other))))
    await asyncio.to_thread(client.put_object, Bucket=settings.bucket, Key=grant["key"], Body=body)
    await committed(pod, 1, claim(grant, described))  # a bucket without checksums: the body is read


async def test_objects_of_others(pod: Pod, attack: StartAttack) -> None:
    await discovered(pod)
    theirs = await uploaded(pod, 1)
    following = await next_pod(pod)
    await discovered(following)
    mine = await uploaded(following, 2)
    with attack("commit the object of another attempt", actor=IMAGE, invariant=15) as tries:
        await try_commit(tries, following, checkpoint(1, theirs))
        await try_commit(tries, following, checkpoint(1, theirs | {"key": mine["key"]}))
        await try_commit(tries, following, checkpoint(1, mine | {"key": theirs["key"]}))
        await try_commit(tries, following, checkpoint(1, mine, stream="events"))
        await try_commit(tries, pod, checkpoint(1, theirs))
    with attack("commit one object twice", actor=IMAGE, invariant=4) as tries:
        await try_commit(tries, following, checkpoint(1, mine, mine))
        await committed(following, 1, mine)
        await try_commit(tries, following, checkpoint(2, mine))
        await try_commit(tries, following, checkpoint(2, mine | {"sequence": 2}))


async def test_streams_without_a_positive_verdict(pod: Pod, attack: StartAttack) -> None:
    async def try_stream(tries: Attack, stream: str) -> None:
        for kind in ("data", "rejected"):
            described = {"stream": stream, "kind": kind, "objects": [object_of(b"x")]}
            answer = await pod.call("uploads", described)
            tries.record(succeeded=answer.status == 200, detail=described)
        await try_commit(tries, pod, checkpoint(1, stream=stream))
        await try_commit(tries, pod, checkpoint(1, stream=stream, done=True))

    with attack("write a stream before discovery was posted", actor=IMAGE, invariant=15) as tries:
        for stream in ("people", "events", "unknown"):
            await try_stream(tries, stream)
    await discovered(pod, "events", "others")
    with attack("write a stream that was not selected or not discovered", actor=IMAGE, invariant=15) as tries:
        for stream in ("others", "unknown", "", "events ", "../events", "EVENTS"):
            await try_stream(tries, stream)
    with attack("write a refused stream", actor=IMAGE, invariant=15) as tries:
        await try_stream(tries, "people")
        await discovered(pod, modes=["full"])
        await try_stream(tries, "people")


async def test_a_stream_with_personal_data_that_is_blocked(world: World, attack: StartAttack) -> None:
    world.spec["schemaPolicy"] = "block-pii"
    await world.new_run()
    _, _, token = await world.attempt(discover=False)
    schema = {"type": "object", "properties": {"email": {"type": "string"}}}
    stream = STREAM.model_copy(update={"schema_": schema, "pii": ["email"]})
    answer = await world.protocol.streams(token, wire.StreamsRequest(streams=[stream]))
    assert [verdict.refused for verdict in answer.verdicts] == [True]
    calls = (
        lambda: world.granted(token),
        lambda: world.granted(token, kind="rejected"),
        lambda: world.protocol.checkpoint(token, made_checkpoint(1)),
    )
    with attack("write a stream that block-pii refuses", actor=IMAGE, invariant=15) as tries:
        for number, call in enumerate(calls):
            try:
                await call()
            except Invalid:
                tries.record(succeeded=False)
            else:
                tries.record(succeeded=True, detail=number)


async def test_a_grant_used_twice_and_after_its_end(pod: Pod, attack: StartAttack, monkeypatch: Any) -> None:
    await discovered(pod)
    body = body_of(1)
    (grant,) = await granted(pod, object_of(body))
    assert await put(grant, body) == 200
    with attack("use a grant twice", actor=IMAGE, invariant=5) as tries:
        for again in (body, body, bytes(len(body))):
            tries.record(succeeded=await put(grant, again) == 200, detail=again)
        (renewed,) = await granted(pod, object_of(body))
        tries.record(succeeded=await put(renewed, body) == 200, detail="a grant that was requested again")
    monkeypatch.setattr(bronze_store, "UPLOAD_EXPIRY", timedelta(seconds=-60))
    (expired,) = await granted(pod, object_of(b"late", 2))
    with attack("use a grant after its end", actor=IMAGE, invariant=15) as tries:
        tries.record(succeeded=await put(expired, b"late") == 200)
        url = expired["url"].replace("X-Amz-Expires=-60", "X-Amz-Expires=600")
        tries.record(succeeded=await put(expired | {"url": url}, b"late") == 200, detail=url)


async def test_ten_thousand_grants(pod: Pod, platform: Server, attack: StartAttack, monkeypatch: Any) -> None:
    await discovered(pod)

    async def request(first: int, count: int, size: int = 1) -> Answer:
        objects = [{"sequence": n, "bytes": size, "sha256": f"{n:064x}"} for n in range(first, first + count)]
        return await pod.call("uploads", {"stream": "people", "objects": objects})

    with attack("ask for 10,000 grants", actor=IMAGE, invariant=14) as tries:
        answer = await request(1, 10_000)
        tries.record(succeeded=answer.status == 200, detail="in one request")
        given = 0
        for first in range(1, 10_001, 100):
            answer = await request(first, 100)
            given += 100 * (answer.status == 200)
        tries.record(succeeded=given > limits.MAX_OPEN_OBJECTS, detail=f"{given} in requests of 100")
        assert answer.refusal == (422, "invalid")
        assert "at most 5,000 objects that are not committed" in answer.body["message"]
        tries.record(succeeded=(await request(5_001, 1)).status == 200, detail="one more")
    assert (await request(1, 100)).status == 200, "the same request again adds none"
    with attack("ask for more bytes than an attempt may upload", actor=IMAGE, invariant=14) as tries:
        monkeypatch.setattr(limits, "MAX_OPEN_OBJECTS", 10**9)
        answer = await request(20_001, 100, 5 * 2**30)
        given = 0
        for first in range(20_001, 20_501, 100):
            answer = await request(first, 100, 5 * 2**30)
            given += 100 * 5 * 2**30 * (answer.status == 200)
        tries.record(succeeded=given > limits.MAX_OPEN_BYTES, detail=given)
        tries.record(succeeded=(await request(30_001, 1, 5 * 2**30 + 1)).status == 200, detail="a larger object")
    async with platform.world.pool.connection() as db:
        (row,) = await many(db, "SELECT count(*) AS n, sum(bytes) AS size FROM penstock.bronze_objects")
    assert (row["n"], row["size"] <= limits.MAX_OPEN_BYTES) == (5_000 + given // (5 * 2**30), True)


async def test_numbers_out_of_range(pod: Pod, attack: StartAttack) -> None:
    await discovered(pod)
    real = await uploaded(pod, 1)
    strange = (-1, 0, 2**31, 2**63, 2**64, 10**400, -(2**31), 1.5, "x", None, [1])
    with attack("name sequences, sizes and checkpoints out of range", actor=IMAGE, invariant=14) as tries:
        for value in strange:
            for described in (object_of(b"x") | {"sequence": value}, object_of(b"x", 7) | {"bytes": value}):
                if described["bytes"] == 2**31:
                    continue  # an object may be that large
                answer = await pod.call("uploads", {"stream": "people", "objects": [described]})
                tries.record(succeeded=answer.status == 200, detail=described)
                assert answer.status < 500, (described, answer)
            for field in ("sequence", "bytes"):
                answer = await pod.call("checkpoints", checkpoint(1, real | {field: value}))
                tries.record(succeeded=answer.status == 200, detail=(field, value))
                assert answer.status < 500, (field, value, answer)
            answer = await pod.call("checkpoints", checkpoint(2, real) | {"checkpoint": value})
            tries.record(succeeded=answer.status == 200, detail=("checkpoint", value))
            assert answer.status < 500, (value, answer)


@pytest.mark.parametrize("seed", range(SEQUENCES))
async def test_whatever_a_pod_claims(pod: Pod, platform: Server, attack: StartAttack, seed: int) -> None:
    """Steps that a generator makes up: a checkpoint commits if, and only if, the model says so."""
    await discovered(pod)
    liar = Liar(pod, random.Random(seed))
    with attack("commits that a generator makes up", actor=IMAGE, invariant=15) as tries:
        for _ in range(STEPS):
            await liar.step(tries)
        if not tries.tried:
            await liar.claim(tries, honest=False)
    assert await committed_keys(platform) == liar.committed


@dataclasses.dataclass
class KnownObject:
    """An object that the pod was granted: what was granted, and what the bucket holds."""

    grant: dict[str, Any]
    described: dict[str, Any]
    stream: str
    body: bytes
    arrived: bool = False


class Liar:
    """A pod that tells the truth now and then, and a model of what may commit."""

    def __init__(self, pod: Pod, chance: random.Random) -> None:
        self.pod, self.chance = pod, chance
        self.objects: list[KnownObject] = []
        self.committed: set[str] = set()
        self.checkpoints = {"people": 0, "events": 0}

    async def step(self, tries: Attack) -> None:
        """Take one step."""
        which = self.chance.choice(("grant", "put", "put", "honest", "lie", "lie"))
        if which == "grant" or not self.objects:
            await self.grant()
        elif which == "put":
            await self.put()
        else:
            await self.claim(tries, honest=which == "honest")

    async def grant(self) -> None:
        """Ask for a grant, of a new object or of one that has another content already."""
        stream = self.chance.choice(("people", "events"))
        body = body_of(*(self.chance.randrange(100) for _ in range(self.chance.randrange(1, 4))))
        described = object_of(body, self.chance.randrange(1, 9))
        known = [
            stored
            for stored in self.objects
            if (stored.stream, stored.described["sequence"]) == (stream, described["sequence"])
        ]
        answer = await self.pod.call("uploads", {"stream": stream, "objects": [described]})
        if known:
            assert (answer.status == 200) == (known[0].described == described)
            return
        assert answer.status == 200
        self.objects.append(KnownObject(answer.body["grants"][0], described, stream, body))

    async def put(self) -> None:
        """Upload the granted content, or another."""
        known = self.chance.choice(self.objects)
        body = self.chance.choice((known.body, known.body, bytes(len(known.body)), known.body + b"x"))
        status = await put(known.grant, body, signed=len(body) == len(known.body))
        assert (status == 200) == (body == known.body and not known.arrived), status
        known.arrived |= status == 200

    async def claim(self, tries: Attack, *, honest: bool) -> None:
        """Ask for a checkpoint, of objects that may be committed or with a lie among them."""
        stream = self.chance.choice(("people", "events"))
        ready = [
            stored
            for stored in self.objects
            if stored.stream == stream and stored.arrived and stored.grant["key"] not in self.committed
        ]
        chosen = self.chance.sample(ready, self.chance.randint(0, len(ready)))
        claims = [claim(item.grant, item.described) for item in chosen]
        if not honest:
            claims.insert(self.chance.randint(0, len(claims)), self.lie(stream))
        answer = await self.pod.call("checkpoints", checkpoint(self.checkpoints[stream] + 1, *claims, stream=stream))
        assert answer.status < 500, answer
        may = self.may_commit(claims, stream)
        if may:
            assert answer.status == 200, (answer, claims)
            self.committed |= {claim["key"] for claim in claims}
            self.checkpoints[stream] += 1
        else:
            tries.record(succeeded=answer.status == 200, detail=claims)

    def lie(self, stream: str) -> dict[str, Any]:
        """Return an object that is probably not to be committed."""
        known = self.chance.choice(self.objects)
        told = claim(known.grant, known.described)
        other = self.chance.choice(self.objects)
        lies: tuple[dict[str, Any], ...] = (
            {},
            {"key": other.grant["key"]},
            {"key": known.grant["key"].replace("attempt-01", "attempt-02")},
            {"key": f"{known.grant['key']}x"},
            {"sequence": known.described["sequence"] + 1},
            {"bytes": known.described["bytes"] + 1},
            {"sha256": hashlib.sha256(stream.encode()).hexdigest()},
            {"kind": "rejected"},
            {**other.described},
        )
        return told | self.chance.choice(lies)

    def may_commit(self, claims: list[dict[str, Any]], stream: str) -> bool:
        """Return True if each of them is granted, uploaded, described as it is, and named once."""
        by_key = {stored.grant["key"]: stored for stored in self.objects if stored.stream == stream and stored.arrived}
        keys = [claim["key"] for claim in claims]
        return len(set(keys)) == len(keys) and all(
            told["key"] in by_key
            and told["key"] not in self.committed
            and told.get("kind", "data") == "data"
            and told.items() >= by_key[told["key"]].described.items()
            for told in claims
        )


async def test_a_commit_is_refused_while_the_bucket_is_away(pod: Pod, platform: Server, attack: StartAttack) -> None:
    await discovered(pod)
    described = await uploaded(pod, 1)
    away = dataclasses.replace(platform.world.store.settings, endpoint="http://127.0.0.1:9")
    protocol = RunProtocol(platform.world.pool, BronzeStore(away))
    with attack("commit while the bucket does not answer", actor=IMAGE, invariant=15) as tries:
        try:
            await protocol.checkpoint(pod.run_token, wire.CheckpointRequest.model_validate(checkpoint(1, described)))
        except Unavailable:
            tries.record(succeeded=False)
        else:
            tries.record(succeeded=True, detail=described)
    await committed(pod, 1, described)
