"""The HTTP client: what is sent, how it waits, and the error of each response that is not usable."""

from __future__ import annotations

import gzip
import ssl
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import httpx
import msgspec
import pytest
from penstock_sdk import AuthenticationError, ConfigError, ConnectorError, SourceContractError, TransientError
from penstock_sdk.http import Client, ClientLimits, ExpiredCursorError, NotFoundError, ResponseRule, url_path
from penstock_sdk.testing.source import (
    Answer,
    Collection,
    Corrupted,
    ErrorStatus,
    FakeSource,
    HtmlPage,
    Request,
    Throttled,
    Truncated,
    tied_rows,
)

from tests.fakes.provider import FakeProvider
from tests.unit.sdk.auth.logins import certificate, pem_of, rsa_key


@dataclass
class Clock:
    """A clock that only moves when the client waits."""

    now: float = 1000.0
    waits: list[float] = field(default_factory=list)

    def wait(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.now += seconds

    def __call__(self) -> float:
        return self.now


class KeyAuth(httpx.Auth):
    """A login by a header of its own, which httpx would send along with a redirect."""

    def auth_flow(self, request: httpx.Request) -> Iterator[httpx.Request]:  # type: ignore[override]
        request.headers["X-Api-Key"] = "a-secret"
        yield request


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def source() -> Iterator[FakeSource]:
    with FakeSource(Collection("items", tied_rows(6), paging="none")) as running:
        yield running


@pytest.fixture
def client(source: FakeSource, clock: Clock) -> Iterator[Client]:
    with Client(source.url, wait=clock.wait, clock=clock, limits=ClientLimits(timeout=5)) as opened:
        yield opened


def client_of(answer: Callable[[httpx.Request], httpx.Response], clock: Clock, **options: object) -> Client:
    """Return a client whose requests a function answers."""
    transport = httpx.MockTransport(answer)
    return Client("https://api.test/v1", transport=transport, wait=clock.wait, clock=clock, **options)  # type: ignore[arg-type]


class Me(msgspec.Struct):
    """An account."""

    name: str


# -- requests and responses


def test_a_path_is_below_the_base_url(clock: Clock) -> None:
    client = client_of(lambda request: httpx.Response(200, json={"url": str(request.url)}), clock, params={"key": "k"})
    assert client.get("/items", params={"a": 1, "b": None, "c": True}).field("url") == (
        "https://api.test/v1/items?key=k&a=1&c=true"
    )
    assert client.get("items?a=1", params={"b": 2}).field("url") == "https://api.test/v1/items?a=1&key=k&b=2"
    assert client.get("").field("url") == "https://api.test/v1?key=k"


def test_a_response_is_typed(clock: Clock) -> None:
    client = client_of(lambda _: httpx.Response(200, json={"name": "trial", "a.b": {"c": 7}}), clock)
    response = client.get("me")
    assert response.json(Me) == Me("trial")
    assert response.field("a.b") == {"c": 7}
    assert (
        response.field("a.b.c") is None
    )  # the key has the dot, and what it holds is not searched by a part of the path
    assert response.field("name.first") is None
    with pytest.raises(SourceContractError, match=r"the response to GET /v1/me is of another shape: Expected `int`"):
        response.json(dict[str, int])


@pytest.mark.parametrize(
    "address", ["", "api.test", "ftp://api.test", "https://user:word@api.test", "https://api.test?key=1", "https://[::"]
)
def test_an_address_that_cannot_be_used_is_an_error_of_the_config(address: str) -> None:
    with pytest.raises(ConfigError, match="the address of the source"):
        Client(address)


def test_a_segment_of_a_path_stays_one_segment() -> None:
    assert url_path("repos", "a/b?c", 7, "ü") == "repos/a%2Fb%3Fc/7/%C3%BC"
    for segment in ("", ".", ".."):
        with pytest.raises(SourceContractError, match="cannot be a segment"):
            url_path("repos", segment)


# -- waits


def test_a_source_that_asks_to_wait_costs_no_attempt(source: FakeSource, client: Client, clock: Clock) -> None:
    source.fail_next(Throttled("7"), Throttled("3", 503))
    assert client.get("items").field("total") == 6
    assert clock.waits == [7, 3]


def test_without_a_header_the_waits_grow_up_to_a_minute(source: FakeSource, client: Client, clock: Clock) -> None:
    source.fail_next(*[Throttled() for _ in range(8)])
    client.get("items")
    for seconds, longest in zip(clock.waits, [1, 2, 4, 8, 16, 32, 60, 60], strict=True):
        assert longest * 0.8 <= seconds <= longest


def test_a_post_is_sent_again_after_429_because_it_was_not_handled(source: FakeSource, client: Client) -> None:
    source.fail_next(Throttled("1"))
    client.post("items", json={"a": 1})
    assert [request.body for request in source.requests] == [b'{"a":1}'] * 2


@pytest.mark.parametrize(
    ("header", "reported"), [("301", 301), ("9" * 400, 86_400), ("Fri, 01 Jan 2100 00:00:00 GMT", 86_400)]
)
def test_a_longer_wait_ends_the_attempt_and_is_left_to_the_platform(
    header: str, reported: float, source: FakeSource, client: Client, clock: Clock
) -> None:
    source.fail_next(Throttled(header))
    with pytest.raises(TransientError, match="HTTP 429") as caught:
        client.get("items")
    assert (caught.value.retry_after, clock.waits) == (reported, [])


def test_all_waits_of_a_request_together_have_a_limit(source: FakeSource, client: Client, clock: Clock) -> None:
    source.fail(lambda _: Throttled("100"))
    with pytest.raises(TransientError) as caught:
        client.get("items")
    assert (clock.waits, caught.value.retry_after) == ([100, 100, 100], 100)


def test_a_used_up_rate_limit_is_waited_for_before_the_next_request(
    source: FakeSource, client: Client, clock: Clock
) -> None:
    source.fail_next(Answer.of_json([], headers={"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "25"}))
    client.get("items")
    assert clock.waits == []
    client.get("items")
    assert clock.waits == [25]


def test_a_wait_ends_when_the_attempt_has_to_end(source: FakeSource) -> None:
    class EndedError(Exception):
        pass

    def wait(seconds: float) -> None:
        raise EndedError

    source.fail_next(Throttled("60"))
    with pytest.raises(EndedError):
        Client(source.url, wait=wait).get("items")


# -- repeats


@pytest.mark.parametrize(
    "fault", [ErrorStatus(500), ErrorStatus(502), ErrorStatus(504), Truncated(), Corrupted("half-encoding")]
)
def test_a_request_that_only_reads_is_sent_again_after_a_failure(
    fault: ErrorStatus | Truncated | Corrupted, source: FakeSource, client: Client, clock: Clock
) -> None:
    source.fail_next(fault, fault)
    assert client.get("items").field("total") == 6
    assert len(clock.waits) == 2
    source.fail_next(fault, fault, fault)
    with pytest.raises(TransientError):
        client.get("items")


def test_a_request_that_may_have_been_handled_is_not_sent_again(source: FakeSource, client: Client) -> None:
    source.fail(lambda _: ErrorStatus(500))
    with pytest.raises(TransientError):
        client.post("items", json={})
    assert len(source.requests) == 1
    with pytest.raises(TransientError):
        client.post("items", json={}, only_reads=True)
    assert len(source.requests) == 4


def test_a_source_that_is_down_is_transient(clock: Clock) -> None:
    with pytest.raises(TransientError, match=r"127\.0\.0\.1 does not answer"):
        Client("http://127.0.0.1:9", wait=clock.wait, clock=clock).get("items")
    assert len(clock.waits) == 2


def test_a_source_that_does_not_respond_is_transient(clock: Clock) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        raise httpx.ReadTimeout("slow", request=request)

    with pytest.raises(TransientError, match="did not respond for 30 seconds"):
        client_of(answer, clock).get("items")


def test_a_response_that_trickles_has_a_deadline(clock: Clock) -> None:
    def trickle() -> Iterator[bytes]:
        while True:
            clock.now += 20
            yield b" "

    client = client_of(lambda _: httpx.Response(200, content=trickle()), clock)
    with pytest.raises(TransientError, match="not complete after 300 seconds"):
        client.get("items")


# -- statuses


@pytest.mark.parametrize(
    ("status", "error", "text"),
    [
        (400, SourceContractError, "HTTP 400; the source says: because"),
        (401, AuthenticationError, r"correct the Secret's key 'token'; the source says: because"),
        (402, ConfigError, "the account has to pay"),
        (403, AuthenticationError, "give the Secret's key 'token' the right or the scope"),
        (404, NotFoundError, "does not have it"),
        (407, TransientError, "HTTP 407"),
        (408, TransientError, "HTTP 408"),
        (410, NotFoundError, "HTTP 410"),
        (418, SourceContractError, "HTTP 418"),
        (500, TransientError, "HTTP 500"),
        (501, SourceContractError, "HTTP 501"),
        (520, TransientError, "HTTP 520"),
    ],
)
def test_a_status_says_what_to_do(
    status: int, error: type[ConnectorError], text: str, source: FakeSource, clock: Clock
) -> None:
    source.fail(lambda _: ErrorStatus(status, "because"))
    client = Client(source.url, credentials="the Secret's key 'token'", wait=clock.wait)
    with pytest.raises(error, match=text) as caught:
        client.get("items")
    assert type(caught.value) is error


def test_a_missing_right_is_an_error_of_its_stream_only(source: FakeSource, client: Client) -> None:
    source.fail_next(ErrorStatus(403))
    with pytest.raises(AuthenticationError) as caught:
        client.get("items")
    assert caught.value.scope == "stream"


@pytest.mark.parametrize(
    ("rule", "body", "error"),
    [
        (ResponseRule(field="ok", value=False, error=SourceContractError), {"ok": False, "error": "no_such_team"}, SourceContractError),
        (ResponseRule(field="errors", error=ConfigError), {"errors": [{"message": "x"}]}, ConfigError),
        (ResponseRule(field="meta.code", value="expired", error=ExpiredCursorError), {"meta": {"code": "expired"}}, ExpiredCursorError),
        (ResponseRule(status=200, header="X-Error", error=AuthenticationError), {}, AuthenticationError),
    ],
)  # fmt: skip
def test_a_200_with_an_error_inside_is_declared(
    rule: ResponseRule, body: object, error: type[Exception], clock: Clock
) -> None:
    client = client_of(lambda _: httpx.Response(200, json=body, headers={"X-Error": "1"}), clock, errors=[rule])
    with pytest.raises(error):
        client.get("items")


@pytest.mark.parametrize("body", [{"ok": True}, {"ok": 0}, {"ok": None}, {}, [], "text"])
def test_a_response_that_does_not_match_the_rule_is_usable(body: object, clock: Clock) -> None:
    rule = ResponseRule(field="ok", value=False, error=SourceContractError)
    assert client_of(lambda _: httpx.Response(200, json=body), clock, errors=[rule]).get("items").status == 200


def test_the_error_inside_has_the_text_of_the_source(clock: Clock) -> None:
    rule = ResponseRule(field="ok", value=False, error=SourceContractError, message_field="why")
    client = client_of(
        lambda _: httpx.Response(200, json={"ok": False, "why": "the team\nis\0 gone"}), clock, errors=[rule]
    )
    with pytest.raises(SourceContractError, match="the source says: the team is gone"):
        client.get("items")


def test_a_declared_transient_error_is_waited_for(clock: Clock) -> None:
    answers = iter([{"ok": False, "error": "ratelimited"}, {"ok": True}])
    rule = ResponseRule(field="error", value="ratelimited", error=TransientError)
    client = client_of(
        lambda _: httpx.Response(200, json=next(answers), headers={"Retry-After": "4"}), clock, errors=[rule]
    )
    assert client.get("items").field("ok") is True
    assert clock.waits == [4]


def test_a_403_with_a_used_up_rate_limit_can_be_declared(clock: Clock) -> None:
    limited = httpx.Response(403, headers={"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "30"})
    answers = iter([limited, httpx.Response(200, json=[])])
    rule = ResponseRule(status=403, header="X-RateLimit-Remaining", header_value="0", error=TransientError)
    client_of(lambda _: next(answers), clock, errors=[rule]).get("items")
    assert sum(clock.waits) == 30


def test_a_rule_without_a_condition_is_refused() -> None:
    with pytest.raises(ValueError, match="every response is an error"):
        ResponseRule(error=ConfigError)


# -- bodies that are not what they claim


@pytest.mark.parametrize(
    ("fault", "text"),
    [
        (Corrupted("encoding"), "says that it is encoded as gzip"),
        (Corrupted("hidden-encoding"), "gzip data without a Content-Encoding"),
        (Corrupted("type"), "not valid JSON"),
        (Corrupted("charset"), "not valid JSON"),
        (Corrupted("bomb"), "larger than 67,108,864 bytes"),
        (HtmlPage("Log in to Orders"), "an HTML page with the title 'Log in to Orders', not JSON"),
        (Answer(200, b""), "is empty where JSON was expected"),
        (Answer(200, b"[]", {"Content-Encoding": "br"}), "encoded as 'br', which the request did not accept"),
        (Answer(200, b"[]", {"Content-Type": "application/json; charset=klingon"}), "unknown charset, 'klingon'"),
        (Answer(200, b"\xff", {"Content-Type": "application/json; charset=utf-16"}), "not in the charset that it declares"),
        (Answer(200, b"[" * 5000), "not valid JSON"),
    ],
)  # fmt: skip
def test_a_body_that_is_not_what_it_claims_is_named(
    fault: Corrupted | HtmlPage | Answer, text: str, source: FakeSource, client: Client
) -> None:
    source.fail_next(fault)
    with pytest.raises(SourceContractError, match=text):
        client.get("items").field("")


@pytest.mark.parametrize(
    ("content", "content_type"),
    [
        ("\ufeff[1]".encode(), "application/json"),
        ('["é"]'.encode("latin-1"), "application/json; charset=ISO-8859-1"),
        ('["é"]'.encode("utf-16"), 'application/json; charset="utf-16"'),
    ],
)
def test_a_declared_charset_is_read(content: bytes, content_type: str, clock: Clock) -> None:
    client = client_of(lambda _: httpx.Response(200, content=content, headers={"Content-Type": content_type}), clock)
    assert client.get("items").field("") in ([1], ["é"])


def raw_deflate(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return packer.compress(data) + packer.flush()


@pytest.mark.parametrize(
    ("encoding", "content"),
    [
        ("gzip", gzip.compress(b"[1]", mtime=0)),
        ("x-gzip", gzip.compress(b"[", mtime=0) + gzip.compress(b"1]", mtime=0)),
        ("gzip", gzip.compress(b"[1]", mtime=0) + b"\0" * 20),
        ("deflate", zlib.compress(b"[1]")),
        ("deflate", raw_deflate(b"[1]")),
        ("gzip, gzip", gzip.compress(gzip.compress(b"[1]", mtime=0), mtime=0)),
        ("identity", b"[1]"),
    ],
)
def test_a_compressed_body_is_decompressed(encoding: str, content: bytes, source: FakeSource, client: Client) -> None:
    source.fail_next(Answer(200, content, {"Content-Encoding": encoding}))
    assert client.get("items").field("") == [1]


def test_a_stream_is_decompressed_in_small_chunks(source: FakeSource, client: Client) -> None:
    source.fail_next(Corrupted("bomb"))
    with client.stream("items") as chunks:
        sizes = [len(next(chunks)) for _ in range(100)]
    assert max(sizes) <= 64 * 1024


def test_a_stream_that_the_source_refuses_raises_the_same_errors(
    source: FakeSource, client: Client, clock: Clock
) -> None:
    source.fail_next(Throttled("2"), ErrorStatus(500))
    with client.stream("items") as chunks:
        assert b"item 5" in b"".join(chunks)
    assert clock.waits[0] == 2
    source.fail_next(ErrorStatus(401))
    with pytest.raises(AuthenticationError), client.stream("items") as chunks:
        pass
    source.fail_next(Truncated())
    with pytest.raises(TransientError, match="ended before it was complete"), client.stream("items") as chunks:
        list(chunks)


# -- credentials and hosts


def redirect_to(location: str, status: int = 302) -> Answer:
    return Answer(status, b"", {"Location": location})


@pytest.fixture
def other_source() -> Iterator[FakeSource]:
    """Another host: another port is one, too."""
    with FakeSource(Collection("items", tied_rows(3), paging="none")) as running:
        yield running


def secret_headers(request: Request) -> set[str]:
    return {name for name, value in request.headers.items() if "secret" in value}


def authenticated(source: FakeSource) -> Client:
    return Client(source.url, auth=KeyAuth(), headers={"X-Tenant": "a-secret"}, params={"key": "a-secret"})


def test_a_redirect_to_another_host_carries_no_credentials(source: FakeSource, other_source: FakeSource) -> None:
    source.fail_next(redirect_to(f"{other_source.url}/items"))
    assert authenticated(source).get("items").field("total") == 3
    assert secret_headers(source.requests[0]) == {"x-api-key", "x-tenant"}
    assert (secret_headers(other_source.requests[0]), other_source.requests[0].params) == (set(), {})


def test_an_absolute_url_of_another_host_gets_no_credentials(source: FakeSource, other_source: FakeSource) -> None:
    assert authenticated(source).get(f"{other_source.url}/items").field("total") == 3
    assert (secret_headers(other_source.requests[0]), other_source.requests[0].params) == (set(), {})


@contextmanager
def https_server(folder: Path, pem: str) -> Iterator[str]:
    """Serve with a certificate on this machine, and yield the port."""
    (folder / "chain.pem").write_text(pem)
    (folder / "key.pem").write_text(pem_of(rsa_key()))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(folder / "chain.pem", folder / "key.pem")
    with FakeProvider() as server:
        server.use_tls(context)
        yield server.url.rpartition(":")[2]


@pytest.mark.parametrize(
    ("wrong", "days", "reason"),
    [
        ("issuer", (-1, 1), "self-signed certificate"),
        ("dates", (-9, -2), "certificate has expired"),
        ("dates", (1, 2), "certificate is not yet valid"),
        ("name", (-1, 1), "IP address mismatch, certificate is not valid for '127.0.0.1'"),
    ],
)
def test_a_certificate_that_is_not_valid_is_an_error_of_the_config(
    wrong: str, days: tuple[int, int], reason: str, tmp_path: Path, clock: Clock
) -> None:
    pem = certificate("another.test", begin=timedelta(days[0]), end=timedelta(days[1]))
    trusting = ssl.create_default_context(cadata=None if wrong == "issuer" else pem)
    trusting.check_hostname = wrong == "name"
    with https_server(tmp_path, pem) as port, pytest.raises(ConfigError) as caught:
        Client(f"https://127.0.0.1:{port}", tls=trusting, wait=clock.wait, clock=clock).get("items")
    assert caught.value.message == (
        f"the certificate of 127.0.0.1 is not valid ({reason}): correct the address in the config, or the"
        " certificate; name a private certificate authority in spec.tls.caCertificates"
    )
    assert clock.waits == []


def test_an_https_address_of_a_server_without_tls_is_an_error_of_the_config(source: FakeSource, clock: Clock) -> None:
    client = Client(source.url.replace("http://", "https://"), wait=clock.wait, clock=clock)
    with pytest.raises(ConfigError, match=r"127\.0\.0\.1 does not respond with TLS: correct the address in the config"):
        client.get("items")
    assert clock.waits == []


def test_an_auth_that_reads_the_response_itself_works(source: FakeSource, clock: Clock) -> None:
    class Reading(httpx.Auth):
        requires_response_body = True

        def auth_flow(self, request: httpx.Request) -> Iterator[httpx.Request]:  # type: ignore[override]
            yield request

    assert Client(source.url, auth=Reading(), wait=clock.wait).get("items").field("total") == 6


def test_a_denial_of_the_gateway_names_the_manifest(clock: Clock) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        raise httpx.ProxyError("403 Forbidden", request=request)

    with pytest.raises(ConfigError, match=r"denied api\.test: declare it in network\.egress"):
        client_of(answer, clock).get("items")


@pytest.mark.parametrize("name", ["timeout", "response_seconds", "response_bytes", "tries", "longest_wait"])
def test_a_limit_that_is_not_positive_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"ClientLimits.{name} is -1"):
        ClientLimits(**{name: -1})
