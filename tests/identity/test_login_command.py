"""`penstock-connector login` against Keycloak: a person's browser is a client that fills in Keycloak's pages."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from html import unescape
from pathlib import Path
from typing import IO, Any, Self

import httpx
import pytest
import yaml
from penstock_sdk import AuthenticationError, ConfigError
from penstock_sdk.auth import auth_for
from penstock_sdk.manifest import Manifest

from tests.fakes.egress import manifest_document
from tests.fakes.installed_connector import install
from tests.identity.keycloak import PASSWORD, SECRET, USER, USER_WITHOUT_OFFLINE_ACCESS, Keycloak

FORM = re.compile(r'<form[^>]*\baction="([^"]+)"')
HIDDEN = re.compile(r'<input[^>]*\btype="hidden"[^>]*>')
ATTRIBUTE = re.compile(r'\b(name|value)="([^"]*)"')
REDIRECTED = re.compile(r"http://\S+")


class Browser:
    """A person's browser: fills in the pages of Keycloak until it is redirected elsewhere."""

    def __init__(self, keycloak: Keycloak) -> None:
        self._keycloak = keycloak
        self._http = httpx.Client(timeout=60, event_hooks={"response": [self._keep_cookies]})

    def _keep_cookies(self, _response: httpx.Response) -> None:
        """Send secure cookies to loopback without TLS too, as browsers do."""
        for cookie in self._http.cookies.jar:
            cookie.secure = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def open(self, url: str) -> httpx.Response:
        """Open a URL, and follow redirects within Keycloak. The answer may be a redirect to another place."""
        return self._within(self._http.get(url))

    def submit(self, page: httpx.Response, **fields: str) -> httpx.Response:
        """Submit the form of a page."""
        action = FORM.search(page.text)
        assert action, page.text
        hidden = [dict(ATTRIBUTE.findall(found)) for found in HIDDEN.findall(page.text)]
        values = {field["name"]: unescape(field.get("value", "")) for field in hidden if "name" in field}
        return self._within(self._http.post(page.url.join(unescape(action[1])), data={**values, **fields}))

    def _within(self, response: httpx.Response) -> httpx.Response:
        while response.is_redirect:
            target = response.url.join(response.headers["Location"])
            if not str(target).startswith(self._keycloak.http):
                return response
            response = self._http.get(target)
        return response

    def log_in(self, page: httpx.Response, user: str = USER) -> httpx.Response:
        """Enter a user's name and password."""
        return self.submit(page, username=user, password=PASSWORD)


@pytest.fixture
def browser(keycloak: Keycloak) -> Iterator[Browser]:
    with Browser(keycloak) as opened:
        yield opened


def method(keycloak: Keycloak, flow: str, client: str, **described: Any) -> dict[str, Any]:
    """Return a method that a person authorizes at Keycloak."""
    protocol = f"{keycloak.realm}/protocol/openid-connect"
    secret = [] if client == "person" else [{"name": "client_secret"}]
    return {
        "type": "oauth2",
        "oauth2": {
            "flow": flow,
            "tokenUrl": keycloak.token_url,
            "authorizationUrl": f"{protocol}/auth",
            "deviceAuthorizationUrl": f"{protocol}/auth/device",
            "scopes": ["openid", "profile", "offline_access"],
            **({"clientAuthentication": "none"} if client == "person" else {}),
            **described,
        },
        "credentials": [{"name": "client_id", "secret": False}, *secret, {"name": "refresh_token"}],
    }


@contextmanager
def login(folder: Path, declared: dict[str, Any], client: str, *options: str) -> Iterator[subprocess.Popen[str]]:
    """Run the command in a project with this method."""
    site = install(folder / "site", [declared])
    credentials = {"client_id": client, **({} if client == "person" else {"client_secret": "${CLIENT_SECRET}"})}
    target = {"connector": "tickets-rest", "credentials": credentials}
    (folder / "connector.test.yaml").write_text(yaml.safe_dump(target))
    process = subprocess.Popen(
        [str(Path(sys.executable).with_name("penstock-connector")), "login", *options],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(site), "CLIENT_SECRET": SECRET},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def line_with(stream: IO[str] | None, pattern: str) -> re.Match[str]:
    """Return the match of the first line that the command prints with this pattern."""
    assert stream is not None
    read = []
    for line in stream:
        read.append(line)
        if found := re.search(pattern, line):
            return found
    raise AssertionError("".join(read))


def user_of(keycloak: Keycloak, declared: dict[str, Any], secret: dict[str, str]) -> str:
    """Return whom Keycloak names for the login that a pod makes with the Secret."""
    document = {**manifest_document([]), "authentication": {"methods": [declared]}}
    auth = auth_for(Manifest.model_validate(document), {}, secret)
    with auth.client(base_url=keycloak.realm) as http:
        found: str = http.get("/protocol/openid-connect/userinfo").json()["preferred_username"]
        return found


@pytest.mark.parametrize("client", ["person", "person-with-secret"])
def test_authorization_code_with_pkce(keycloak: Keycloak, browser: Browser, client: str, tmp_path: Path) -> None:
    declared = method(keycloak, "authorizationCode", client)
    with login(tmp_path, declared, client, "--output", "secret.yaml") as command:
        page = browser.open(line_with(command.stderr, REDIRECTED.pattern)[0])
        redirect = browser.log_in(page)
        assert "the result is in the terminal" in httpx.get(redirect.headers["Location"]).text
        output, error = command.communicate(timeout=60)
    assert command.returncode == 0, error
    assert output == ""
    secret = yaml.safe_load((tmp_path / "secret.yaml").read_text())["stringData"]
    assert secret["client_id"] == client
    assert user_of(keycloak, declared, secret) == USER


def test_a_pasted_url(keycloak: Keycloak, browser: Browser, tmp_path: Path) -> None:
    declared = method(keycloak, "authorizationCode", "person")
    with login(tmp_path, declared, "person", "--no-browser") as command:
        page = browser.open(line_with(command.stderr, REDIRECTED.pattern)[0])
        redirect = browser.log_in(page)
        output, error = command.communicate(redirect.headers["Location"] + "\n", timeout=60)
    assert command.returncode == 0, error
    assert user_of(keycloak, declared, yaml.safe_load(output)["stringData"]) == USER


def test_another_verifier_is_refused(keycloak: Keycloak, browser: Browser, tmp_path: Path) -> None:
    """Keycloak compares the verifier: a code that was issued for another challenge is worth nothing."""
    declared = method(keycloak, "authorizationCode", "person")
    with login(tmp_path, declared, "person", "--no-browser") as command:
        url = line_with(command.stderr, REDIRECTED.pattern)[0]
        challenge = httpx.URL(url).params["code_challenge"]
        page = browser.open(url.replace(challenge, challenge[::-1]))
        redirect = browser.log_in(page)
        output, error = command.communicate(redirect.headers["Location"] + "\n", timeout=60)
    assert (command.returncode, output) == (AuthenticationError.exit_code, "")
    assert "does not accept the authorization (invalid_grant)" in error


def test_the_state_of_another_login(keycloak: Keycloak, browser: Browser, tmp_path: Path) -> None:
    declared = method(keycloak, "authorizationCode", "person")
    with login(tmp_path, declared, "person", "--no-browser") as command:
        url = httpx.URL(line_with(command.stderr, REDIRECTED.pattern)[0])
        redirect = browser.log_in(browser.open(str(url.copy_set_param("state", "forged"))))
        _, error = command.communicate(redirect.headers["Location"] + "\n", timeout=60)
    assert command.returncode == AuthenticationError.exit_code
    assert "another state" in error


def test_a_user_who_may_not_have_offline_tokens(keycloak: Keycloak, browser: Browser, tmp_path: Path) -> None:
    declared = method(keycloak, "authorizationCode", "person")
    with login(tmp_path, declared, "person", "--no-browser") as command:
        page = browser.open(line_with(command.stderr, REDIRECTED.pattern)[0])
        redirect = browser.log_in(page, USER_WITHOUT_OFFLINE_ACCESS)
        _, error = command.communicate(redirect.headers["Location"] + "\n", timeout=60)
    assert command.returncode == AuthenticationError.exit_code
    assert "issues no tokens (not_allowed: Offline tokens not allowed for the user or client)" in error


def test_a_scope_that_keycloak_does_not_know(keycloak: Keycloak, browser: Browser, tmp_path: Path) -> None:
    declared = method(keycloak, "authorizationCode", "person", scopes=["no-such-scope"])
    with login(tmp_path, declared, "person") as command:
        redirect = browser.open(line_with(command.stderr, REDIRECTED.pattern)[0])
        httpx.get(redirect.headers["Location"])
        _, error = command.communicate(timeout=60)
    assert command.returncode == ConfigError.exit_code
    assert "invalid_scope" in error


@pytest.mark.parametrize("client", ["person", "person-with-secret"])
def test_device_code(keycloak: Keycloak, browser: Browser, client: str, tmp_path: Path) -> None:
    declared = method(keycloak, "deviceCode", client)
    with login(tmp_path, declared, client) as command:
        consent = browser.log_in(browser.open(line_with(command.stderr, r"or open (\S+)")[1]))
        assert "Device Login Successful" in browser.submit(consent, accept="Yes").text
        output, error = command.communicate(timeout=60)
    assert command.returncode == 0, error
    assert user_of(keycloak, declared, yaml.safe_load(output)["stringData"]) == USER


def test_a_device_code_that_the_person_refuses(keycloak: Keycloak, browser: Browser, tmp_path: Path) -> None:
    with login(tmp_path, method(keycloak, "deviceCode", "person"), "person") as command:
        consent = browser.log_in(browser.open(line_with(command.stderr, r"or open (\S+)")[1]))
        browser.submit(consent, cancel="No")
        _, error = command.communicate(timeout=60)
    assert command.returncode == AuthenticationError.exit_code
    assert "the authorization was refused (access_denied)" in error


def test_a_device_code_that_expires(keycloak: Keycloak, tmp_path: Path) -> None:
    with login(tmp_path, method(keycloak, "deviceCode", "hasty"), "hasty") as command:
        _, error = command.communicate(timeout=60)
    assert command.returncode == AuthenticationError.exit_code
    assert "the code has expired" in error


def test_a_client_without_the_device_flow(keycloak: Keycloak, tmp_path: Path) -> None:
    with login(tmp_path, method(keycloak, "deviceCode", "basic"), "basic") as command:
        _, error = command.communicate(timeout=60)
    assert command.returncode == AuthenticationError.exit_code
    assert "unauthorized_client" in error
