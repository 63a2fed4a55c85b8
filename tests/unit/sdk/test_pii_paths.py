"""One notation for the path of a field, whatever way it was written."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from penstock_sdk.pii_paths import field_path, first_name, old_paths, show_path

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
    assert field_path(written, SCHEMA) == path
    assert field_path(path, SCHEMA) == path
    assert bool(list(old_paths([written], SCHEMA))) == (written != path)


@given(NAMES)
def test_a_path_names_the_field_that_it_was_made_of(names: list[str]) -> None:
    schema: dict[str, Any] = {}
    for name in reversed(names):
        schema = {"properties": {name: schema}}
    path = show_path(names)
    assert field_path(path, schema) == path
    assert first_name(path) == names[0]


@given(st.text())
def test_whatever_is_written_gives_a_path(text: str) -> None:
    first_name(field_path(text, SCHEMA))
