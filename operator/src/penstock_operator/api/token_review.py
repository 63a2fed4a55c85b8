"""Authentication in a cluster, by TokenReview and SubjectAccessReview."""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from http import HTTPStatus
from typing import TypeVar

from kubernetes.aio import client
from kubernetes.aio.client.exceptions import ApiException
from penstock_sdk.protocol import TOKEN_AUDIENCE

from penstock_operator.api.authentication import NO_NAMESPACE, OBJECT_KINDS, Verb
from penstock_operator.audit.callers import concerns, identify_person, identify_pod
from penstock_operator.errors import Forbidden, Unauthenticated
from penstock_operator.ids import ActorUid, AttemptNumber, ConnectionUid, Namespace, NamespaceUid, RunId
from penstock_operator.launchers.jobs import LABEL_ATTEMPT, LABEL_RUN
from penstock_operator.resources.models import GROUP, PLURALS, Kind
from penstock_operator.runs.protocol import JobIdentity, PodIdentity

T = TypeVar("T")
READ_AUDIENCE = "penstock-read"
"""The audience of tokens for the read API. A run's token has another one, and the API server takes neither."""
SERVICE_ACCOUNT = ["system", "serviceaccount"]
POD_NAME, POD_UID = "authentication.kubernetes.io/pod-name", "authentication.kubernetes.io/pod-uid"
EVERYWHERE: dict[Kind, str] = {
    "TenantConnection": "in all namespaces",
    "ConnectorDefinition": "at the cluster scope",
}


def _namespace_of(username: str) -> str:
    """Return the namespace of a service account; nothing for any other user."""
    parts = username.split(":")
    return (
        parts[2]
        if len(parts) == len(("system", "serviceaccount", "namespace", "name")) and parts[:2] == SERVICE_ACCOUNT
        else ""
    )


def _controller_of(metadata: client.V1ObjectMeta, kind: str, api: str) -> client.V1OwnerReference | None:
    """Return the reference to the object that controls another, if it is of this kind and API."""
    references = [reference for reference in metadata.owner_references or [] if reference.controller]
    return next((found for found in references if found.kind == kind and found.api_version.startswith(api)), None)


async def _found(reading: Awaitable[T]) -> T:
    """Return what was read. Raises Unauthenticated if it does not exist."""
    try:
        return await reading
    except ApiException as error:
        if error.status == HTTPStatus.NOT_FOUND:
            raise Unauthenticated from None
        raise


class KubernetesAuthenticator:
    """Authentication by the API server."""

    def __init__(self, api: client.ApiClient, read_audiences: Sequence[str] = (READ_AUDIENCE,)) -> None:
        """Take the audiences of tokens for the read API; none: those of the API server."""
        self._read_audiences = list(read_audiences) or None
        self._tokens = client.AuthenticationV1Api(api)
        self._access = client.AuthorizationV1Api(api)
        self._core = client.CoreV1Api(api)
        self._batch = client.BatchV1Api(api)

    async def _review(self, token: str, audiences: list[str] | None) -> client.V1UserInfo:
        spec = client.V1TokenReviewSpec(token=token, audiences=audiences)
        review = await self._tokens.create_token_review(client.V1TokenReview(spec=spec))
        if not review.status.authenticated:
            raise Unauthenticated
        if audiences and not set(audiences) & set(
            review.status.audiences or ()
        ):  # an authenticator that knows no audiences
            raise Unauthenticated
        user = review.status.user
        identify_person(str(user.username), tuple(user.groups or ()), user.uid)
        return user

    async def pod(self, token: str) -> PodIdentity:
        """Return the pod that the token is bound to, with its Job.

        Namespace, name and uid of the pod are those that the API server put into the token. The pod's ownerReference only
        says which Job to read: whoever may create a pod can write one.
        """
        user = await self._review(token, [TOKEN_AUDIENCE])
        extra = user.extra or {}
        name, uid = (extra.get(POD_NAME) or [""])[0], (extra.get(POD_UID) or [""])[0]
        namespace = _namespace_of(user.username or "")
        if not name or not uid or not namespace:
            message = "the token is not bound to a pod"
            raise Unauthenticated(message)
        identify_pod(name, ActorUid(uid), Namespace(namespace))
        pod = await _found(self._core.read_namespaced_pod(name, namespace))
        owner = _controller_of(pod.metadata, "Job", "batch/")
        if pod.metadata.uid != uid or owner is None:
            message = "the token's pod does not belong to a Job"
            raise Unauthenticated(message)
        job = await _found(self._batch.read_namespaced_job(owner.name, namespace))
        if job.metadata.uid != owner.uid:
            message = "the token's pod does not belong to a Job"
            raise Unauthenticated(message)
        connection = _controller_of(job.metadata, "TenantConnection", f"{GROUP}/")
        labels = job.metadata.labels or {}
        attempt = labels.get(LABEL_ATTEMPT, "")
        holder = JobIdentity(
            namespace=Namespace(namespace),
            namespace_uid=NamespaceUid((await _found(self._core.read_namespace(namespace))).metadata.uid),
            name=job.metadata.name,
            connection_uid=ConnectionUid(connection.uid) if connection else None,
            run_id=RunId(labels.get(LABEL_RUN, "")),
            attempt=AttemptNumber(int(attempt) if attempt.isdecimal() else 0),
        )
        return PodIdentity(pod_uid=uid, job_uid=job.metadata.uid, job=holder)

    async def namespace_uid(self, namespace: Namespace) -> NamespaceUid | None:
        """Return the uid of the namespace that has this name now, NO_NAMESPACE if none has."""
        try:
            return NamespaceUid((await self._core.read_namespace(namespace)).metadata.uid)
        except ApiException as error:
            if error.status == HTTPStatus.NOT_FOUND:
                return NO_NAMESPACE
            raise

    async def holder(self, token: str) -> str:
        """Check the token, and return its holder's name."""
        return str((await self._review(token, self._read_audiences)).username)

    async def person(self, token: str, verb: Verb, namespace: str | None, kind: Kind = "TenantConnection") -> str:
        """Check that the token's holder may do this with resources of the kind, and return their name."""
        user = await self._review(token, self._read_audiences)
        concerns(OBJECT_KINDS[kind], Namespace(namespace) if namespace else None)
        plural = PLURALS[kind]
        attributes = client.V1ResourceAttributes(group=GROUP, resource=plural, verb=verb, namespace=namespace)
        spec = client.V1SubjectAccessReviewSpec(
            user=user.username, groups=user.groups, uid=user.uid, extra=user.extra, resource_attributes=attributes
        )
        review = await self._access.create_subject_access_review(client.V1SubjectAccessReview(spec=spec))
        if not review.status.allowed:
            where = f"in namespace {namespace}" if namespace else EVERYWHERE[kind]
            message = f"{user.username} may not {verb} {plural}.{GROUP} {where}"
            raise Forbidden(message)
        return str(user.username)
