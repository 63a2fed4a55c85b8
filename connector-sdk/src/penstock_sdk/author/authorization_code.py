"""A person authorizes in a browser: the authorization code flow with PKCE (RFC 6749, RFC 7636, RFC 8252)."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Final
from urllib.parse import parse_qsl, urlsplit

from authlib.common.security import generate_token
from authlib.oauth2.rfc6749.errors import MismatchingStateException, MissingCodeException
from authlib.oauth2.rfc6749.parameters import parse_authorization_code_response, prepare_grant_uri
from authlib.oauth2.rfc7636 import create_s256_code_challenge

from penstock_sdk.author.project import ProjectError
from penstock_sdk.errors import AuthenticationError, ConfigError

LOOPBACK: Final = "127.0.0.1"
"""RFC 8252 recommends the address: a name such as localhost may resolve to another one."""
LOOPBACK_NAMES = (LOOPBACK, "localhost")
CALLBACK_PATH: Final = "/callback"
VERIFIER_LENGTH: Final = 64
STATE_LENGTH: Final = 43
IDLE_SECONDS: Final = 5.0
"""Browsers open connections in advance, and may send nothing on them."""
AUTHORIZATION_SECONDS: Final = 600.0
"""How long a person may take. Providers' codes and login pages expire after 10 minutes or less."""
PAGE = b"Penstock has received the answer. Close this window: the result is in the terminal.\n"


@dataclass(frozen=True, slots=True)
class CodeVerifier:
    """A PKCE verifier: only the process that has it can exchange the code that was issued for its challenge."""

    value: str = field(default_factory=lambda: str(generate_token(VERIFIER_LENGTH)), repr=False)

    @property
    def challenge(self) -> dict[str, str]:
        """The parameters of the request that a person authorizes."""
        return {"code_challenge": create_s256_code_challenge(self.value), "code_challenge_method": "S256"}


@dataclass(frozen=True, slots=True)
class AuthorizationRequest:
    """A request that a person opens in a browser. The provider answers with a redirect to `redirect_url`."""

    url: str
    redirect_url: str
    state: str = field(repr=False)
    verifier: CodeVerifier

    @classmethod
    def build(
        cls, authorization_url: str, client: str, redirect_url: str, parameters: dict[str, str]
    ) -> AuthorizationRequest:
        """Return a request with a new state and a new PKCE verifier."""
        state, verifier = generate_token(STATE_LENGTH), CodeVerifier()
        url = prepare_grant_uri(
            authorization_url,
            client,
            "code",
            redirect_uri=redirect_url,
            state=state,
            **verifier.challenge,
            **parameters,
        )
        return cls(url, redirect_url, state, verifier)

    def code_in(self, redirected_url: str, conceal: Callable[[str], str]) -> str:
        """Return the authorization code of the URL to which the provider has redirected the browser.

        `conceal` makes a text of the provider fit for a message. Raises AuthenticationError if the authorization was
        refused, or belongs to another login.
        """
        try:
            answer = parse_authorization_code_response(redirected_url.strip(), self.state)
        except MismatchingStateException:
            raise AuthenticationError(
                "the redirected URL has another state than this login has sent: it belongs to another login, or was forged."
                " Run the command again, and open the URL that it prints"
            ) from None
        except (MissingCodeException, ValueError):
            raise _refusal(redirected_url, conceal) from None
        return str(answer.get("code"))


def _refusal(redirected_url: str, conceal: Callable[[str], str]) -> Exception:
    """Return the error for a redirected URL without a code."""
    try:
        answer = dict(parse_qsl(urlsplit(redirected_url.strip()).query))
    except ValueError:
        answer = {}
    code, description = (conceal(answer.get(name, "")) for name in ("error", "error_description"))
    said = f"{code}: {description}" if description else code
    if code == "access_denied":
        return AuthenticationError(
            f"the authorization was refused ({said}): authorize with an account that may grant the scopes, and do not cancel"
        )
    if code:
        return ConfigError(
            f"the provider refuses the authorization request ({said}): correct the scopes and parameters of the manifest, or the"
            " client's settings at the provider"
        )
    return ConfigError("the redirected URL has no authorization code: it must end with ?code=... and state=...")


class RedirectListener:
    """An HTTP server on loopback that waits for the redirect of a browser."""

    def __init__(self, server: ThreadingHTTPServer, received: queue.Queue[str]) -> None:
        self._received = received
        self.port = int(server.server_address[1])

    def redirected_url(self, seconds: float = AUTHORIZATION_SECONDS) -> str:
        """Return the path and the query to which a browser was redirected. Raises AuthenticationError if none comes in time."""
        try:
            return self._received.get(timeout=seconds)
        except queue.Empty:
            raise AuthenticationError(
                f"nobody has authorized within {seconds / 60:.0f} minutes: run the command again"
            ) from None


@contextmanager
def listening(port: int, path: str = CALLBACK_PATH) -> Iterator[RedirectListener]:
    """Listen on a port of loopback, 0 for a free one. Raises ProjectError if the port cannot be used."""
    received: queue.Queue[str] = queue.Queue()
    try:
        server = ThreadingHTTPServer((LOOPBACK, port), _handler(path, received))
    except OSError as error:
        raise ProjectError(
            f"cannot listen on port {port} of {LOOPBACK} for the redirect ({error.strerror}): choose another --port, or paste the"
            " redirected URL with --no-browser"
        ) from None
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield RedirectListener(server, received)
    finally:
        server.shutdown()
        server.server_close()


def _handler(path: str, received: queue.Queue[str]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = IDLE_SECONDS

        def do_GET(self) -> None:
            is_redirect = urlsplit(self.path).path == path
            self.send_response(HTTPStatus.OK if is_redirect else HTTPStatus.NOT_FOUND)
            self.send_header("Content-Type", "text/plain; charset=utf-8")
            self.send_header("Referrer-Policy", "no-referrer")
            self.end_headers()
            self.wfile.write(PAGE if is_redirect else b"")
            self.wfile.flush()
            if is_redirect:
                received.put(self.path)

        def log_message(self, *_: object) -> None:
            """Log nothing: the URL has the authorization code."""

    return Handler


def loopback_port(redirect_url: str) -> tuple[int, str] | None:
    """Return the port and the path on which to listen for a redirect URL; None if it does not lead to this machine.

    Raises ProjectError if the text is no URL.
    """
    try:
        parts = urlsplit(redirect_url)
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port, parts = None, None, urlsplit("")
    if parts.scheme not in ("http", "https") or not host or parts.fragment:
        raise ProjectError("--redirect-url needs a URL without a fragment, such as http://127.0.0.1:8400/callback")
    if parts.scheme == "http" and host in LOOPBACK_NAMES and port:
        return port, parts.path or "/"
    return None
