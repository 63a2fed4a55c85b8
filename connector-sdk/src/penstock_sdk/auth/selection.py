"""The method that a connection uses, and its login."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from penstock_sdk.auth.aws import AwsSigV4Auth
from penstock_sdk.auth.base import Auth
from penstock_sdk.auth.fixed_credentials import ApiKeyAuth, BasicAuth, BearerAuth, ClientCertificateAuth, NoAuth
from penstock_sdk.auth.login_call import SessionAuth
from penstock_sdk.auth.oauth2 import JwtBearerAuth, OAuth2Auth
from penstock_sdk.auth.saml import SamlAuth
from penstock_sdk.auth.shared_credentials import LoginContext, SharedCredential
from penstock_sdk.errors import AuthenticationError, ConfigError, DefectError
from penstock_sdk.json_types import JsonObject, JsonValue
from penstock_sdk.manifest import AuthenticationMethod, Manifest, config_values
from penstock_sdk.manifest.authentication import (
    AuthenticationType,
    AwsSigV4Login,
    JwtBearerLogin,
    KeyPlace,
    OAuth2Login,
    SamlLogin,
    SessionLogin,
)
from penstock_sdk.manifest.authentication_checks import CHOICE_PATH

CHOICE = ".".join(CHOICE_PATH)
WITHOUT_DESCRIPTION: Mapping[AuthenticationType, Callable[[LoginContext], Auth]] = {
    "none": lambda _context: NoAuth(),
    "basic": BasicAuth,
    "bearer": BearerAuth,
    "clientCertificate": ClientCertificateAuth,
}


def select_method(manifest: Manifest, config: JsonObject, credentials: Mapping[str, str]) -> AuthenticationMethod:
    """Return the method that a connection uses.

    `authentication.method` of the config names it. Without it, it is the method whose credentials the Secret has; of
    several, the one that needs all that the others need and more. Raises ConfigError if that leaves a choice, and
    AuthenticationError if the Secret has the credentials of no method.
    """
    methods = manifest.authentication.methods
    labels = ", ".join(method.label for method in methods)
    chosen = chosen_method(config)
    if chosen is not None:
        for method in methods:
            if method.label == chosen:
                return method
        raise ConfigError(f"spec.config.{CHOICE} is {chosen!r}; the connector has the methods: {labels}")
    if len(methods) == 1:
        return methods[0]
    held = {name for name, value in credentials.items() if value.strip()}
    possible = [method for method in methods if _needed(method) <= held]
    if not possible:
        wanted = "; ".join(f"{method.label}: {', '.join(sorted(_needed(method)))}" for method in methods)
        raise AuthenticationError(f"spec.secretRef: the Secret has the credentials of no method. They are: {wanted}")
    largest = [method for method in possible if all(_needed(other) <= _needed(method) for other in possible)]
    if len(largest) != 1:
        named = ", ".join(method.label for method in possible)
        raise ConfigError(
            f"the Secret has the credentials of several methods: {named}. Set spec.config.{CHOICE} to one of them, or remove the"
            " credentials of the others from the Secret"
        )
    return largest[0]


def chosen_method(config: JsonObject) -> str | None:
    """Return the method that a config names in `authentication.method`; None if it names none."""
    found: JsonValue = config
    for key in CHOICE_PATH:
        found = found.get(key) if isinstance(found, dict) else None
    return found if isinstance(found, str) else None


def _needed(method: AuthenticationMethod) -> set[str]:
    required = {credential.name for credential in method.credentials if credential.required}
    return required | (method.needed if method.is_described else set())


def auth_for(
    manifest: Manifest,
    config: JsonObject,
    credentials: Mapping[str, str],
    *,
    conceal: Callable[[str], None] = lambda _value: None,
    share: Callable[[str], SharedCredential] | None = None,
) -> Auth:
    """Return the login of a connection, as the manifest describes it. Nothing is sent yet.

    Raises DefectError if the manifest does not describe the method: the connector's own code logs in then. Raises
    AuthenticationError or ConfigError if the Secret or the config does not give what the method needs. `conceal` masks
    tokens; `share` returns a credential that other connectors use too, and without it a new refresh token is not stored.
    """
    values = config_values(manifest, config)
    method = select_method(manifest, values, credentials)
    if not method.is_described:
        raise DefectError(
            f"authentication.methods of the manifest does not describe the method {method.label}: describe it, or log in in authenticate()"
        )
    return _build(method, LoginContext(values, dict(credentials), conceal, share))


def _build(method: AuthenticationMethod, context: LoginContext) -> Auth:
    built: Auth
    match method.member:
        case KeyPlace() as place:
            built = ApiKeyAuth(context, place)
        case SessionLogin() as login:
            built = SessionAuth(context, login, tuple(credential.name for credential in method.credentials))
        case OAuth2Login() as login:
            built = OAuth2Auth(context, login)
        case JwtBearerLogin() as login:
            built = JwtBearerAuth(context, login)
        case SamlLogin() as login:
            built = SamlAuth(context, login)
        case AwsSigV4Login() as login:
            built = AwsSigV4Auth(context, login)
        case _:
            built = WITHOUT_DESCRIPTION[method.type](context)
    return built
