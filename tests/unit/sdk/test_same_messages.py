"""What a connector returns is judged alike by `penstock-connector read` and by a pod: with the same words, and nothing silent."""

from __future__ import annotations

import asyncio
import dataclasses
import datetime as dt
import decimal
import enum
import io
import json
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pydantic
import pytest
import zstandard
from penstock_sdk import Batch, Connector, Stream
from penstock_sdk import protocol as wire
from penstock_sdk._runtime.assignment import Assignment
from penstock_sdk._runtime.client import RetryPolicy, RunClient
from penstock_sdk._runtime.run import run_connector
from penstock_sdk.author.local_read import JsonLinesOutput, read_stream
from penstock_sdk.errors import ConnectorError
from penstock_sdk.testing.run_api import RUN

from tests.unit.sdk.conftest import IDENTITY, Platform

SCHEMA = {"type": "object", "properties": {"id": {"type": "integer"}, "value": {}}}
NOW = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)


@dataclasses.dataclass
class Plain:
    """An item."""

    id: int
    value: Any = None


class Packed(msgspec.Struct):
    """An item."""

    id: int
    value: Any = None


class Model(pydantic.BaseModel):
    """An item."""

    id: int


class Colour(enum.Enum):
    """A choice."""

    RED = "red"


def offered(**changed: Any) -> Callable[[], Any]:
    return lambda: [Stream(**{"name": "people", "schema": SCHEMA, "primary_key": ("id",), **changed})]


def yields(*batches: Any) -> Callable[[], Any]:
    return lambda: iter(batches)


def fields(name: str) -> Callable[[], Any]:
    return offered(schema={"type": "object", "properties": {"id": {"type": name}}})


async def coroutine() -> Any:
    return []


async def async_generator() -> Any:
    yield Batch([])


def nested() -> Iterator[Any]:
    yield (Batch([{"id": number}]) for number in range(3))


def looping() -> list[Any]:
    loop: list[Any] = []
    loop.append(loop)
    return loop


DISCOVERED: dict[str, Callable[[], Any]] = {
    "None": lambda: None,
    "a dict": lambda: {"people": SCHEMA},
    "a stream": lambda: offered()()[0],
    "text": lambda: "people",
    "a number": lambda: 7,
    "a class": lambda: Stream,
    "a coroutine": async_generator,
    "names": lambda: ["people"],
    "dicts": lambda: [{"name": "people"}],
    "a list in a list": lambda: [offered()()],
    "a generator of None": lambda: iter([None]),
    "twice": lambda: offered()() * 2,
    "no name": offered(name=None),
    "an empty name": offered(name=""),
    "bytes as the name": offered(name=b"people"),
    "a name with NUL": offered(name="peo\0ple"),
    "a number as the id": offered(id=7),
    "no schema": offered(schema=None),
    "a schema as text": offered(schema=json.dumps(SCHEMA)),
    "a schema with a moment": offered(schema={**SCHEMA, "default": NOW}),
    "a schema with a set": offered(schema={"type": "object", "required": {"id"}}),
    "a schema with keys that are numbers": offered(schema={"properties": {1: {}}}),
    "a schema that holds itself": offered(schema={"type": "object", "x": looping()}),
    "a type of Python": fields("str"),
    "a type that is a class": offered(schema={"type": "object", "properties": {"id": {"type": int}}}),
    "a type of another word": fields("datetime"),
    "an unknown mode": offered(modes=("delta",)),
    "a mode as text": offered(modes="full"),
    "no modes": offered(modes=()),
    "modes of a set": offered(modes={"full"}),
    "a key as text": offered(primary_key="id"),
    "a key of a set": offered(primary_key={"id"}),
    "a key that is not in the schema": offered(primary_key=("nope",)),
    "a cursor field as a tuple": offered(cursor_field=("id",)),
    "personal data as text": offered(pii="id"),
    "care as text": offered(cursor_care="ties"),
    "an unknown care": offered(cursor_care=("all",)),
    "text as a flag": offered(partitioned="yes"),
    "a reason that is none": offered(only_full=None),
    "an error as text": offered(unavailable="gone"),
    "a partition that is none": offered(partition="a"),
    "a window that is none": offered(window=3),
}
READ: dict[str, Callable[[], Any]] = {
    "None": lambda: None,
    "a dict": lambda: {"id": 1},
    "a list of dicts": lambda: [{"id": 1}],
    "a batch": lambda: Batch([]),
    "text": lambda: "id",
    "bytes": lambda: b"[]",
    "an async generator": async_generator,
    "yielded None": yields(None),
    "yielded dicts": yields({"id": 1}),
    "yielded rows": yields([{"id": 1}]),
    "yielded a tuple": yields(([], 1)),
    "yielded a class": yields(Batch),
    "nested generators": nested,
    "None as records": yields(Batch(None)),  # type: ignore[arg-type]
    "a dict as records": yields(Batch({"id": 1})),  # type: ignore[arg-type]
    "text as records": yields(Batch('[{"id": 1}]')),  # type: ignore[arg-type]
    "a bytearray": yields(Batch(bytearray(b"[]"))),  # type: ignore[arg-type]
    "a generator as records": lambda: iter([Batch(iter([{"id": 1}]))]),  # type: ignore[arg-type]
    "a set as records": yields(Batch({1})),  # type: ignore[arg-type]
    "a page that is no JSON": yields(Batch(b"<html></html>")),
    "a page that is half JSON": yields(Batch(b'[{"id": 1}')),
    "an unknown op": yields(Batch([{"id": 1}], op="insert")),  # type: ignore[arg-type]
    "no op": yields(Batch([{"id": 1}], op=None)),  # type: ignore[arg-type]
    "a moment as cursor": yields(Batch([{"id": 1}], cursor=NOW)),
    "a decimal as cursor": yields(Batch([{"id": 1}], cursor={"at": [decimal.Decimal(1)]})),
    "a set as cursor": yields(Batch([{"id": 1}], cursor={1})),
    "bytes as cursor": yields(Batch([{"id": 1}], cursor=b"1")),
    "NaN as cursor": yields(Batch([{"id": 1}], cursor=float("nan"))),
    "a cursor with keys that are numbers": yields(Batch([{"id": 1}], cursor={1: 2})),
    "a cursor that holds itself": yields(Batch([{"id": 1}], cursor=looping())),
    "a cursor with half a surrogate pair": yields(Batch([{"id": 1}], cursor="\ud800")),
}
RECORDS: dict[str, Any] = {
    "NaN": [{"id": 1, "value": float("nan")}],
    "infinity in a list": [{"id": 1, "value": [float("inf")]}],
    "NaN in a dataclass": [Plain(1, float("nan"))],
    "NaN in a Struct": [Packed(1, float("nan"))],
    "null": [{"id": 1, "value": None}],
    "a set": [{"id": 1, "value": {1}}],
    "a tuple": [{"id": 1, "value": (1, 2)}],
    "a decimal": [{"id": 1, "value": decimal.Decimal("1.50")}],
    "a decimal that is NaN": [{"id": 1, "value": decimal.Decimal("NaN")}],
    "a UUID": [{"id": 1, "value": uuid.UUID(int=1)}],
    "a moment": [{"id": 1, "value": NOW}],
    "a local time": [{"id": 1, "value": NOW.replace(tzinfo=None)}],
    "a span": [{"id": 1, "value": dt.timedelta(days=1)}],
    "bytes": [{"id": 1, "value": b"\xff"}],
    "an enum": [{"id": 1, "value": Colour.RED}],
    "an object": [{"id": 1, "value": object()}],
    "a complex number": [{"id": 1, "value": 1j}],
    "a generator": [{"id": 1, "value": iter([1])}],
    "an exception": [{"id": 1, "value": ValueError("x")}],
    "half a surrogate pair": [{"id": 1, "value": "\ud800"}],
    "a key that is a number": [{"id": 1, 2: 3}],
    "a key that is a tuple": [{"id": 1, (2, 3): 3}],
    "a key that is None": [{"id": 1, None: 3}],
    "an integer of 64 bits": [{"id": 2**64 - 1}],
    "a larger integer": [{"id": 2**64}],
    "a huge integer": [{"id": 1, "value": 10**5000}],
    "a record that holds itself": [{"id": 1, "value": looping()}],
    "a dataclass": [Plain(1)],
    "a Struct": [Packed(1)],
    "a model of pydantic": [Model(id=1)],
    "a tuple as record": [(1, 2)],
    "a number as record": [7],
    "None as record": [None],
    "text as record": ["a"],
    "a list as record": [[{"id": 1}]],
    "no key": [{"value": 1}],
    "a key that is null": [{"id": None}],
    "raw JSON": [msgspec.Raw(b'{"id": 1, "value": 1.50}')],
    "raw JSON that is none": [msgspec.Raw(b'{"id": ')],
    "raw JSON in a record": [{"id": 1, "value": msgspec.Raw(b"1.50")}],
    "a page": b'[{"id": 1}, {"id": 2, "value": 1e999}, 3, {"id": "\\ud800"}]',
    "a page that is not UTF-8": b'[{"id": 1, "value": "\xff"}, {"id": 2}, 3, 4]',
    "a huge integer as key": [{"id": 10**5000}],
    "a huge integer as name": [{"id": 1, 10**5000: 1}],
    "a page of lines": b'{"id": 1}\n{"id": NaN}\nnot JSON\n{"id": 2}\n',
}


class Made(Connector[dict, dict]):  # type: ignore[type-arg]
    """Returns what the case says."""

    discovered: Callable[[], Any] = staticmethod(offered())
    reads: Callable[[], Any] = staticmethod(yields())

    def authenticate(self) -> None: ...

    def discover(self) -> Any:
        return self.discovered()

    def read(self, stream: Stream, since: Any, cursor: Any) -> Any:
        return self.reads()


def made(**functions: Callable[[], Any]) -> type[Made]:
    return type("Case", (Made,), {name: staticmethod(function) for name, function in functions.items()})


def by_command(connector: type[Made], capsys: pytest.CaptureFixture[str]) -> tuple[str, list[Any], list[str]]:
    """Return what the author's command says: the error, the records, and why others were rejected."""
    written, error = io.StringIO(), ""
    try:
        read_stream(connector({}, {}), "people", JsonLinesOutput(written))
    except ConnectorError as raised:
        error = f"{type(raised).__name__}: {raised.message}"
    told = [line.removeprefix("rejected: ") for line in capsys.readouterr().err.splitlines()]
    return error, [json.loads(line) for line in written.getvalue().splitlines()], told


def by_pod(connector: type[Made], platform: Platform) -> tuple[str, list[Any], list[str]]:
    """Return what a pod reports of the same."""
    platform.rejects = wire.RejectRules()
    attempt = platform.next_attempt()
    client = RunClient(platform.url, platform.token, RetryPolicy(seconds=5, sleep=lambda _: None))
    run_connector(Assignment(RUN, attempt, IDENTITY, lambda: connector, {}), client)
    error = platform.finished[0].error
    lines = [json.loads(line) for body in platform.bucket.objects.values() for line in decompressed(body)]
    rejected = [f"{line['reason']}: {line['message']}" for line in lines if "reason" in line]
    said = f"{error.error_class}: {error.message}" if error else ""
    return said, [line["data"] for line in lines if "reason" not in line], rejected


def decompressed(body: bytes) -> list[bytes]:
    return zstandard.ZstdDecompressor().decompressobj().decompress(body).splitlines()


@pytest.mark.parametrize("case", DISCOVERED)
def test_what_discover_returns(case: str, platform: Platform, capsys: pytest.CaptureFixture[str]) -> None:
    connector = made(discovered=DISCOVERED[case], reads=yields())
    said, _, _ = by_command(connector, capsys)
    words = said.removeprefix("DefectError: ")
    assert words != said, said
    told = by_pod(connector, platform)[0]  # it also names the stream's place, and whom to tell
    assert told.startswith("DefectError: ")
    assert words in told


@pytest.mark.parametrize("case", READ)
def test_what_read_returns(case: str, platform: Platform, capsys: pytest.CaptureFixture[str]) -> None:
    connector = made(reads=READ[case])
    said, _, _ = by_command(connector, capsys)
    assert said.startswith(("DefectError: stream 'people'", "SourceContractError: stream 'people'")), said
    assert said == by_pod(connector, platform)[0]


@pytest.mark.parametrize("op", ["upsert", "delete"])
@pytest.mark.parametrize("case", RECORDS)
def test_what_records_are(case: str, op: Any, platform: Platform, capsys: pytest.CaptureFixture[str]) -> None:
    connector = made(reads=yields(Batch(RECORDS[case], op=op)))
    error, records, rejected = by_command(connector, capsys)
    for record in records if op == "delete" else []:
        assert record.pop("_op") == "delete"
    assert (error, records, rejected) == by_pod(connector, platform)
    assert error or len(records) + len(rejected) == (4 if isinstance(RECORDS[case], bytes) else 1)


@pytest.mark.parametrize(
    "leaving",
    [SystemExit(0), SystemExit("bye"), asyncio.CancelledError(), GeneratorExit(), MemoryError(), RecursionError()],
)
def test_whatever_leaves_a_connector_fails_the_read(leaving: BaseException, platform: Platform) -> None:
    def leave() -> Iterator[Batch]:
        yield Batch([{"id": 1}])
        raise leaving

    said, _, _ = by_pod(made(reads=leave), platform)
    assert said.startswith("DefectError: stream 'people': the connector failed unexpectedly in read()"), said
