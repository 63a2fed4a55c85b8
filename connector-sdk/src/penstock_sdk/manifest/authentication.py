"""How a connector authenticates: `authentication` of the manifest.

A method has a type and the credentials that it takes. The type's own member describes the login completely: the URLs, the
scopes, and where a key goes. The SDK builds the login from the description (`penstock_sdk.auth`), and the hosts of its URLs
join the destinations of `network.egress`. A method without the member, such as `type: oauth2` with credentials alone, is a
login that the connector's own code does.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from penstock_sdk.manifest.declared import BY_NAME, CredentialName, Declared, ShortText, rules

AuthenticationType = Literal[
    "none",
    "basic",
    "apiKey",
    "bearer",
    "session",
    "oauth2",
    "jwtBearer",
    "saml",
    "awsSigV4",
    "clientCertificate",
]
ClientAuthentication = Literal[
    "client_secret_basic", "client_secret_post", "private_key_jwt", "tls_client_auth", "none"
]
"""How an OAuth 2.0 client proves its identity to the token endpoint (RFC 6749, RFC 7523, RFC 8705); none: a public client."""
Flow = Literal["clientCredentials", "refreshToken", "authorizationCode", "deviceCode"]
KeyLocation = Literal["header", "query", "cookie"]
SigningAlgorithm = Literal["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"]
DEFAULT_CLIENT_AUTHENTICATION: ClientAuthentication = "client_secret_basic"
DEFAULT_ALGORITHM: SigningAlgorithm = "RS256"
MEMBER_TYPES = ("apiKey", "session", "oauth2", "jwtBearer", "saml", "awsSigV4")
"""The types whose description is a member of the same name."""
ALWAYS_DESCRIBED = ("session", "jwtBearer", "awsSigV4")
"""The types that no connector's own code does, so that their description is required."""
MAX_METHODS = 5

Template = Annotated[str, Field(min_length=1, max_length=1000)]
"""A text in which `{{config.KEY}}` stands for a value of the connection's config."""
UrlTemplate = Annotated[
    str,
    Field(
        max_length=1000,
        json_schema_extra=rules(
            (
                "self.matches('^(https?://[^ ?#]|\\\\{\\\\{ *config[.])[^ #]*$')",
                "must be a URL such as 'https://login.example.com/token', or begin with a value of the config",
            )
        ),
    ),
]
Scopes = Annotated[list[ShortText], Field(max_length=50)]


class Credential(Declared):
    """One key that the connection's Secret must or may have. With `secret: false`, messages may show it, as a user name."""

    name: CredentialName
    """The Secret's key, and the field of the connector's credentials."""
    required: bool = True
    """Whether a Secret without it is refused."""
    secret: bool = True
    """false: messages may show the value, such as a user name. Every other value is masked everywhere."""


class KeyPlace(Declared):
    """Where a request carries a key or a token."""

    in_: Annotated[KeyLocation, Field(alias="in")]
    """header, query or cookie."""
    name: ShortText
    """The name of the header, of the query parameter or of the cookie."""
    prefix: Annotated[str, Field(max_length=60)] | None = None
    """Text before the value, such as 'Token '."""


class SessionLogin(Declared):
    """A login call whose answer has a token for the requests after it."""

    login_url: UrlTemplate
    """The URL of the login call."""
    http_method: Literal["GET", "POST", "PUT"] | None = None
    """POST by default."""
    body: Literal["json", "form", "none"] | None = None
    """How the fields are sent; json by default. none: no body, and the credentials are in the headers."""
    fields: dict[str, Template] = {}
    """The fields of the body. {{credentials.KEY}} stands for a value of the Secret."""
    headers: dict[str, Template] = {}
    """Headers of the login call. {{credentials.KEY}} stands for a value of the Secret."""
    basic: bool | None = None
    """true: the login call carries the credentials username and password as Basic authentication."""
    token_in: Literal["body", "header", "cookie"] | None = None
    """Where the answer has the token; body by default."""
    token: ShortText
    """The path of the token in the JSON body, such as data.token, or the name of the header or the cookie."""
    send: KeyPlace
    """Where later requests carry the token."""
    lifetime_seconds: Annotated[int, Field(ge=1, le=31_536_000)] | None = None
    """How long a token is valid. Without it, a new one is requested when the source refuses the old one."""


class OAuth2Login(
    Declared,
    json_schema_extra=rules(
        (
            "self.flow != 'authorizationCode' || has(self.authorizationUrl)",
            "the flow authorizationCode needs authorizationUrl, at which a person authorizes",
        ),
        (
            "self.flow != 'deviceCode' || has(self.deviceAuthorizationUrl)",
            "the flow deviceCode needs deviceAuthorizationUrl, which issues the code for a person",
        ),
        (
            "self.flow != 'clientCredentials' || !has(self.clientAuthentication) || self.clientAuthentication != 'none'",
            "the flow clientCredentials needs a clientAuthentication: a public client cannot use it",
        ),
    ),
):
    """A token of an OAuth 2.0 authorization server."""

    flow: Flow
    """How the first token is obtained. With authorizationCode and deviceCode, a person authorizes once and puts the refresh token into the Secret."""
    token_url: UrlTemplate
    """The token endpoint."""
    authorization_url: UrlTemplate | None = None
    """The page at which a person authorizes. A run's pod does not use it."""
    device_authorization_url: UrlTemplate | None = None
    """The endpoint that issues device codes. A run's pod does not use it."""
    scopes: Scopes = []
    """The scopes to request."""
    audience: Template | None = None
    """The audience to request, for servers that take the parameter."""
    client_authentication: ClientAuthentication | None = None
    """How the client proves its identity; client_secret_basic by default."""
    algorithm: SigningAlgorithm | None = None
    """The signature of private_key_jwt; RS256 by default."""
    key_id: Template | None = None
    """The `kid` of private_key_jwt, for servers that need it."""
    parameters: dict[str, Template] = {}
    """Further parameters of the token request, such as `resource`."""


class JwtBearerLogin(Declared):
    """An assertion that the connector signs, exchanged for a token (RFC 7523, section 2.1)."""

    token_url: UrlTemplate
    """The token endpoint."""
    issuer: Template | None = None
    """The `iss` of the assertion; the credential client_id by default. {{credentials.KEY}} stands for a value of the Secret."""
    subject: Template | None = None
    """The `sub` of the assertion; the issuer by default. {{credentials.KEY}} stands for a value of the Secret."""
    audience: Template | None = None
    """The `aud` of the assertion; the token URL by default."""
    scopes: Scopes = []
    """The scopes to request."""
    scope_claim: bool | None = None
    """true: the scopes are the claim `scope` of the assertion, as Google needs it, and no parameter of the request."""
    algorithm: SigningAlgorithm | None = None
    """The signature; RS256 by default."""
    key_id: Template | None = None
    """The `kid` of the assertion. {{credentials.KEY}} stands for a value of the Secret."""
    client_authentication: ClientAuthentication | None = None
    """How the client proves its identity beside the assertion; none by default."""


class SamlLogin(
    Declared,
    json_schema_extra=rules(
        (
            "self.assertion != 'ecp' || has(self.identityProviderUrl)",
            "assertion: ecp needs identityProviderUrl, the SOAP endpoint of the identity provider",
        ),
        (
            "has(self.tokenUrl) != has(self.send)",
            "give either tokenUrl, to exchange the assertion for a token (RFC 7522), or send, to send it as it is",
        ),
    ),
):
    """A SAML 2.0 assertion, exchanged for a token (RFC 7522) or sent as it is."""

    assertion: Literal["ecp", "selfIssued"]
    """ecp: an identity provider issues it for a user name and a password. selfIssued: the connector signs it with its key."""
    identity_provider_url: UrlTemplate | None = None
    """The SOAP endpoint of the identity provider, for the profile ECP."""
    issuer: Template
    """The entity ID of the service provider (ecp), or the issuer of the assertion (selfIssued)."""
    assertion_consumer_url: Template | None = None
    """The address for which the assertion is issued; the token URL by default."""
    subject: Template | None = None
    """The subject of a selfIssued assertion; the credential username by default."""
    audience: Template | None = None
    """The audience of a selfIssued assertion; the token URL by default."""
    token_url: UrlTemplate | None = None
    """The token endpoint that exchanges the assertion."""
    scopes: Scopes = []
    """The scopes to request in the exchange."""
    client_authentication: ClientAuthentication | None = None
    """How the client proves its identity in the exchange; none by default."""
    send: KeyPlace | None = None
    """Where requests carry the assertion, in base64."""


class AwsSigV4Login(Declared):
    """Requests that are signed with AWS Signature Version 4."""

    service: Template
    """The service's name in signatures, such as s3."""
    region: Template
    """The region, such as eu-west-1."""


def _member_rules() -> list[tuple[str, str]]:
    return [
        *(
            (f"!has(self.{name}) || self.type == '{name}'", f"{name} describes a method of type: {name}")
            for name in MEMBER_TYPES
        ),
        *(
            (f"self.type != '{name}' || has(self.{name})", f"a method of type: {name} needs its description, {name}")
            for name in ALWAYS_DESCRIBED
        ),
    ]


class AuthenticationMethod(Declared, json_schema_extra=rules(*_member_rules())):
    """One way to authenticate, with the credentials that it takes."""

    type: AuthenticationType
    """The kind of authentication. All but none, basic, bearer and clientCertificate are described by the member of this name."""
    name: CredentialName | None = None
    """A name that config.authentication.method of a connection chooses the method by; its type by default."""
    credentials: Annotated[list[Credential], Field(max_length=20, json_schema_extra=BY_NAME)] = []
    """The keys of the Secret that it uses."""
    api_key: KeyPlace | None = None
    """Where requests carry the credential api_key."""
    session: SessionLogin | None = None
    """A login call, and the token of its answer."""
    oauth2: OAuth2Login | None = None
    """A token of an OAuth 2.0 authorization server."""
    jwt_bearer: JwtBearerLogin | None = None
    """An assertion that is signed with the credential private_key, exchanged for a token."""
    saml: SamlLogin | None = None
    """A SAML assertion."""
    aws_sig_v4: Annotated[AwsSigV4Login | None, Field(alias="awsSigV4")] = None
    """AWS Signature Version 4."""

    @property
    def label(self) -> str:
        """Return the name by which a config chooses the method."""
        return self.name or self.type

    @property
    def is_described(self) -> bool:
        """Return True if the SDK can build the login; False if the connector's own code does it."""
        declared = {credential.name for credential in self.credentials}
        if self.type in MEMBER_TYPES and self.member is None:
            return False
        return self.needed <= declared

    @property
    def member(self) -> Declared | None:
        """Return the description of the login, for a type that has one."""
        members: dict[AuthenticationType, Declared | None] = {
            "apiKey": self.api_key,
            "session": self.session,
            "oauth2": self.oauth2,
            "jwtBearer": self.jwt_bearer,
            "saml": self.saml,
            "awsSigV4": self.aws_sig_v4,
        }
        return members.get(self.type)

    @property
    def needed(self) -> frozenset[str]:
        """Return the names of the credentials that the login cannot do without."""
        return frozenset(_needed(self))

    def pod_urls(self) -> list[str]:
        """Return the URLs, as templates, that a run's pod connects to. A person's browser uses the other ones."""
        urls = (
            self.session and self.session.login_url,
            self.oauth2 and self.oauth2.token_url,
            self.jwt_bearer and self.jwt_bearer.token_url,
            self.saml and self.saml.identity_provider_url,
            self.saml and self.saml.token_url,
        )
        return [url for url in urls if url]


class Authentication(Declared):
    """The ways to authenticate."""

    methods: Annotated[list[AuthenticationMethod], Field(min_length=1, max_length=MAX_METHODS)]
    """With more than one method, the platform treats every credential as optional; the connector reports a missing one."""


CLIENT_CREDENTIALS: dict[ClientAuthentication, tuple[str, ...]] = {
    "client_secret_basic": ("client_id", "client_secret"),
    "client_secret_post": ("client_id", "client_secret"),
    "private_key_jwt": ("client_id", "private_key"),
    "tls_client_auth": ("client_id", "client_certificate", "client_key"),
    "none": ("client_id",),
}
"""The credentials of each way in which an OAuth 2.0 client proves its identity."""
USER = ("username", "password")
SIMPLE_CREDENTIALS: dict[AuthenticationType, tuple[str, ...]] = {
    "basic": USER,
    "apiKey": ("api_key",),
    "bearer": ("token",),
    "awsSigV4": ("access_key_id", "secret_access_key"),
    "clientCertificate": ("client_certificate", "client_key"),
}


def _needed(method: AuthenticationMethod) -> Iterator[str]:
    yield from SIMPLE_CREDENTIALS.get(method.type, ())
    if method.session and method.session.basic:
        yield from USER
    if method.oauth2:
        yield from CLIENT_CREDENTIALS[method.oauth2.client_authentication or DEFAULT_CLIENT_AUTHENTICATION]
        if method.oauth2.flow != "clientCredentials":
            yield "refresh_token"
    if method.jwt_bearer:
        yield "private_key"
        if method.jwt_bearer.issuer is None:
            yield "client_id"
        if method.jwt_bearer.client_authentication not in (None, "none"):
            yield from CLIENT_CREDENTIALS[method.jwt_bearer.client_authentication]
    if method.saml:
        yield from USER if method.saml.assertion == "ecp" else ("private_key", "certificate")
        if method.saml.assertion == "selfIssued" and method.saml.subject is None:
            yield "username"
        if method.saml.client_authentication not in (None, "none"):
            yield from CLIENT_CREDENTIALS[method.saml.client_authentication]
