"""Authentication in a cluster, by TokenReview and SubjectAccessReview."""

from __future__ import annotations

from http import HTTPStatus

from kubernetes.aio import client
from kubernetes.aio.client.exceptions import ApiException
from penstock_sdk.protocol import TOKEN_AUDIENCE

from penstock_operator.api.authentication import Verb
from penstock_operator.errors import Forbidden, Unauthenticated
from penstock_operator.resources.models import GROUP, PLURALS, Kind
from penstock_operator.runs.protocol import PodIdentity

POD_NAME, POD_UID = "authentication.kubernetes.io/pod-name", "authentication.kubernetes.io/pod-uid"
EVERYWHERE: dict[Kind, str] = {
    "TenantConnection": "in all namespaces",
    "ConnectorDefinition": "at the cluster scope",
}


class KubernetesAuthenticator:
    """Authentication by the API server."""

    def __init__(self, api: client.ApiClient) -> None:
        self._tokens = client.AuthenticationV1Api(api)
        self._access = client.AuthorizationV1Api(api)
        self._core = client.CoreV1Api(api)

    async def _review(self, token: str, audiences: list[str] | None) -> client.V1UserInfo:
        spec = client.V1TokenReviewSpec(token=token, audiences=audiences)
        review = await self._tokens.create_token_review(client.V1TokenReview(spec=spec))
        if not review.status.authenticated:
            raise Unauthenticated
        return review.status.user

    async def pod(self, token: str) -> PodIdentity:
        """Return the pod that the token is bound to, with the uid of its Job."""
        user = await self._review(token, [TOKEN_AUDIENCE])
        extra = user.extra or {}
        name, uid = (extra.get(POD_NAME) or [""])[0], (extra.get(POD_UID) or [""])[0]
        namespace = (user.username or "").split(":")[2:3]
        if not name or not namespace:
            message = "the token is not bound to a pod"
            raise Unauthenticated(message)
        try:
            pod = await self._core.read_namespaced_pod(name, namespace[0])
        except ApiException as error:
            if error.status == HTTPStatus.NOT_FOUND:
                raise Unauthenticated from None
            raise
        references = pod.metadata.owner_references or []
        owners = [owner.uid for owner in references if owner.kind == "Job" and owner.controller]
        if pod.metadata.uid != uid or not owners:
            message = "the token's pod does not belong to a Job"
            raise Unauthenticated(message)
        return PodIdentity(pod_uid=uid, job_uid=owners[0])

    async def holder(self, token: str) -> str:
        """Check the token, and return its holder's name."""
        return str((await self._review(token, None)).username)

    async def person(self, token: str, verb: Verb, namespace: str | None, kind: Kind = "TenantConnection") -> str:
        """Check that the token's holder may do this with resources of the kind, and return their name."""
        user = await self._review(token, None)
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
