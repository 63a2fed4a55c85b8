"""The contract of the run protocol, call by call.

The server passes it (tests/integration/test_run_api.py), and so does the SDK's double of it (tests/unit/sdk/test_run_api.py).
Each gives the `platform` fixture.
"""

from __future__ import annotations

import hashlib
from typing import Any

import httpx
import pytest
import zstandard
from penstock_sdk import protocol as wire

from tests.run_api.pods import BUDGET, CREDENTIAL, REJECTS, START_KEY, WINDOW, Answer, Platform, Pod

FENCED = (409, "fenced")
MISMATCH = (409, "mismatch")
INVALID = (422, "invalid")
NOT_READY = (425, "not_ready")
MALFORMED = (422, None)
UNAUTHENTICATED = (401, "unauthenticated")
SEED = "0" * 64

CALLS: dict[str, dict[str, Any]] = {
    "streams": {"streams": [{"name": "people", "schema": {"type": "object"}, "modes": ["full", "incremental"]}]},
    "estimate": {"streams": {"people": {"records": 1}}},
    "uploads": {"stream": "people", "objects": [{"sequence": 1, "bytes": 1, "sha256": "0" * 64}]},
    "checkpoints": {"stream": "people", "checkpoint": 1, "cursor": 1},
    "credentials": {"name": CREDENTIAL, "value": "secret", "seed": SEED},
    "rate-limit": {"host": "source.test", "port": 443},
    "credentials/lease": {"name": CREDENTIAL, "seed": SEED, "known": SEED, "lease": "l" * 32},
    "heartbeat": {"metrics": {"records": 1}},
    "finish": {"outcome": "cancelled"},
}
"""A request of each call that carries a run token."""
MALFORMED_CALLS: dict[str, dict[str, Any]] = {
    "start": {"run": "run1", "attempt": 0},
    "streams": {"streams": [{"name": ""}]},
    "estimate": {"streams": {"people": {"records": -1}}},
    "uploads": {"stream": "people", "objects": []},
    "checkpoints": {"stream": "people", "checkpoint": 0},
    "credentials": {"name": CREDENTIAL, "value": "", "seed": "no digest"},
    "rate-limit": {"host": "source.test", "port": 443, "requests": 0},
    "credentials/lease": {"name": CREDENTIAL, "seed": SEED, "known": "no digest", "lease": "l" * 32},
    "credentials/release": {"name": CREDENTIAL, "seed": SEED, "lease": "short"},
    "heartbeat": {"metrics": {"records": "many"}},
    "finish": {"outcome": "done"},
}
UNSTORABLE_CALLS: dict[str, dict[str, Any]] = {
    "streams": {"streams": [{"name": "peo\0ple", "schema": {}}, *CALLS["streams"]["streams"]]},
    "estimate": {"streams": {"peo\0ple": {"records": 1}}},
    "uploads": {"stream": "peo\0ple", "objects": [{"sequence": 1, "bytes": 1, "sha256": "0" * 64}]},
    "checkpoints": {"stream": "people", "checkpoint": 1, "cursor": {"after": "\0"}},
    "heartbeat": {"metrics": {"rec\0ords": 1}},
    "finish": {"outcome": "failed", "error": {"error_class": "TransientError", "message": "\0"}},
}


def body_of(*ids: int, op: str = "upsert") -> bytes:
    """Return an object's content: a line for each id."""
    return zstandard.compress(b"".join(b'{"op":"%s","data":{"n":%d}}\n' % (op.encode(), number) for number in ids))


async def discovered(pod: Pod, *names: str, **other: Any) -> Answer:
    """Post a catalog of these streams."""
    streams = [
        {"name": name, "schema": {"type": "object"}, "primary_key": ["n"], "modes": ["full", "incremental"]} | other
        for name in names or ("people", "events")
    ]
    return await pod.call("streams", {"streams": streams, "abilities": ["drop", "care", "window"]})


def object_of(body: bytes, sequence: int = 1) -> dict[str, Any]:
    """Return how a request for grants names an object with this content."""
    return {"sequence": sequence, "bytes": len(body), "sha256": hashlib.sha256(body).hexdigest()}


async def granted(pod: Pod, *objects: dict[str, Any], **other: Any) -> list[dict[str, Any]]:
    """Return the grants for objects of `people`."""
    answer = await pod.call("uploads", {"stream": "people", "objects": list(objects), **other})
    assert answer.status == 200, answer
    grants: list[dict[str, Any]] = answer.body["grants"]
    return grants


async def uploaded(pod: Pod, *ids: int, stream: str = "people", kind: str = "data", after: int = 0) -> dict[str, Any]:
    """Upload an object, and return how a checkpoint names it."""
    body = body_of(*ids)
    described = object_of(body, after + 1)
    (grant,) = await granted(pod, described, stream=stream, kind=kind)
    assert httpx.put(grant["url"], content=body, headers=grant["headers"]).status_code == 200
    records = {"records": len(ids), "kind": kind, "by_op": {"upsert": len(ids)}}
    return {"key": grant["key"], **described, **records}


def checkpoint(number: int, *objects: dict[str, Any], stream: str = "people", **other: Any) -> dict[str, Any]:
    """Return the body of a checkpoint."""
    return {"stream": stream, "checkpoint": number, "cursor": {"n": number}, "objects": list(objects)} | other


async def committed(pod: Pod, number: int, *objects: dict[str, Any], **other: Any) -> None:
    """Commit a checkpoint."""
    answer = await pod.call("checkpoints", checkpoint(number, *objects, **other))
    assert (answer.status, answer.body) == (200, {"checkpoint": number})


async def verdict(pod: Pod, stream: str) -> dict[str, Any]:
    """Return what the pod is to do with a stream."""
    verdicts: list[dict[str, Any]] = (await discovered(pod)).body["verdicts"]
    (found,) = (verdict for verdict in verdicts if verdict["name"] == stream)
    return found


async def next_pod(pod: Pod) -> Pod:
    """Have the next attempt take over, and start."""
    following = Pod(pod.platform, *await pod.platform.next_attempt())
    assert (await following.start()).status == 200
    return following


@pytest.fixture
async def pod(platform: Platform) -> Pod:
    """A pod that has started."""
    started = Pod(platform, *await platform.next_attempt())
    answer = await started.start()
    assert answer.status == 200, answer
    return started


@pytest.fixture
async def window_pod(window_platform: Platform) -> Pod:
    """A pod that has started, of a run that reads a time span again."""
    started = Pod(window_platform, *await window_platform.next_attempt())
    answer = await started.start()
    assert answer.status == 200, answer
    return started


class TestStart:
    """A pod claims its attempt."""

    async def test_it_brings_a_token_and_the_selection(self, platform: Platform) -> None:
        pod = Pod(platform, *await platform.next_attempt())
        answer = wire.StartResponse.model_validate((await pod.start()).body)
        assert answer.run_token not in {"", pod.token}
        assert [(stream.name, stream.mode) for stream in answer.streams] == [
            ("people", "incremental"),
            ("events", "full"),
        ]
        assert answer.credentials == {}
        assert (await pod.call("heartbeat", {})).status == 200

    async def test_the_same_start_again_has_the_same_answer(self, pod: Pod) -> None:
        first = pod.run_token
        assert (await pod.call("heartbeat", {})).status == 200
        answers = [await pod.start() for _ in range(2)]
        assert [answer.body for answer in answers] == [answers[0].body] * 2
        assert pod.run_token == first
        assert (await pod.call("heartbeat", {})).status == 200

    @pytest.mark.parametrize("key", [START_KEY[::-1], START_KEY + "x", START_KEY.upper()])
    async def test_another_process_of_the_pod_is_fenced(self, pod: Pod, key: str) -> None:
        assert (await pod.start(key=key)).refusal == FENCED
        assert (await pod.call("heartbeat", {})).status == 200
        assert (await pod.start()).status == 200

    @pytest.mark.parametrize("key", ["", "short", "k" * 31, "k" * 129, "k" * 40 + "\n", "ä" * 40, 5, []])
    async def test_a_key_is_long_and_made_of_letters_and_digits(self, pod: Pod, key: object) -> None:
        assert (await pod.start(key=key)).refusal == MALFORMED

    async def test_a_start_without_a_key_ends_the_attempt(self, platform: Platform) -> None:
        pod = Pod(platform, *await platform.next_attempt())
        assert (await pod.start(key=None)).refusal == INVALID
        assert (await pod.start()).refusal == FENCED

    async def test_the_key_of_another_attempt_gives_another_token(self, pod: Pod) -> None:
        following = await next_pod(pod)
        assert following.run_token != pod.run_token
        assert (await pod.call("heartbeat", {})).refusal == FENCED

    @pytest.mark.parametrize("token", ["wrong", "job1.wrong", "pod-9"])
    async def test_it_takes_no_other_token(self, pod: Pod, token: str) -> None:
        assert (await pod.start(token)).refusal == UNAUTHENTICATED

    async def test_it_takes_no_run_token(self, pod: Pod) -> None:
        assert (await pod.start(pod.run_token)).refusal == UNAUTHENTICATED

    async def test_the_pod_of_an_earlier_attempt_cannot_claim_the_current_one(self, pod: Pod) -> None:
        following = await next_pod(pod)
        assert (await pod.start(attempt=following.attempt)).refusal == UNAUTHENTICATED
        assert (await pod.start()).refusal == FENCED
        assert (await following.start(attempt=pod.attempt)).refusal == FENCED

    @pytest.mark.parametrize("other", [{"run": "another"}, {"attempt": 9}])
    async def test_there_is_no_other_run_and_no_attempt_yet_to_come(self, pod: Pod, other: dict[str, Any]) -> None:
        assert (await pod.start(**other)).refusal == FENCED

    async def test_another_connector_ends_the_attempt(self, pod: Pod) -> None:
        other = {"name": "another", "method": "rest", "version": "1.0.0"}
        assert (await pod.start(connector=other)).refusal == INVALID
        assert (await pod.start()).refusal == FENCED
        assert (await pod.call("heartbeat", {})).refusal == FENCED

    async def test_an_sdk_of_an_older_protocol_ends_the_attempt(self, pod: Pod) -> None:
        answer = await pod.start(protocol=1)
        assert answer.refusal == INVALID
        assert "version 1 of the run protocol" in answer.body["message"]
        assert (await pod.start()).refusal == FENCED

    async def test_there_is_none_after_the_end(self, pod: Pod) -> None:
        await pod.call("finish", {"outcome": "cancelled"})
        assert (await pod.start()).refusal == FENCED

    async def test_a_pod_that_is_faster_than_its_job_is_known_tries_again(self, platform: Platform) -> None:
        pod = Pod(platform, *await platform.next_attempt_without_job())
        assert (await pod.start()).refusal == NOT_READY
        await platform.record_job()
        assert (await pod.start()).status == 200

    async def test_it_brings_the_thresholds_for_rejected_records(self, platform: Platform) -> None:
        pod = Pod(platform, *await platform.next_attempt())
        assert wire.StartResponse.model_validate((await pod.start()).body).rejects == REJECTS


class TestEveryCall:
    """Tokens, fencing and bodies of all calls."""

    @pytest.mark.parametrize("path", CALLS)
    async def test_it_needs_the_run_token(self, pod: Pod, path: str) -> None:
        for token in ("wrong", pod.token):
            assert (await pod.call(path, CALLS[path], token)).refusal == UNAUTHENTICATED

    @pytest.mark.parametrize("path", ["start", *CALLS])
    @pytest.mark.parametrize("headers", [{}, {"Authorization": "Basic cG9kOnBvZA=="}], ids=["none", "basic"])
    async def test_it_needs_a_bearer_token(self, pod: Pod, path: str, headers: dict[str, str]) -> None:
        body = CALLS.get(path) or pod.start_request()
        response = await pod.platform.http.post(path, json=body, headers=headers)
        assert (response.status_code, response.json()["code"]) == UNAUTHENTICATED

    @pytest.mark.parametrize("path", CALLS)
    async def test_it_is_fenced_once_another_attempt_has_taken_over(self, pod: Pod, path: str) -> None:
        await pod.platform.next_attempt()
        assert (await pod.call(path, CALLS[path])).refusal == FENCED

    @pytest.mark.parametrize("path", CALLS)
    async def test_it_is_fenced_after_the_end(self, pod: Pod, path: str) -> None:
        ended = {"outcome": "failed", "error": {"error_class": "ConfigError", "message": "no"}}
        assert (await pod.call("finish", ended)).status == 200
        assert (await pod.call(path, CALLS[path])).refusal == FENCED

    @pytest.mark.parametrize("path", MALFORMED_CALLS)
    async def test_a_malformed_body_is_refused(self, pod: Pod, path: str) -> None:
        token = pod.token if path == "start" else pod.run_token
        answer = await pod.call(path, MALFORMED_CALLS[path], token)
        assert answer.refusal == MALFORMED
        assert answer.body["detail"]

    @pytest.mark.parametrize("path", UNSTORABLE_CALLS)
    async def test_a_nul_character_is_refused(self, pod: Pod, path: str) -> None:
        assert (await pod.call(path, UNSTORABLE_CALLS[path])).refusal == INVALID

    async def test_there_is_no_other_call(self, pod: Pod) -> None:
        assert (await pod.call("restart", {})).status == 404


class TestStreams:
    """What the source offers, and what of it is read."""

    async def test_a_verdict_for_each_selected_stream_in_order(self, pod: Pod) -> None:
        answer = await discovered(pod, "events", "people", "others")
        verdicts = wire.StreamsResponse.model_validate(answer.body).verdicts
        assert [(verdict.name, verdict.read, verdict.refused) for verdict in verdicts] == [
            ("people", True, False),
            ("events", True, False),
        ]
        first = verdicts[0].selected
        assert (first.mode, first.cursor, first.checkpoint, first.done) == ("incremental", None, 0, False)
        assert verdicts[0].schema_version == 1

    async def test_the_same_catalog_again_has_the_same_verdicts(self, pod: Pod) -> None:
        assert (await discovered(pod)).body == (await discovered(pod)).body

    async def test_a_stream_that_is_not_offered_is_refused_and_the_others_are_read(self, pod: Pod) -> None:
        answer = await discovered(pod, "events")
        verdicts = wire.StreamsResponse.model_validate(answer.body).verdicts
        assert [(verdict.name, verdict.read, verdict.refused) for verdict in verdicts] == [
            ("events", True, False),
            ("people", False, True),
        ]
        assert verdicts[1].error_class == "ConfigError"
        assert "the source offers no stream 'people'" in verdicts[1].reason

    async def test_a_stream_that_cannot_be_read_in_the_selected_mode_is_refused(self, pod: Pod) -> None:
        answer = await discovered(pod, modes=["full"])
        verdicts = wire.StreamsResponse.model_validate(answer.body).verdicts
        assert [(verdict.name, verdict.refused) for verdict in verdicts] == [("events", False), ("people", True)]
        assert "stream 'people' cannot be read incremental" in verdicts[1].reason

    async def test_an_unavailable_stream_is_refused_with_the_connectors_reason(self, pod: Pod) -> None:
        reason = {"error_class": "AuthenticationError", "message": "no right to read it"}
        answer = await discovered(pod, unavailable=reason)
        verdicts = wire.StreamsResponse.model_validate(answer.body).verdicts
        assert {verdict.name for verdict in verdicts if verdict.refused} == {"people", "events"}
        assert {(verdict.error_class, verdict.reason) for verdict in verdicts} == {tuple(reason.values())}

    async def test_the_next_attempt_goes_on_where_this_one_stopped(self, pod: Pod) -> None:
        await discovered(pod)
        await committed(pod, 1)
        await committed(pod, 1, stream="events")
        await committed(pod, 2, stream="events", done=True)
        following = await next_pod(pod)
        people, events = await verdict(following, "people"), await verdict(following, "events")
        assert people["read"]
        assert not events["read"]
        shown = ("cursor", "checkpoint", "done")
        assert [people["selected"][key] for key in shown] == [{"n": 1}, 1, False]
        assert [events["selected"][key] for key in shown] == [{"n": 2}, 2, True]


class TestWindow:
    """A run that reads a time span again."""

    async def test_the_verdict_names_the_time_span_and_begins_at_its_start(self, window_pod: Pod) -> None:
        verdicts = wire.StreamsResponse.model_validate((await discovered(window_pod, windows=True)).body).verdicts
        assert [(verdict.name, verdict.read) for verdict in verdicts] == [("people", True), ("events", True)]
        assert {verdict.selected.window for verdict in verdicts} == {WINDOW}
        assert {(verdict.selected.cursor, verdict.selected.done) for verdict in verdicts} == {(None, False)}

    async def test_its_checkpoints_count_once_and_the_next_attempt_resumes(self, window_pod: Pod) -> None:
        verdicts = wire.StreamsResponse.model_validate((await discovered(window_pod, windows=True)).body).verdicts
        number = verdicts[0].selected.checkpoint + 1
        for _ in range(2):
            await committed(window_pod, number)
        following = await next_pod(window_pod)
        verdicts = wire.StreamsResponse.model_validate((await discovered(following, windows=True)).body).verdicts
        resumed = verdicts[0].selected
        assert (resumed.cursor, resumed.checkpoint, resumed.window) == ({"n": number}, number, WINDOW)
        await committed(following, number + 1, done=True)


class TestUploads:
    """Grants for objects."""

    @pytest.fixture(autouse=True)
    async def _discovered(self, pod: Pod) -> None:
        await discovered(pod)

    async def test_the_same_request_again_has_the_same_keys(self, pod: Pod) -> None:
        objects = [object_of(body_of(number), number) for number in (3, 4, 5)]
        first, again = [await granted(pod, *objects) for _ in range(2)]
        keys = [(grant["key"], grant["sequence"], grant["kind"]) for grant in first]
        assert keys == [(grant["key"], grant["sequence"], grant["kind"]) for grant in again]
        assert [sequence for _, sequence, _ in keys] == [3, 4, 5]

    async def test_each_stream_kind_and_attempt_has_keys_of_its_own(self, pod: Pod) -> None:
        requests = [{}, {"stream": "events"}, {"kind": "rejected"}]
        following = await next_pod(pod)
        await discovered(following)
        keys = set[str]()
        for request in requests:
            grants = await granted(following, *(object_of(b"x", number) for number in (1, 2, 3)), **request)
            assert {grant["kind"] for grant in grants} == {request.get("kind", "data")}
            keys |= {grant["key"] for grant in grants}
        assert len(keys) == 9

    async def test_a_grant_takes_its_own_object_once(self, pod: Pod) -> None:
        (grant,) = await granted(pod, object_of(b"body"))
        url, headers = grant["url"], grant["headers"]
        assert httpx.put(url, content=b"body").status_code == 403
        assert httpx.put(url, content=b"other"[:4], headers=headers).status_code == 400
        unsigned = {name: value for name, value in headers.items() if name != "Content-Length"}
        assert httpx.put(url, content=b"longer", headers=unsigned).status_code == 403
        assert httpx.put(url, content=b"body", headers=headers).status_code == 200
        assert httpx.put(url, content=b"body", headers=headers).status_code == 412

    @pytest.mark.parametrize("other", [b"else", b"longer"])
    async def test_a_sequence_number_belongs_to_one_object(self, pod: Pod, other: bytes) -> None:
        (grant,) = await granted(pod, object_of(b"body"))
        answer = await pod.call("uploads", {"stream": "people", "objects": [object_of(other)]})
        assert answer.refusal == MISMATCH
        assert (await granted(pod, object_of(b"body")))[0]["key"] == grant["key"]

    @pytest.mark.parametrize("sequence", [-1, 0, 2**31, 2**63, 10**30])
    async def test_a_sequence_number_is_positive_and_of_32_bits(self, pod: Pod, sequence: int) -> None:
        answer = await pod.call("uploads", {"stream": "people", "objects": [object_of(b"body", sequence)]})
        assert answer.refusal == MALFORMED

    async def test_a_stream_without_a_verdict_gets_none(self, pod: Pod) -> None:
        answer = await pod.call("uploads", {"stream": "unknown", "objects": [object_of(b"body")]})
        assert answer.refusal == INVALID
        following = await next_pod(pod)
        answer = await following.call("uploads", {"stream": "people", "objects": [object_of(b"body")]})
        assert answer.refusal == INVALID
        assert "stream 'people' has no verdict in this attempt" in answer.body["message"]

    async def test_a_stream_that_is_not_selected_gets_none(self, pod: Pod) -> None:
        await discovered(pod, "people", "events", "others")
        answer = await pod.call("uploads", {"stream": "others", "objects": [object_of(b"body")]})
        assert answer.refusal == INVALID

    async def test_a_refused_stream_gets_none(self, pod: Pod) -> None:
        await discovered(pod, "events")
        answer = await pod.call("uploads", {"stream": "people", "objects": [object_of(b"body")]})
        assert answer.refusal == INVALID
        assert "stream 'people' is refused in this attempt" in answer.body["message"]


class TestCheckpoints:
    """Objects and the state that covers them."""

    @pytest.fixture(autouse=True)
    async def _discovered(self, pod: Pod) -> None:
        await discovered(pod)

    async def test_a_checkpoint_counts_once_however_often_it_is_sent(self, pod: Pod) -> None:
        body = checkpoint(1, await uploaded(pod, 1, 2), done=True, read={"upsert": 2})
        for _ in range(2):
            answer = await pod.call("checkpoints", body)
            assert (answer.status, answer.body) == (200, {"checkpoint": 1})
        await committed(pod, 1, stream="events", done=True)
        ended = {"outcome": "succeeded", "records": {"people": 2}, "read": {"people": {"upsert": 2}}}
        assert (await pod.call("finish", ended)).body == {"phase": "succeeded"}

    @pytest.mark.parametrize("other", [{"cursor": {"n": 2}}, {"done": True}, {"objects": []}], ids=str)
    async def test_a_repeated_checkpoint_must_have_the_same_content(self, pod: Pod, other: dict[str, Any]) -> None:
        body = checkpoint(1, await uploaded(pod, 1))
        assert (await pod.call("checkpoints", body)).status == 200
        assert (await pod.call("checkpoints", body | other)).refusal == MISMATCH
        assert (await pod.call("checkpoints", body)).status == 200
        await committed(pod, 2)

    async def test_numbers_go_up_by_one(self, pod: Pod) -> None:
        assert (await pod.call("checkpoints", checkpoint(2))).refusal == MISMATCH
        await committed(pod, 1)
        await committed(pod, 2)
        for number in (1, 4):
            assert (await pod.call("checkpoints", checkpoint(number))).refusal == MISMATCH
        await committed(pod, 3)

    async def test_each_stream_has_its_own_numbers(self, pod: Pod) -> None:
        await committed(pod, 1)
        await committed(pod, 1, stream="events")

    async def test_a_stream_without_a_verdict_has_none(self, pod: Pod) -> None:
        assert (await pod.call("checkpoints", checkpoint(1, stream="unknown"))).refusal == INVALID

    async def test_a_stream_that_is_not_selected_has_none(self, pod: Pod) -> None:
        await discovered(pod, "people", "events", "others")
        assert (await pod.call("checkpoints", checkpoint(1, stream="others"))).refusal == INVALID
        await committed(pod, 1)

    async def test_a_refused_stream_has_none(self, pod: Pod) -> None:
        await discovered(pod, "events")
        assert (await pod.call("checkpoints", checkpoint(1))).refusal == INVALID
        await committed(pod, 1, stream="events")

    async def test_a_stream_that_is_done_has_no_more(self, pod: Pod) -> None:
        await committed(pod, 1, done=True)
        assert (await pod.call("checkpoints", checkpoint(2))).refusal == MISMATCH
        following = await next_pod(pod)
        await discovered(following)
        assert (await following.call("checkpoints", checkpoint(2))).refusal == MISMATCH

    async def test_the_checkpoint_of_an_earlier_attempt_is_not_this_ones_to_repeat(self, pod: Pod) -> None:
        await committed(pod, 1)
        following = await next_pod(pod)
        await discovered(following)
        assert (await following.call("checkpoints", checkpoint(1))).refusal == MISMATCH
        await committed(following, 2)

    async def test_an_object_is_committed_once(self, pod: Pod) -> None:
        described = await uploaded(pod, 1)
        await committed(pod, 1, described)
        assert (await pod.call("checkpoints", checkpoint(2, described))).refusal == MISMATCH
        fresh = await uploaded(pod, 2, after=1)
        assert (await pod.call("checkpoints", checkpoint(2, fresh, fresh))).refusal == MISMATCH
        await committed(pod, 2, fresh)

    @pytest.mark.parametrize(
        "other",
        [
            {"key": "elsewhere.jsonl.zst"},
            {"sequence": 2},
            {"bytes": 1},
            {"sha256": "0" * 64},
            {"kind": "rejected"},
        ],
        ids=str,
    )
    async def test_an_object_must_have_been_granted(self, pod: Pod, other: dict[str, Any]) -> None:
        described = await uploaded(pod, 1)
        assert (await pod.call("checkpoints", checkpoint(1, described | other))).refusal == MISMATCH
        await committed(pod, 1, described)

    async def test_an_object_belongs_to_its_stream_and_attempt(self, pod: Pod) -> None:
        described = await uploaded(pod, 1)
        assert (await pod.call("checkpoints", checkpoint(1, described, stream="events"))).refusal == MISMATCH
        following = await next_pod(pod)
        await discovered(following)
        assert (await following.call("checkpoints", checkpoint(1, described))).refusal == MISMATCH

    async def test_an_object_must_have_been_uploaded(self, pod: Pod) -> None:
        body = body_of(1)
        (grant,) = await granted(pod, object_of(body))
        described = {"key": grant["key"], **object_of(body), "records": 1}
        assert (await pod.call("checkpoints", checkpoint(1, described))).refusal == MISMATCH
        assert httpx.put(grant["url"], content=body, headers=grant["headers"]).status_code == 200
        await committed(pod, 1, described)

    @pytest.mark.parametrize(
        "wrong",
        [{"read": {"upsert": 3}}, {"read": {"upsert": 1, "delete": 1}}, {"read": {}}],
        ids=str,
    )
    async def test_the_objects_hold_exactly_the_records_that_were_read(self, pod: Pod, wrong: dict[str, Any]) -> None:
        described = await uploaded(pod, 1, 2)
        assert (await pod.call("checkpoints", checkpoint(1, described, **wrong))).refusal == MISMATCH
        await committed(pod, 1, described, read={"upsert": 2, "delete": 0})

    async def test_rejected_records_count_as_read(self, pod: Pod) -> None:
        objects = [await uploaded(pod, 1, 2), await uploaded(pod, 3, kind="rejected")]
        assert (await pod.call("checkpoints", checkpoint(1, *objects, read={"upsert": 2}))).refusal == MISMATCH
        await committed(pod, 1, *objects, read={"upsert": 3})

    async def test_an_objects_operations_are_its_records(self, pod: Pod) -> None:
        described = await uploaded(pod, 1, 2)
        for wrong in ({"by_op": {"upsert": 1}}, {"records": 3}):
            assert (await pod.call("checkpoints", checkpoint(1, described | wrong))).refusal == MISMATCH
        await committed(pod, 1, described)

    async def test_an_older_sdk_says_nothing_of_operations(self, pod: Pod) -> None:
        await committed(pod, 1, await uploaded(pod, 1) | {"by_op": None})


class TestCredentials:
    """Credentials that the source has replaced."""

    async def test_the_same_value_again_makes_no_new_version(self, pod: Pod) -> None:
        for value, version in (("one", 1), ("one", 1), ("two", 2), ("one", 3)):
            answer = await pod.call("credentials", {"name": CREDENTIAL, "value": value, "seed": SEED})
            assert (answer.status, answer.body) == (200, {"version": version})
        answer = await pod.call("credentials", {"name": CREDENTIAL, "value": "one", "seed": "f" * 64})
        assert answer.body == {"version": 4}

    async def test_the_next_attempt_starts_with_it(self, pod: Pod) -> None:
        await pod.call("credentials", {"name": CREDENTIAL, "value": "rotated", "seed": SEED})
        following = Pod(pod.platform, *await pod.platform.next_attempt())
        started = await following.start()
        assert started.body["credentials"] == {CREDENTIAL: {"value": "rotated", "seed": SEED}}

    async def test_one_that_the_manifest_does_not_declare_is_refused(self, pod: Pod) -> None:
        answer = await pod.call("credentials", {"name": "password", "value": "secret", "seed": SEED})
        assert answer.refusal == INVALID
        assert "the manifest declares no credential of this name" in answer.body["message"]


class TestRateLimit:
    """Requests to a source whose rate limit is shared."""

    async def lease(self, pod: Pod, **other: Any) -> wire.RateLimitResponse:
        answer = await pod.call("rate-limit", {"host": "source.test", "port": 443, **other})
        assert answer.status == 200, answer
        return wire.RateLimitResponse.model_validate(answer.body)

    async def test_a_host_without_a_limit_is_not_limited(self, pod: Pod) -> None:
        for other in ({"host": "elsewhere.test"}, {"port": 80}):
            assert (await self.lease(pod, requests=1000, **other)).limited is False

    async def test_several_requests_are_given_at_once_and_the_next_ones_later(self, pod: Pod) -> None:
        first = await self.lease(pod, requests=1000)
        assert (first.requests, first.wait_seconds, first.limited) == (2, 0, True)
        assert first.valid_seconds == 3
        second = await self.lease(pod, requests=1000)
        assert second.requests == 1
        assert 0 < second.wait_seconds < 3

    async def test_the_budget_outlives_the_attempt(self, pod: Pod) -> None:
        await self.lease(pod, requests=2)
        later = await next_pod(pod)
        assert (await self.lease(later)).wait_seconds > 0

    async def test_a_promise_is_not_far_in_the_future(self, pod: Pod) -> None:
        leases = [await self.lease(pod) for _ in range(30)]
        assert leases[-1].requests == 0
        assert all(lease.wait_seconds <= 10 for lease in leases if lease.requests)


def leased(lease: str, *, known: str | None = None, refused: str | None = None) -> dict[str, Any]:
    """Return a request for a lease by a pod that knows a value, or the Secret's only."""
    body: dict[str, Any] = {"name": CREDENTIAL, "seed": SEED, "lease": lease * 32}
    body["known"] = SEED if known is None else digest_of(known)
    return body if refused is None else {**body, "refused": digest_of(refused)}


def got(value: str, lease: str, *, used: str | None = None, lifetime: float | None = 300.0) -> dict[str, Any]:
    """Return a request that stores what a provider has given for a value."""
    token = {"value": f"token-of-{value}", "lifetime": lifetime}
    replaces = SEED if used is None else digest_of(used)
    return {"name": CREDENTIAL, "value": value, "seed": SEED, "lease": lease * 32, "replaces": replaces, "token": token}


def digest_of(value: str) -> str:
    """Return the digest of a value."""
    return hashlib.sha256(value.encode()).hexdigest()


class TestCredentialLeases:
    """A credential that its use replaces is used by one pod at a time, and what it got is never lost."""

    async def test_one_pod_has_the_lease_and_another_waits(self, pod: Pod) -> None:
        for _ in range(2):  # a repeated request after a lost answer
            assert (await pod.call("credentials/lease", leased("a"))).body["granted"]
        other = (await pod.call("credentials/lease", leased("b"))).body
        assert not other["granted"]
        assert other["token"] is None
        assert other["wait_seconds"] > 0

    async def test_what_was_got_goes_to_the_others_who_then_need_no_lease(self, pod: Pod) -> None:
        await pod.call("credentials/lease", leased("a"))
        assert (await pod.call("credentials", got("one", "a"))).status == 200
        other = (await pod.call("credentials/lease", leased("b"))).body
        assert other["credential"] == {"value": "one", "seed": SEED}
        assert (other["token"]["value"], other["granted"]) == ("token-of-one", False)
        assert (await pod.call("credentials/lease", leased("b", known="one"))).body["credential"] is None

    async def test_a_token_that_the_source_refused_is_not_given_again(self, pod: Pod) -> None:
        await pod.call("credentials/lease", leased("a"))
        await pod.call("credentials", got("one", "a", lifetime=None))
        answer = (await pod.call("credentials/lease", leased("b", known="one", refused="token-of-one"))).body
        assert (answer["granted"], answer["token"], answer["interrupted"]) == (True, None, False)

    async def test_a_token_that_has_expired_is_not_given_again(self, pod: Pod) -> None:
        await pod.call("credentials/lease", leased("a"))
        await pod.call("credentials", got("one", "a", lifetime=1e-6))
        answer = (await pod.call("credentials/lease", leased("b"))).body
        assert (answer["granted"], answer["token"]) == (True, None)
        assert answer["credential"]["value"] == "one"

    async def test_the_same_store_again_changes_nothing(self, pod: Pod) -> None:
        await pod.call("credentials/lease", leased("a"))
        assert [(await pod.call("credentials", got("one", "a"))).body for _ in range(2)] == [{"version": 1}] * 2

    async def test_only_the_value_that_was_used_is_replaced(self, pod: Pod) -> None:
        await pod.call("credentials/lease", leased("a"))
        await pod.call("credentials", got("one", "a"))
        assert (await pod.call("credentials", got("other", "b"))).refusal == MISMATCH
        assert (await pod.call("credentials", got("two", "b", used="one"))).body == {"version": 2}

    async def test_an_attempt_that_another_has_replaced_still_stores_what_it_got(self, pod: Pod) -> None:
        await pod.call("credentials/lease", leased("a"))
        following = await next_pod(pod)
        assert not (await following.call("credentials/lease", leased("b"))).body["granted"]
        assert (await pod.call("credentials", got("one", "a"))).status == 200
        answer = (await following.call("credentials/lease", leased("b"))).body
        assert (answer["credential"]["value"], answer["token"]["value"]) == ("one", "token-of-one")

    async def test_a_lease_that_is_given_back_is_free(self, pod: Pod) -> None:
        await pod.call("credentials/lease", leased("a"))
        release = {"name": CREDENTIAL, "seed": SEED, "lease": "a" * 32}
        assert (await pod.call("credentials/release", {**release, "lease": "x" * 32})).status == 200
        assert not (await pod.call("credentials/lease", leased("b"))).body["granted"]
        assert (await pod.call("credentials/release", release)).status == 200
        answer = (await pod.call("credentials/lease", leased("b"))).body
        assert (answer["granted"], answer["interrupted"]) == (True, False)

    async def test_the_next_holder_learns_of_an_answer_that_was_lost(self, pod: Pod) -> None:
        await pod.call("credentials/lease", leased("a"))
        release = {"name": CREDENTIAL, "seed": SEED, "lease": "a" * 32, "unanswered": True}
        await pod.call("credentials/release", release)
        answer = (await pod.call("credentials/lease", leased("b"))).body
        assert (answer["granted"], answer["interrupted"]) == (True, True)

    async def test_another_value_of_the_secret_is_another_credential(self, pod: Pod) -> None:
        await pod.call("credentials/lease", leased("a"))
        await pod.call("credentials", got("one", "a"))
        changed = {**leased("b"), "seed": digest_of("new"), "known": digest_of("new")}
        answer = (await pod.call("credentials/lease", changed)).body
        assert (answer["granted"], answer["credential"], answer["token"]) == (True, None, None)

    @pytest.mark.parametrize("path", ["credentials/lease", "credentials"])
    async def test_one_that_the_manifest_does_not_declare_is_refused(self, pod: Pod, path: str) -> None:
        body = {**(leased("a") if path == "credentials/lease" else got("one", "a")), "name": "password"}
        assert (await pod.call(path, body)).refusal == INVALID

    async def test_giving_back_needs_the_run_token(self, pod: Pod) -> None:
        body = {"name": CREDENTIAL, "seed": SEED, "lease": "a" * 32}
        assert (await pod.call("credentials/release", body, "wrong")).refusal == UNAUTHENTICATED


class TestHeartbeat:
    """The attempt is alive."""

    async def test_it_says_whether_to_stop(self, pod: Pod) -> None:
        assert (await pod.call("heartbeat", {})).body == {"cancel": False}
        await pod.platform.request_cancel()
        assert (await pod.call("heartbeat", {"metrics": {"records": 1}, "stream": "people"})).body == {"cancel": True}


class TestEstimate:
    """What the attempt is expected to cost."""

    async def test_within_the_budget_the_attempt_may_begin(self, pod: Pod) -> None:
        asked = {"streams": {"people": {"records": BUDGET - 1, "bytes": 10**9}, "events": {"records": 1}}}
        for _ in range(2):
            answer = await pod.call("estimate", asked)
            assert (answer.status, answer.body) == (200, {})
        assert (await pod.call("estimate", {"streams": {}})).status == 200

    async def test_over_the_budget_it_may_not(self, pod: Pod) -> None:
        asked = {"streams": {"people": {"records": BUDGET}, "events": {"records": 1}}}
        assert (await pod.call("estimate", asked)).refusal == INVALID
        assert (await pod.call("heartbeat", {})).status == 200, "the attempt says itself how it ends"


def failed(error_class: str) -> dict[str, Any]:
    return {"outcome": "failed", "error": {"error_class": error_class, "message": "no"}}


class TestFinish:
    """The attempt's end."""

    @pytest.fixture(autouse=True)
    async def _discovered(self, pod: Pod) -> None:
        await discovered(pod)

    @pytest.mark.parametrize(
        ("ended", "phase"),
        [
            ({"outcome": "cancelled"}, "cancelled"),
            ({"outcome": "interrupted"}, "pending"),
            (failed("TransientError"), "pending"),
            (failed("DefectError"), "pending"),
            (failed("ConfigError"), "failed"),
            (failed("AuthenticationError"), "failed"),
            (failed("SourceContractError"), "failed"),
            (failed("LocalPersistenceError"), "failed"),
        ],
        ids=str,
    )
    async def test_an_end_can_be_told_again(self, pod: Pod, ended: dict[str, Any], phase: str) -> None:
        for _ in range(2):
            answer = await pod.call("finish", ended)
            assert (answer.status, answer.body) == (200, {"phase": phase})
        other = "interrupted" if ended["outcome"] != "interrupted" else "cancelled"
        assert (await pod.call("finish", {"outcome": other})).refusal == FENCED

    async def test_success_is_believed_once_every_stream_is_done(self, pod: Pod) -> None:
        await committed(pod, 1, done=True)
        assert (await pod.call("finish", {"outcome": "succeeded"})).refusal == MISMATCH
        await committed(pod, 1, stream="events", done=True)
        for _ in range(2):
            assert (await pod.call("finish", {"outcome": "succeeded"})).body == {"phase": "succeeded"}

    @pytest.mark.parametrize(
        "wrong",
        [
            {"records": {"people": 1}},
            {"records": {}},
            {"records": {"people": 2, "events": 1}},
            {"records": {"people": 2}, "rejected": {"people": 1}},
            {"records": {"people": 2}, "read": {"people": {"upsert": 3}}},
            {"records": {"people": 2}, "read": {"people": {"upsert": 1, "delete": 1}}},
        ],
        ids=str,
    )
    async def test_a_success_that_counts_otherwise_is_a_defect(self, pod: Pod, wrong: dict[str, Any]) -> None:
        await committed(pod, 1, await uploaded(pod, 1, 2), done=True)
        await committed(pod, 1, stream="events", done=True)
        ended = {"outcome": "succeeded", **wrong}
        assert (await pod.call("finish", ended)).body == {"phase": "failed"}
        assert (await pod.call("finish", ended)).refusal == FENCED, "the attempt has not ended so"

    async def test_a_success_with_a_failed_stream_is_none(self, pod: Pod) -> None:
        ended = {"outcome": "succeeded", "streams": {"people": {"outcome": "failed"}}}
        assert (await pod.call("finish", ended)).body == {"phase": "failed"}

    async def test_a_success_with_a_refused_stream_is_none(self, pod: Pod) -> None:
        await discovered(pod, "events")
        await committed(pod, 1, stream="events", done=True)
        assert (await pod.call("finish", {"outcome": "succeeded"})).body == {"phase": "failed"}

    async def test_a_failure_says_its_error(self, pod: Pod) -> None:
        assert (await pod.call("finish", {"outcome": "failed"})).refusal == INVALID
        assert (await pod.call("heartbeat", {})).status == 200, "the attempt has not ended"

    async def test_a_failure_after_a_request_to_cancel_is_a_cancellation(self, pod: Pod) -> None:
        await pod.platform.request_cancel()
        assert (await pod.call("finish", failed("TransientError"))).body == {"phase": "cancelled"}

    async def test_a_run_that_is_tried_again_is_under_way(self, pod: Pod) -> None:
        await pod.call("finish", failed("TransientError"))
        following = await next_pod(pod)
        assert (await pod.call("finish", failed("TransientError"))).body == {"phase": "running"}
        assert (await following.call("heartbeat", {})).status == 200
