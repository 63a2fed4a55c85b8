"""diff_schema: each class of the table, and what holds for any two schemas."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from penstock_operator.schemas.diff import COMPATIBLE, KINDS, OPPOSITE, StreamShape, diff_schema

Schema = dict[str, Any]
TEXT, WHOLE, ANY_NUMBER = {"type": "string"}, {"type": "integer"}, {"type": "number"}


def record(**properties: Schema) -> Schema:
    return {"type": "object", "properties": properties, "required": sorted(properties)}


def kinds(old: Schema, new: Schema) -> list[tuple[str, str]]:
    return [(change.kind, change.path) for change in diff_schema(StreamShape(old), StreamShape(new))]


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (record(a=TEXT), record(a=TEXT, b=TEXT), [("FieldAdded", "b")]),
        (record(a=TEXT, zz=WHOLE), record(a=TEXT), [("FieldRemoved", "zz")]),
        (record(zip=TEXT), record(zip_code=TEXT), [("FieldRenamed", "zip")]),
        (record(zip=TEXT), record(zip_code=WHOLE), [("FieldRemoved", "zip"), ("FieldAdded", "zip_code")]),
        (
            record(street=TEXT),
            record(street1=TEXT, street2=TEXT),
            [("FieldRemoved", "street"), ("FieldAdded", "street1"), ("FieldAdded", "street2")],
        ),
        (record(a=WHOLE), record(a=ANY_NUMBER), [("TypeWidened", "a")]),
        (record(a=ANY_NUMBER), record(a=WHOLE), [("TypeNarrowed", "a")]),
        (record(a=WHOLE), record(a=TEXT), [("TypeChanged", "a")]),
        (record(a=TEXT), record(a={"type": ["string", "null"]}), [("NullabilityGained", "a")]),
        (record(a={"anyOf": [TEXT, {"type": "null"}]}), record(a=TEXT), [("NullabilityLost", "a")]),
        (record(a=TEXT), {**record(a=TEXT), "required": []}, [("NullabilityGained", "a")]),
        (record(a={"enum": ["x"]}), record(a={"enum": ["x", "y"]}), [("TypeWidened", "a")]),
        (record(a={"enum": ["x", "y"]}), record(a={"const": "x"}), [("TypeNarrowed", "a")]),
        (record(a={"enum": ["x"]}), record(a={"enum": ["y"]}), [("TypeChanged", "a")]),
        (record(a={"enum": ["x"]}), record(a={"enum": ["x", None]}), [("NullabilityGained", "a")]),
        (record(a={**TEXT, "format": "date"}), record(a=TEXT), [("TypeWidened", "a")]),
        (record(a={**TEXT, "format": "date"}), record(a={**TEXT, "format": "date-time"}), [("TypeChanged", "a")]),
        (record(a={**TEXT, "maxLength": 5}), record(a={**TEXT, "maxLength": 9}), [("TypeWidened", "a")]),
        (record(a={**WHOLE, "minimum": 5}), record(a={**WHOLE, "minimum": 9}), [("TypeNarrowed", "a")]),
        (record(a=record(b=record(c=WHOLE))), record(a=record(b=record(c=TEXT))), [("TypeChanged", "a.b.c")]),
        (record(a=record(b=TEXT)), record(a=TEXT), [("TypeChanged", "a")]),
        (record(), record(a=record(b=record(c=TEXT))), [("FieldAdded", "a")]),
        (
            record(a={"type": "array", "items": record(b=WHOLE)}),
            record(a={"type": "array", "items": record(b=ANY_NUMBER)}),
            [("TypeWidened", "a[].b")],
        ),
        (
            record(a={"type": "array"}),
            record(a={"type": "array", "items": TEXT}),
            [("TypeNarrowed", "a[]"), ("NullabilityLost", "a[]")],
        ),
        (record(a={}), record(a={"not": TEXT}), [("TypeNarrowed", "a")]),
        (record(a={**TEXT, "title": "A"}), record(a={**TEXT, "description": "B", "x-sql-type": "text"}), []),
        (
            {**record(a={"$ref": "#/$defs/T"}), "$defs": {"T": WHOLE}},
            {**record(a={"$ref": "#/$defs/T"}), "$defs": {"T": TEXT}},
            [("TypeChanged", "a")],
        ),
        (record(**{"a.b": TEXT}), record(**{"a.b": WHOLE}), [("TypeChanged", '"a.b"')]),
    ],
)
def test_each_change_has_its_class(old: Schema, new: Schema, expected: list[tuple[str, str]]) -> None:
    assert sorted(kinds(old, new)) == sorted(expected)


def test_keys_cursor_fields_and_pii_have_classes_of_their_own() -> None:
    old = StreamShape(record(a=TEXT), ("a",), "a", ("x",))
    new = StreamShape(record(a=TEXT), ("b",), None, ("y",))
    assert [(change.kind, change.path) for change in diff_schema(old, new)] == [
        ("PrimaryKeyChanged", ""),
        ("CursorFieldChanged", ""),
        ("PiiAdded", "y"),
        ("PiiRemoved", "x"),
    ]


def test_a_schema_that_refers_to_itself_has_an_end() -> None:
    tree = {"type": "object", "properties": {"child": {"$ref": "#"}, "n": WHOLE}}
    other = {"type": "object", "properties": {"child": {"$ref": "#"}, "n": TEXT}}
    assert kinds(tree, tree) == []
    assert ("TypeChanged", "n") in kinds(tree, other)


def test_a_message_names_the_field_and_both_types_and_no_value() -> None:
    (change,) = diff_schema(StreamShape(record(a={"enum": ["s3cret"]})), StreamShape(record(a=ANY_NUMBER)))
    assert change.message == "field 'a' was string (1 values), is number"


names = st.sampled_from(["a", "b", "total", "total_eur", "e.mail", "[]", "e_mail"])
plain = st.one_of(
    st.just({}),
    st.builds(
        lambda types: {"type": sorted(types)},
        st.sets(st.sampled_from(["string", "integer", "number", "null", "boolean"]), min_size=1),
    ),
    st.builds(lambda values: {"enum": sorted(values)}, st.sets(st.sampled_from(["x", "y", "z"]), min_size=1)),
    st.builds(lambda top: {"type": "integer", "maximum": top}, st.integers(0, 3)),
    st.builds(lambda format_: {"type": "string", "format": format_}, st.sampled_from(["date", "uuid"])),
    st.just({"anyOf": [{"type": "string"}, {"type": "null"}]}),
    st.just({"oneOf": [{"type": "string"}, {"type": "integer"}]}),
)


def nested(inner: st.SearchStrategy[Schema]) -> st.SearchStrategy[Schema]:
    objects = st.dictionaries(names, inner, max_size=4).flatmap(
        lambda found: st.builds(
            lambda required: {"type": "object", "properties": found, "required": sorted(required)},
            st.sets(st.sampled_from(sorted(found))) if found else st.just(set()),
        )
    )
    return st.one_of(objects, st.builds(lambda items: {"type": ["array", "null"], "items": items}, inner))


shapes = st.builds(
    StreamShape,
    schema=st.builds(
        lambda found: record(**found), st.dictionaries(names, st.recursive(plain, nested, max_leaves=6), max_size=5)
    ),
    primary_key=st.lists(names, unique=True, max_size=2).map(tuple),
    cursor_field=st.none() | names,
    pii=st.lists(names, unique=True, max_size=2).map(tuple),
)


@settings(max_examples=300, deadline=None)
@given(shapes)
def test_nothing_differs_from_itself(shape: StreamShape) -> None:
    assert diff_schema(shape, shape) == []


@settings(max_examples=300, deadline=None)
@given(shapes, shapes)
def test_seen_the_other_way_round_each_change_is_its_opposite(old: StreamShape, new: StreamShape) -> None:
    there = {(OPPOSITE[change.kind], frozenset({change.path, change.renamed_to})) for change in diff_schema(old, new)}
    back = {(change.kind, frozenset({change.path, change.renamed_to})) for change in diff_schema(new, old)}
    assert there == back


def test_the_opposite_of_the_opposite_is_the_class_itself() -> None:
    assert all(OPPOSITE[OPPOSITE[kind]] == kind for kind in KINDS)
    assert set(KINDS) >= COMPATIBLE


@pytest.mark.parametrize("broken", [{"properties": 5}, {"type": 5}, {"required": "a"}, {"enum": "x"}, {"type": [{}]}])
def test_what_is_no_json_schema_is_still_compared(broken: Schema) -> None:
    """A connector's discover() may return anything; a run must not die of it."""
    assert kinds(broken, broken) == []
    assert kinds({}, broken) != []
