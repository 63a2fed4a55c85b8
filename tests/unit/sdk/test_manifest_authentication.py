"""`authentication` of a manifest: each method is described completely, and a wrong description is refused with a remedy."""

from __future__ import annotations

from typing import Any

import pytest
from penstock_sdk.manifest import EgressRule, Manifest, egress_rules, fill_in_url, manifest_problems

from tests.fakes.egress import manifest_document

TOKEN_URL = "https://login.example.com/oauth/token"
CLIENT = [{"name": "client_id", "secret": False}, {"name": "client_secret"}]
KEY_PLACE = {"in": "header", "name": "X-Api-Key"}
COMPLETE: dict[str, dict[str, Any]] = {
    "none": {"type": "none"},
    "basic": {"type": "basic", "credentials": [{"name": "username", "secret": False}, {"name": "password"}]},
    "api key": {"type": "apiKey", "apiKey": KEY_PLACE, "credentials": [{"name": "api_key"}]},
    "bearer": {"type": "bearer", "credentials": [{"name": "token"}]},
    "session": {
        "type": "session",
        "session": {
            "loginUrl": "{{config.url}}/login",
            "fields": {"user": "{{credentials.username}}", "secret": "{{credentials.password}}"},
            "token": "data.token",
            "send": {"in": "header", "name": "X-Session"},
        },
        "credentials": [{"name": "username"}, {"name": "password"}],
    },
    "client credentials": {
        "type": "oauth2",
        "oauth2": {"flow": "clientCredentials", "tokenUrl": TOKEN_URL, "scopes": ["orders.read"]},
        "credentials": CLIENT,
    },
    "authorization code": {
        "type": "oauth2",
        "oauth2": {
            "flow": "authorizationCode",
            "authorizationUrl": "https://login.example.com/authorize",
            "tokenUrl": TOKEN_URL,
            "clientAuthentication": "none",
        },
        "credentials": [{"name": "client_id"}, {"name": "refresh_token"}],
    },
    "jwt bearer": {
        "type": "jwtBearer",
        "jwtBearer": {"tokenUrl": TOKEN_URL, "issuer": "{{credentials.email}}", "scopes": ["read"]},
        "credentials": [{"name": "email"}, {"name": "private_key"}],
    },
    "saml": {
        "type": "saml",
        "saml": {
            "assertion": "ecp",
            "identityProviderUrl": "https://idp.example.com/soap",
            "issuer": "penstock",
            "tokenUrl": TOKEN_URL,
        },
        "credentials": [{"name": "username"}, {"name": "password"}],
    },
    "sigv4": {
        "type": "awsSigV4",
        "awsSigV4": {"service": "s3", "region": "eu-west-1"},
        "credentials": [{"name": "access_key_id"}, {"name": "secret_access_key"}],
    },
    "client certificate": {
        "type": "clientCertificate",
        "credentials": [{"name": "client_certificate"}, {"name": "client_key"}],
    },
}
OLDER = [
    {"type": "oauth2", "credentials": [{"name": "client_id"}]},
    {"type": "apiKey", "credentials": [{"name": "key"}]},
    {"type": "basic", "credentials": [{"name": "user"}, {"name": "password"}]},
    {"type": "saml"},
]
"""Methods of manifests without descriptions, whose connectors have a login of their own."""


def document(*methods: dict[str, Any], properties: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return a manifest with these methods."""
    found: dict[str, Any] = manifest_document([], **({"url": {"type": "string"}} if properties is None else properties))
    return {**found, "authentication": {"methods": list(methods)}}


def problems(*methods: dict[str, Any], **other: Any) -> str:
    """Return the problems of a manifest with these methods, in one text."""
    return "\n".join(manifest_problems(document(*methods, **other)))


@pytest.mark.parametrize("method", [*COMPLETE.values(), *OLDER], ids=lambda method: str(method["type"]))
def test_a_method_is_admissible(method: dict[str, Any]) -> None:
    assert problems(method) == ""


@pytest.mark.parametrize("method", COMPLETE.values(), ids=COMPLETE)
def test_a_complete_method_is_described(method: dict[str, Any]) -> None:
    assert Manifest.model_validate(document(method)).authentication.methods[0].is_described


@pytest.mark.parametrize("method", OLDER, ids=lambda method: str(method["type"]))
def test_a_method_of_an_older_manifest_is_the_connectors_own_login(method: dict[str, Any]) -> None:
    assert not Manifest.model_validate(document(method)).authentication.methods[0].is_described


def changed(name: str, **changes: Any) -> dict[str, Any]:
    """Return a complete method with other fields of its description; None takes a field away."""
    method = COMPLETE[name]
    described = {**method[method["type"]], **changes}
    return {**method, method["type"]: {key: value for key, value in described.items() if value is not None}}


@pytest.mark.parametrize(
    ("method", "problem"),
    [
        ({**COMPLETE["basic"], "apiKey": KEY_PLACE}, "apiKey describes a method of type: apiKey"),
        ({"type": "session"}, "a method of type: session needs its description, session"),
        ({"type": "password"}, "Unsupported value"),
        (changed("client credentials", tokenUrl=None), "oauth2.tokenUrl: Required value"),
        (changed("client credentials", tokenUrl="login.example.com"), "must be a URL such as"),
        (changed("client credentials", flow="implicit"), "supported values"),
        (changed("client credentials", clientAuthentication="none"), "a public client cannot use it"),
        (changed("authorization code", authorizationUrl=None), "the flow authorizationCode needs authorizationUrl"),
        (changed("authorization code", flow="deviceCode"), "the flow deviceCode needs deviceAuthorizationUrl"),
        (changed("saml", identityProviderUrl=None), "assertion: ecp needs identityProviderUrl"),
        (changed("saml", tokenUrl=None), "give either tokenUrl"),
        (changed("saml", send=KEY_PLACE), "give either tokenUrl"),
        (changed("saml", sned=KEY_PLACE), 'unknown field "authentication.methods[0].saml.sned"'),
        ({**COMPLETE["client credentials"], "credentials": CLIENT[:1]}, "needs the credential client_secret: add {name: client_secret}"),
        (changed("client credentials", clientAuthentication="private_key_jwt"), "needs the credential private_key"),
        (changed("client credentials", tokenUrl="{{config.urn}}/token"), "tokenUrl: Invalid value: configSchema has no property urn"),
        (changed("client credentials", tokenUrl="{{config.url}}.example.com/token"), "a path must follow"),
        (changed("client credentials", tokenUrl="https://a.example/{{credentials.client_id}}"), "has no place here"),
        (changed("client credentials", audience="{{environment.HOME}}"), "{{environment.HOME}} is not known"),
        (changed("session", fields={"a": "{{credentials.pasword}}"}), "session.fields.a: Invalid value: the method has no credential pasword"),
    ],
)  # fmt: skip
def test_a_wrong_description_is_refused_with_a_remedy(method: dict[str, Any], problem: str) -> None:
    assert problem in problems(method)


def test_methods_that_a_secret_cannot_tell_apart_need_a_choice_in_the_config() -> None:
    two = [COMPLETE["basic"], {**COMPLETE["session"], "name": "web"}]
    assert "declare authentication.method in configSchema" in problems(COMPLETE["basic"], COMPLETE["saml"])
    method = {"properties": {"method": {"enum": ["basic", "web"]}}}
    properties = {"url": {"type": "string"}, "authentication": method}
    assert problems(*two, properties=properties) == ""
    method["properties"]["method"]["enum"].append("wbe")
    assert "lets authentication.method be 'wbe', and the methods are: basic, web" in problems(
        *two, properties=properties
    )


def test_described_methods_have_names_of_their_own() -> None:
    other = changed("client credentials", tokenUrl="https://other.example.com/token")
    assert ".methods[1].name: Duplicate value: oauth2" in problems(COMPLETE["client credentials"], other)


def test_the_hosts_of_a_login_are_destinations() -> None:
    manifest = Manifest.model_validate(document(COMPLETE["client credentials"], COMPLETE["session"], COMPLETE["saml"]))
    assert egress_rules(manifest, {"url": "http://api.example:8080/v1"}) == [
        EgressRule("login.example.com", 443),
        EgressRule("api.example", 8080),
        EgressRule("idp.example.com", 443),
    ]


def test_the_page_for_a_persons_browser_is_no_destination_of_a_pod() -> None:
    method = changed("authorization code", authorizationUrl="https://person.example.com/authorize")
    assert egress_rules(Manifest.model_validate(document(method)), {}) == [EgressRule("login.example.com", 443)]


def test_what_network_egress_says_of_a_host_counts_for_the_login() -> None:
    found = document(COMPLETE["client credentials"])
    found["network"] = {"egress": [{"host": "login.example.com", "private": True}]}
    assert egress_rules(Manifest.model_validate(found), {}) == [EgressRule("login.example.com", 443, private=True)]


@pytest.mark.parametrize(
    ("template", "config", "expected"),
    [
        ("https://a.example/token", {}, "https://a.example/token"),
        ("{{config.url}}/token", {"url": "https://a.example/"}, "https://a.example/token"),
        ("{{config.url}}/token", {"url": "a.example:8443"}, "https://a.example:8443/token"),
        ("{{ config.url }}", {"url": "http://127.0.0.1:80"}, "http://127.0.0.1:80"),
        ("https://{{config.host}}/token", {"host": "a.example:8443"}, "https://a.example:8443/token"),
        ("https://{{config.region}}.a.example/t", {"region": "eu-1"}, "https://eu-1.a.example/t"),
        ("https://a.example/{{config.tenant}}/t", {"tenant": "my org/x"}, "https://a.example/my%20org%2Fx/t"),
        ("https://a.example/{{config.n}}", {"n": 7}, "https://a.example/7"),
    ],
)
def test_a_url_is_filled_in(template: str, config: dict[str, Any], expected: str) -> None:
    assert fill_in_url(template, config) == expected


@pytest.mark.parametrize(
    ("template", "config"),
    [
        ("https://{{config.region}}.a.example/t", {"region": "evil.example/"}),
        ("https://{{config.region}}.a.example/t", {"region": "evil.example#"}),
        ("https://{{config.region}}.a.example/t", {"region": "evil.example:80"}),
        ("https://{{config.region}}.a.example/t", {"region": "user@evil.example"}),
        ("https://{{config.region}}.a.example/t", {"region": "evil.example\\"}),
        ("https://{{config.host}}/t", {"host": "user:pw@evil.example"}),
        ("https://{{config.host}}/t", {"host": "evil.example/?"}),
        ("https://a.example/{{config.tenant}}/t", {"tenant": ".."}),
        ("https://a.example/{{config.tenant}}/t", {}),
        ("{{config.url}}/token", {"url": ""}),
        ("{{config.url}}/token", {"url": ["a.example"]}),
        ("{{config.url}}.example.com/token", {"url": "https://evil"}),
        ("{{config.url}}/token", {"url": "ftp://a.example"}),
        ("a.example/token", {}),
    ],
)
def test_a_value_cannot_lead_to_another_host(template: str, config: dict[str, Any]) -> None:
    assert fill_in_url(template, config) is None
