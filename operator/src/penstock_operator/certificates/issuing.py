"""Makes keys and certificates: a CA that can sign names of one namespace only, and the serving certificates below it."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from penstock_operator.ids import Namespace

PrivateKey = ec.EllipticCurvePrivateKey

CLOCK_SKEW = timedelta(hours=1)
"""How far back a certificate's life begins, for machines whose clocks are slow."""
EVERY_ADDRESS = (ipaddress.ip_network("0.0.0.0/0"), ipaddress.ip_network("::/0"))
LOCALHOST = "localhost"
"""A name of each certificate, for `kubectl port-forward`. In a run's pod it is the pod itself."""


class CertificatesError(Exception):
    """The stored certificates cannot be used; the message says what to do."""


@dataclass(frozen=True, slots=True)
class ServiceNames:
    """The names that the certificates are for: those of some Services of one namespace."""

    namespace: Namespace
    services: tuple[str, ...]
    cluster_domain: str = "cluster.local"

    def zones(self) -> tuple[str, ...]:
        """Return the domains that the CA may sign names of."""
        inside = f"{self.namespace}.svc"
        return (inside, f"{inside}.{self.cluster_domain}", LOCALHOST)

    def hosts(self) -> tuple[str, ...]:
        """Return the names of a serving certificate."""
        *domains, localhost = self.zones()
        return (*(f"{service}.{domain}" for service in self.services for domain in domains), localhost)


@dataclass(frozen=True, slots=True)
class Signed:
    """A certificate with its private key."""

    certificate: x509.Certificate
    key: PrivateKey


def new_authority(names: ServiceNames, now: datetime, life: timedelta) -> Signed:
    """Return a new CA. Its name constraints are critical: a client refuses what it signs for a host outside the namespace."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name(
        [x509.NameAttribute(NameOID.COMMON_NAME, f"Penstock {names.namespace} {now:%Y-%m-%d %H:%M:%S}")]
    )
    constraints = x509.NameConstraints(
        permitted_subtrees=[x509.DNSName(zone) for zone in names.zones()],
        excluded_subtrees=[x509.IPAddress(network) for network in EVERY_ADDRESS],
    )
    builder = (
        _builder(subject, subject, key, now)
        .not_valid_after(now + life)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .add_extension(constraints, critical=True)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()), critical=False)
    )
    return Signed(builder.sign(key, hashes.SHA256()), key)


def new_serving_certificate(authority: Signed, names: ServiceNames, now: datetime, life: timedelta) -> Signed:
    """Return a certificate for the Services, which ends no later than its CA."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "penstock")])
    hosts = x509.SubjectAlternativeName([x509.DNSName(host) for host in names.hosts()])
    issuer = authority.certificate
    builder = (
        _builder(subject, issuer.subject, key, now)
        .not_valid_after(min(now + life, issuer.not_valid_after_utc))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(hosts, critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key()), critical=False)
    )
    return Signed(builder.sign(authority.key, hashes.SHA256()), key)


def _builder(subject: x509.Name, issuer: x509.Name, key: PrivateKey, now: datetime) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCK_SKEW)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def certificate_text(certificate: x509.Certificate) -> str:
    """Return a certificate as PEM."""
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def key_text(key: PrivateKey) -> str:
    """Return a private key as PEM."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()


def parse_key(text: str) -> PrivateKey:
    """Return the private key of a PEM text. Raises ValueError for any other text."""
    key = serialization.load_pem_private_key(text.encode(), password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ValueError("the key is not an EC key")  # noqa: TRY004 - the caller reads one kind of error
    return key


def belongs(certificate: x509.Certificate, key: PrivateKey) -> bool:
    """Return True if the key is the certificate's."""
    return certificate.public_key() == key.public_key()
