"""Private keys, client certificates, and the clock that assertions are dated by."""

from __future__ import annotations

import json
import ssl
import tempfile
import threading
import time
import warnings
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from penstock_sdk.auth.shared_credentials import LoginContext
from penstock_sdk.errors import AuthenticationError
from penstock_sdk.json_types import JsonObject
from penstock_sdk.manifest.authentication import SigningAlgorithm

if TYPE_CHECKING:
    from joserfc.jwk import Key

SKEW_SECONDS: Final = 30.0
"""Providers accept a difference of at least this many seconds."""
KEY_TYPES: dict[str, Literal["RSA", "EC", "OKP"]] = {"RS": "RSA", "PS": "RSA", "ES": "EC", "Ed": "OKP"}


class AssertionClock:
    """This machine's clock, corrected by the time of a provider that has refused an assertion."""

    def __init__(self) -> None:
        self._offset = 0.0
        self._lock = threading.Lock()

    def now(self) -> datetime:
        """Return the provider's time, as far as it is known."""
        return datetime.fromtimestamp(time.time() + self._offset, UTC)

    def skew(self, date: str | None) -> float:
        """Return by how many seconds a provider's clock, by its `Date` header, is ahead of `now`; 0 if it does not say."""
        if not date:
            return 0.0
        try:
            theirs = parsedate_to_datetime(date)
        except (ValueError, TypeError):
            return 0.0
        aware = theirs if theirs.tzinfo else theirs.replace(tzinfo=UTC)
        return (aware - self.now()).total_seconds()

    def follow(self, date: str | None) -> bool:
        """Take a provider's time over if it differs by more than providers accept; return True if it was."""
        with self._lock:
            skew = self.skew(date)
            if abs(skew) <= SKEW_SECONDS:
                return False
            self._offset += skew
            return True


class SigningKey:
    """The credential private_key: PEM or JWK."""

    def __init__(self, context: LoginContext, algorithm: SigningAlgorithm) -> None:
        self._algorithm = algorithm
        self._key = _signing_key(context.credential("private_key"), algorithm)

    def sign(self, claims: JsonObject, kid: str | None) -> str:
        """Return a signed JWT."""
        from joserfc import jwt

        header = {"alg": self._algorithm, "typ": "JWT", **({"kid": kid} if kid else {})}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # joserfc warns of EdDSA's name, which RFC 9864 replaces
            token: str = jwt.encode(header, dict(claims), self._key, algorithms=[self._algorithm])
        return token


def _signing_key(text: str, algorithm: SigningAlgorithm) -> Key:
    from joserfc import jwk

    kind = KEY_TYPES[algorithm[:2]]
    stripped = text.strip()
    key: Key
    try:
        if stripped.startswith("{"):
            key = jwk.import_key(json.loads(stripped), kind)
        else:
            # A PEM on one line, with \\n for its line ends, is what many tools make of it.
            key = jwk.import_key(stripped.replace("\\n", "\n"), kind)
    except Exception:  # noqa: BLE001 - joserfc and cryptography raise many types; none may show the key
        raise AuthenticationError(
            f"spec.secretRef: private_key is not an {kind} private key in PEM or JWK, without a passphrase, as {algorithm} needs it"
        ) from None
    if not key.is_private:
        raise AuthenticationError("spec.secretRef: private_key is a public key: put the private key into the Secret")
    return key


def client_ssl_context(context: LoginContext) -> ssl.SSLContext:
    """Return a TLS context with client_certificate and client_key. Raises AuthenticationError if they do not fit."""
    certificate, key = context.credential("client_certificate"), context.credential("client_key")
    _check_dates(certificate)
    found = ssl.create_default_context()
    # Python's ssl reads a chain from files only. The directory is in memory, and is gone when the context has them.
    with tempfile.TemporaryDirectory() as directory:
        chain, private = Path(directory) / "chain.pem", Path(directory) / "key.pem"
        for path, text in ((chain, certificate), (private, key)):
            path.touch(mode=0o600)
            path.write_text(text)
        try:
            found.load_cert_chain(chain, private, password=lambda: b"")
        except (ssl.SSLError, OSError, ValueError):
            raise AuthenticationError(
                "spec.secretRef: client_certificate and client_key do not fit: they must be a certificate chain and its private"
                " key, both in PEM, the key without a passphrase"
            ) from None
    return found


def _check_dates(certificate: str) -> None:
    from cryptography import x509

    try:
        found = x509.load_pem_x509_certificate(certificate.encode())
    except ValueError:
        raise AuthenticationError("spec.secretRef: client_certificate is not a certificate in PEM") from None
    now = datetime.now(UTC)
    if now > found.not_valid_after_utc:
        ended = f"{found.not_valid_after_utc:%Y-%m-%d}"
        raise AuthenticationError(
            f"spec.secretRef: client_certificate has expired on {ended}: put a new one, and its client_key, into the Secret"
        )
    if now < found.not_valid_before_utc:
        begin = f"{found.not_valid_before_utc:%Y-%m-%d %H:%M} UTC"
        raise AuthenticationError(
            f"spec.secretRef: client_certificate is valid from {begin}: wait, or correct this node's clock"
        )
