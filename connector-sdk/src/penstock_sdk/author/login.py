"""A login by a person, for the first refresh token of a connection, and the Secret that holds it."""

from __future__ import annotations

import os
import re
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NoReturn

import yaml

from penstock_sdk.auth import LoginContext
from penstock_sdk.auth.oauth2 import (
    TOKEN_TEXT,
    Form,
    TokenEndpoint,
    request_parameters,
    token_document,
    token_endpoint,
)
from penstock_sdk.auth.provider import WRONG_REQUESTS, Provider, ProviderAnswer, error_code
from penstock_sdk.auth.selection import CHOICE, chosen_method
from penstock_sdk.auth.templates import url_of
from penstock_sdk.author.authorization_code import (
    CALLBACK_PATH,
    LOOPBACK,
    AuthorizationRequest,
    CodeVerifier,
    listening,
    loopback_port,
)
from penstock_sdk.author.command_errors import did_you_mean, printable
from penstock_sdk.author.device_code import PollClock, poll_for_token, request_device_code
from penstock_sdk.author.project import ProjectError
from penstock_sdk.author.session import checked_target
from penstock_sdk.errors import AuthenticationError
from penstock_sdk.json_types import JsonObject
from penstock_sdk.manifest import AuthenticationMethod, Manifest, config_values
from penstock_sdk.manifest.authentication import CLIENT_CREDENTIALS, DEFAULT_CLIENT_AUTHENTICATION, OAuth2Login
from penstock_sdk.manifest.authentication_checks import choices
from penstock_sdk.testing import find_connector
from penstock_sdk.testing.target import declared_connection

PERSONAL_FLOWS = ("authorizationCode", "deviceCode")
"""The flows in which a person authorizes."""
REFRESH_TOKEN: Final = "refresh_token"  # noqa: S105 - a name
OFFLINE_ACCESS: Final = "offline_access"
ABOUT_THE_CLIENT = (
    "invalid_client",
    "unauthorized_client",
    "invalid_scope",
    "server_error",
    "temporarily_unavailable",
    *WRONG_REQUESTS,
)
"""Error codes of a token endpoint that say nothing about the authorization by the person."""
SECRET_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")


@dataclass(frozen=True, slots=True)
class LoginOptions:
    """The options of the command. `tell` writes a line for the person; `read_line` reads one that they have pasted."""

    method: str | None = None
    port: int | None = None
    redirect_url: str | None = None
    has_browser: bool = True
    name: str | None = None
    tell: Callable[[str], None] = lambda line: print(line, file=sys.stderr)  # noqa: T201 - the output of the command
    read_line: Callable[[], str] = lambda: str(sys.stdin.readline())
    clock: PollClock = field(default_factory=PollClock)


def log_in(file: Path, options: LoginOptions) -> str:
    """Have a person authorize the connection of a test file, and return the Secret for it in YAML.

    Raises ProjectError, AuthenticationError, ConfigError or TransientError; the message says what to do.
    """
    target = checked_target(declared_connection(file), file)
    name = options.name or target.artifact
    if not SECRET_NAME.fullmatch(name):
        raise ProjectError(f"--name {name!r} is no name for a Secret: use lower-case letters, digits and '-'")
    manifest = Manifest.model_validate(find_connector(target.artifact).manifest())
    method, description = select_personal_method(manifest, target.config, options.method)
    credentials = {key: value for key, value in target.credentials.items() if value.strip()}
    for key in CLIENT_CREDENTIALS[description.client_authentication or DEFAULT_CLIENT_AUTHENTICATION]:
        if key not in credentials:
            raise ProjectError(
                f"{file}: credentials.{key}: Required value: write it there, or as ${{{key.upper()}}} and set this environment variable"
            )
    context = LoginContext(config_values(manifest, target.config), credentials)
    refresh_token = PersonalLogin(description, context, options).refresh_token()
    if len(manifest.authentication.methods) > 1 and choices(manifest) is not None:
        options.tell(f"connections with this Secret need the config {CHOICE}: {method.label}")
    declared = [credential.name for credential in method.credentials]
    values = {key: credentials[key].strip() for key in declared if key in credentials and key != REFRESH_TOKEN}
    return secret_document(name, {**values, REFRESH_TOKEN: refresh_token})


def select_personal_method(
    manifest: Manifest, config: JsonObject, named: str | None
) -> tuple[AuthenticationMethod, OAuth2Login]:
    """Return the method that a person authorizes: the named one, the one that the config chooses, or the only one."""
    methods = manifest.authentication.methods
    personal = {
        method.label: (method, method.oauth2)
        for method in methods
        if method.oauth2 and method.oauth2.flow in PERSONAL_FLOWS
    }
    labels = ", ".join(method.label for method in methods)
    if named is not None and named not in [method.label for method in methods]:
        near = did_you_mean(named, [method.label for method in methods])
        raise ProjectError(f"--method {named!r}: the connector has the methods {labels}{near}")
    if not personal or (named is not None and named not in personal):
        raise ProjectError(
            f"the manifest describes no login by a person for {named or labels}: put the credentials into the Secret. A person logs in"
            " with oauth2 and the flow authorizationCode or deviceCode"
        )
    chosen = named or chosen_method(config)
    if chosen not in personal and len(personal) > 1:
        raise ProjectError(f"several methods need a login: choose with --method one of {', '.join(personal)}")
    return personal[chosen] if chosen in personal else next(iter(personal.values()))


class PersonalLogin:
    """One login, by the flow that the manifest describes."""

    def __init__(self, login: OAuth2Login, context: LoginContext, options: LoginOptions) -> None:
        self._login, self._context, self._options = login, context, options
        self._endpoint: TokenEndpoint = token_endpoint(login, context)
        self._parameters: Form = request_parameters(login, context)

    def refresh_token(self) -> str:
        """Return the refresh token that a person has authorized."""
        answer = self._by_device_code() if self._login.flow == "deviceCode" else self._by_authorization_code()
        if isinstance(answer, ProviderAnswer):
            self._raise_refusal(answer)
        self._endpoint.check(answer, self._login.scopes)
        found = answer.get(REFRESH_TOKEN)
        if not isinstance(found, str) or not TOKEN_TEXT.fullmatch(found):
            self._raise_without_refresh_token()
        return found

    def _by_device_code(self) -> JsonObject | ProviderAnswer:
        options = self._options
        if options.port is not None or options.redirect_url is not None:
            raise ProjectError(
                "--port and --redirect-url belong to the flow authorizationCode; the method uses deviceCode"
            )
        url = url_of(self._login.device_authorization_url or "", self._context, "deviceAuthorizationUrl")
        provider = Provider(url, "deviceAuthorizationUrl", self._context, self._endpoint.ssl_context)
        # RFC 8628 has no PKCE. Keycloak demands it of a client that requires it elsewhere; other servers ignore the parameters.
        verifier = CodeVerifier()
        device = request_device_code(self._endpoint, provider, {**self._parameters, **verifier.challenge})
        for line in device.instructions:
            options.tell(line)
        further = {key: value for key, value in self._parameters.items() if key != "scope"}
        further.update(code_verifier=verifier.value)
        return poll_for_token(self._endpoint, device, further, options.clock)

    def _by_authorization_code(self) -> JsonObject | ProviderAnswer:
        options = self._options
        if options.redirect_url is not None and options.port is not None:
            raise ProjectError("--port and --redirect-url exclude each other: the URL has a port")
        own = loopback_port(options.redirect_url) if options.redirect_url else (options.port or 0, CALLBACK_PATH)
        if not options.has_browser or own is None:
            return self._pasted()
        port, path = own
        with listening(port, path) as listener:
            request = self._request(options.redirect_url or f"http://{LOOPBACK}:{listener.port}{path}")
            options.tell(f"open this URL in a browser on this machine:\n\n{request.url}\n")
            return self._exchange(request, listener.redirected_url())

    def _pasted(self) -> JsonObject | ProviderAnswer:
        """Have the person paste the URL to which the browser was redirected, where nothing needs to answer."""
        options = self._options
        request = self._request(options.redirect_url or f"http://{LOOPBACK}:{options.port or 8400}{CALLBACK_PATH}")
        options.tell(f"open this URL in a browser:\n\n{request.url}\n")
        options.tell("then paste the URL to which the browser is redirected, although it shows no page there:")
        line = options.read_line().strip()
        if not line:
            raise ProjectError("no URL was pasted: run the command again in a terminal")
        return self._exchange(request, line)

    def _request(self, redirect_url: str) -> AuthorizationRequest:
        url = url_of(self._login.authorization_url or "", self._context, "authorizationUrl")
        return AuthorizationRequest.build(
            url, self._context.credential("client_id").strip(), redirect_url, self._parameters
        )

    def _exchange(self, request: AuthorizationRequest, redirected_url: str) -> JsonObject | ProviderAnswer:
        form = {
            **{key: value for key, value in self._parameters.items() if key != "scope"},
            "grant_type": "authorization_code",
            "code": request.code_in(redirected_url, self._context.without_secrets),
            "redirect_uri": request.redirect_url,
            "code_verifier": request.verifier.value,
        }
        answer = self._endpoint.post(lambda: form)
        return token_document(answer) or answer

    def _raise_refusal(self, answer: ProviderAnswer) -> NoReturn:
        provider, code = self._endpoint.provider, error_code(answer)
        if code == "invalid_grant":
            raise AuthenticationError(
                f"{provider.host} does not accept the authorization (invalid_grant): a code is good for one use and a short time."
                " Run the command again"
            )
        if not code or code in ABOUT_THE_CLIENT:
            raise provider.refused(answer, " or ".join(self._endpoint.client_credentials))
        description = self._context.without_secrets(str((answer.document() or {}).get("error_description") or ""))
        raise AuthenticationError(
            f"{provider.host} issues no tokens ({f'{code}: {description}' if description else code}): allow the scopes for the client"
            " and for the person at the provider, and log in again"
        )

    def _raise_without_refresh_token(self) -> NoReturn:
        if OFFLINE_ACCESS in self._login.scopes:
            remedy = "allow refresh tokens (offline access) for the client at the provider"
        else:
            remedy = f"add the scope {OFFLINE_ACCESS} to oauth2.scopes, or allow refresh tokens for the client at the provider"
        raise AuthenticationError(f"{self._endpoint.provider.host} issues no refresh token: {remedy}, and log in again")


def secret_document(name: str, credentials: dict[str, str]) -> str:
    """Return a Secret in YAML."""
    document = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name},
        "type": "Opaque",
        "stringData": credentials,
    }
    return yaml.safe_dump(document, sort_keys=False, width=10_000)


@contextmanager
def private_output(path: Path | None) -> Iterator[Callable[[str], None]]:
    """Yield a function that writes a text to a file that only its owner can read; without a path, to standard output.

    The file is opened before the login, so that no token is lost because the folder cannot be written.
    """
    if path is None:
        yield lambda text: print(text, end="")  # noqa: T201 - the output of the command
        return
    if path.exists() and not path.is_file():
        raise ProjectError(
            f"--output {printable(path)}: it is no file; name a file, or leave the option out for standard output"
        )
    if not path.parent.is_dir():
        raise ProjectError(f"--output {printable(path)}: the folder {printable(path.parent)} does not exist: make it")
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # with the mode 600

    def write(text: str) -> None:
        with os.fdopen(os.dup(descriptor), "w") as file:
            file.write(text)
        Path(temporary).replace(path)

    try:
        yield write
    finally:
        os.close(descriptor)
        with suppress(FileNotFoundError):
            Path(temporary).unlink()
