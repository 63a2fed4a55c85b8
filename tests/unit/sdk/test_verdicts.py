"""What an attempt does with a verdict: fields to leave out, streams that it may not read, names that change."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from penstock_sdk import Batch, SourceContractError, Stream
from penstock_sdk import protocol as wire
from penstock_sdk._runtime.encode import Chunk
from penstock_sdk._runtime.field_removal import FieldRemover

ROW = {"n": 1, "secret": 5, "lines": [{"a": 1, "b": 2}, {"a": 3}], "deep": {"x": {"y": 1}, "z": 2}}
LEFT = {"n": 1, "lines": [{"a": 1}, {"a": 3}], "deep": {"x": {}, "z": 2}}
PATHS = [["secret"], ["lines", "b"], ["deep", "x", "y"], ["absent"]]


@pytest.mark.parametrize("raw", [False, True])
def test_fields_are_left_out_wherever_they_are(*, raw: bool) -> None:
    row: Any = msgspec.Raw(msgspec.json.encode(ROW)) if raw else ROW
    (left,) = FieldRemover(PATHS, "people")(Chunk([row], 0)).rows
    assert (msgspec.json.decode(left) if raw else left) == LEFT
    assert ROW["secret"] == 5, "the author's own record stays as it is"


def test_what_is_left_of_json_stays_as_it_was_written() -> None:
    long = b'{"n":123456789012345678901234567890,"price":1.10,"secret":1,"o":{"p":2.50}}'
    (left,) = FieldRemover([["secret"], ["o", "q"]], "people")(Chunk([msgspec.Raw(long)], 0)).rows
    assert bytes(left) == b'{"n":123456789012345678901234567890,"price":1.10,"o":{"p":2.50}}'


def test_no_object_holds_a_field_that_the_verdict_drops(attempt: Any, platform: Any) -> None:
    platform.drop = [["secret"]]
    pages: list[Any] = [[{"n": 1, "secret": "x"}], b'[{"n":2,"secret":"x"}]']
    assert attempt(lambda *_: iter([Batch(page, cursor=1) for page in pages])) == 0
    assert [line["data"] for line in platform.lines()] == [{"n": 1}, {"n": 2}]


def test_a_refused_stream_holds_up_no_other_and_fails_the_attempt_by_its_reason(attempt: Any, platform: Any) -> None:
    attempt.streams = ("people", "orders")
    platform.refusals = {"people": "stream 'people' is frozen: field 'a' is gone"}
    read: list[str] = []

    def reading(stream: Stream, _: Any) -> Iterator[Batch]:
        read.append(stream.name)
        yield Batch([{"n": 1}], cursor=1)

    assert attempt(reading) == SourceContractError.exit_code
    assert read == ["orders"]
    assert platform.finished[0].error.message == platform.refusals["people"]
    assert [commit.stream for commit in platform.commits if commit.done] == ["orders"]


def test_the_sdk_says_what_it_can_do(attempt: Any, platform: Any) -> None:
    attempt(lambda *_: iter([]))
    (body,) = [body for path, body in platform.calls if path == "streams"]
    assert "drop" in wire.StreamsRequest.model_validate(body).abilities
