"""Logins against Keycloak, a real identity provider."""

from __future__ import annotations

import base64
import ssl
from typing import Any

import httpx
import pytest
from lxml import etree
from penstock_sdk import AuthenticationError, ConfigError
from penstock_sdk.auth import Auth, LocalCredential
from signxml.verifier import SignatureConfiguration, XMLVerifier

from tests.identity.keycloak import CONSUMER, PASSWORD, SECRET, SERVICE_PROVIDER, USER, Keycloak
from tests.unit.sdk.auth.logins import certificate, login, pem_of, rsa_key

SAML = "urn:oasis:names:tc:SAML:2.0:assertion"


def oauth2(keycloak: Keycloak, credentials: dict[str, str], **described: Any) -> Auth:
    """Return the login of a manifest with this description."""
    options = {"share": described.pop("share")} if "share" in described else {}
    complete = {"flow": "clientCredentials", "tokenUrl": keycloak.token_url, **described}
    return login("oauth2", credentials, complete, **options)


def token_of(auth: Auth) -> str:
    """Obtain a token, and return it."""
    found: str = auth.token().value  # type: ignore[attr-defined]
    return found


def refresh_token(keycloak: Keycloak) -> str:
    """Return a refresh token of the user, as a person's login gets it."""
    form = {"grant_type": "password", "client_id": "person", "username": USER, "password": PASSWORD, "scope": "openid"}
    found: str = httpx.post(keycloak.token_url, data=form).raise_for_status().json()["refresh_token"]
    return found


def user_of(keycloak: Keycloak, auth: Auth) -> httpx.Response:
    """Ask Keycloak, as a source, who a login is."""
    with auth.client(base_url=keycloak.realm) as http:
        return http.get("/protocol/openid-connect/userinfo")


@pytest.fixture
def trusting(monkeypatch: pytest.MonkeyPatch, server_certificate: str) -> None:
    """Trust Keycloak's certificate."""
    context = ssl.create_default_context(cadata=server_certificate)
    context.check_hostname = False
    monkeypatch.setattr(ssl, "create_default_context", lambda: context)


@pytest.mark.parametrize("method", ["client_secret_basic", "client_secret_post"])
def test_client_credentials(keycloak: Keycloak, method: str) -> None:
    auth = oauth2(
        keycloak, {"client_id": "basic", "client_secret": SECRET}, clientAuthentication=method, scopes=["profile"]
    )
    assert len(token_of(auth)) > 100


def test_private_key_jwt(keycloak: Keycloak) -> None:
    credentials = {"client_id": "signed", "private_key": pem_of(rsa_key())}
    assert token_of(oauth2(keycloak, credentials, clientAuthentication="private_key_jwt"))


def test_a_private_key_that_it_does_not_know(keycloak: Keycloak) -> None:
    from cryptography.hazmat.primitives.asymmetric import rsa

    credentials = {"client_id": "signed", "private_key": pem_of(rsa.generate_private_key(65537, 2048))}
    with pytest.raises(AuthenticationError, match="refuses client_id or private_key"):
        token_of(oauth2(keycloak, credentials, clientAuthentication="private_key_jwt"))


@pytest.mark.usefixtures("trusting")
def test_mutual_tls(keycloak: Keycloak, server_certificate: str) -> None:
    credentials = {"client_id": "mutual", "client_certificate": server_certificate, "client_key": pem_of(rsa_key())}
    described = {"clientAuthentication": "tls_client_auth", "tokenUrl": keycloak.mtls_token_url}
    assert token_of(oauth2(keycloak, credentials, **described))


@pytest.mark.usefixtures("trusting")
def test_a_client_certificate_of_another_subject(keycloak: Keycloak) -> None:
    other = certificate("somebody-else")
    credentials = {"client_id": "mutual", "client_certificate": other, "client_key": pem_of(rsa_key())}
    described = {"clientAuthentication": "tls_client_auth", "tokenUrl": keycloak.mtls_token_url}
    with pytest.raises(AuthenticationError, match="client_certificate"):
        token_of(oauth2(keycloak, credentials, **described))


def test_a_certificate_of_the_provider_that_nobody_signed(keycloak: Keycloak) -> None:
    described = {"tokenUrl": keycloak.mtls_token_url}
    with pytest.raises(ConfigError, match=r"the certificate of 127\.0\.0\.1 is not valid"):
        token_of(oauth2(keycloak, {"client_id": "basic", "client_secret": SECRET}, **described))


@pytest.mark.parametrize(
    ("client", "secret", "message"),
    [
        ("basic", "wrong", "refuses client_id or client_secret"),
        ("nobody", "wrong", "refuses client_id or client_secret"),
        ("disabled", SECRET, "unauthorized_client"),
    ],
)
def test_a_client_that_it_refuses(keycloak: Keycloak, client: str, secret: str, message: str) -> None:
    with pytest.raises(AuthenticationError, match=message):
        token_of(oauth2(keycloak, {"client_id": client, "client_secret": secret}))


def test_a_scope_that_it_does_not_know(keycloak: Keycloak) -> None:
    with pytest.raises(ConfigError, match="does not grant the scopes"):
        token_of(oauth2(keycloak, {"client_id": "basic", "client_secret": SECRET}, scopes=["no-such-scope"]))


def test_a_wrong_address(keycloak: Keycloak) -> None:
    with pytest.raises(ConfigError, match="correct tokenUrl"):
        token_of(oauth2(keycloak, {"client_id": "basic", "client_secret": SECRET}, tokenUrl=f"{keycloak.http}/nowhere"))


def test_a_refresh_token_is_replaced_and_kept_each_time(keycloak: Keycloak) -> None:
    kept: list[str] = []
    credentials = {"client_id": "person", "refresh_token": refresh_token(keycloak)}
    auth = oauth2(
        keycloak,
        credentials,
        flow="refreshToken",
        clientAuthentication="none",
        scopes=["openid"],
        share=lambda name: LocalCredential(credentials[name], kept.append),
    )
    assert user_of(keycloak, auth).json()["preferred_username"] == USER
    auth.token(refused=token_of(auth))  # type: ignore[attr-defined]
    assert user_of(keycloak, auth).status_code == 200
    assert len(set(kept)) == 2


def test_a_refresh_token_that_was_used_before(keycloak: Keycloak) -> None:
    credentials = {"client_id": "person", "refresh_token": refresh_token(keycloak)}
    described = {"flow": "refreshToken", "clientAuthentication": "none"}
    assert token_of(oauth2(keycloak, credentials, **described))
    with pytest.raises(
        AuthenticationError, match="refuses refresh_token: it has expired, was revoked, or was already used"
    ):
        token_of(oauth2(keycloak, credentials, **described))


def ecp(keycloak: Keycloak, password: str = PASSWORD, **described: Any) -> Auth:
    """Return a login that gets its assertion from Keycloak by ECP."""
    complete = {
        "assertion": "ecp",
        "identityProviderUrl": keycloak.soap_url,
        "issuer": SERVICE_PROVIDER,
        "assertionConsumerUrl": CONSUMER,
        "send": {"in": "header", "name": "X-Saml"},
        **described,
    }
    return login("saml", {"username": USER, "password": password}, complete)


def test_saml_ecp(keycloak: Keycloak) -> None:
    tree = etree.fromstring(base64.b64decode(token_of(ecp(keycloak))))
    assert tree.tag == f"{{{SAML}}}Assertion"
    assert tree.findtext(f".//{{{SAML}}}NameID") == USER
    assert tree.findtext(f".//{{{SAML}}}Audience") == SERVICE_PROVIDER
    descriptor = etree.fromstring(httpx.get(f"{keycloak.realm}/protocol/saml/descriptor").content)
    pem = descriptor.findtext(".//{http://www.w3.org/2000/09/xmldsig#}X509Certificate")
    XMLVerifier().verify(tree, x509_cert=pem, id_attribute="ID", expect_config=SignatureConfiguration(location=".//"))


def test_saml_ecp_with_a_wrong_password(keycloak: Keycloak) -> None:
    with pytest.raises(AuthenticationError, match="refuses username and password"):
        token_of(ecp(keycloak, "wrong"))


def test_saml_ecp_of_an_unknown_service_provider(keycloak: Keycloak) -> None:
    with pytest.raises((AuthenticationError, ConfigError), match=r"https://unknown\.example"):
        token_of(ecp(keycloak, issuer="https://unknown.example"))
