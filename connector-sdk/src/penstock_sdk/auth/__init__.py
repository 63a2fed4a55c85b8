"""Logins: one `httpx.Auth` for each method that a manifest can declare.

The runtime builds the login that the manifest describes, from the config and the Secret of the connection, and a connector
reaches it as `self.authentication`:

    def authenticate(self) -> None:
        self.http = self.authentication.client(base_url=self.config.url)
        self.http.get("me").raise_for_status()

The login obtains tokens, renews them before they expire, and once more when the source refuses one early. It raises an
AuthenticationError, ConfigError or TransientError whose message names the credential and the remedy. A redirect to another
host gets no credentials.
"""

from __future__ import annotations

from penstock_sdk.auth.aws import AwsSigV4Auth
from penstock_sdk.auth.base import Auth
from penstock_sdk.auth.fixed_credentials import ApiKeyAuth, BasicAuth, BearerAuth, ClientCertificateAuth, NoAuth
from penstock_sdk.auth.login_call import SessionAuth
from penstock_sdk.auth.oauth2 import JwtBearerAuth, OAuth2Auth
from penstock_sdk.auth.saml import SamlAuth
from penstock_sdk.auth.selection import auth_for, select_method
from penstock_sdk.auth.shared_credentials import Issued, LocalCredential, LoginContext, SharedCredential
from penstock_sdk.auth.tokens import Token, TokenAuth

__all__ = [
    "ApiKeyAuth",
    "Auth",
    "AwsSigV4Auth",
    "BasicAuth",
    "BearerAuth",
    "ClientCertificateAuth",
    "Issued",
    "JwtBearerAuth",
    "LocalCredential",
    "LoginContext",
    "NoAuth",
    "OAuth2Auth",
    "SamlAuth",
    "SessionAuth",
    "SharedCredential",
    "Token",
    "TokenAuth",
    "auth_for",
    "select_method",
]
