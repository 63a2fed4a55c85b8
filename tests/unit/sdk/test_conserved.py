"""Records are conserved: whatever a batch holds, each record is committed as strict JSON or put aside, and never both.

The oracle knows nothing of the encoder: it makes records of which it knows whether they fit, and reads the lines with
Python's own strict reader. PENSTOCK_EXAMPLES makes it try more.
"""

from __future__ import annotations

import json
import math
import os
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec
import pyarrow as pa
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st
from penstock_sdk import DefectError, Op, Stream
from penstock_sdk import protocol as wire
from penstock_sdk._runtime import pipeline
from penstock_sdk._runtime.commits import StreamCommits
from penstock_sdk._runtime.encode import Chunker, Envelope, LineEncoder
from penstock_sdk._runtime.metrics import Metrics
from penstock_sdk._runtime.object_writer import ObjectWriter
from penstock_sdk._runtime.pipeline import StreamPipeline, UncoveredLines
from penstock_sdk._runtime.rejects import RecordValidator

ENVELOPE = Envelope("team", "people", "faker-generate-0.1.0", "people", "0193e0c7a5b87c1d9d3b", 1, 1)
SCHEMA = {
    "type": "object",
    "properties": {"id": {"type": "integer"}, "n": {"type": ["integer", "null"]}, "v": {}},
    "required": ["id", "n"],
}
STREAM = Stream(name="people", schema=SCHEMA, primary_key=("id",))
EXAMPLES = int(os.environ.get("PENSTOCK_EXAMPLES", "60"))
OPS: tuple[Op, ...] = ("upsert", "delete")


def run(records: Any, op: Op = "upsert", *, strict: bool = False) -> tuple[list[Any], list[Any]]:
    """Return the data of the lines that are committed and the documents of those put aside."""
    rejected: list[bytes] = []
    validator = RecordValidator(ENVELOPE, STREAM, wire.RejectRules(strict=strict), lambda: "now")
    validator.op = op
    validator.send_to(rejected.append)
    encoder, chunker, text = LineEncoder(ENVELOPE, 1, "now"), Chunker("people", validator.reject_line), b""
    for chunk in chunker.chunks(records):
        rows = validator.rows(chunk)
        lines = encoder.lines(rows, op) if rows else b""
        text += lines
        chunker.learn(len(chunk.rows), len(lines) or 1)
    documents = [strict_json(line) for line in text.split(b"\n")[:-1]]
    assert encoder.records == len(documents)
    assert all(document["op"] == op for document in documents)
    return [document["data"] for document in documents], [strict_json(line) for line in rejected]


def strict_json(line: bytes) -> Any:
    def refuse(name: str) -> None:
        raise AssertionError(name)

    value = json.loads(line.decode(), parse_constant=refuse)
    json.dumps(value, ensure_ascii=False).encode()
    return value


def deep(levels: int) -> Any:
    value: Any = 1
    for level in range(levels):
        value = [value] if level % 2 else {"a": value}
    return value


BAD_VALUES: list[Any] = [
    math.nan,
    math.inf,
    [-math.inf],
    {"a": [None, math.nan]},
    {"a": "null", "b": math.nan},
    "\ud800",
    deep(600),
    deep(5000),
    object(),
    msgspec.Raw(b"2\n3"),
    msgspec.Raw(b"2 3"),
    msgspec.Raw(b""),
    msgspec.Raw(b'"\\ud800"'),
    msgspec.Raw(b"1e400"),
    msgspec.Raw(b"NaN"),
    msgspec.Raw(b"01"),
    msgspec.Raw(b'1},{"id":9'),
]
BAD_TEXTS = [
    b'"\\ud800"',
    b'"\\uDFFF x"',
    b"1e400",
    b"-1E+999",
    b"[" * 600 + b"]" * 600,
    b"9" * 5000,
    b'{"a":{"b":"\\ud83d"}}',
]
GOOD_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]))
    | st.sampled_from(["null", "\\ud800", "e000", "\n", "\r\n", "\u2028", "[" * 200, "1" * 30]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "b\n", "null"]), inner, max_size=3)
    ),
    max_leaves=6,
)
RECORDS = st.lists(st.tuples(GOOD_VALUES, st.none() | st.sampled_from(range(len(BAD_VALUES)))), max_size=60)


def numbered(values: list[Any]) -> list[dict[str, Any]]:
    return [{"id": number, "n": None, "v": value} for number, value in enumerate(values)]


@settings(max_examples=EXAMPLES, deadline=None)
@given(RECORDS, st.sampled_from(OPS), st.booleans())
def test_dicts_are_conserved(drawn: list[tuple[Any, int | None]], op: Op, strict: bool) -> None:  # noqa: FBT001 - drawn
    rows = numbered([value if bad is None else BAD_VALUES[bad] for value, bad in drawn])
    good = [row for row, (_, bad) in zip(rows, drawn, strict=True) if bad is None]
    committed, rejected = run(rows, op, strict=strict)
    assert committed == good
    assert len(committed) + len(rejected) == len(rows)
    assert {rejection["position"] for rejection in rejected} == {
        row["id"] for row, (_, bad) in zip(rows, drawn, strict=True) if bad is not None
    }


PAGES = st.lists(st.tuples(GOOD_VALUES, st.none() | st.sampled_from(BAD_TEXTS)), max_size=40)


@settings(max_examples=EXAMPLES, deadline=None)
@given(PAGES, st.sampled_from(OPS), st.booleans(), st.booleans(), st.sampled_from([b" ", b"", b"\t"]))
def test_pages_are_conserved(
    drawn: list[tuple[Any, bytes | None]],
    op: Op,
    strict: bool,  # noqa: FBT001 - drawn
    array: bool,  # noqa: FBT001 - drawn
    space: bytes,
) -> None:
    values = [
        bad or json.dumps(value, ensure_ascii=number % 2 == 0).encode() for number, (value, bad) in enumerate(drawn)
    ]
    texts = [b'{"id":%d,%s"n":null,"v":%s}' % (number, space, value) for number, value in enumerate(values)]
    page = b"[" + (b",\n" + space).join(texts) + b"]" if array else b"\n".join(texts)
    committed, rejected = run(page, op, strict=strict)
    assert committed == [
        row for row, (_, bad) in zip(numbered([v for v, _ in drawn]), drawn, strict=True) if bad is None
    ]
    assert len(committed) + len(rejected) == len(drawn)


@settings(max_examples=EXAMPLES, deadline=None)
@given(st.lists(st.none() | st.floats(), max_size=50))
def test_arrow_batches_are_conserved(values: list[float | None]) -> None:
    count = len(values)
    batch = pa.record_batch({"id": range(count), "n": pa.nulls(count, pa.int64()), "v": pa.array(values, pa.float64())})
    committed, rejected = run(batch)
    assert committed == numbered(list(values)) or any(v is not None and not math.isfinite(v) for v in values)
    assert len(rejected) == sum(value is not None and not math.isfinite(value) for value in values)
    assert len(committed) + len(rejected) == count


@pytest.mark.parametrize("strict", [False, True])
def test_a_quoted_line_break_in_an_integer_column_is_one_bad_row(strict: bool) -> None:  # noqa: FBT001 - a case
    rows = [{"id": 1, "n": msgspec.Raw(text)} for text in (b"1", b"2\n3", b"4")]
    committed, rejected = run(rows, strict=strict)
    assert [row["n"] for row in committed] == [1, 4]
    assert [rejection["position"] for rejection in rejected] == [1]


@pytest.mark.parametrize(
    "rows", [[{"id": 1}, {"n": 2}, {"id": None}], b'[{"id":1},{"n":2},{"id":null}]'], ids=["dicts", "page"]
)
@pytest.mark.parametrize("strict", [False, True])
def test_a_delete_needs_its_key_and_no_more(rows: Any, strict: bool) -> None:  # noqa: FBT001 - a case
    committed, rejected = run(rows, "delete", strict=strict)
    assert committed == [{"id": 1}]
    assert [rejection["op"] for rejection in rejected] == ["delete", "delete"]


def test_what_is_put_aside_says_where_and_why_without_the_value() -> None:
    _, rejected = run(
        [{"id": 1, "v": {"price": [1.0, math.nan]}}, {"id": 2, "v": deep(520)}, {"id": 3, "n": msgspec.Raw(b"1" * 30)}]
    )
    assert [rejection["message"] for rejection in rejected] == [
        "field v.price[1] is NaN or infinite, which JSON cannot represent",
        "it is nested deeper than 500 levels",
        "field n is an integer of more than 64 bits",
    ]


def test_records_of_both_kinds_in_one_batch() -> None:
    rows = [msgspec.Raw(b'{"id":1}'), {"v": 1}, msgspec.Raw(b"7"), {"id": 2}, msgspec.Raw(b'{"id":3}{"id":4}')]
    committed, rejected = run(rows)
    assert committed == [{"id": 1}, {"id": 2}]
    assert [rejection["reason"] for rejection in rejected] == ["MissingKey", "NotARecord", "NotJson"]


LOSING = {
    "a row is dropped": lambda rows: rows[1:],
    "a row is doubled": lambda rows: [*rows, rows[0]],
    "a line is split": lambda rows: [rows[0] + b"\n{}", *rows[1:]],
    "two lines are joined": lambda rows: [rows[0] + rows[1], *rows[2:]],
}


@pytest.mark.parametrize("fault", LOSING)
def test_an_encoder_that_loses_or_makes_records_fails_the_read(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    encode = LineEncoder.lines
    monkeypatch.setattr(LineEncoder, "lines", lambda self, rows, op: encode(self, LOSING[fault](rows), op))
    validator = RecordValidator(ENVELOPE, STREAM, wire.RejectRules(), lambda: "now")
    shared = StreamCommits(None, "people", 0, Metrics())  # type: ignore[arg-type]
    sink = StreamPipeline(shared, ENVELOPE, None, wire.Limits(), validator=validator)
    try:
        with pytest.raises(DefectError, match=r"stream 'people': 3 records were read, [234] encoded and 0 rejected"):
            sink.emit(numbered([1, 2, 3]), "upsert")
    finally:
        sink.close()


BATCHES = st.lists(
    st.tuples(st.sampled_from(OPS), st.integers(0, 7), st.booleans(), st.booleans(), st.integers(0, 2)), max_size=12
)


class Objects:
    """The client of a pipeline: it holds the objects and the checkpoints that name them."""

    def __init__(self) -> None:
        self.bodies: dict[str, bytes] = {}
        self.commits: list[wire.CheckpointRequest] = []

    def uploads(self, asked: wire.UploadsRequest) -> wire.UploadsResponse:
        numbers = [wanted.sequence for wanted in asked.objects]
        grants = [
            wire.UploadGrant(key=f"{asked.kind}-{n}", sequence=n, url="", headers={}, kind=asked.kind) for n in numbers
        ]
        return wire.UploadsResponse(grants=grants, expires_at=datetime.now(UTC))

    def upload(self, grant: wire.UploadGrant, upload: Any) -> None:
        self.bodies[grant.key] = upload.body

    def checkpoint(self, asked: wire.CheckpointRequest) -> None:
        self.commits.append(asked)

    def by_op(self, each: wire.UploadedObject) -> Counter[str]:
        text = zstandard.ZstdDecompressor().decompressobj().decompress(self.bodies[each.key])
        return Counter(strict_json(line)["op"] for line in text.split(b"\n")[:-1])


@settings(max_examples=EXAMPLES, deadline=None)
@given(BATCHES, st.booleans(), st.integers(1, 9), st.booleans())
def test_every_operation_is_counted_in_the_batch_the_object_and_the_commit(
    batches: list[tuple[Op, int, bool, bool, int]],
    fails: bool,  # noqa: FBT001 - drawn
    most: int,
    small: bool,  # noqa: FBT001 - drawn
) -> None:
    """Batches of both operations, with records that do not fit, with and without a cursor, that end well or not."""
    client, metrics = Objects(), Metrics()
    validator = RecordValidator(ENVELOPE, STREAM, wire.RejectRules(), lambda: "now")
    shared = StreamCommits(client, "people", 0, metrics)  # type: ignore[arg-type]
    limits = wire.Limits(checkpoint_records=most, object_bytes=1024)
    most_uncovered = 300 if small else None
    sink = StreamPipeline(shared, ENVELOPE, None, limits, validator=validator, most_uncovered_bytes=most_uncovered)
    covered, since = Counter[str](), Counter[str]()
    for number, (op, good, unfit, cursor, unreadable) in enumerate(batches):
        rows = [{"id": n, "pad": str(n) * 40} for n in range(good)] + [{"n": 1}] * unfit
        for _ in range(unreadable):
            sink.reject("a line", "it does not parse")
        sink.emit(rows, op)
        since.update({op: len(rows), "upsert": unreadable} if op == "delete" else {op: len(rows) + unreadable})
        if cursor:
            sink.checkpoint(number)
            covered, since = covered + since, Counter()
    (sink.interrupt if fails else sink.finish)()
    sink.close()
    told = Counter[str]()
    for commit in client.commits:
        held = sum((client.by_op(uploaded) for uploaded in commit.objects), Counter[str]())
        assert held == +Counter(commit.read)
        assert [+Counter(uploaded.by_op) for uploaded in commit.objects] == [
            client.by_op(uploaded) for uploaded in commit.objects
        ]
        assert [uploaded.records for uploaded in commit.objects] == [
            sum((uploaded.by_op or {}).values()) for uploaded in commit.objects
        ]
        told += held
    assert told == +(covered if fails else covered + since)
    assert metrics.committed.get("people", 0) + metrics.rejected.get("people", 0) == told.total()


class Forgets(UncoveredLines):
    """Does not hold the lines of deletes."""

    def add(self, lines: bytes, records: int, op: Op) -> None:
        if op != "delete":
            super().add(lines, records, op)


class Doubles(UncoveredLines):
    """Holds the lines of deletes twice."""

    def add(self, lines: bytes, records: int, op: Op) -> None:
        for _ in range(2 if op == "delete" else 1):
            super().add(lines, records, op)


class ForgetsRejected(UncoveredLines):
    """Does not hold rejected records."""

    def reject(self, line: bytes, op: Op) -> None:
        pass


class ChangesTheOperation(UncoveredLines):
    """Takes every delete for an upsert."""

    def add(self, lines: bytes, records: int, op: Op) -> None:
        super().add(lines, records, "upsert")


class UploadsNothing(ObjectWriter):
    """Uploads no object."""

    def upload(self, sequence: int, by_op: Mapping[Op, int]) -> None:
        pass


LOSERS: dict[str, type[UncoveredLines | ObjectWriter]] = {
    "held lines are forgotten": Forgets,
    "held lines are sent twice": Doubles,
    "a rejected record is forgotten": ForgetsRejected,
    "an upload is forgotten": UploadsNothing,
    "an op is changed": ChangesTheOperation,
}


@pytest.mark.parametrize("fault", LOSERS)
def test_a_commit_that_lost_or_doubled_records_is_refused(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    faulty = LOSERS[fault]
    monkeypatch.setattr(pipeline, faulty.__base__.__name__, faulty)
    client = Objects()
    validator = RecordValidator(ENVELOPE, STREAM, wire.RejectRules(), lambda: "now")
    shared = StreamCommits(client, "people", 0, Metrics())  # type: ignore[arg-type]
    sink = StreamPipeline(shared, ENVELOPE, None, wire.Limits(), validator=validator)
    try:
        sink.emit(numbered([1, 2, 3]), "delete")
        sink.emit([{"n": 1}, *numbered([4])], "upsert")
        with pytest.raises(
            DefectError, match=r"stream 'people': 2 upserts and 3 deletes were read, .* would be commit"
        ):
            sink.finish()
        assert client.commits == []
    finally:
        sink.close()
