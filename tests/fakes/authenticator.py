"""An authenticator that knows the tokens that a test names."""

from __future__ import annotations

from dataclasses import dataclass, field

from penstock_operator.api.authentication import OBJECT_KINDS, Authenticator, Verb
from penstock_operator.audit.callers import concerns, identify_person, identify_pod
from penstock_operator.errors import Forbidden, Unauthenticated
from penstock_operator.ids import ActorUid, Namespace, NamespaceUid
from penstock_operator.resources.models import Kind
from penstock_operator.runs.protocol import PodIdentity


@dataclass(frozen=True)
class Person:
    """A person, and the namespace whose connections they may read; None: they may do everything."""

    name: str
    reads: str | None = None


@dataclass
class FakeAuthenticator:
    """Knows `pods` and `people` by their tokens, and refuses every other token."""

    pods: dict[str, PodIdentity] = field(default_factory=dict)
    people: dict[str, Person] = field(default_factory=dict)
    namespaces: dict[str, NamespaceUid] = field(default_factory=dict)

    async def pod(self, token: str) -> PodIdentity:
        """Return the pod with this token."""
        if token not in self.pods:
            raise Unauthenticated
        pod = self.pods[token]
        namespace = Namespace(pod.job.namespace) if pod.job else None
        identify_pod(pod.job.name if pod.job else pod.job_uid, ActorUid(pod.pod_uid), namespace)
        return pod

    async def holder(self, token: str) -> str:
        """Return the name of the person with this token."""
        return self._person(token).name

    async def person(self, token: str, verb: Verb, namespace: str | None, kind: Kind = "TenantConnection") -> str:
        """Return the person with this token. A person with a namespace may read its connections, and all definitions."""
        person = self._person(token)
        concerns(OBJECT_KINDS[kind], Namespace(namespace) if namespace else None)
        limited = person.reads is not None and kind == "TenantConnection"
        if limited and (namespace != person.reads or verb == "patch"):
            raise Forbidden(f"{person.name} may not {verb} tenantconnections in {namespace or 'all namespaces'}")
        return person.name

    async def namespace_uid(self, namespace: Namespace) -> NamespaceUid | None:
        """Return the uid of the namespace, None of one that the test has not named."""
        return self.namespaces.get(namespace)

    def _person(self, token: str) -> Person:
        if token not in self.people:
            raise Unauthenticated
        identify_person(self.people[token].name)
        return self.people[token]


_: Authenticator = FakeAuthenticator()
