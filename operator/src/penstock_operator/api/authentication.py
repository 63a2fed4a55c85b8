"""Who calls: a pod (with the Job that owns it), or a person who may read a namespace."""

from __future__ import annotations

import getpass
import hashlib
import hmac
import os
from typing import Literal, Protocol

from penstock_operator.errors import Unauthenticated
from penstock_operator.resources.models import Kind
from penstock_operator.runs.protocol import PodIdentity

Verb = Literal["get", "list", "patch"]


class Authenticator(Protocol):
    """Turns a bearer token into an identity, or raises Unauthenticated or Forbidden."""

    async def pod(self, token: str) -> PodIdentity:
        """Return the pod that holds the token, and its Job."""

    async def person(self, token: str, verb: Verb, namespace: str | None, kind: Kind = "TenantConnection") -> str:
        """Return the holder's name when they may do this with the resources of the namespace (None: of all)."""


class EmbeddedAuthenticator:
    """The authority of one machine: a secret of the data directory, from which every token is derived."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    def mint_pod(self, job_uid: str) -> str:
        """Return the token of one attempt's process."""
        return f"{job_uid}.{self._sign('pod', job_uid)}"

    def mint_person(self) -> str:
        """Return the token of whoever may read the data directory."""
        return self._sign("person", "reader")

    async def pod(self, token: str) -> PodIdentity:
        """Check a process's token."""
        job_uid, _, signature = token.partition(".")
        if not _same(signature, self._sign("pod", job_uid)):
            raise Unauthenticated
        return PodIdentity(pod_uid=job_uid, job_uid=job_uid)

    async def person(self, token: str, verb: Verb, namespace: str | None, kind: Kind = "TenantConnection") -> str:
        """Check the one token there is; who holds it is whoever runs this process, as the machine knows them."""
        del verb, namespace, kind
        if not _same(token, self.mint_person()):
            raise Unauthenticated
        return _user()

    def _sign(self, kind: str, subject: str) -> str:
        return hmac.new(self._secret, f"{kind}:{subject}".encode(), hashlib.sha256).hexdigest()


def _same(said: str, known: str) -> bool:
    """Compare in a time that tells nothing; a token may hold anything that a header can."""
    return hmac.compare_digest(said.encode(), known.encode())


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return f"uid {os.getuid()}"
