"""The destinations of a connection: the manifest's, with the values of the config, and no other."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from penstock_sdk.manifest import EgressRule, Manifest, egress_rules, normal_host

from tests.fakes.egress import manifest_document


def rules(egress: list[dict[str, Any]], config: dict[str, Any], **properties: Any) -> list[EgressRule]:
    manifest = Manifest.model_validate(manifest_document(egress, **properties))
    return egress_rules(manifest, config)


@pytest.mark.parametrize(
    ("destination", "config", "expected"),
    [
        ({"host": "api.example.com"}, {}, EgressRule("api.example.com", 443)),
        ({"host": "API.Example.COM."}, {}, EgressRule("api.example.com", 443)),
        ({"host": "{{config.host}}", "port": "{{config.port}}"}, {"host": "db", "port": 5433}, EgressRule("db", 5433)),
        ({"host": "{{ config.source.host }}"}, {"source": {"host": "db"}}, EgressRule("db", 443)),
        ({"host": "{{config.url}}"}, {"url": "http://files.example/a?b=c"}, EgressRule("files.example", 80)),
        ({"host": "{{config.url}}"}, {"url": "https://user:pw@files.example:8443/"}, EgressRule("files.example", 8443)),
        ({"host": "{{config.url}}", "port": "9000"}, {"url": "http://a.example:80"}, EgressRule("a.example", 9000)),
        ({"host": "{{config.host}}"}, {"host": "db:5433"}, EgressRule("db", 5433)),
        ({"host": "{{config.region}}.api.example"}, {"region": "eu-1"}, EgressRule("eu-1.api.example", 443)),
        ({"host": "*.example.com", "port": "443"}, {}, EgressRule("*.example.com", 443)),
        ({"host": "{{config.host}}", "private": True}, {"host": "10.0.0.5"}, EgressRule("10.0.0.5", 443, private=True)),
        ({"host": "{{config.host}}"}, {"host": "[FD12::0001]:5432"}, EgressRule("fd12::1", 5432)),
        ({"host": "{{config.host}}"}, {"host": "bücher.example"}, EgressRule("xn--bcher-kva.example", 443)),
    ],
)
def test_a_destination_is_filled_in(destination: dict[str, Any], config: dict[str, Any], expected: EgressRule) -> None:
    assert rules([destination], config) == [expected]


@pytest.mark.parametrize(
    ("destination", "config"),
    [
        ({"host": "{{config.host}}"}, {}),
        ({"host": "{{config.host}}"}, {"host": ""}),
        ({"host": "{{config.host}}"}, {"host": True}),
        ({"host": "{{config.host}}"}, {"host": ["a.example"]}),
        ({"host": "{{config.host}}"}, {"host": "*"}),
        ({"host": "{{config.host}}"}, {"host": "*.com"}),
        ({"host": "{{config.host}}"}, {"host": "a.example,b.example"}),
        ({"host": "{{config.host}}"}, {"host": "a.example b.example"}),
        ({"host": "{{config.host}}"}, {"host": "a.example:99999"}),
        ({"host": "{{config.host}}", "port": "{{config.port}}"}, {"host": "a.example", "port": "http"}),
        ({"host": "{{config.host}}", "port": "{{config.port}}"}, {"host": "a.example", "port": 0}),
        ({"host": "*.{{config.domain}}"}, {"domain": "127.0.0.1"}),
        ({"host": "{{config.region}}.api.example"}, {"region": "evil.example/"}),
        ({"host": "{{config.region}}.api.example"}, {"region": "https://evil.example?"}),
        ({"host": "{{config.region}}.api.example"}, {"region": "evil.example:443/"}),
        ({"host": "https://{{config.region}}.api.example/v1"}, {"region": "evil.example#"}),
        ({"host": "*.{{config.domain}}"}, {"domain": "*.com"}),
    ],
)
def test_no_rule_is_made_from_a_value_that_names_no_host(destination: dict[str, Any], config: dict[str, Any]) -> None:
    assert rules([destination], config) == []


def test_a_default_of_the_config_schema_counts() -> None:
    found = rules([{"host": "{{config.host}}", "port": "{{config.port}}"}], {"host": "db"}, port={"default": 5432})
    assert found == [EgressRule("db", 5432)]


def test_a_wildcard_covers_names_below_it_and_no_address() -> None:
    rule = EgressRule("*.example.com", 443)
    assert rule.allows("a.example.com", 443)
    assert rule.allows("b.a.example.com", 443)
    for host, port in [
        ("example.com", 443),
        ("badexample.com", 443),
        ("a.example.com", 80),
        ("a.example.com.evil", 443),
    ]:
        assert not rule.allows(host, port)


@given(st.text(max_size=300))
def test_a_normal_host_is_its_own_normal_form(text: str) -> None:
    host = normal_host(text)
    if host is not None:
        assert normal_host(host) == host
        assert not set(host) & set("/@?# *\\%")


@given(st.text(max_size=60))
def test_no_value_of_the_config_makes_a_wildcard(text: str) -> None:
    assert all(not rule.host.startswith("*") for rule in rules([{"host": "{{config.host}}"}], {"host": text}))
