"""Encryption of credentials: AES-256-GCM, bound to the place and the version of the row that holds the ciphertext.

A ciphertext is a byte that tells the form, the id of its key, a nonce, and the output of AES-GCM. The earlier form is a Fernet
token, which is bound to the connection's uid and the credential's name, and not to a version.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
from dataclasses import dataclass

from cryptography.exceptions import InvalidTag
from cryptography.fernet import Fernet, InvalidToken
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from penstock_operator.ids import KeyId, Namespace, NamespaceUid

BOUND_FORM = b"\x02"
KEY_ID_BYTES = 8
NONCE_BYTES = 12
"""What NIST SP 800-38D recommends for GCM."""
KEY_BYTES = 32


class UnknownKeyError(Exception):
    """The ciphertext was made with a key that is not given."""


class NotAuthenticError(Exception):
    """The ciphertext was changed, or belongs to another row."""


@dataclass(frozen=True, slots=True)
class Binding:
    """What a ciphertext is bound to. The namespace's uid is empty where it was not known.

    A connection that is applied again has another uid and keeps its credentials, so its uid is no part of this.
    """

    namespace_uid: NamespaceUid
    namespace: Namespace
    connection: str
    name: str
    version: int

    def data(self) -> bytes:
        """Return the additional data of the encryption."""
        return json.dumps(
            ["penstock", self.namespace_uid, self.namespace, self.connection, self.name, self.version]
        ).encode()


class CredentialKey:
    """One key: it encrypts in the bound form, and decrypts that form and the earlier one."""

    def __init__(self, text: str) -> None:
        kdf = HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=None, info=b"penstock credentials 2")
        derived = kdf.derive(text.encode())
        self._cipher = AESGCM(derived)
        self._id = hashlib.sha256(derived).digest()[:KEY_ID_BYTES]
        self._earlier = Fernet(base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()))

    @property
    def id(self) -> KeyId:
        """The id of the key, which says nothing of it."""
        return KeyId(self._id.hex())

    def encrypt(self, plaintext: bytes, binding: Binding) -> bytes:
        """Return the ciphertext of a row."""
        nonce = os.urandom(NONCE_BYTES)
        return BOUND_FORM + self._id + nonce + self._cipher.encrypt(nonce, plaintext, binding.data())

    def made(self, ciphertext: bytes) -> bool:
        """Return True if this key made a ciphertext of the bound form."""
        return ciphertext[1 : 1 + KEY_ID_BYTES] == self._id

    def decrypt(self, ciphertext: bytes, binding: Binding) -> bytes:
        """Return the plaintext. Raises NotAuthenticError."""
        rest = ciphertext[1 + KEY_ID_BYTES :]
        try:
            return self._cipher.decrypt(rest[:NONCE_BYTES], rest[NONCE_BYTES:], binding.data())
        except (InvalidTag, ValueError):
            raise NotAuthenticError from None

    def decrypt_earlier(self, ciphertext: bytes) -> bytes | None:
        """Return the plaintext of the earlier form; None if another key made it."""
        try:
            return self._earlier.decrypt(ciphertext)
        except InvalidToken:
            return None


def is_bound(ciphertext: bytes) -> bool:
    """Return True for the bound form."""
    return ciphertext.startswith(BOUND_FORM)


def decrypt_bound(keys: tuple[CredentialKey, ...], ciphertext: bytes, binding: Binding) -> bytes:
    """Return the plaintext of the bound form. Raises UnknownKeyError and NotAuthenticError."""
    key = next((key for key in keys if key.made(ciphertext)), None)
    if key is None:
        raise UnknownKeyError
    return key.decrypt(ciphertext, binding)


def decrypt_earlier(keys: tuple[CredentialKey, ...], ciphertext: bytes) -> bytes:
    """Return the plaintext of the earlier form. Raises UnknownKeyError."""
    for key in keys:
        plaintext = key.decrypt_earlier(ciphertext)
        if plaintext is not None:
            return plaintext
    raise UnknownKeyError
