"""SAML 2.0: an assertion of an identity provider (ECP) or of the connector itself, exchanged (RFC 7522) or sent as it is."""

from __future__ import annotations

import base64
import uuid
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

import httpx

from penstock_sdk.auth.fixed_credentials import put_key
from penstock_sdk.auth.keys import AssertionClock
from penstock_sdk.auth.oauth2 import Form, TokenEndpoint
from penstock_sdk.auth.provider import Provider
from penstock_sdk.auth.shared_credentials import LoginContext
from penstock_sdk.auth.templates import text_of, url_of
from penstock_sdk.auth.tokens import Token, TokenAuth
from penstock_sdk.errors import AuthenticationError, ConfigError, ConnectorError, DefectError
from penstock_sdk.manifest.authentication import SamlLogin

if TYPE_CHECKING:
    from lxml.etree import _Element

SAML2_BEARER = "urn:ietf:params:oauth:grant-type:saml2-bearer"
ASSERTION = "urn:oasis:names:tc:SAML:2.0:assertion"
PROTOCOL = "urn:oasis:names:tc:SAML:2.0:protocol"
SOAP = "http://schemas.xmlsoap.org/soap/envelope/"
SUCCESS = "urn:oasis:names:tc:SAML:2.0:status:Success"
BEARER = "urn:oasis:names:tc:SAML:2.0:cm:bearer"
PAOS = "urn:oasis:names:tc:SAML:2.0:bindings:PAOS"
NAME_ID_FORMAT = "urn:oasis:names:tc:SAML:1.1:nameid-format:unspecified"
AUTHENTICATION_CONTEXT = "urn:oasis:names:tc:SAML:2.0:ac:classes:X509"
LIFE: Final = timedelta(minutes=5)
TIME_FORMAT = "%Y-%m-%dT%H:%M:%SZ"


class SamlAuth(TokenAuth):
    """A login by a SAML assertion."""

    def __init__(self, context: LoginContext, login: SamlLogin) -> None:
        super().__init__()
        _check_installed()
        self._context, self._login = context, login
        self._clock = AssertionClock()
        self._names = ("username", "password") if login.assertion == "ecp" else ("private_key", "certificate")
        for name in self._names:
            context.credential(name)
        self._issuer = text_of(login.issuer, context, "saml.issuer")
        token_url = url_of(login.token_url, context, "tokenUrl") if login.token_url else None
        self._endpoint = TokenEndpoint(token_url, context, login.client_authentication or "none") if token_url else None
        self._consumer = self._text(login.assertion_consumer_url, "saml.assertionConsumerUrl", token_url or "")
        identity_url = login.identity_provider_url
        self._identity = (
            Provider(url_of(identity_url, context, "identityProviderUrl"), "identityProviderUrl", context)
            if identity_url
            else None
        )

    def _text(self, template: str | None, name: str, default: str) -> str:
        return text_of(template, self._context, name) if template else default

    def private_headers(self) -> frozenset[str]:
        """Return the header that carries the assertion or the token."""
        place = self._login.send
        return self.credential_headers | (
            {place.name.lower() if place.in_ == "header" else "cookie"} if place else frozenset()
        )

    def fetch(self, refused: str | None) -> Token:
        """Obtain an assertion, and exchange it if the manifest says so."""
        del refused
        if self._endpoint is None:
            assertion, lifetime = self._assertion()
            return Token.issued(base64.b64encode(assertion).decode(), lifetime)
        is_signed = self._login.assertion == "selfIssued"
        document = self._endpoint.request(self._form, self._names, self._login.scopes, is_signed=is_signed)
        issued = self._endpoint.issued(document)
        return Token.issued(issued.token, issued.lifetime)

    def _form(self) -> Form:
        assertion, _ = self._assertion()
        encoded = base64.urlsafe_b64encode(assertion).decode().rstrip("=")
        form = {"grant_type": SAML2_BEARER, "assertion": encoded}
        return {**form, "scope": " ".join(self._login.scopes)} if self._login.scopes else form

    def put(self, request: httpx.Request, token: str) -> None:
        """Put the token, or the assertion itself, on a request."""
        if self._login.send is None:
            super().put(request, token)
        else:
            put_key(request, self._login.send, token)

    def refusal(self) -> str:
        """Return that a fresh assertion is refused."""
        return f"the source refuses the SAML login: check that it trusts the issuer {self._issuer}, and the rights of the subject"

    def _assertion(self) -> tuple[bytes, float]:
        """Return an assertion, and for how many seconds it is valid."""
        if self._identity is not None and self._login.assertion == "ecp":
            return self._from_provider(self._identity)
        return self._signed(), LIFE.total_seconds()

    def _from_provider(self, identity: Provider) -> tuple[bytes, float]:
        """Ask an identity provider for an assertion by the profile ECP, with user name and password."""
        pair = f"{self._context.credential('username').strip()}:{self._context.credential('password').strip()}"
        headers = {
            "Content-Type": "text/xml; charset=utf-8",
            "Accept": "text/xml, application/vnd.paos+xml",
            "Authorization": f"Basic {base64.b64encode(pair.encode()).decode()}",
        }
        answer = identity.send("POST", headers=headers, content=self._authentication_request(identity.url))
        tree = _parsed(answer.body)
        if not answer.is_success or tree is None:
            raise self._refused(identity, answer.status)
        code = tree.find(f".//{{{PROTOCOL}}}StatusCode")
        if code is not None and code.get("Value") != SUCCESS:
            raise self._refused(identity, answer.status, str(code.get("Value")).rpartition(":")[2])
        found = tree.find(f".//{{{ASSERTION}}}Assertion")
        if found is None:
            if tree.find(f".//{{{ASSERTION}}}EncryptedAssertion") is not None:
                raise ConfigError(
                    f"{identity.host} encrypts the assertion: turn the encryption off for {self._issuer}, as TLS protects it"
                )
            raise self._refused(identity, answer.status)
        from lxml import etree

        return etree.tostring(found), _life_of(found)

    def _refused(self, identity: Provider, status: int, code: str = "") -> ConnectorError:
        said = code if code.isalnum() else f"HTTP {status}"
        if status in (404, 405):
            return ConfigError(f"{identity.host} has no SOAP endpoint at this address: correct identityProviderUrl")
        if status < 300 and not code:  # noqa: PLR2004
            return ConfigError(
                f"{identity.host} answers without a SAML assertion: correct identityProviderUrl, or allow ECP for {self._issuer}"
            )
        return AuthenticationError(
            f"{identity.host} refuses username and password for {self._issuer} ({said}): put valid values into the Secret, and allow"
            " ECP for the service provider"
        )

    def _authentication_request(self, destination: str) -> bytes:
        from lxml import etree

        envelope = etree.Element(f"{{{SOAP}}}Envelope", nsmap={"S": SOAP, "samlp": PROTOCOL, "saml": ASSERTION})
        body = etree.SubElement(envelope, f"{{{SOAP}}}Body")
        request = etree.SubElement(
            body,
            f"{{{PROTOCOL}}}AuthnRequest",
            {
                "ID": f"_{uuid.uuid4().hex}",
                "Version": "2.0",
                "IssueInstant": self._clock.now().strftime(TIME_FORMAT),
                "Destination": destination,
                "ProtocolBinding": PAOS,
                **({"AssertionConsumerServiceURL": self._consumer} if self._consumer else {}),
            },
        )
        etree.SubElement(request, f"{{{ASSERTION}}}Issuer").text = self._issuer
        written: bytes = etree.tostring(envelope)
        return written

    def _signed(self) -> bytes:
        """Return an assertion that is signed with the credential private_key."""
        from lxml import etree
        from signxml.algorithms import CanonicalizationMethod
        from signxml.signer import XMLSigner

        login, context = self._login, self._context
        now = self._clock.now() if self._endpoint is None else self._endpoint.clock.now()
        begin, end = now.strftime(TIME_FORMAT), (now + LIFE).strftime(TIME_FORMAT)
        subject_name = text_of(login.subject or "{{credentials.username}}", context, "saml.subject")
        audience = self._text(login.audience, "saml.audience", self._consumer)
        identifier = f"_{uuid.uuid4().hex}"
        root = etree.Element(
            f"{{{ASSERTION}}}Assertion",
            {"ID": identifier, "Version": "2.0", "IssueInstant": begin},
            nsmap={"saml": ASSERTION},
        )
        _child(root, "Issuer").text = self._issuer
        etree.SubElement(root, "{http://www.w3.org/2000/09/xmldsig#}Signature", {"Id": "placeholder"})
        subject = _child(root, "Subject")
        _child(subject, "NameID", {"Format": NAME_ID_FORMAT}).text = subject_name
        confirmation = _child(subject, "SubjectConfirmation", {"Method": BEARER})
        recipient = {"Recipient": self._consumer} if self._consumer else {}
        _child(confirmation, "SubjectConfirmationData", {"NotOnOrAfter": end, **recipient})
        conditions = _child(root, "Conditions", {"NotBefore": begin, "NotOnOrAfter": end})
        if audience:
            _child(_child(conditions, "AudienceRestriction"), "Audience").text = audience
        statement = _child(root, "AuthnStatement", {"AuthnInstant": begin, "SessionIndex": identifier})
        _child(_child(statement, "AuthnContext"), "AuthnContextClassRef").text = AUTHENTICATION_CONTEXT
        signer = XMLSigner(c14n_algorithm=CanonicalizationMethod.EXCLUSIVE_XML_CANONICALIZATION_1_0)
        try:
            signed = signer.sign(
                root,
                key=context.credential("private_key").strip().replace("\\n", "\n").encode(),
                cert=context.credential("certificate").strip().replace("\\n", "\n"),
                reference_uri=identifier,
                id_attribute="ID",
            )
        except Exception:  # noqa: BLE001 - signxml and cryptography raise many types; none may show the key
            raise AuthenticationError(
                "spec.secretRef: private_key and certificate do not fit: they must be an RSA key without a passphrase and its"
                " certificate, both in PEM"
            ) from None
        written: bytes = etree.tostring(signed)
        return written


def _child(parent: _Element, name: str, attributes: dict[str, str] | None = None) -> _Element:
    from lxml import etree

    return etree.SubElement(parent, f"{{{ASSERTION}}}{name}", attributes or {})


def _check_installed() -> None:
    try:
        import lxml
        import signxml
    except ImportError:
        raise DefectError("SAML needs two more packages in the connector's image: penstock-sdk[saml]") from None
    del lxml, signxml


def _parsed(body: bytes) -> _Element | None:
    """Return the root of an XML document; None if it is none. No entity is resolved and nothing is loaded."""
    from lxml import etree

    parser = etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False, huge_tree=False)
    try:
        return etree.fromstring(body, parser)
    except (etree.XMLSyntaxError, ValueError):
        return None


def _life_of(assertion: _Element) -> float:
    """Return for how long an assertion is valid, by the times of its issuer alone."""
    issued = assertion.get("IssueInstant", "")
    ends = [element.get("NotOnOrAfter") for element in assertion.iter() if element.get("NotOnOrAfter")]
    try:
        begin = _moment(issued)
        return max(1.0, min((_moment(end) - begin).total_seconds() for end in ends if end))
    except ValueError:
        return LIFE.total_seconds()


def _moment(text: str) -> datetime:
    found = datetime.fromisoformat(text)
    return found if found.tzinfo else found.replace(tzinfo=UTC)
