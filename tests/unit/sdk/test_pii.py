"""Which fields look like personal data, and which only sound like it."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from penstock_sdk.pii import suggest_by_name, suggest_by_values, suggest_fields

TEXT = {"type": "string"}


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("email", "email"),
        ("billingEmail", "email"),
        ("e-mail", "email"),
        ("EMAIL_ADDRESS", "email"),
        ("phone_number", "phone"),
        ("mobile", "phone"),
        ("first_name", "person-name"),
        ("lastName", "person-name"),
        ("customer_name", "person-name"),
        ("surname", "person-name"),
        ("street", "address"),
        ("shipping_address", "address"),
        ("postal_code", "address"),
        ("date_of_birth", "birth-date"),
        ("DOB", "birth-date"),
        ("ssn", "national-id"),
        ("national_id", "national-id"),
        ("tax_number", "national-id"),
        ("iban", "payment"),
        ("card_number", "payment"),
        ("ip_address", "ip-address"),
        ("clientIP", "ip-address"),
        ("lat", "location"),
        ("gender", "special"),
    ],
)
def test_a_name_suggests_a_class(name: str, kind: str) -> None:
    assert suggest_by_name(name) == kind


@pytest.mark.parametrize(
    "name",
    [
        "name",
        "n",
        "",
        "email_verified",
        "emails_sent",
        "is_mobile",
        "phone_type",
        "address_id",
        "mac_address",
        "description",
        "zipped_bytes_total",
        "account_id",
        "product_name",
        "shipment",
        "recipe",
        "plate",
        "sexagesimal",
    ],
)
def test_a_name_that_only_sounds_like_it_suggests_none(name: str) -> None:
    assert suggest_by_name(name) is None


def test_nested_fields_are_looked_at_with_the_name_above() -> None:
    schema = {
        "properties": {
            "name": {"type": "object", "properties": {"first": TEXT, "last": TEXT}},
            "lines": {"type": "array", "items": {"properties": {"sku": TEXT, "phone": TEXT}}},
            "email": {"type": ["boolean", "null"]},
            "tags": {"type": "array", "items": TEXT},
        }
    }
    assert suggest_fields(schema) == {
        "name.first": "person-name",
        "name.last": "person-name",
        "lines.phone": "phone",
    }


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (["a@b.de", "c.d@e.org", "f@g.io", "h+i@j.com", "none"], "email"),
        (["+49 30 1234567", "+1 (212) 555-0100", "+33123456789", "+44 20 7946 0018", "+4989123456"], "phone"),
        (["DE89 3704 0044 0532 0130 00", "GB82WEST12345698765432"] * 3, "payment"),
        (["4111 1111 1111 1111", "5500-0000-0000-0004"] * 3, "payment"),
        (["10.0.0.1", "::1", "192.168.7.7", "2001:db8::1", "8.8.8.8"], "ip-address"),
        (["4111 1111 1111 1112"] * 5, None),
        (["a@b.de"] * 4, None),
        (["a@b.de", "c@d.de", "x", "y", "z"], None),
        ([1, 2, 3, None, "a@b.de"], None),
    ],
)
def test_samples_suggest_a_class_where_enough_of_them_are_of_it(values: list[Any], kind: str | None) -> None:
    assert suggest_by_values(values) == kind


def test_samples_are_looked_at_where_the_name_says_nothing_and_no_value_is_kept() -> None:
    schema = {"properties": {"c1": TEXT, "c2": {"type": "array", "items": {"properties": {"x": TEXT}}}, "c3": TEXT}}
    rows = [{"c1": f"user{n}@example.com", "c2": [{"x": f"10.0.0.{n}"}], "c3": "plain"} for n in range(9)]
    assert suggest_fields(schema, rows) == {"c1": "email", "c2.x": "ip-address"}


@given(st.recursive(st.none() | st.integers() | st.text(max_size=5), lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["properties", "items", "type", "email", "a"]), inner, max_size=4), max_leaves=12))  # fmt: skip
def test_whatever_a_schema_is_it_is_looked_through(schema: Any) -> None:
    suggest_fields(schema)


def test_thousands_of_streams_take_no_time() -> None:
    schema = {"properties": {f"column_{n}": TEXT for n in range(50)}}
    began = time.process_time()
    for _ in range(5000):
        suggest_fields(schema)
    assert time.process_time() - began < 20
