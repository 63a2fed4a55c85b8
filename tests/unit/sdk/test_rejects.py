"""Records that do not fit: put aside with the reason, counted, committed with the state that covers them."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from penstock_sdk import Batch, SourceContractError, TransientError
from penstock_sdk import protocol as wire
from penstock_sdk._runtime.rejects import encodable
from penstock_sdk._runtime.strict_schema import StrictSchema
from penstock_sdk.testing.run_api import RUN

SCHEMA = {
    "type": "object",
    "properties": {
        "n": {"type": "integer"},
        "name": {"type": ["string", "null"], "maxLength": 5},
        "tags": {"type": "array", "items": {"type": "string"}},
        "deep": {"type": "object", "properties": {"x": {"type": "number"}}, "required": ["x"]},
        "kind": {"enum": ["a", "b"], "type": "string"},
    },
    "required": ["n", "name"],
}


@pytest.fixture
def rejecting(attempt: Any, platform: Any) -> Any:
    platform.rejects = wire.RejectRules()
    attempt.shape = {"schema": SCHEMA, "primary_key": ("n",)}
    return attempt


def reasons(platform: Any) -> list[tuple[int, str]]:
    return [(line["position"], line["reason"]) for line in platform.lines(kind="rejected")]


def once(*pages: Any) -> Any:
    return lambda *_: iter([Batch(page, cursor=at) for at, page in enumerate(pages)])


def test_what_does_not_fit_is_put_aside_and_the_rest_goes_on(rejecting: Any, platform: Any) -> None:
    rows = [{"n": 0}, {"n": 1 + 2j}, {"m": 2}, {"n": None}, [5], {"n": 5, "x": {"y": [1, object()]}}, {"n": 6}]
    assert rejecting(once(rows)) == 0
    assert [line["data"]["n"] for line in platform.lines()] == [0, 6]
    assert reasons(platform) == [
        (1, "Unencodable"),
        (2, "MissingKey"),
        (3, "MissingKey"),
        (4, "NotARecord"),
        (5, "Unencodable"),
    ]
    finish = platform.finished[0]
    assert (finish.records, finish.rejected) == ({"people": 2}, {"people": 5})
    assert finish.metrics["records_rejected"] == 5


def test_a_rejected_line_says_where_and_why_and_keeps_what_json_can_hold(rejecting: Any, platform: Any) -> None:
    assert rejecting(once([{"n": 1, "when": dt.date(2026, 1, 2), "bad": 1 + 2j, "obj": object(), 5: b"x"}])) == 0
    (line,) = platform.lines(kind="rejected")
    assert {"tenant": "team-a", "stream": "people", "run": RUN, "attempt": 1, "op": "upsert"}.items() <= line.items()
    assert line["message"] == "field bad of type complex cannot be represented in JSON"
    assert line["data"] == {
        "n": 1,
        "when": "2026-01-02",
        "bad": {"unencodable": "complex", "repr": "(1+2j)"},
        "obj": {"unencodable": "object"},
        "5": "eA==",
    }


def test_rejected_records_commit_with_the_cursor_that_covers_them(rejecting: Any, platform: Any) -> None:
    platform.limits = wire.Limits(checkpoint_records=1, heartbeat_seconds=60)
    assert rejecting(once([{"n": 0}, {}], [{}], [{"n": 1}])) == 0
    kinds = [[uploaded.kind for uploaded in commit.objects] for commit in platform.commits]
    assert kinds == [["data", "rejected"], ["rejected"], ["data"], []]
    assert [commit.cursor for commit in platform.commits] == [0, 1, 2, 2]


def test_what_no_cursor_covers_is_not_put_aside_either(rejecting: Any, platform: Any) -> None:
    def read(*_: Any) -> Iterator[Batch]:
        yield Batch([{}], cursor=0)
        yield Batch([{}, {}])
        raise TransientError("the source went away")

    platform.limits = wire.Limits(checkpoint_records=1, heartbeat_seconds=60)
    rejecting(read)
    assert len(platform.lines(kind="rejected")) == 1
    assert platform.finished[0].rejected == {"people": 1}


def test_many_rejected_records_become_several_objects(rejecting: Any, platform: Any) -> None:
    import os

    platform.limits = wire.Limits(object_bytes=1 << 16, heartbeat_seconds=60)
    assert rejecting(once([{"noise": os.urandom(2000).hex()} for _ in range(200)])) == 0
    (commit,) = platform.commits
    assert len([uploaded for uploaded in commit.objects if uploaded.kind == "rejected"]) > 2
    assert len(platform.lines(kind="rejected")) == 200
    assert platform.finished[0].rejected == {"people": 200}


@pytest.mark.parametrize(
    ("rules", "words"),
    [
        (wire.RejectRules(max_records=1), "2 of 3 records were rejected, more than spec.rejects.maxRecords (1) allows"),
        (wire.RejectRules(max_records=0), "1 of 3 records were rejected, more than spec.rejects.maxRecords (0) allows"),
        (wire.RejectRules(max_share=0.5), "2 of 3 records were rejected, more than spec.rejects.maxShare (0.5) allows"),
    ],
)
def test_past_a_threshold_the_attempt_fails_and_says_the_first_reason(
    rejecting: Any, platform: Any, rules: wire.RejectRules, words: str
) -> None:
    platform.rejects = rules
    assert rejecting(once([{"n": 1}, {}, {}])) == SourceContractError.exit_code
    message = platform.finished[0].error.message
    assert words in message
    assert "MissingKey: field n of the primary key is missing" in message
    assert not any(commit.done for commit in platform.commits)


def test_a_share_says_nothing_before_enough_is_read(rejecting: Any, platform: Any) -> None:
    platform.rejects = wire.RejectRules(max_share=0.1)
    platform.limits = wire.Limits(checkpoint_records=1, heartbeat_seconds=60)
    assert rejecting(once([{}], [{"n": n} for n in range(20)])) == 0


def test_a_share_ends_a_long_read_early(rejecting: Any, platform: Any) -> None:
    platform.rejects = wire.RejectRules(max_share=0.1)
    platform.limits = wire.Limits(checkpoint_records=1, heartbeat_seconds=60)
    pages = []

    def read(*_: Any) -> Iterator[Batch]:
        for page in range(10):
            pages.append(page)
            yield Batch([{}] * 500, cursor=page)

    assert rejecting(read) == SourceContractError.exit_code
    assert pages == [0, 1]


def test_a_line_of_a_page_that_is_no_json_is_put_aside(rejecting: Any, platform: Any) -> None:
    assert rejecting(once(b'{"n":0}\n{"n":\n{"n":1,"t":"\xff"}\n{"n":2}\n')) == 0
    assert [line["data"]["n"] for line in platform.lines()] == [0, 2]
    lines = platform.lines(kind="rejected")
    assert [line["reason"] for line in lines] == ["NotJson", "NotJson"]
    assert lines[1]["data"] == '{"n":1,"t":"\\xff"}'


@pytest.mark.parametrize(("most", "code"), [(None, 0), (0, SourceContractError.exit_code)])
def test_what_the_connector_cannot_read_is_put_aside_by_itself(
    rejecting: Any, platform: Any, most: int | None, code: int
) -> None:
    """It is committed with the next promise, counted with what was read, and held against the threshold."""
    platform.rejects = wire.RejectRules(max_records=most)
    made: list[Any] = []

    def read(*_: Any) -> Iterator[Batch]:
        yield Batch([{"n": 0}], cursor=0)
        made[-1].reject({"line": 2, "row": "x\udc80"}, "a.csv, line 2: it has 1 fields")
        yield Batch([{"n": 1}], cursor=1)

    assert rejecting(read, health=made.append) == code
    found = [(line["position"], line["reason"], line["message"]) for line in platform.lines(kind="rejected")]
    assert found == ([(1, "Unreadable", "a.csv, line 2: it has 1 fields")] if most is None else [])


def test_without_rejects_what_cannot_be_read_fails_the_attempt(attempt: Any, platform: Any) -> None:
    made: list[Any] = []

    def read(*_: Any) -> Iterator[Batch]:
        made[-1].reject("x", "a.csv, line 2: it has 1 fields")
        yield Batch([{"n": 1}], cursor=1)

    assert attempt(read, health=made.append) == SourceContractError.exit_code
    assert "a.csv, line 2" in platform.finished[0].error.message


@pytest.mark.parametrize("page", [b"<html>no</html>", b'[{"n":0},{"n":'])
def test_a_page_that_is_no_page_fails_the_attempt_as_before(rejecting: Any, platform: Any, page: bytes) -> None:
    assert rejecting(once(page)) == SourceContractError.exit_code
    assert "not JSON" in platform.finished[0].error.message


def test_a_server_that_knows_nothing_of_rejects_gets_what_it_got(attempt: Any, platform: Any) -> None:
    assert attempt(once([{"n": 1j}])) == SourceContractError.exit_code
    assert platform.commits == []


def test_strict_validation_rejects_what_the_schema_forbids(rejecting: Any, platform: Any) -> None:
    platform.rejects = wire.RejectRules(strict=True)
    good = {"n": 1, "name": "x", "tags": ["a"], "deep": {"x": 1}, "kind": "a", "more": 1}
    bad: list[tuple[dict[str, Any], str]] = [
        ({"name": 5}, "Expected str | null, got int - at $.name"),
        ({"name": "too long"}, "at $.name"),
        ({"tags": ["a", 1]}, "at $.tags[1]"),
        ({"deep": {}}, "missing required field x - at $.deep"),
        ({"kind": "s3cret"}, "it is not one of the values of the enum - at $.kind"),
        ({"n": 1.5}, "Expected int, got float - at $.n"),
    ]
    rows = [good, *({**good, **change} for change, _ in bad), {**good, "name": None}]
    assert rejecting(once(rows)) == 0
    assert len(platform.lines()) == 2
    for line, (_, words) in zip(platform.lines(kind="rejected"), bad, strict=True):
        assert line["reason"] == "SchemaMismatch"
        assert words in line["message"]
        assert "s3cret" not in line["message"]


def test_strict_validation_looks_into_pages_for_keys_too(rejecting: Any, platform: Any) -> None:
    platform.rejects = wire.RejectRules(strict=True)
    assert rejecting(once(b'[{"n":1,"name":"a"},{"name":"a"},{"n":null,"name":"a"}]')) == 0
    assert [line["data"]["n"] for line in platform.lines()] == [1]
    assert len(platform.lines(kind="rejected")) == 2


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object", "properties": {"a": {"$ref": "#/$defs/x"}}},
        {
            "type": "object",
            "properties": {"a": {"type": ["object", "array", "string"], "properties": {"b": {"type": "string"}}}},
        },
        {"type": "object", "properties": {"a": {"type": "string", "pattern": "("}}},
        {"type": "object", "properties": {"a": {"type": ["integer", "string"], "minimum": "x"}}},
        {"type": "object", "properties": {"a": {"anyOf": [{"type": "object", "properties": {}}, {"type": "null"}]}}},
        {},
    ],
)
def test_what_cannot_be_checked_is_not_rejected(schema: dict[str, Any]) -> None:
    assert StrictSchema(schema, ()).matches([b'{"a":"x"}'])


def test_what_is_kept_of_a_record_is_always_json() -> None:
    circle: dict[str, Any] = {}
    circle["self"] = circle
    awkward = {"big": 10**40, "surrogate": "\ud800", "circle": circle, (1, 2): 1, "set": {1}, "nan": float("nan")}
    assert msgspec.json.decode(msgspec.json.encode(encodable(awkward)))["big"] == 10**40
