"""Which cursors can lose records: by the schema, by the values of some records, and what a declaration answers for."""

from __future__ import annotations

from typing import Any

import pytest
from penstock_sdk.manifest import Followed, unsafe_cursor, unsafe_values
from penstock_sdk.manifest.cursor_safety import (
    COARSE,
    DATE,
    FLOAT,
    MAY_BE_NULL,
    NO_KEY,
    NO_ORDER,
    NOT_IN_SCHEMA,
    RULES,
    TEXT,
    TIES,
    UNKNOWN_ORDER,
    Rule,
)

MOMENT = {"type": "string", "format": "date-time"}
FEW = [f"2026-01-01T00:00:0{second}+00:00" for second in range(6)]


def followed(field: Any = None, *care: str, **over: Any) -> Followed:
    schema = {"type": "object", "properties": {"id": {}, "at": MOMENT if field is None else field}, "required": ["at"]}
    known = {"schema": schema, "primary_key": ("id",), "cursor_field": "at", "modes": ("full", "incremental")}
    return Followed(**{**known, "care": care, **over})


@pytest.mark.parametrize(
    ("field", "rules"),
    [
        (MOMENT, []),
        ({"type": "integer"}, []),
        ({"type": "number", "multipleOf": 1}, []),
        ({"allOf": [{"$ref": "#/$defs/moment"}]}, []),
        ({"$ref": "#/$defs/moment", "title": "at"}, []),
        ({"anyOf": [MOMENT, {"type": "null"}]}, [MAY_BE_NULL]),
        ({**MOMENT, "type": ["string", "null"]}, [MAY_BE_NULL]),
        ({"enum": [1, 2, None]}, [MAY_BE_NULL]),
        ({"$ref": "#/$defs/maybe"}, [MAY_BE_NULL]),
        ({"type": "number"}, [FLOAT]),
        ({"type": ["integer", "number"]}, [FLOAT]),
        ({"type": "string"}, [TEXT]),
        ({"type": "string", "format": "uuid"}, [TEXT]),
        ({"enum": ["new", "old"]}, [TEXT]),
        ({"type": "string", "format": "date"}, [DATE]),
        ({"type": ["string", "integer"]}, [UNKNOWN_ORDER]),
        ({"oneOf": [MOMENT, {"type": "integer"}]}, [UNKNOWN_ORDER]),
        ({}, [UNKNOWN_ORDER]),
        (True, [UNKNOWN_ORDER]),
        ({"$ref": "https://elsewhere.test/schema"}, [UNKNOWN_ORDER]),
        ({"$ref": "#/$defs/loop"}, [UNKNOWN_ORDER]),
        ({"type": "array"}, [UNKNOWN_ORDER]),
        ({"type": "boolean"}, [NO_ORDER]),
        ({"type": ["object", "null"]}, [MAY_BE_NULL, NO_ORDER]),
    ],
)
def test_a_field_is_judged_by_its_schema(field: Any, rules: list[Rule]) -> None:
    stream = followed(field)
    defs = {"moment": MOMENT, "maybe": {"anyOf": [MOMENT, {"const": None}]}, "loop": {"$ref": "#/$defs/loop"}}
    assert unsafe_cursor(followed(field, schema={**stream.schema, "$defs": defs})) == rules


def test_a_field_that_is_missing_or_not_required_is_refused() -> None:
    properties = {"at": MOMENT}
    assert unsafe_cursor(followed(schema={"properties": {}})) == [NOT_IN_SCHEMA]
    assert unsafe_cursor(followed(schema={"properties": properties})) == [MAY_BE_NULL]
    parts = [{"properties": properties}, {"required": ["at"]}]
    assert unsafe_cursor(followed(schema={"allOf": parts})) == []
    assert unsafe_cursor(followed(schema={"$ref": "#/$defs/row", "$defs": {"row": followed().schema}})) == []


def test_only_an_incremental_stream_that_follows_a_field_is_judged() -> None:
    nothing: dict[str, Any] = {"schema": {}, "primary_key": ()}
    assert unsafe_cursor(followed(modes=("full",), **nothing)) == []
    assert unsafe_cursor(followed(cursor_field=None, **nothing)) == []
    assert unsafe_values(followed(cursor_field=None), [None, None]) == []


def test_without_a_key_ties_cannot_be_told_apart_whatever_is_declared() -> None:
    assert unsafe_cursor(followed(None, "ties", primary_key=())) == [NO_KEY]
    assert unsafe_cursor(followed(None, "settled", primary_key=())) == []


@pytest.mark.parametrize(
    ("field", "care", "left"),
    [
        ({"type": "string"}, "order", []),
        ({"type": "number"}, "order", []),
        ({}, "order", []),
        ({**MOMENT, "type": ["string", "null"]}, "nulls", []),
        ({"type": "string", "format": "date"}, "settled", []),
        ({"type": "string", "format": "date"}, "ties", [DATE]),
        ({"type": "boolean"}, "order", [NO_ORDER]),
        ({"type": "string"}, "ties", [TEXT]),
    ],
)
def test_a_declaration_answers_for_its_own_rule_only(field: Any, care: str, left: list[Rule]) -> None:
    assert unsafe_cursor(followed(field, care)) == left


@pytest.mark.parametrize(
    ("values", "rules"),
    [
        ([*FEW, FEW[0]], [TIES]),
        ([1, 2, 2], [TIES]),
        (FEW, [COARSE]),
        (FEW[:4], []),
        ([*FEW, "2026-01-01T00:00:09.5+00:00"], []),
        ([1, 2, 3, 4, 5, 6], []),
        ([f"2026-01-0{day}" for day in range(1, 8)], []),
        (["red", "green", "blue", "white", "black", "yellow is the longest"], []),
        ([], []),
    ],
)
def test_records_show_what_a_schema_does_not(values: list[Any], rules: list[Rule]) -> None:
    assert unsafe_values(followed(), values) == rules
    assert unsafe_values(followed(None, "ties"), values) == unsafe_values(followed(None, "settled"), values) == []
    assert unsafe_values(followed(primary_key=("at",)), values) == []


def test_each_rule_says_why_and_what_to_do_and_stands_in_the_guide(pytestconfig: pytest.Config) -> None:
    guide = (pytestconfig.rootpath / "docs/authors/cursors.md").read_text()
    for rule in RULES:
        assert rule.why
        assert rule.remedy
        assert f"| `{rule.name}` |" in guide
        assert all(f"`{word}`" in guide for word in rule.answered_by)
