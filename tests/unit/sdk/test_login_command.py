"""`penstock-connector login` against an authorization server on loopback: what it prints, and each way in which it can fail."""

from __future__ import annotations

import re
import socket
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
import yaml
from penstock_sdk import AuthenticationError, ConfigError, ConnectorError, TransientError
from penstock_sdk.author import commands
from penstock_sdk.author.authorization_code import listening
from penstock_sdk.author.device_code import PollClock
from penstock_sdk.author.login import LoginOptions, log_in
from penstock_sdk.author.project import ProjectError
from penstock_sdk.testing import TargetError

from tests.fakes.authorization_server import FakeAuthorizationServer, follow
from tests.fakes.installed_connector import install
from tests.fakes.provider import Reply

HTML = Reply(200, b"<!doctype html><title>Welcome</title>", {"Content-Type": "text/html"})
CLIENT = {"client_id": "c1", "client_secret": "s3cret"}
URL = re.compile(r"http://\S+")


class Terminal:
    """A person at a terminal: opens each URL that the command prints, and waits without time passing."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.waits: list[float] = []
        self.pasted = ""
        self.opened: Callable[[str], object] = follow

    def tell(self, line: str) -> None:
        self.lines.append(line)
        found = URL.search(line)
        if found and "browser" in line:
            self.opened(found[0])

    @property
    def options(self) -> LoginOptions:
        clock = PollClock(lambda: sum(self.waits), self.waits.append)
        return LoginOptions(tell=self.tell, read_line=lambda: self.pasted, clock=clock)


@pytest.fixture
def server() -> Iterator[FakeAuthorizationServer]:
    with FakeAuthorizationServer() as running:
        yield running


@pytest.fixture
def terminal() -> Terminal:
    return Terminal()


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Return a function that installs a connector with these methods, and returns its test file."""

    def make(
        *methods: dict[str, Any], credentials: dict[str, str] = CLIENT, config: Any = None, **properties: Any
    ) -> Path:
        monkeypatch.syspath_prepend(str(install(tmp_path / "site", list(methods), **properties)))
        file = tmp_path / "connector.test.yaml"
        document = {"connector": "tickets-rest", "config": config or {}, "credentials": credentials}
        file.write_text(yaml.safe_dump(document))
        return file

    return make


def method(server: FakeAuthorizationServer, flow: str = "authorizationCode", **described: Any) -> dict[str, Any]:
    """Return a method that a person authorizes."""
    name = {"name": described.pop("name")} if "name" in described else {}
    secret = [] if described.get("clientAuthentication") == "none" else [{"name": "client_secret"}]
    return {
        "type": "oauth2",
        **name,
        "oauth2": {
            "flow": flow,
            "tokenUrl": server.token_url,
            "authorizationUrl": server.authorization_url,
            "deviceAuthorizationUrl": server.device_url,
            "scopes": ["read", "offline_access"],
            **described,
        },
        "credentials": [{"name": "client_id", "secret": False}, *secret, {"name": "refresh_token"}],
    }


def test_a_browser_authorizes(
    server: FakeAuthorizationServer, terminal: Terminal, project: Callable[..., Path]
) -> None:
    file = project(method(server, audience="https://api.example", parameters={"resource": "r1"}))
    secret = yaml.safe_load(log_in(file, terminal.options))
    assert secret == {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "tickets-rest"},
        "type": "Opaque",
        "stringData": {**CLIENT, "refresh_token": "refresh-1"},
    }
    assert server.asked["scope"] == "read offline_access"
    assert (server.asked["code_challenge_method"], server.asked["response_type"]) == ("S256", "code")
    assert (server.asked["audience"], server.asked["resource"]) == ("https://api.example", "r1")
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+/callback", server.asked["redirect_uri"])
    assert len(server.asked["state"]) >= 43
    (call,) = server.token_calls
    assert call.basic == ("c1", "s3cret")
    assert len(call.form["code_verifier"]) >= 43
    assert call.form["resource"] == "r1"
    assert "refresh-1" not in "".join(terminal.lines)


def test_two_logins_share_no_state(
    server: FakeAuthorizationServer, terminal: Terminal, project: Callable[..., Path]
) -> None:
    file = project(method(server))
    asked = []
    for _ in range(2):
        log_in(file, terminal.options)
        asked.append((server.asked["state"], server.asked["code_challenge"]))
    assert len({*asked[0], *asked[1]}) == 4


def test_a_public_client_has_no_secret(
    server: FakeAuthorizationServer, terminal: Terminal, project: Callable[..., Path]
) -> None:
    file = project(method(server, clientAuthentication="none"), credentials={"client_id": "c1"})
    secret = yaml.safe_load(log_in(file, replace(terminal.options, name="eu-tickets")))
    assert secret["stringData"] == {"client_id": "c1", "refresh_token": "refresh-1"}
    assert secret["metadata"] == {"name": "eu-tickets"}
    assert server.token_calls[0].form["client_id"] == "c1"


def test_the_query_of_the_authorization_url_is_kept(
    server: FakeAuthorizationServer, terminal: Terminal, project: Callable[..., Path]
) -> None:
    file = project(method(server, authorizationUrl=f"{server.authorization_url}?access_type=offline&prompt=consent"))
    log_in(file, terminal.options)
    assert (server.asked["access_type"], server.asked["prompt"]) == ("offline", "consent")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as opened:
        return int(opened.getsockname()[1])


def test_a_given_port_and_a_given_redirect_url(
    server: FakeAuthorizationServer, terminal: Terminal, project: Callable[..., Path]
) -> None:
    file = project(method(server))
    port = free_port()
    log_in(file, replace(terminal.options, port=port))
    assert server.asked["redirect_uri"] == f"http://127.0.0.1:{port}/callback"
    log_in(file, replace(terminal.options, redirect_url=f"http://localhost:{port}/done"))
    assert server.asked["redirect_uri"] == f"http://localhost:{port}/done"


def test_a_port_in_use(server: FakeAuthorizationServer, terminal: Terminal, project: Callable[..., Path]) -> None:
    file = project(method(server))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ProjectError, match=rf"cannot listen on port {port} .*choose another --port"):
            log_in(file, replace(terminal.options, port=port))


@pytest.mark.parametrize(
    "url", ["callback", "ftp://a/b", "http://", "http://[", "http://a:b/", "http://127.0.0.1:1/a#b"]
)
def test_a_redirect_url_that_is_none(
    url: str, server: FakeAuthorizationServer, terminal: Terminal, project: Callable[..., Path]
) -> None:
    file = project(method(server))
    with pytest.raises(ProjectError, match="--redirect-url needs a URL"):
        log_in(file, replace(terminal.options, redirect_url=url))


def test_other_requests_to_the_port_do_not_end_the_login(
    server: FakeAuthorizationServer, terminal: Terminal, project: Callable[..., Path]
) -> None:
    def opened(url: str) -> None:
        redirect = parse_qs(urlsplit(url).query)["redirect_uri"][0]
        icon = httpx.get(redirect.replace("/callback", "/favicon.ico"))
        with socket.create_connection(
            ("127.0.0.1", urlsplit(redirect).port or 0)
        ):  # a connection that browsers open in advance
            page = follow(url)
        assert (icon.status_code, page.status_code) == (404, 200)
        assert "the result is in the terminal" in page.text

    terminal.opened = opened
    assert "refresh-1" in log_in(project(method(server)), terminal.options)


def test_nobody_authorizes() -> None:
    with (
        listening(0) as listener,
        pytest.raises(AuthenticationError, match="nobody has authorized within 0 minutes: run the command again"),
    ):
        listener.redirected_url(seconds=0)


def paste(server: FakeAuthorizationServer, terminal: Terminal) -> None:
    """Have the person paste the URL to which the server redirects."""

    def opened(url: str) -> None:
        terminal.pasted = httpx.get(url).headers["Location"] + "\n"

    terminal.opened = opened


@pytest.mark.parametrize("given", [{"has_browser": False}, {"redirect_url": "https://app.example/done"}])
def test_the_redirected_url_is_pasted(
    given: dict[str, Any], server: FakeAuthorizationServer, terminal: Terminal, project: Callable[..., Path]
) -> None:
    paste(server, terminal)
    assert "refresh-1" in log_in(project(method(server)), replace(terminal.options, **given))
    assert server.asked["redirect_uri"] == given.get("redirect_url", "http://127.0.0.1:8400/callback")


@pytest.mark.parametrize("pasting", [True, False])
@pytest.mark.parametrize(
    ("query", "expected", "message"),
    [
        ({"code": "code-1", "state": "other"}, AuthenticationError, "another state .* Run the command again"),
        ({"code": "code-1"}, AuthenticationError, "another state"),
        ({"error": "access_denied", "error_description": "Ada said no"}, AuthenticationError, "refused .*Ada said no"),
        ({"error": "invalid_scope"}, ConfigError, r"invalid_scope\): correct the scopes"),
        ({"error": "server\x1b[2J\nerror"}, ConfigError, "refuses the authorization request"),
        ({"state": "s"}, ConfigError, "no authorization code"),
    ],
)
def test_redirects_without_a_usable_code(
    pasting: bool,  # noqa: FBT001
    query: dict[str, str],
    expected: type[ConnectorError],
    message: str,
    server: FakeAuthorizationServer,
    terminal: Terminal,
    project: Callable[..., Path],
) -> None:
    if pasting:
        paste(server, terminal)
    server.redirected = lambda _query: query
    with pytest.raises(expected, match=message) as raised:
        log_in(project(method(server)), replace(terminal.options, has_browser=not pasting))
    assert str(raised.value.message).isprintable()
    assert server.token_calls == []


@pytest.mark.parametrize("pasted", ["code-1\n", "http://[\n", "https://app.example/\n", "\x1b[2J?\n"])
def test_pasted_text_that_is_no_redirected_url(
    pasted: str, server: FakeAuthorizationServer, terminal: Terminal, project: Callable[..., Path]
) -> None:
    terminal.pasted, terminal.opened = pasted, lambda _url: None
    with pytest.raises(ConfigError, match="no authorization code: it must end with"):
        log_in(project(method(server)), replace(terminal.options, has_browser=False))


def test_nothing_is_pasted(server: FakeAuthorizationServer, terminal: Terminal, project: Callable[..., Path]) -> None:
    terminal.opened = lambda _url: None
    with pytest.raises(ProjectError, match="no URL was pasted"):
        log_in(project(method(server)), replace(terminal.options, has_browser=False))


def test_a_code_that_is_used_already(
    server: FakeAuthorizationServer, terminal: Terminal, project: Callable[..., Path]
) -> None:
    server.redirected = lambda query: {**query, "code": "used"}
    with pytest.raises(
        AuthenticationError, match=r"a code is good for one use and a short time\. Run the command again"
    ):
        log_in(project(method(server)), terminal.options)


@pytest.mark.parametrize("flow", ["authorizationCode", "deviceCode"])
@pytest.mark.parametrize(
    ("scopes", "token", "message"),
    [
        (["read"], None, "issues no refresh token: add the scope offline_access to oauth2.scopes"),
        (["read", "offline_access"], None, "issues no refresh token: allow refresh tokens"),
        (["read"], "", "issues no refresh token"),
        (["read"], 17, "issues no refresh token"),
        (["read"], "two\nlines", "issues no refresh token"),
    ],
)
def test_no_refresh_token_is_issued(
    flow: str,
    scopes: list[str],
    token: object,
    message: str,
    server: FakeAuthorizationServer,
    terminal: Terminal,
    project: Callable[..., Path],
) -> None:
    server.token_fields = {"refresh_token": token}
    with pytest.raises(AuthenticationError, match=message):
        log_in(project(method(server, flow, scopes=scopes)), terminal.options)


@pytest.mark.parametrize("flow", ["authorizationCode", "deviceCode"])
@pytest.mark.parametrize(
    ("reply", "expected", "message"),
    [
        (HTML, ConfigError, r"an HTML page instead of JSON \(HTTP 200\): correct tokenUrl"),
        (Reply(401, {"error": "invalid_client"}), AuthenticationError, "refuses client_id or client_secret"),
        (
            Reply(400, {"error": "not_allowed", "error_description": "no s3cret"}),
            AuthenticationError,
            r"issues no tokens \(not_allowed: no \*\*\*\): allow the scopes for the client and for the person",
        ),
        (Reply(400, {"error": "unsupported_grant_type"}), ConfigError, "description of the login is wrong"),
        (Reply(404, {}), ConfigError, "correct tokenUrl"),
        (Reply(302, b"", {"Location": "https://evil.example/"}), ConfigError, "redirects the login to evil.example"),
        (Reply(200, {"access_token": "a", "scope": "other"}), AuthenticationError, "without the scope read"),
        (Reply(200, {"error": "invalid_client"}), AuthenticationError, "invalid_client"),
        (Reply(200, [1]), ConfigError, "not what the manifest describes"),  # type: ignore[arg-type]
    ],
)
def test_token_answers_that_are_none(
    flow: str,
    reply: Reply,
    expected: type[ConnectorError],
    message: str,
    server: FakeAuthorizationServer,
    terminal: Terminal,
    project: Callable[..., Path],
) -> None:
    server.token_replies = [reply]
    with pytest.raises(expected, match=message):
        log_in(project(method(server, flow)), terminal.options)


def test_a_token_endpoint_that_is_not_available(
    server: FakeAuthorizationServer, terminal: Terminal, project: Callable[..., Path]
) -> None:
    server.token_replies = [Reply(503)]
    with pytest.raises(TransientError, match="not available for the login: it answers HTTP 503"):
        log_in(project(method(server)), terminal.options)


def test_a_provider_that_is_down(
    server: FakeAuthorizationServer, terminal: Terminal, project: Callable[..., Path]
) -> None:
    file = project(method(server, "deviceCode", deviceAuthorizationUrl=f"http://127.0.0.1:{free_port()}/device"))
    with pytest.raises(TransientError, match=r"127\.0\.0\.1 cannot be reached for the login"):
        log_in(file, terminal.options)


def test_a_device_code_is_authorized(
    server: FakeAuthorizationServer, terminal: Terminal, project: Callable[..., Path]
) -> None:
    server.polls = ["authorization_pending", "slow_down", "authorization_pending"]
    secret = yaml.safe_load(log_in(project(method(server, "deviceCode")), terminal.options))
    assert secret["stringData"] == {**CLIENT, "refresh_token": "refresh-1"}
    assert terminal.lines == [f"open {server.url}/activate and enter the code WDJB-MJHT"]
    assert terminal.waits == [5, 5, 10, 10]
    device = next(call for call in server.calls if call.path == "/device")
    assert device.basic == ("c1", "s3cret")
    assert device.form["scope"] == "read offline_access"
    assert {call.form["grant_type"] for call in server.token_calls} == {"urn:ietf:params:oauth:grant-type:device_code"}


@pytest.mark.parametrize(
    ("answer", "waits"),
    [
        ({"interval": None}, [5]),
        ({"interval": 1}, [1]),
        ({"interval": "7", "expires_in": "60"}, [7]),
        ({"interval": 0}, [5]),
        ({"interval": -3}, [5]),
        ({"interval": 9999}, [60]),
        ({"expires_in": None}, [5]),
        ({"verification_uri": None, "verification_url": "https://login.example/device"}, [5]),
    ],
)
def test_the_answer_with_the_device_code_may_leave_things_out(
    answer: dict[str, Any],
    waits: list[float],
    server: FakeAuthorizationServer,
    terminal: Terminal,
    project: Callable[..., Path],
) -> None:
    server.device_answer = answer
    log_in(project(method(server, "deviceCode")), terminal.options)
    assert terminal.waits == waits


def test_the_page_with_the_code_in_it_and_terminal_escapes(
    server: FakeAuthorizationServer, terminal: Terminal, project: Callable[..., Path]
) -> None:
    complete = f"{server.url}/activate?user_code=A"
    server.device_answer = {"user_code": "A\x1b[2J\nB", "verification_uri_complete": complete}
    log_in(project(method(server, "deviceCode")), terminal.options)
    assert terminal.lines == [f"open {server.url}/activate and enter the code A\\x1b[2J B", f"or open {complete}"]


@pytest.mark.parametrize(
    "answer",
    [
        {"device_code": None},
        {"user_code": ""},
        {"verification_uri": None},
        {"verification_uri": "javascript:alert(1)"},
        {"verification_uri": "https://a\x1b[2J"},
        {"interval": "soon"},
        {"device_code": {"a": 1}},
    ],
)
def test_answers_without_a_device_code(
    answer: dict[str, Any], server: FakeAuthorizationServer, terminal: Terminal, project: Callable[..., Path]
) -> None:
    server.device_answer = answer
    with pytest.raises(ConfigError, match="correct deviceAuthorizationUrl"):
        log_in(project(method(server, "deviceCode")), terminal.options)


@pytest.mark.parametrize(
    ("reply", "expected", "message"),
    [
        (HTML, ConfigError, r"HTML page instead of JSON \(HTTP 200\): correct deviceAuthorizationUrl"),
        (Reply(404, {}), ConfigError, "correct deviceAuthorizationUrl"),
        (Reply(401, {"error": "invalid_client"}), AuthenticationError, "refuses client_id or client_secret"),
        (Reply(400, {"error": "invalid_scope"}), ConfigError, "does not grant the scopes"),
        (Reply(500), TransientError, "HTTP 500"),
    ],
)
def test_no_device_code_is_issued(
    reply: Reply,
    expected: type[ConnectorError],
    message: str,
    server: FakeAuthorizationServer,
    terminal: Terminal,
    project: Callable[..., Path],
) -> None:
    server.device_answer = reply
    with pytest.raises(expected, match=message):
        log_in(project(method(server, "deviceCode")), terminal.options)


@pytest.mark.parametrize(
    ("polls", "message"),
    [
        (["authorization_pending", "expired_token"], "the code has expired .*run the command again"),
        (["authorization_pending"] * 200, "the code has expired"),
        (["authorization_pending", "access_denied"], r"refused \(access_denied\)"),
    ],
)
def test_a_device_code_that_nobody_authorizes(
    polls: list[str | Reply],
    message: str,
    server: FakeAuthorizationServer,
    terminal: Terminal,
    project: Callable[..., Path],
) -> None:
    server.polls = polls
    with pytest.raises(AuthenticationError, match=message):
        log_in(project(method(server, "deviceCode")), terminal.options)
    assert sum(terminal.waits) <= 600


def test_polls_go_on_less_often_while_the_provider_is_not_available(
    server: FakeAuthorizationServer, terminal: Terminal, project: Callable[..., Path]
) -> None:
    server.polls = [Reply(503), Reply(429), "authorization_pending"]
    file = project(method(server, "deviceCode"))
    assert "refresh-1" in log_in(file, terminal.options)
    assert terminal.waits == [5, 10, 20, 20]
    server.polls = [Reply(503) for _ in range(50)]
    terminal.waits.clear()
    with pytest.raises(TransientError, match="HTTP 503"):
        log_in(file, terminal.options)


def test_a_port_does_not_belong_to_a_device_code(
    server: FakeAuthorizationServer, terminal: Terminal, project: Callable[..., Path]
) -> None:
    with pytest.raises(ProjectError, match="--port and --redirect-url belong to the flow authorizationCode"):
        log_in(project(method(server, "deviceCode")), replace(terminal.options, port=8400))


BASIC = {"type": "basic", "credentials": [{"name": "username"}, {"name": "password"}]}
CHOICE = {"authentication": {"type": "object", "properties": {"method": {"enum": ["web", "device", "basic"]}}}}


def test_several_methods(server: FakeAuthorizationServer, terminal: Terminal, project: Callable[..., Path]) -> None:
    file = project(method(server, name="web"), method(server, "deviceCode", name="device"), BASIC, **CHOICE)
    for named, message in (
        (None, "choose with --method one of web, device"),
        ("divice", "did you mean 'device'?"),
        ("basic", "no login by a person for basic: put the credentials into the Secret"),
    ):
        with pytest.raises(ProjectError, match=re.escape(message)):
            log_in(file, replace(terminal.options, method=named))
    assert "refresh-1" in log_in(file, replace(terminal.options, method="device"))
    assert terminal.lines[-1] == "connections with this Secret need the config authentication.method: device"


def test_the_config_chooses_the_method(
    server: FakeAuthorizationServer, terminal: Terminal, project: Callable[..., Path]
) -> None:
    methods = (method(server, name="web"), method(server, "deviceCode", name="device"))
    choice = {"authentication": {"type": "object", "properties": {"method": {"enum": ["web", "device"]}}}}
    file = project(*methods, config={"authentication": {"method": "device"}}, **choice)
    log_in(file, terminal.options)
    assert terminal.waits == [5]


def test_a_connector_that_needs_no_login(terminal: Terminal, project: Callable[..., Path]) -> None:
    with pytest.raises(ProjectError, match="no login by a person for basic"):
        log_in(project(BASIC), terminal.options)


def test_the_clients_credentials_come_from_the_environment(
    server: FakeAuthorizationServer,
    terminal: Terminal,
    project: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The refresh token need not be there: it is what the login obtains."""
    declared = {name: f"${{TICKETS_{name.upper()}}}" for name in ("client_id", "client_secret", "refresh_token")}
    file = project(method(server), credentials=declared)
    monkeypatch.setenv("TICKETS_CLIENT_ID", "c2")
    with pytest.raises(ProjectError, match=r"credentials\.client_secret: Required value"):
        log_in(file, terminal.options)
    monkeypatch.setenv("TICKETS_CLIENT_SECRET", "from-env")
    secret = yaml.safe_load(log_in(file, terminal.options))
    assert secret["stringData"] == {"client_id": "c2", "client_secret": "from-env", "refresh_token": "refresh-1"}


def test_a_config_that_is_wrong(
    server: FakeAuthorizationServer, terminal: Terminal, project: Callable[..., Path]
) -> None:
    file = project(method(server), config={"url": "${NO_SUCH_VARIABLE}"}, url={"type": "string"})
    with pytest.raises(TargetError, match="set the environment variable NO_SUCH_VARIABLE"):
        log_in(file, terminal.options)


@pytest.mark.parametrize("name", ["Tickets", "a/b", "-a", "a" * 99, "a\nb"])
def test_a_name_that_no_secret_can_have(
    name: str, server: FakeAuthorizationServer, terminal: Terminal, project: Callable[..., Path]
) -> None:
    file = project(method(server))
    with pytest.raises(ProjectError, match="is no name for a Secret"):
        log_in(file, replace(terminal.options, name=name))


def called(monkeypatch: pytest.MonkeyPatch, *words: object) -> int:
    monkeypatch.setattr(sys, "argv", ["penstock-connector", "login", *map(str, words)])
    return commands.run()


@pytest.fixture
def quick(server: FakeAuthorizationServer, project: Callable[..., Path]) -> Path:
    """The test file of a connector whose device code is authorized at once."""
    server.device_answer = {"interval": 0.01}
    return project(method(server, "deviceCode"))


def test_the_secret_is_all_that_is_printed_to_standard_output(
    quick: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert called(monkeypatch, "--file", quick) == 0
    printed = capsys.readouterr()
    assert yaml.safe_load(printed.out)["stringData"]["refresh_token"] == "refresh-1"
    assert "enter the code WDJB-MJHT" in printed.err
    assert "refresh-1" not in printed.err


def test_the_secret_is_written_to_a_private_file(
    quick: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "secret.yaml"
    file.write_text("old")
    file.chmod(0o644)
    assert called(monkeypatch, "--file", quick, "--output", file) == 0
    printed = capsys.readouterr()
    assert printed.out == ""
    assert f"kubectl apply -f {file}" in printed.err
    assert file.stat().st_mode & 0o777 == 0o600
    assert yaml.safe_load(file.read_text())["stringData"]["refresh_token"] == "refresh-1"


@pytest.mark.parametrize("place", ["", "no-such-folder/secret.yaml"])
def test_an_output_that_cannot_be_written_is_an_error_before_the_login(
    place: str,
    quick: Path,
    server: FakeAuthorizationServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert called(monkeypatch, "--file", quick, "--output", tmp_path / place) == 2
    assert capsys.readouterr().err.startswith("error: --output ")
    assert server.calls == []


def test_a_login_that_fails_is_one_line_and_leaves_no_file(
    quick: Path,
    server: FakeAuthorizationServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    server.polls = ["access_denied"]
    before = set(tmp_path.iterdir())
    assert called(monkeypatch, "--file", quick, "--output", tmp_path / "secret.yaml") == AuthenticationError.exit_code
    assert capsys.readouterr().err.splitlines()[-1].startswith("AuthenticationError: the authorization was refused")
    assert set(tmp_path.iterdir()) == before
