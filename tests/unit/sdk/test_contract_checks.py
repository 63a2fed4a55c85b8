"""What a connector returns is checked before anything is made of it, with messages that say what to change."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from penstock_sdk import Batch, Connector, DefectError, SourceContractError, Stream
from penstock_sdk import protocol as wire
from penstock_sdk._contract_checks import check_cursor, checked_batch, checked_batches, checked_streams, offered_streams
from penstock_sdk._runtime.discovery import streams_request
from penstock_sdk._runtime.masking import Mask


class Offering(Connector[dict, dict]):  # type: ignore[type-arg]
    """A connector that nothing is asked of but its drift."""

    def authenticate(self) -> None:
        """Do nothing."""

    def discover(self) -> list[Stream]:
        return []

    def read(self, *_: Any) -> Iterator[Batch]:
        yield Batch([])


SCHEMA = {"type": "object", "properties": {"id": {"type": "integer"}, "at": {"type": "string"}}}


def stream(**changed: Any) -> Stream:
    return Stream(**{"name": "orders", "schema": SCHEMA, "primary_key": ("id",), **changed})


@pytest.mark.parametrize(
    "returned",
    [None, {"orders": SCHEMA}, stream(), "orders", b"orders", 7, Stream],
    ids=lambda each: type(each).__name__,
)
def test_discover_returns_streams_and_nothing_else(returned: Any) -> None:
    with pytest.raises(DefectError, match=r"discover\(\) returned .*Stream"):
        checked_streams(returned)


@pytest.mark.parametrize("item", [None, {"name": "orders"}, "orders", ("orders", SCHEMA), Stream])
def test_each_item_of_discover_is_a_stream(item: Any) -> None:
    with pytest.raises(DefectError, match="at place 1"):
        checked_streams([stream(), item])


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"name": None}, "whose name is None"),
        ({"name": ""}, "an empty text"),
        ({"name": "x" * 254}, "254 characters"),
        ({"name": "a\0b"}, "NUL"),
        ({"name": "\ud800"}, "surrogate"),
        ({"id": 7}, "id is of type int"),
        ({"schema": None}, "schema is None"),
        ({"schema": [SCHEMA]}, "schema is of type list"),
        ({"schema": {"type": "array"}}, "a record is an object"),
        ({"schema": {"properties": {"id": {"type": "str"}}}}, "schema.properties.id has the type 'str'"),
        ({"schema": {"properties": {"id": {"type": ["int", "null"]}}}}, "'int'"),
        ({"schema": {"properties": {"id": "integer"}}}, "schema.properties.id is of type str"),
        ({"schema": {"properties": ["id"]}}, "schema.properties must be an object"),
        ({"schema": {"properties": {"id": {"default": datetime.now(UTC)}}}}, "schema.properties.id.default"),
        ({"schema": {"properties": {"id": {"maximum": float("inf")}}}}, "NaN or infinite"),
        ({"schema": {**SCHEMA, "required": "id"}}, "required"),
        ({"primary_key": "id"}, r"such as \('id',\)"),
        ({"primary_key": None}, "primary_key is None"),
        ({"primary_key": (1,)}, r"primary_key\[0\]"),
        ({"primary_key": ("id", "id")}, "twice"),
        ({"primary_key": ("nope",)}, "'nope', which is not in the schema"),
        ({"cursor_field": ("at",)}, "cursor_field is of type tuple"),
        ({"modes": "full"}, "modes is the text"),
        ({"modes": ("delta",)}, "'delta'; it must be full or incremental"),
        ({"modes": ()}, "modes is empty"),
        ({"modes": None}, "modes is None"),
        ({"pii": "email"}, "pii is the text"),
        ({"pii_suggested": ["email"]}, "pii_suggested"),
        ({"cursor_care": ("all",)}, "cursor_care"),
        ({"partitioned": "yes"}, "partitioned"),
        ({"windows": 1}, "windows"),
    ],
)
def test_a_stream_says_which_field_is_wrong(changed: dict[str, Any], words: str) -> None:
    with pytest.raises(DefectError, match=words):
        checked_streams([stream(**changed)])


def test_streams_are_told_apart_by_name_and_by_id() -> None:
    with pytest.raises(DefectError, match="two streams with the name 'orders'"):
        checked_streams(iter([stream(), stream(id="2")]))
    with pytest.raises(DefectError, match="two streams with the id '1'"):
        checked_streams([stream(id="1"), stream(name="others", id="1")])


def test_a_stream_that_breaks_the_contract_is_unavailable_and_the_others_are_offered() -> None:
    found = offered_streams(
        [
            stream(),
            stream(name="no_key", primary_key=("nope",)),
            None,
            stream(name="twice"),
            stream(name="twice", id="2"),
        ]
    )
    assert [(stream.name, stream.identity, stream.unavailable is None) for stream in found] == [
        ("orders", "orders", True),
        ("no_key", "no_key", False),
        ("(at place 2)", "(at place 2)", False),
        ("twice", "twice", False),
        ("twice", "2", False),
    ]
    assert all(isinstance(stream.unavailable, DefectError) for stream in found[1:])
    assert "'nope', which is not in the schema" in str(found[1].unavailable)


def test_an_error_after_the_last_selected_stream_is_no_error_of_the_run() -> None:
    def discover() -> Iterator[Stream]:
        yield stream()
        raise SourceContractError("stream 'other': its schema cannot be read")

    assert [offered.name for offered in offered_streams(discover(), frozenset({"orders"}))] == ["orders"]
    for selected in (frozenset[str](), frozenset({"orders", "other"})):
        with pytest.raises(SourceContractError):
            offered_streams(discover(), selected)


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=4) | st.sampled_from(["id", "type", "a\0", "\ud800"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)
FIELDS = ("name", "id", "schema", "primary_key", "cursor_field", "modes", "pii", "pii_suggested", "cursor_care")
FIELDS += ("partitioned", "windows", "only_full", "unavailable")


@given(st.lists(st.dictionaries(st.sampled_from(FIELDS), ANYTHING, max_size=2), max_size=4))
def test_no_return_value_of_discover_keeps_a_sound_stream_from_being_offered(changes: list[dict[str, Any]]) -> None:
    """Whatever the others are, they can be told to the platform, and the sound stream is one of them."""
    told = streams_request(
        Offering({}, {}), offered_streams([*(stream(**change) for change in changes), stream(name="sound")]), Mask([])
    )
    if all(change.get("name") != "sound" and change.get("id") != "sound" for change in changes):
        assert [posted.unavailable for posted in told.streams if posted.name == "sound"] == [None]
    assert wire.StreamsRequest.model_validate_json(told.model_dump_json(by_alias=True)) == told


def test_a_schema_that_leaves_fields_open_is_not_asked_for_the_key() -> None:
    for schema in ({}, {"type": "object"}, {"properties": {"a": {}}, "allOf": [SCHEMA]}):
        assert checked_streams([stream(schema=schema)])


@pytest.mark.parametrize("returned", [None, {}, [{"id": 1}], "rows", b"[]", Batch([]), 1, [None], [([], 1)]])
def test_read_yields_batches(returned: Any) -> None:
    with pytest.raises(DefectError, match=r"'orders': read\(\) (returned|yielded)"):
        list(checked_batches(returned, "orders"))


async def async_read() -> Any:
    yield Batch([])


def test_an_async_generator_is_named() -> None:
    with pytest.raises(DefectError, match="async_generator"):
        list(checked_batches(async_read(), "orders"))


def rows() -> Iterator[dict[str, int]]:
    yield {"id": 1}


@pytest.mark.parametrize(
    ("batch", "words"),
    [
        (Batch(None), "None"),  # type: ignore[arg-type]
        (Batch({"id": 1}), "list of dicts, also for one record"),  # type: ignore[arg-type]
        (Batch("[]"), "encode the page"),  # type: ignore[arg-type]
        (Batch(bytearray(b"[]")), "bytes"),  # type: ignore[arg-type]
        (Batch(rows()), "list"),  # type: ignore[arg-type]
        (Batch({1, 2}), "set"),  # type: ignore[arg-type]
        (Batch([], op="insert"), "'insert'; it must be upsert or delete"),  # type: ignore[arg-type]
        (Batch([], op=None), "op None"),  # type: ignore[arg-type]
        (Batch([], cursor=datetime.now(UTC)), "cursor is of type datetime"),
        (Batch([], cursor={"at": [Decimal(1)]}), r"cursor.at\[0\] is of type Decimal"),
        (Batch([], cursor={"at": float("nan")}), "cursor.at is NaN"),
        (Batch([], cursor="a\0b"), "NUL"),
        (Batch([], cursor={"\ud800": 1}), "surrogate"),
        (Batch([], cursor={1: 2}), "a key that is not a text"),
        (Batch([], cursor={1, 2}), "set"),
        (Batch([], cursor=b"x"), "bytes"),
    ],
)
def test_a_batch_says_what_is_wrong(batch: Batch, words: str) -> None:
    with pytest.raises(DefectError, match=words):
        checked_batch(batch, "orders")


def test_a_cursor_that_holds_itself_is_refused() -> None:
    cursor: list[Any] = []
    cursor.append(cursor)
    with pytest.raises(DefectError, match="nested deeper"):
        check_cursor(cursor, "orders")


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")),
    lambda inner: st.lists(inner) | st.dictionaries(st.text("ab", max_size=3), inner),
    max_leaves=10,
)


@given(JSON)
def test_whatever_is_json_is_a_cursor(cursor: Any) -> None:
    assert checked_batch(Batch([{"id": 1}], cursor=cursor), "orders").cursor == cursor
