"""When certificates are replaced. Pure but for the new keys: the stored certificates and a clock in, new ones out.

A CA is replaced in two steps, so that no client fails at any moment. First the new CA joins the bundle that clients
trust, and the old one still signs. After OVERLAP, every run has started with both, and every server has read both: then
the new CA signs. The old one stays in the bundle until it expires, for servers that still have its certificates.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Self

from cryptography import x509

from penstock_operator.certificates.issuing import (
    CLOCK_SKEW,
    CertificatesError,
    PrivateKey,
    ServiceNames,
    Signed,
    belongs,
    certificate_text,
    key_text,
    new_authority,
    new_serving_certificate,
    parse_key,
)

CA_BUNDLE, CA_KEY, NEXT_CA_KEY = "ca.crt", "ca.key", "next-ca.key"
CERTIFICATE, KEY = "tls.crt", "tls.key"
FILES = (CA_BUNDLE, CA_KEY, NEXT_CA_KEY, CERTIFICATE, KEY)


@dataclass(frozen=True, slots=True)
class Lifetimes:
    """How long certificates live, and when their successors come."""

    authority: timedelta = timedelta(days=5 * 365)
    rotation: timedelta = timedelta(days=180)
    """How long before the end of the CA its successor is made."""
    overlap: timedelta = timedelta(days=30)
    """How long clients have trusted a CA before it signs: longer than a run takes, and than a kubelet needs to refresh a file."""
    serving: timedelta = timedelta(days=90)

    def __post_init__(self) -> None:
        """Refuse lifetimes with which a CA could expire before its successor signs, or a serving certificate with it."""
        if not timedelta(0) <= self.overlap + self.serving <= self.rotation < self.authority:
            message = (
                "overlap and serving together must not exceed rotation, and rotation must be shorter than authority"
            )
            raise ValueError(message)


@dataclass(frozen=True, slots=True)
class StoredCertificates:
    """The content of the Secret or the folder: PEM texts. `ca_bundle` is public, and all that a client needs."""

    ca_bundle: str
    ca_key: str = field(repr=False)
    certificate: str
    key: str = field(repr=False)
    next_ca_key: str = field(default="", repr=False)
    """The key of the CA that has joined the bundle and does not sign yet; empty: there is none."""

    @classmethod
    def of_files(cls, files: dict[str, str]) -> Self | None:
        """Return the certificates of these files, None if there is none. Raises CertificatesError if some are missing."""
        if not any(files.get(name) for name in FILES):
            return None
        missing = [name for name in (CA_BUNDLE, CA_KEY, CERTIFICATE, KEY) if not files.get(name)]
        if missing:
            raise CertificatesError(
                f"{', '.join(missing)} is missing; remove the other keys too, and all are made anew"
            )
        return cls(
            ca_bundle=files[CA_BUNDLE],
            ca_key=files[CA_KEY],
            certificate=files[CERTIFICATE],
            key=files[KEY],
            next_ca_key=files.get(NEXT_CA_KEY, ""),
        )

    def files(self) -> dict[str, str]:
        """Return the files, by name."""
        values = (self.ca_bundle, self.ca_key, self.next_ca_key, self.certificate, self.key)
        return dict(zip(FILES, values, strict=True))


@dataclass(frozen=True, slots=True)
class _Parsed:
    """The stored certificates as objects. `trusted` are all CAs of the bundle."""

    trusted: tuple[x509.Certificate, ...]
    authority: Signed
    successor: Signed | None
    serving: Signed | None

    @classmethod
    def of(cls, stored: StoredCertificates) -> _Parsed:
        try:
            trusted = tuple(x509.load_pem_x509_certificates(stored.ca_bundle.encode()))
            serving = Signed(x509.load_pem_x509_certificate(stored.certificate.encode()), parse_key(stored.key))
            successor = _signed(trusted, parse_key(stored.next_ca_key), NEXT_CA_KEY) if stored.next_ca_key else None
            authority = _signed(trusted, parse_key(stored.ca_key), CA_KEY)
        except (ValueError, TypeError) as error:
            words = " ".join(str(error).split())[:200]
            raise CertificatesError(
                f"the stored certificates cannot be read ({words}); remove them, and all are made anew"
            ) from None
        is_pair = belongs(serving.certificate, serving.key)
        return cls(trusted, authority, successor, serving if is_pair else None)

    def stored(self) -> StoredCertificates:
        if self.serving is None:
            raise CertificatesError("there is no serving certificate")
        return StoredCertificates(
            ca_bundle="".join(certificate_text(certificate) for certificate in self.trusted),
            ca_key=key_text(self.authority.key),
            certificate=certificate_text(self.serving.certificate),
            key=key_text(self.serving.key),
            next_ca_key=key_text(self.successor.key) if self.successor else "",
        )


def _signed(trusted: tuple[x509.Certificate, ...], key: PrivateKey, name: str) -> Signed:
    found = next((certificate for certificate in trusted if belongs(certificate, key)), None)
    if found is None:
        raise ValueError(f"{CA_BUNDLE} has no certificate of {name}")
    return Signed(found, key)


def renewed(
    stored: StoredCertificates | None,
    names: ServiceNames,
    now: datetime,
    lifetimes: Lifetimes | None = None,
    *,
    rotate: bool = False,
) -> StoredCertificates:
    """Return the certificates that should be stored now: the same value if none is due. Raises CertificatesError.

    `rotate` makes the successor of the CA now.
    """
    lives = lifetimes or Lifetimes()
    if stored is None:
        return _with_new_authority((), names, now, lives).stored()
    before = _Parsed.of(stored)
    after = _rotated(before, names, now, lives, at_once=rotate)
    after = _with_serving_certificate(after, names, now, lives)
    return stored if after == before else after.stored()


def _with_new_authority(
    trusted: tuple[x509.Certificate, ...], names: ServiceNames, now: datetime, lives: Lifetimes
) -> _Parsed:
    authority = new_authority(names, now, lives.authority)
    serving = new_serving_certificate(authority, names, now, lives.serving)
    return _Parsed((authority.certificate, *trusted), authority, None, serving)


def _rotated(current: _Parsed, names: ServiceNames, now: datetime, lives: Lifetimes, *, at_once: bool) -> _Parsed:
    """Make the CA's successor, or let it sign, if the time has come; and drop CAs that have expired."""
    end = current.authority.certificate.not_valid_after_utc
    if now >= end and (current.successor is None or now >= current.successor.certificate.not_valid_after_utc):
        return _with_new_authority((), names, now, lives)
    if not _covers(current.authority.certificate, names):
        raise CertificatesError(
            f"the stored CA was made for another namespace than {names.namespace}; remove the stored certificates,"
            " and all are made anew"
        )
    if current.successor is None and (at_once or now >= end - lives.rotation):
        successor = new_authority(names, now, lives.authority)
        current = replace(current, trusted=(*current.trusted, successor.certificate), successor=successor)
    elif current.successor is not None and now >= min(_made(current.successor.certificate) + lives.overlap, end):
        current = replace(current, authority=current.successor, successor=None)
    alive = tuple(certificate for certificate in current.trusted if now < certificate.not_valid_after_utc)
    return current if alive == current.trusted else replace(current, trusted=alive)


def _with_serving_certificate(current: _Parsed, names: ServiceNames, now: datetime, lives: Lifetimes) -> _Parsed:
    """Replace the serving certificate if a third of its life has passed, or it is not what it should be."""
    serving = current.serving
    if serving is not None and _is_fresh(serving.certificate, current.authority.certificate, names, now):
        return current
    return replace(current, serving=new_serving_certificate(current.authority, names, now, lives.serving))


def _is_fresh(certificate: x509.Certificate, issuer: x509.Certificate, names: ServiceNames, now: datetime) -> bool:
    made, end = _made(certificate), certificate.not_valid_after_utc
    if now >= made + (end - made) / 3 or _hosts(certificate) != set(names.hosts()):
        return False
    try:
        certificate.verify_directly_issued_by(issuer)
    except Exception:  # noqa: BLE001 - of several kinds; each means that another CA signed it
        return False
    return True


def _made(certificate: x509.Certificate) -> datetime:
    return certificate.not_valid_before_utc + CLOCK_SKEW


def _hosts(certificate: x509.Certificate) -> set[str]:
    try:
        extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return set()
    return set(extension.value.get_values_for_type(x509.DNSName))


def _covers(authority: x509.Certificate, names: ServiceNames) -> bool:
    try:
        extension = authority.extensions.get_extension_for_class(x509.NameConstraints)
    except x509.ExtensionNotFound:
        return False
    return {zone.value for zone in extension.value.permitted_subtrees or ()} >= set(names.zones())


def summary(stored: StoredCertificates) -> str:
    """Return one line about the certificates: until when they are valid, and whether a new CA waits to sign."""
    parsed = _Parsed.of(stored)
    end = parsed.serving.certificate.not_valid_after_utc if parsed.serving else None
    serving = f"serving certificate until {end:%Y-%m-%d}" if end else "no serving certificate"
    waits = "; the next CA is trusted, and does not sign yet" if parsed.successor else ""
    return f"{serving}, CA until {parsed.authority.certificate.not_valid_after_utc:%Y-%m-%d}{waits}"
