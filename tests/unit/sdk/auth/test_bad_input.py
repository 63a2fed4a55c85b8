"""Every wrong credential and every broken answer has an error class, and a message with the credential and the remedy."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from penstock_sdk import AuthenticationError, ConfigError, ConnectorError, TransientError
from penstock_sdk.auth import Auth, LocalCredential
from penstock_sdk.auth import provider as provider_module

from tests.fakes.provider import Call, FakeProvider, Reply
from tests.unit.sdk.auth.logins import certificate, login, pem_of, rsa_key

CLIENT = {"client_id": "the-client", "client_secret": "the-secret"}
REFRESH = {**CLIENT, "refresh_token": "refresh-0"}
HTML = b"<!doctype html><html><body>Log in</body></html>"
TOKEN = {"access_token": "abc", "token_type": "Bearer", "expires_in": 60}


@pytest.fixture
def provider() -> Iterator[FakeProvider]:
    with FakeProvider() as found:
        yield found


def oauth2(provider: FakeProvider, credentials: dict[str, str] | None = None, **described: Any) -> Auth:
    held = CLIENT if credentials is None else credentials
    options = {name: described.pop(name) for name in ("share", "declared") if name in described}
    flow = "refreshToken" if "refresh_token" in options.get("declared", held) else "clientCredentials"
    return login("oauth2", held, {"flow": flow, "tokenUrl": provider.token_url, **described}, **options)


def error_of(provider: FakeProvider, auth: Auth, path: str = "/x") -> ConnectorError:
    """Return the error of a request."""
    with auth.client(base_url=provider.url) as http, pytest.raises(ConnectorError) as raised:
        http.get(path)
    assert not any(secret in raised.value.message for secret in (*CLIENT.values(), "refresh-0"))
    return raised.value


@pytest.mark.parametrize(
    ("reply", "kind", "message"),
    [
        (Reply(401, {"error": "invalid_client"}), AuthenticationError, "refuses client_id or client_secret (invalid_client): wrong, expired or revoked"),
        (Reply(400, {"error": "unauthorized_client", "error_description": "no the-secret here"}), AuthenticationError, "(unauthorized_client: no *** here)"),
        (Reply(200, {"error": "invalid_client"}), AuthenticationError, "refuses client_id or client_secret (invalid_client)"),
        (Reply(200, {"error": "invalid_client", "access_token": "x"}), AuthenticationError, "(invalid_client)"),
        (Reply(200, {"error": {"code": "bad", "message": "m"}}), AuthenticationError, "(bad"),
        (Reply(403, HTML, {"Content-Type": "text/html"}), AuthenticationError, "(HTTP 403)"),
        (Reply(400, {"error": "invalid_scope"}), ConfigError, "does not grant the scopes"),
        (Reply(400, {"error": "unsupported_grant_type"}), ConfigError, "the manifest's description of the login is wrong"),
        (Reply(404, b"not found"), ConfigError, "correct tokenUrl"),
        (Reply(200, HTML, {"Content-Type": "text/html"}), ConfigError, "with an HTML page instead of JSON (HTTP 200): correct tokenUrl"),
        (Reply(200, HTML), ConfigError, "with an HTML page instead of JSON"),
        (Reply(200, b"\xff\xfe{}"), ConfigError, "correct tokenUrl"),
        (Reply(200, b""), ConfigError, "correct tokenUrl"),
        (Reply(200, b"[1]"), ConfigError, "correct tokenUrl"),
        (Reply(200, {}), ConfigError, "not what the manifest describes"),
        (Reply(200, {"access_token": 7}), ConfigError, "no usable access_token"),
        (Reply(200, {"access_token": "a\r\nX: y"}), ConfigError, "no usable access_token"),
        (Reply(200, {"access_token": ""}), ConfigError, "no usable access_token"),
        (Reply(200, {**TOKEN, "token_type": "mac"}), ConfigError, "another type than Bearer"),
        (Reply(200, {**TOKEN, "scope": "other"}), AuthenticationError, "a token without the scope orders.read: grant the scope"),
        (Reply(200, b"x" * (2 * 1024 * 1024)), ConfigError, "more than 1,048,576 bytes"),
        (Reply(302, b"", {"Location": "https://evil.example/token"}), ConfigError, "redirects the login to evil.example, where credentials are not sent"),
        (Reply(307, b"", {"Location": "/other"}), ConfigError, "redirects the login to 127.0.0.1"),
        (Reply(500, HTML), TransientError, "it answers HTTP 500"),
        (Reply(503, b"", {"Retry-After": "7"}), TransientError, "it answers HTTP 503"),
        (Reply(429, b"", {"Retry-After": "Sat, 01 Jan 2000 00:00:00 GMT"}), TransientError, "it answers HTTP 429"),
        *(
            (Reply(503, b"", {"Retry-After": text}), TransientError, "it answers HTTP 503")
            for text in ("", "9" * 400, "-1", "soon", "Sat, 01 Jan 99999999999 00:00:00 GMT", "1 Jan 2000 25:61:61 +99999999")
        ),
        (Reply(400, {"error": "temporarily_unavailable"}), TransientError, "is not available for the login"),
        (Reply(200, b"no gzip", {"Content-Encoding": "gzip"}), TransientError, "is not encoded as its header says"),
        (Reply(200, b"{}", {"Content-Length": "400"}), TransientError, "does not answer the login completely"),
    ],
)  # fmt: skip
def test_a_provider_answers_no_token(
    provider: FakeProvider, reply: Reply, kind: type[ConnectorError], message: str
) -> None:
    provider.token_replies.append(reply)
    error = error_of(provider, oauth2(provider, scopes=["orders.read"]))
    assert type(error).__name__.replace("AnswerLostError", "TransientError") == kind.__name__
    assert message in error.message
    assert provider.source_calls == []


def test_a_provider_says_when_to_try_again(provider: FakeProvider) -> None:
    provider.token_replies.append(Reply(503, b"", {"Retry-After": "7"}))
    error = error_of(provider, oauth2(provider))
    assert isinstance(error, TransientError)
    assert error.retry_after == 7


@pytest.mark.parametrize(
    "expires_in", [None, "3600", 3600.5, -1, 0, True, "soon", "nan", 1e300, "1e999", [], {}], ids=str
)
def test_a_lifetime_that_lies_is_not_relied_on(provider: FakeProvider, expires_in: object) -> None:
    provider.token_replies.append(Reply(200, {"access_token": "abc", "token_type": "bearer", "expires_in": expires_in}))
    provider.source = lambda _call: Reply()
    with oauth2(provider).client(base_url=provider.url) as http:
        assert [http.get("/x").status_code for _ in range(2)] == [200, 200]
    assert len(provider.token_calls) == 1


def test_a_provider_that_is_down() -> None:
    with FakeProvider() as stopped:
        pass
    error = error_of(stopped, oauth2(stopped))
    assert isinstance(error, TransientError)
    assert "127.0.0.1 cannot be reached for the login" in error.message


def test_a_provider_that_is_slow(provider: FakeProvider, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provider_module, "TIMEOUT", httpx.Timeout(0.05))
    asked = threading.Event()
    provider.token_replies.append(lambda _call: asked.wait(30) and None)
    error = error_of(provider, oauth2(provider))
    asked.set()
    assert isinstance(error, TransientError)


def test_a_provider_with_an_invalid_certificate(tmp_path: Path) -> None:
    (tmp_path / "chain.pem").write_text(certificate("127.0.0.1"))
    (tmp_path / "key.pem").write_text(pem_of(rsa_key()))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(tmp_path / "chain.pem", tmp_path / "key.pem")
    with FakeProvider() as provider:
        provider.use_tls(context)
        error = error_of(provider, oauth2(provider))
    assert isinstance(error, ConfigError)
    assert "the certificate of 127.0.0.1 is not valid (self-signed certificate)" in error.message


def test_a_refresh_token_that_is_refused(provider: FakeProvider) -> None:
    error = error_of(provider, oauth2(provider, {**REFRESH, "refresh_token": "revoked-before"}))
    assert isinstance(error, AuthenticationError)
    assert "refuses refresh_token: it has expired, was revoked, or was already used" in error.message
    assert "authorize again, and put the new refresh_token into the Secret" in error.message


def test_a_refused_client_with_a_refresh_token_names_the_client(provider: FakeProvider) -> None:
    provider.token_replies.append(Reply(401, {"error": "invalid_client"}))
    assert (
        "refuses client_id or client_secret or refresh_token" in error_of(provider, oauth2(provider, REFRESH)).message
    )


def test_a_lost_answer_is_asked_for_again_and_the_new_token_is_kept(provider: FakeProvider) -> None:
    provider.leeway = True
    kept: list[str] = []

    def lose(call: Call) -> None:
        provider.grant(call)

    provider.token_replies.append(lose)
    auth = oauth2(provider, REFRESH, share=lambda name: LocalCredential(REFRESH[name], kept.append))
    with auth.client(base_url=provider.url) as http:
        assert http.get("/x").status_code == 200
    assert kept == [provider.refresh_token]


def test_the_new_token_is_kept_before_it_is_used(provider: FakeProvider) -> None:
    used_at: list[int] = []
    auth = oauth2(
        provider,
        REFRESH,
        share=lambda name: LocalCredential(REFRESH[name], lambda _new: used_at.append(len(provider.source_calls))),
    )
    provider.lifetime = 1e-9
    with auth.client(base_url=provider.url) as http:
        assert [http.get("/x").status_code for _ in range(3)] == [200] * 3
    assert used_at == [0, 1, 2]
    assert provider.reused == []


class TestCredentialsOfTheSecret:
    """What a Secret can lack, or have wrong."""

    @pytest.mark.parametrize(
        ("kind", "credentials", "described"),
        [
            ("basic", {"username": "u", "password": " "}, None),
            ("bearer", {"token": ""}, None),
            ("apiKey", {"api_key": "\n"}, {"in": "header", "name": "X"}),
            ("awsSigV4", {"access_key_id": "a", "secret_access_key": ""}, {"service": "s3", "region": "r"}),
            ("clientCertificate", {"client_certificate": "c", "client_key": ""}, None),
        ],
    )
    def test_a_missing_one_is_named(
        self, kind: str, credentials: dict[str, str], described: dict[str, Any] | None
    ) -> None:
        (missing,) = (name for name, value in credentials.items() if not value.strip())
        with pytest.raises(AuthenticationError, match=f"no value for {missing}: add the key {missing}"):
            login(kind, credentials, described)

    @pytest.mark.parametrize("name", ["client_id", "client_secret", "refresh_token"])
    def test_a_missing_one_of_oauth2_is_named(self, provider: FakeProvider, name: str) -> None:
        held = {key: value for key, value in REFRESH.items() if key != name}
        with pytest.raises(AuthenticationError, match=f"no value for {name}"):
            oauth2(provider, held, declared=REFRESH)

    @pytest.mark.parametrize("value", ["a\r\nX-Other: b", "a\x00b", "ключ"])
    def test_a_value_that_no_header_can_carry(self, value: str) -> None:
        with pytest.raises(AuthenticationError, match="api_key has a character that a request cannot carry"):
            login("apiKey", {"api_key": value}, {"in": "header", "name": "X"})

    @pytest.mark.parametrize(
        "pem",
        [
            "rubbish",
            "{}",
            '{"kty": "oct", "k": "YQ"}',
            "-----BEGIN PRIVATE KEY-----\nYQ==\n-----END PRIVATE KEY-----",
            pem_of(ec.generate_private_key(ec.SECP256R1())),
        ],
    )
    def test_a_wrong_private_key(self, provider: FakeProvider, pem: str) -> None:
        with pytest.raises(AuthenticationError, match="private_key is not an RSA private key") as raised:
            oauth2(provider, {"client_id": "c", "private_key": pem}, clientAuthentication="private_key_jwt")
        assert pem not in raised.value.message

    @pytest.mark.parametrize(
        ("chain", "key", "message"),
        [
            ("rubbish", lambda: pem_of(rsa_key()), "client_certificate is not a certificate in PEM"),
            (certificate, lambda: pem_of(ec.generate_private_key(ec.SECP256R1())), "do not fit"),
            (certificate, lambda: "rubbish", "do not fit"),
            (
                lambda: certificate(begin=timedelta(-9), end=timedelta(-2)),
                lambda: pem_of(rsa_key()),
                "client_certificate has expired on",
            ),
            (lambda: certificate(begin=timedelta(1), end=timedelta(2)), lambda: pem_of(rsa_key()), "is valid from"),
        ],
        ids=["no certificate", "another key", "no key", "expired", "future"],
    )
    def test_a_wrong_certificate(self, chain: str | Callable[[], str], key: Callable[[], str], message: str) -> None:
        pem = chain if isinstance(chain, str) else chain()
        with pytest.raises(AuthenticationError, match=message):
            login("clientCertificate", {"client_certificate": pem, "client_key": key()})

    def test_a_wrong_key_of_saml(self, provider: FakeProvider) -> None:
        credentials = {"username": "u", "private_key": "rubbish", "certificate": certificate()}
        described = {"assertion": "selfIssued", "issuer": "i", "tokenUrl": provider.token_url}
        assert (
            "private_key and certificate do not fit"
            in error_of(provider, login("saml", credentials, described)).message
        )


class TestTheSource:
    """What the source answers."""

    @pytest.mark.parametrize(
        ("kind", "credentials", "described", "named"),
        [
            ("none", {}, None, "set spec.secretRef"),
            ("basic", {"username": "u", "password": "p"}, None, "username and password"),
            ("bearer", {"token": "t"}, None, "create a new token"),
            ("apiKey", {"api_key": "k"}, {"in": "query", "name": "k"}, "create a new key"),
            ("awsSigV4", {"access_key_id": "a", "secret_access_key": "s"}, {"service": "s3", "region": "r"}, "access_key_id and secret_access_key"),
        ],
    )  # fmt: skip
    def test_it_refuses_the_credentials(
        self,
        provider: FakeProvider,
        kind: str,
        credentials: dict[str, str],
        described: dict[str, Any] | None,
        named: str,
    ) -> None:
        error = error_of(provider, login(kind, credentials, described))
        assert isinstance(error, AuthenticationError)
        assert named in error.message

    def test_a_token_that_ends_before_its_time_is_renewed_once(self, provider: FakeProvider) -> None:
        with oauth2(provider).client(base_url=provider.url) as http:
            assert http.get("/a").status_code == 200
            provider.valid.clear()
            assert http.post("/b", json={"n": 1}).status_code == 200
        assert len(provider.token_calls) == 2
        assert provider.source_calls[-1].content == provider.source_calls[-2].content

    def test_a_fresh_token_that_it_refuses(self, provider: FakeProvider) -> None:
        provider.source = lambda _call: Reply(401)
        error = error_of(provider, oauth2(provider))
        assert isinstance(error, AuthenticationError)
        assert "refuses the token that 127.0.0.1 has just issued: check the scopes and the audience" in error.message
        assert len(provider.token_calls) == 2

    def test_a_token_without_the_scope(self, provider: FakeProvider) -> None:
        challenge = {"WWW-Authenticate": 'Bearer error="insufficient_scope", scope="orders.read"'}
        provider.source = lambda _call: Reply(403, {}, challenge)
        error = error_of(provider, oauth2(provider))
        assert isinstance(error, AuthenticationError)
        assert "needs the scope 'orders.read': grant it to the client" in error.message
        assert error.scope == "stream"

    def test_other_answers_are_the_connectors_to_judge(self, provider: FakeProvider) -> None:
        provider.source = lambda _call: Reply(403, {"error": "no"})
        with login("bearer", {"token": "t"}).client(base_url=provider.url) as http:
            assert http.get("/x").status_code == 403

    @pytest.mark.parametrize("code", ["SignatureDoesNotMatch", "InvalidAccessKeyId", "ExpiredToken"])
    def test_a_refused_signature(self, provider: FakeProvider, code: str) -> None:
        provider.source = lambda _call: Reply(403, f"<Error><Code>{code}</Code></Error>".encode())
        auth = login("awsSigV4", {"access_key_id": "a", "secret_access_key": "s"}, {"service": "s3", "region": "r"})
        assert code in error_of(provider, auth).message

    @pytest.mark.parametrize(
        ("reply", "message"),
        [
            (Reply(200, {"success": False}), "without a token in 'data.token': it refuses username or password"),
            (Reply(200, {"error": "bad credentials"}), "refuses username or password"),
            (Reply(401, b""), "refuses username or password (HTTP 401)"),
            (Reply(200, {"data": {"token": True}}), "without a token in"),
            (Reply(200, {"data": {"token": "a\nb"}}), "without a token in"),
            (Reply(200, HTML), "HTML page"),
            (Reply(404, HTML), "HTML page"),
            (Reply(302, b"", {"Location": "https://other.example/"}), "redirects the login to other.example"),
        ],
    )
    def test_a_login_call_without_a_token(self, provider: FakeProvider, reply: Reply, message: str) -> None:
        described = {
            "loginUrl": f"{provider.url}/login",
            "fields": {"u": "{{credentials.username}}"},
            "token": "data.token",
            "send": {"in": "header", "name": "X"},
        }
        provider.source = lambda _call: reply
        auth = login("session", {"username": "u", "password": "p"}, described)
        assert message in error_of(provider, auth).message


@pytest.mark.parametrize(
    ("kind", "credentials", "described", "header"),
    [
        ("basic", {"username": "u", "password": "p"}, None, "authorization"),
        ("apiKey", {"api_key": "k"}, {"in": "header", "name": "X-Api-Key"}, "x-api-key"),
        ("apiKey", {"api_key": "k"}, {"in": "cookie", "name": "sid"}, "cookie"),
        ("awsSigV4", {"access_key_id": "a", "secret_access_key": "s", "session_token": "t"}, {"service": "s3", "region": "r"}, "x-amz-security-token"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_that_httpx_follows_to_another_host_gets_no_credentials(
    provider: FakeProvider,
    kind: str,
    credentials: dict[str, str],
    described: dict[str, Any] | None,
    header: str,
    status: int,
) -> None:
    with FakeProvider() as other:
        other.source = lambda _call: Reply()
        provider.source = lambda _call: Reply(status, b"", {"Location": f"{other.url}/elsewhere"})
        auth = login(kind, credentials, described)
        with httpx.Client(auth=auth, base_url=provider.url, follow_redirects=True) as http:
            assert http.get("/x").status_code == 200
        assert header in provider.source_calls[0].headers
        (call,) = other.source_calls
        assert not {header, "authorization", "cookie"} & set(call.headers)


def test_a_redirect_on_the_same_host_keeps_the_credentials(provider: FakeProvider) -> None:
    provider.source = lambda call: Reply(302, b"", {"Location": "/y"}) if call.path == "/x" else Reply()
    auth = login("apiKey", {"api_key": "k"}, {"in": "header", "name": "X-Api-Key"})
    with auth.client(base_url=provider.url, follow_redirects=True) as http:
        http.get("/x")
    assert [call.headers["x-api-key"] for call in provider.source_calls] == ["k", "k"]


def test_a_401_of_another_host_says_nothing_about_the_credentials(provider: FakeProvider) -> None:
    with FakeProvider() as other:
        provider.source = lambda _call: Reply(302, b"", {"Location": f"{other.url}/elsewhere"})
        auth = login("bearer", {"token": "t"})
        with httpx.Client(auth=auth, base_url=provider.url, follow_redirects=True) as http:
            assert http.get("/x").status_code == 401
        with auth.client(base_url=provider.url, follow_redirects=True) as http:
            assert http.get("/x").status_code == 401


def test_workers_share_one_token(provider: FakeProvider) -> None:
    from concurrent.futures import ThreadPoolExecutor

    auth = oauth2(provider, REFRESH)
    with auth.client(base_url=provider.url) as http, ThreadPoolExecutor(8) as pool:
        assert {answer.status_code for answer in pool.map(lambda n: http.get(f"/{n}"), range(40))} == {200}
    assert len(provider.token_calls) == 1
    assert provider.reused == []
