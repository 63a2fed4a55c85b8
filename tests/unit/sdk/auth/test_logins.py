"""Every method sends its credentials where its manifest says, and nowhere else."""

from __future__ import annotations

import base64
import json
import ssl
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import botocore.auth
import botocore.awsrequest
import botocore.credentials
import httpx
import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from joserfc import jwk, jwt
from lxml import etree
from penstock_sdk import AuthenticationError, ConfigError, DefectError
from penstock_sdk.auth import Auth, auth_for, select_method
from signxml.verifier import XMLVerifier

from tests.fakes.provider import Call, FakeProvider, Reply
from tests.unit.sdk.auth.logins import certificate, login, manifest_of, method_of, pem_of, rsa_key

CLIENT = {"client_id": "the client", "client_secret": "s:cr/t+&="}


@pytest.fixture
def provider() -> Iterator[FakeProvider]:
    with FakeProvider() as found:
        yield found


def accepts_everything(provider: FakeProvider) -> None:
    provider.source = lambda _call: Reply(200, {"ok": True})


def sent(auth: Auth, provider: FakeProvider, path: str = "/v1/orders", **request: Any) -> Call:
    """Send a request, and return what the source got."""
    accepts_everything(provider)
    with auth.client(base_url=provider.url) as http:
        assert http.get(path, **request).status_code == 200
    return provider.source_calls[-1]


def test_none_sends_nothing(provider: FakeProvider) -> None:
    assert "authorization" not in sent(login("none", {}), provider).headers


def test_basic(provider: FakeProvider) -> None:
    auth = login("basic", {"username": "ada", "password": "pä:ss\n"})
    found = sent(auth, provider).headers["authorization"]
    assert base64.b64decode(found.removeprefix("Basic ")).decode() == "ada:pä:ss"


def test_bearer(provider: FakeProvider) -> None:
    assert sent(login("bearer", {"token": "t0k\n"}), provider).headers["authorization"] == "Bearer t0k"


@pytest.mark.parametrize(
    ("place", "found"),
    [
        ({"in": "header", "name": "X-Api-Key"}, lambda call: call.headers["x-api-key"]),
        ({"in": "header", "name": "Authorization", "prefix": "Token "}, lambda call: call.headers["authorization"][6:]),
        ({"in": "query", "name": "key"}, lambda call: call.query["key"][0]),
        ({"in": "cookie", "name": "sid"}, lambda call: call.headers["cookie"].removeprefix("a=b; sid=")),
    ],
    ids=["header", "prefix", "query", "cookie"],
)
def test_api_key(provider: FakeProvider, place: dict[str, str], found: Any) -> None:
    auth = login("apiKey", {"api_key": "k3y"}, place)
    call = sent(auth, provider, params={"page": "1"}, headers={"Cookie": "a=b"})
    assert found(call) == "k3y"
    assert call.query["page"] == ["1"]


@pytest.mark.parametrize("body", ["json", "form"])
def test_session(provider: FakeProvider, body: str) -> None:
    described = {
        "loginUrl": f"{provider.url}/login",
        "body": body,
        "fields": {"user": "{{credentials.username}}", "pw": "{{credentials.password}}", "app": "penstock"},
        "token": "data.token",
        "send": {"in": "header", "name": "X-Session", "prefix": "s "},
    }
    auth = login("session", {"username": "ada", "password": "{{credentials.username}}"}, described)
    provider.source = lambda call: Reply(200, {"data": {"token": "t-1"}} if call.path == "/login" else {})
    with auth.client(base_url=provider.url) as http:
        http.get("/a")
        http.get("/b")
    login_call, first, second = provider.calls
    fields = json.loads(login_call.content) if body == "json" else login_call.form
    assert fields == {"user": "ada", "pw": "{{credentials.username}}", "app": "penstock"}
    assert (first.headers["x-session"], second.headers["x-session"]) == ("s t-1", "s t-1")


@pytest.mark.parametrize(("place", "name"), [("header", "X-Token"), ("cookie", "sid")])
def test_the_token_of_a_session_in_a_header_or_a_cookie(provider: FakeProvider, place: str, name: str) -> None:
    described = {
        "loginUrl": f"{provider.url}/login",
        "basic": True,
        "body": "none",
        "tokenIn": place,
        "token": name,
        "send": {"in": "cookie", "name": "sid"},
    }
    auth = login("session", {"username": "ada", "password": "pw"}, described)
    headers = {"X-Token": "abc", "Set-Cookie": "sid=abc; Path=/; HttpOnly"}
    provider.source = lambda call: Reply(200, {}, headers if call.path == "/login" else {})
    with auth.client(base_url=provider.url) as http:
        http.get("/a")
    assert provider.calls[0].basic == ("ada", "pw")
    assert provider.calls[1].headers["cookie"] == "sid=abc"


def oauth2(provider: FakeProvider, credentials: dict[str, str], **described: Any) -> Auth:
    found = {"flow": "clientCredentials", "tokenUrl": provider.token_url, **described}
    return login("oauth2", credentials, found)


def test_client_secret_basic(provider: FakeProvider) -> None:
    auth = oauth2(provider, CLIENT, scopes=["a", "b"], audience="api", parameters={"resource": "r"})
    with auth.client(base_url=provider.url) as http:
        assert [http.get("/x").status_code for _ in range(3)] == [200] * 3
    (call,) = provider.token_calls
    assert call.basic == (CLIENT["client_id"], CLIENT["client_secret"])
    assert call.form == {"grant_type": "client_credentials", "scope": "a b", "audience": "api", "resource": "r"}


def test_client_secret_post(provider: FakeProvider) -> None:
    auth = oauth2(provider, CLIENT, clientAuthentication="client_secret_post")
    sent(auth, provider)
    (call,) = provider.token_calls
    assert call.form == {"grant_type": "client_credentials", **CLIENT}
    assert "authorization" not in call.headers


@pytest.mark.parametrize("algorithm", ["RS256", "PS384", "ES256", "EdDSA"])
def test_private_key_jwt(provider: FakeProvider, algorithm: str) -> None:
    keys = {"ES256": ec.generate_private_key(ec.SECP256R1()), "EdDSA": ed25519.Ed25519PrivateKey.generate()}
    pem = pem_of(keys.get(algorithm, rsa_key()))  # type: ignore[arg-type]
    credentials = {"client_id": "c1", "private_key": pem.replace("\n", "\\n")}
    auth = oauth2(provider, credentials, clientAuthentication="private_key_jwt", algorithm=algorithm, keyId="k1")
    sent(auth, provider)
    form = provider.token_calls[0].form
    assert form["client_assertion_type"] == "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
    token = jwt.decode(form["client_assertion"], jwk.import_key(pem), algorithms=[algorithm])
    assert (token.header["kid"], token.claims["iss"], token.claims["sub"]) == ("k1", "c1", "c1")
    assert token.claims["aud"] == provider.token_url
    assert 0 < token.claims["exp"] - token.claims["iat"] <= 300


def test_jwt_bearer(provider: FakeProvider) -> None:
    described = {
        "tokenUrl": provider.token_url,
        "issuer": "{{credentials.email}}",
        "subject": "admin@example.com",
        "audience": "https://aud.example",
        "scopes": ["read"],
        "scopeClaim": True,
    }
    auth = login("jwtBearer", {"email": "bot@example.com", "private_key": pem_of(rsa_key())}, described)
    sent(auth, provider)
    form = provider.token_calls[0].form
    assert set(form) == {"grant_type", "assertion"}
    claims = jwt.decode(form["assertion"], jwk.import_key(pem_of(rsa_key())), algorithms=["RS256"]).claims
    named = {name: claims[name] for name in ("iss", "sub", "aud", "scope")}
    assert named == {
        "iss": "bot@example.com",
        "sub": "admin@example.com",
        "aud": "https://aud.example",
        "scope": "read",
    }


def verified(call: Call) -> Reply:
    """Return the answer of a server that verifies the signature with `rsa_key`, by other code than the one that signs."""
    signed, _, signature = call.form["assertion"].rpartition(".")
    try:
        rsa_key().public_key().verify(
            base64.urlsafe_b64decode(signature + "=="), signed.encode(), padding.PKCS1v15(), hashes.SHA256()
        )
    except InvalidSignature:
        return Reply(400, {"error": "invalid_grant", "error_description": "bad signature"})
    return Reply(200, {"access_token": "a-1", "token_type": "Bearer", "expires_in": 60})


def test_a_server_verifies_the_assertion_of_jwt_bearer(provider: FakeProvider) -> None:
    described = {"tokenUrl": provider.token_url, "issuer": "bot", "audience": "https://aud.example"}
    provider.token_replies = [verified]
    auth = login("jwtBearer", {"private_key": pem_of(rsa_key())}, described)
    assert auth.token().value == "a-1"  # type: ignore[attr-defined]


def test_a_server_refuses_an_assertion_of_jwt_bearer_that_another_key_signed(provider: FakeProvider) -> None:
    described = {"tokenUrl": provider.token_url, "issuer": "bot", "audience": "https://aud.example"}
    provider.token_replies = [verified]
    other = pem_of(rsa.generate_private_key(65537, 2048))
    auth = login("jwtBearer", {"private_key": other}, described)
    with pytest.raises(AuthenticationError, match=r"refuses private_key \(invalid_grant: bad signature\)"):
        auth.token()  # type: ignore[attr-defined]


def test_a_clock_that_is_wrong_is_corrected_by_the_providers(provider: FakeProvider) -> None:
    ahead = datetime.now(UTC) + timedelta(hours=2)
    refusal = Reply(400, {"error": "invalid_client"}, {"Date": format_datetime(ahead, usegmt=True)})
    provider.token_replies.append(refusal)
    auth = oauth2(
        provider, {"client_id": "c", "private_key": pem_of(rsa_key())}, clientAuthentication="private_key_jwt"
    )
    sent(auth, provider)
    first, second = [jwt_claims(call.form["client_assertion"]) for call in provider.token_calls]
    assert second["iat"] - first["iat"] == pytest.approx(7200, abs=30)
    assert first["jti"] != second["jti"]


def jwt_claims(token: str) -> dict[str, Any]:
    part = token.split(".")[1]
    found: dict[str, Any] = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    return found


def test_saml_assertion_of_the_connector_exchanged(provider: FakeProvider) -> None:
    described = {
        "assertion": "selfIssued",
        "issuer": "https://penstock.example",
        "tokenUrl": provider.token_url,
        "scopes": ["read"],
    }
    credentials = {"username": "ada", "private_key": pem_of(rsa_key()), "certificate": certificate()}
    sent(login("saml", credentials, described), provider)
    form = provider.token_calls[0].form
    assert form["grant_type"] == "urn:ietf:params:oauth:grant-type:saml2-bearer"
    text = base64.urlsafe_b64decode(form["assertion"] + "=" * (-len(form["assertion"]) % 4))
    verified = XMLVerifier().verify(text, x509_cert=credentials["certificate"], id_attribute="ID").signed_xml
    assert verified is not None
    names = {"saml": "urn:oasis:names:tc:SAML:2.0:assertion"}
    assert verified.findtext(".//saml:NameID", namespaces=names) == "ada"
    assert verified.findtext(".//saml:Audience", namespaces=names) == provider.token_url
    assert verified.findtext("saml:Issuer", namespaces=names) == "https://penstock.example"


def test_saml_assertion_of_the_connector_sent_as_it_is(provider: FakeProvider) -> None:
    described = {
        "assertion": "selfIssued",
        "issuer": "me",
        "subject": "bob",
        "send": {"in": "header", "name": "X-Saml", "prefix": "SAML "},
    }
    credentials = {"private_key": pem_of(rsa_key()), "certificate": certificate()}
    header = sent(login("saml", credentials, described), provider).headers["x-saml"]
    tree = etree.fromstring(base64.b64decode(header.removeprefix("SAML ")))
    assert tree.tag == "{urn:oasis:names:tc:SAML:2.0:assertion}Assertion"


@pytest.mark.parametrize("service", ["s3", "execute-api"])
@pytest.mark.parametrize("path", ["/", "/a b/c%2Fd", "/a//b", "/x/../y", "/ü?b=2&a=1&a=%20x+y&empty"])
def test_sigv4_is_the_signature_that_botocore_makes(service: str, path: str) -> None:
    auth = login(
        "awsSigV4",
        {"access_key_id": "AKIDEXAMPLE", "secret_access_key": "secret", "session_token": "session"},
        {"service": service, "region": "eu-west-1"},
    )
    seen: list[httpx.Request] = []
    transport = httpx.MockTransport(lambda request: seen.append(request) or httpx.Response(200))  # type: ignore[func-returns-value]
    with httpx.Client(transport=transport, auth=auth) as http:
        http.post(f"https://host.example{path}", content=b"body")
    (request,) = seen
    expected = signed_by_botocore(request, service)
    assert request.headers["authorization"] == expected


def signed_by_botocore(request: httpx.Request, service: str) -> str:
    keys = botocore.credentials.Credentials("AKIDEXAMPLE", "secret", "session")
    signer_class = botocore.auth.S3SigV4Auth if service == "s3" else botocore.auth.SigV4Auth
    signer = signer_class(keys, service, "eu-west-1")
    headers = {name: request.headers[name] for name in request.headers if name.startswith("x-amz-")}
    other = botocore.awsrequest.AWSRequest(
        request.method, str(request.url), headers={**headers, "Host": "host.example"}, data=request.content
    )
    other.context["timestamp"] = headers["x-amz-date"]
    other.context["payload_signing_enabled"] = True
    canonical = signer.canonical_request(other)
    return (
        f"AWS4-HMAC-SHA256 Credential={signer.scope(other)}, SignedHeaders={signer.signed_headers(signer.headers_to_sign(other))},"
        f" Signature={signer.signature(signer.string_to_sign(other, canonical), other)}"
    )


@pytest.mark.parametrize("tls_for", ["source", "token endpoint"])
def test_a_client_certificate(tmp_path: Path, tls_for: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pem, key = certificate("127.0.0.1"), pem_of(rsa_key())
    (tmp_path / "chain.pem").write_text(pem)
    (tmp_path / "key.pem").write_text(key)
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cadata=pem)
    server.load_cert_chain(tmp_path / "chain.pem", tmp_path / "key.pem")
    server.verify_mode = ssl.CERT_REQUIRED
    trusting = ssl.create_default_context(cadata=pem)
    trusting.check_hostname = False
    monkeypatch.setattr(ssl, "create_default_context", lambda: trusting)
    credentials = {"client_certificate": pem, "client_key": key}
    with FakeProvider() as provider:
        provider.use_tls(server)
        if tls_for == "source":
            sent(login("clientCertificate", credentials), provider)
        else:
            oauth = oauth2(provider, {"client_id": "c", **credentials}, clientAuthentication="tls_client_auth")
            sent(oauth, provider)
            assert provider.token_calls[0].form["client_id"] == "c"


class TestTheMethodOfAConnection:
    """The config chooses, or the Secret's credentials do."""

    METHODS = (
        method_of("none", {}),
        method_of("basic", {"username": "", "password": ""}),
        method_of("apiKey", {"api_key": ""}, {"in": "header", "name": "X"}),
    )

    @pytest.mark.parametrize(
        ("held", "expected"),
        [
            ({}, "none"),
            ({"username": "u", "password": "p"}, "basic"),
            ({"api_key": "k"}, "apiKey"),
            ({"username": "u"}, "none"),
        ],
    )
    def test_the_secret_chooses(self, held: dict[str, str], expected: str) -> None:
        assert select_method(manifest_of(*self.METHODS), {}, held).type == expected

    def test_the_config_chooses(self) -> None:
        config = {"authentication": {"method": "apiKey"}}
        assert select_method(manifest_of(*self.METHODS), config, {"username": "u", "password": "p"}).type == "apiKey"

    def test_two_methods_that_fit_need_a_choice(self) -> None:
        held = {"username": "u", "password": "p", "api_key": "k"}
        with pytest.raises(
            ConfigError, match=r"several methods: none, basic, apiKey. Set spec.config.authentication.method"
        ):
            select_method(manifest_of(*self.METHODS), {}, held)

    def test_an_unknown_choice_names_the_methods(self) -> None:
        with pytest.raises(ConfigError, match="'saml'; the connector has the methods: none, basic, apiKey"):
            select_method(manifest_of(*self.METHODS), {"authentication": {"method": "saml"}}, {})

    def test_no_method_fits(self) -> None:
        with pytest.raises(AuthenticationError, match="basic: password, username; apiKey: api_key"):
            select_method(manifest_of(*self.METHODS[1:]), {}, {"username": "u"})

    def test_a_login_of_the_connectors_own_is_not_built(self) -> None:
        with pytest.raises(DefectError, match="does not describe the method oauth2"):
            auth_for(manifest_of(method_of("oauth2", {"client_id": ""})), {}, {"client_id": "c"})
