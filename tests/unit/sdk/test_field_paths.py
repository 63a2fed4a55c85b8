"""One notation for the path of a field, whatever way it was written."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from penstock_sdk.field_paths import format_path, normal_path, rewrite_hints, top_level_field

SCHEMA: dict[str, Any] = {
    "properties": {
        "email": {"type": "string"},
        "address": {"properties": {"street": {}, "a.b": {}}},
        "orders": {"type": "array", "items": {"properties": {"email": {}}}},
        "a.b": {"properties": {"c": {}}},
        "/x": {},
    }
}
NAMES = st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1), min_size=1, max_size=4)


@pytest.mark.parametrize(
    ("written", "path"),
    [
        ("email", "email"),
        ("/email", "email"),
        ("$.email", "email"),
        ("$['email']", "email"),
        ("address", "address"),
        ("address.street", "address.street"),
        ("/address/street", "address.street"),
        ("address['street']", "address.street"),
        ("orders.email", "orders.email"),
        ("orders[].email", "orders.email"),
        ("orders[*].email", "orders.email"),
        ("orders[0].email", "orders.email"),
        ("$.orders[*].email", "orders.email"),
        ("/orders/0/email", "orders.email"),
        ("/orders/*/email", "orders.email"),
        ("a.b", '"a.b"'),
        ('"a.b".c', '"a.b".c'),
        ('address."a.b"', 'address."a.b"'),
        ("/x", "/x"),
        ("missing.field", "missing.field"),
    ],
)
def test_each_notation_is_read_as_the_field_of_the_schema(written: str, path: str) -> None:
    assert normal_path(written, SCHEMA) == path
    assert normal_path(path, SCHEMA) == path
    assert bool(list(rewrite_hints([written], SCHEMA))) == (written != path)


@given(NAMES)
def test_a_path_names_the_field_that_it_was_made_of(names: list[str]) -> None:
    schema: dict[str, Any] = {}
    for name in reversed(names):
        schema = {"properties": {name: schema}}
    path = format_path(names)
    assert normal_path(path, schema) == path
    assert top_level_field(path) == names[0]


@given(st.text())
def test_whatever_is_written_gives_a_path(text: str) -> None:
    top_level_field(normal_path(text, SCHEMA))
