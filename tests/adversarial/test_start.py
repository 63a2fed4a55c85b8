"""An attempt is started once, by one process. Whoever comes later, or reads the registry, gets nothing."""

from __future__ import annotations

import base64
import secrets

from penstock_operator.registry.database import many

from tests.adversarial.attacks import StartAttack
from tests.integration.test_run_api import Server
from tests.run_api.contract import next_pod
from tests.run_api.pods import START_KEY, Pod


async def test_another_process_with_the_token_of_the_pod(pod: Pod, attack: StartAttack) -> None:
    """A debug container, or a shell in the pod, can read the pod's own token. It has not the key of the process."""
    near = (START_KEY[:-1] + "x", START_KEY + "x", START_KEY.upper(), START_KEY[::-1], "k" * 32)
    with attack("start an attempt again with the pod's token", actor="hostile image", invariant=2) as tries:
        for key in (*near, *(secrets.token_urlsafe(32) for _ in range(20))):
            answer = await pod.call("start", pod.start_request(key=key), pod.token)
            tries.record(succeeded=answer.status == 200, detail=key)
            assert answer.refusal == (409, "fenced")
        for key in ("", None, 5, START_KEY + "\n", START_KEY + "\0", "k" * 100_000):
            answer = await pod.call("start", pod.start_request(key=key), pod.token)
            tries.record(succeeded=answer.status == 200, detail=key)
            assert answer.status < 500, answer


async def test_what_the_registry_holds_is_no_token(pod: Pod, platform: Server, attack: StartAttack) -> None:
    async with platform.world.pool.connection() as db:
        (row,) = await many(db, "SELECT * FROM penstock.run_attempts")
    stored = [value for value in row.values() if isinstance(value, str | bytes) and value]
    texts = [value for value in stored if isinstance(value, str)]
    for value in (value for value in stored if isinstance(value, bytes)):
        texts += [value.hex(), base64.b64encode(value).decode(), base64.urlsafe_b64encode(value).rstrip(b"=").decode()]
    with attack("use what the registry holds as a token or a key", actor="database reader", invariant=7) as tries:
        for text in texts:
            answer = await pod.call("heartbeat", {}, text)
            tries.record(succeeded=answer.status == 200, detail=text)
            answer = await pod.call("start", pod.start_request(), text)
            tries.record(succeeded=answer.status == 200, detail=text)
            answer = await pod.call("start", pod.start_request(key=text), pod.token)
            tries.record(succeeded=answer.status == 200, detail=text)


async def test_an_attempt_that_has_ended_is_not_started_again(pod: Pod, attack: StartAttack) -> None:
    following = await next_pod(pod)
    with attack("start an attempt that another one has replaced", actor="hostile image", invariant=2) as tries:
        for attempt in (pod.attempt, following.attempt, following.attempt + 1):
            for key in (START_KEY, START_KEY[::-1]):
                answer = await pod.call("start", pod.start_request(attempt=attempt, key=key), pod.token)
                tries.record(succeeded=answer.status == 200, detail=(attempt, key))
    assert (await following.call("heartbeat", {})).status == 200
