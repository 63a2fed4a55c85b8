"""Authentication of callers: a pod, by the Job that owns it, or a person, by their rights in a namespace."""

from __future__ import annotations

import getpass
import hashlib
import hmac
import os
from typing import Annotated, Literal, Protocol

from fastapi import Depends
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from penstock_operator.audit.callers import concerns, identify_person, identify_pod
from penstock_operator.audit.events import ObjectKind
from penstock_operator.errors import Unauthenticated
from penstock_operator.ids import ActorUid, Namespace, NamespaceUid
from penstock_operator.resources.models import Kind
from penstock_operator.runs.protocol import PodIdentity

NO_NAMESPACE = NamespaceUid("")
"""The uid of a namespace that does not exist: no connection has it."""
Verb = Literal["get", "list", "patch"]
OBJECT_KINDS: dict[Kind, ObjectKind] = {"TenantConnection": "connection", "ConnectorDefinition": "definition"}
bearer = HTTPBearer(auto_error=False)


def bearer_token(credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)]) -> str:
    """Return the bearer token of a request. Raises Unauthenticated without one."""
    if credentials is None:
        raise Unauthenticated
    return credentials.credentials


Token = Annotated[str, Depends(bearer_token)]


class Authenticator(Protocol):
    """Turns a bearer token into an identity, or raises Unauthenticated or Forbidden."""

    async def pod(self, token: str) -> PodIdentity:
        """Return the pod that holds the token, and its Job."""

    async def holder(self, token: str) -> str:
        """Return the name of the person who holds the token, whatever they may do."""

    async def person(self, token: str, verb: Verb, namespace: str | None, kind: Kind = "TenantConnection") -> str:
        """Return the holder's name when they may do this with the resources of the namespace (None: of all)."""

    async def namespace_uid(self, namespace: Namespace) -> NamespaceUid | None:
        """Return the uid of the namespace that has this name now, NO_NAMESPACE if none has.

        None means that a name has one namespace, ever: then there is no tenant before this one.
        """


class EmbeddedAuthenticator:
    """Authentication on one machine: every token is derived from a secret in the data directory."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    def mint_pod(self, job_uid: str) -> str:
        """Return the token of one attempt's process."""
        return f"{job_uid}.{self._sign('pod', job_uid)}"

    def mint_person(self) -> str:
        """Return the token of the user who may read the data directory."""
        return self._sign("person", "reader")

    async def pod(self, token: str) -> PodIdentity:
        """Check a process's token."""
        job_uid, _, signature = token.partition(".")
        if not _same(signature, self._sign("pod", job_uid)):
            raise Unauthenticated
        identify_pod(job_uid, ActorUid(job_uid), None)
        return PodIdentity(pod_uid=job_uid, job_uid=job_uid)

    async def person(self, token: str, verb: Verb, namespace: str | None, kind: Kind = "TenantConnection") -> str:
        """Check the only token of a person, and return the name of the user that runs this process."""
        del verb
        name = await self.holder(token)
        concerns(OBJECT_KINDS[kind], Namespace(namespace) if namespace else None)
        return name

    async def holder(self, token: str) -> str:
        """Check the only token of a person."""
        if not _same(token, self.mint_person()):
            raise Unauthenticated
        name = _user()
        identify_person(name)
        return name

    async def namespace_uid(self, namespace: Namespace) -> NamespaceUid | None:
        """Return None: in a folder, a namespace is its name."""
        del namespace
        return None

    def _sign(self, kind: str, subject: str) -> str:
        return hmac.new(self._secret, f"{kind}:{subject}".encode(), hashlib.sha256).hexdigest()


def _same(given: str, known: str) -> bool:
    """Compare in constant time. A token may hold any character that a header can."""
    return hmac.compare_digest(given.encode(), known.encode())


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return f"uid {os.getuid()}"
