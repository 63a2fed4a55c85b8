"""Manifests, keys and certificates for the tests of logins."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import NameOID
from penstock_sdk.auth import Auth, auth_for
from penstock_sdk.manifest import Manifest, manifest_problems

from tests.fakes.egress import manifest_document

NO_ENCRYPTION = serialization.NoEncryption()


def manifest_of(*methods: dict[str, Any], **properties: Any) -> Manifest:
    """Return an admissible manifest with these methods."""
    document = {**manifest_document([], **properties), "authentication": {"methods": list(methods)}}
    assert manifest_problems(document) == []
    return Manifest.model_validate(document)


def method_of(kind: str, credentials: dict[str, str], described: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return a method that declares these credentials."""
    member = {} if described is None else {kind: described}
    return {"type": kind, "credentials": [{"name": name} for name in credentials], **member}


def login(kind: str, credentials: dict[str, str], described: dict[str, Any] | None = None, **options: Any) -> Auth:
    """Return the login of a manifest with this method."""
    declared = options.pop("declared", credentials)
    return auth_for(manifest_of(method_of(kind, declared, described)), {}, credentials, **options)


def pem_of(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey) -> str:
    """Return a private key in PEM."""
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, NO_ENCRYPTION).decode()


@cache
def rsa_key() -> rsa.RSAPrivateKey:
    """Return a key; one for all tests, because making it takes long."""
    return rsa.generate_private_key(65537, 2048)


def certificate(
    subject: str = "connector", *, begin: timedelta = timedelta(days=-1), end: timedelta = timedelta(days=1)
) -> str:
    """Return a certificate of `rsa_key`, signed by itself, valid between these distances from now."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)])
    now = datetime.now(UTC)
    built = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(rsa_key().public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + begin)
        .not_valid_after(now + end)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(rsa_key(), hashes.SHA256())
    )
    return built.public_bytes(serialization.Encoding.PEM).decode()
