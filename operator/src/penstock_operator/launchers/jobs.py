"""Jobs as plain documents: the Job of an attempt, and the meaning of the status of a Job and of a pod. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from penstock_sdk.errors import ERROR_CLASS_BY_EXIT_CODE, AttemptFenced, AttemptUnauthenticated
from penstock_sdk.json_types import JsonObject
from penstock_sdk.protocol import (
    API_URL_VARIABLE,
    ATTEMPT_VARIABLE,
    CA_CERTIFICATES_VARIABLE,
    CONNECTOR_VARIABLE,
    CREDENTIALS_DIRECTORY_VARIABLE,
    EGRESS_BUCKET_VARIABLE,
    EGRESS_URL_VARIABLE,
    RUN_ID_VARIABLE,
    SOURCE_CA_VARIABLE,
    TOKEN_AUDIENCE,
    TOKEN_FILE_VARIABLE,
)

from penstock_operator.launchers import AttemptLaunch, AttemptObservation
from penstock_operator.resources.models import API_VERSION, GROUP
from penstock_operator.settings import EgressSettings

Addresses = Mapping[str, str]
NO_ADDRESSES: Addresses = {}

LABEL_RUN, LABEL_ATTEMPT, LABEL_CONNECTION = f"{GROUP}/run", f"{GROUP}/attempt", f"{GROUP}/connection"
LABEL_INSTALLATION = f"{GROUP}/installation"
TOKEN_DIRECTORY = "/var/run/secrets/penstock"  # noqa: S105 - a path
CREDENTIALS, CREDENTIALS_DIRECTORY = "credentials", "/var/run/penstock/credentials"
READABLE_BY_GROUP = 0o440
"""The files belong to root and to the pod's `fsGroup`."""
MISSING_CREDENTIAL = re.compile(
    rf'MountVolume\.SetUp failed for volume "{CREDENTIALS}" ?: \[?(secret "[^"]*" not found|references non-existent secret key: [^\s,\]]+)'
)
"""How a kubelet reports a Secret, or a key of it, that a pod needs and that is not there."""
ENDED = ("Complete", "Failed", "FailureTarget")
SIGKILL_EXIT, SIGTERM_EXIT, INTERRUPTED_EXIT = 137, 143, 31
FENCED_EXIT = AttemptFenced.exit_code  # of the current attempt: its Job has another pod, which holds it
TAKEN_AWAY = (SIGKILL_EXIT, SIGTERM_EXIT, INTERRUPTED_EXIT, FENCED_EXIT)
DISRUPTIONS = (
    *("Evicted", "NodeLost", "Preempting", "Terminated", "NodeShutdown", "Shutdown"),
    *("UnexpectedAdmissionError", "NodeAffinity", "OutOfcpu", "OutOfmemory", "OutOfpods"),
)
OWN_FAULTS = ("exceeds the limit", "exceeds the total limit", "exceeded its local ephemeral storage limit")
BACK_OFF = "back-off pulling image"
STARTING = ("ContainerCreating", "PodInitializing")
QUOTA_WORDS = ("exceeded quota", "status unknown for quota")
PASSING_WORDS = (
    *(
        "error looking up service account",
        "failed calling webhook",
        "being terminated",
        "not yet ready to handle request",
    ),
    *("unable to create new content", "timed out", "context deadline exceeded", "connection refused"),
)
REFUSING_WORDS = ("is forbidden", "denied the request", "denied request", "is invalid")
"""Words of a refusal that a retry does not change: by LimitRange, Pod Security, ValidatingAdmissionPolicy or a webhook."""
REGISTRY_REFUSALS = (
    *("not found", "manifest unknown", "denied", "unauthorized", "authorization failed", "forbidden"),
    *("no match for platform", "invalid reference", "not supported"),
)
LONGEST_WORDS = 600
IMAGE_FAULTS = (
    "ErrImagePull",
    "ImagePullBackOff",
    "ImageInspectError",
    "RegistryUnavailable",
    "SignatureValidationFailed",
)


@dataclass(frozen=True)
class JobSettings:
    """The part that all Jobs have in common. `installation` is the one that they belong to.

    `egress` is None without an egress gateway: pods then reach whatever the cluster lets them reach.
    """

    api_url: str
    installation: str = ""
    egress: EgressSettings | None = None
    ca_certificates: str = ""
    """The CAs of the platform's own servers, as PEM. They are public."""
    grace_seconds: int = 30
    scratch: str = "64Mi"


def desired_job(launch: AttemptLaunch, settings: JobSettings, addresses: Addresses = NO_ADDRESSES) -> dict[str, Any]:
    """Return the attempt's Job. It runs one pod once, because the registry decides about retries.

    `addresses` are those of the hosts that the pod reaches without a name server, by host.
    """
    metadata = _metadata(launch, settings)
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": metadata,
        "spec": {
            "backoffLimit": 0,
            "completions": 1,
            "parallelism": 1,
            "activeDeadlineSeconds": max(1, int(launch.spec.timeout.seconds)),
            "podReplacementPolicy": "Failed",
            "template": {"metadata": {"labels": metadata["labels"]}, "spec": _pod(launch, settings, addresses)},
        },
    }


def desired_network_policy(launch: AttemptLaunch, settings: JobSettings) -> JsonObject | None:
    """Return the NetworkPolicy of the attempt's pod, which has the Job's name; None without an egress gateway.

    The pod reaches what the settings' rules name, the run API and the gateway among them, and nothing reaches the pod.
    """
    if settings.egress is None:
        return None
    metadata = _metadata(launch, settings)
    selected = {name: metadata["labels"][name] for name in (LABEL_RUN, LABEL_ATTEMPT)}
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": metadata,
        "spec": {
            "podSelector": {"matchLabels": selected},
            "policyTypes": ["Ingress", "Egress"],
            "egress": list(settings.egress.rules),
        },
    }


def _metadata(launch: AttemptLaunch, settings: JobSettings) -> dict[str, Any]:
    labels = {
        "app.kubernetes.io/managed-by": "penstock",
        "app.kubernetes.io/component": "run",
        LABEL_RUN: launch.run_id,
        LABEL_ATTEMPT: str(launch.attempt),
        LABEL_CONNECTION: launch.connection,
        **({LABEL_INSTALLATION: settings.installation} if settings.installation else {}),
    }
    owner = {
        "apiVersion": f"{GROUP}/{API_VERSION}",
        "kind": "TenantConnection",
        "name": launch.connection,
        "uid": launch.connection_uid,
        "controller": True,
        "blockOwnerDeletion": False,
    }
    return {
        "name": launch.job_name,
        "namespace": launch.namespace,
        "labels": labels,
        "ownerReferences": [owner],
    }


MADE_BY_THE_API_SERVER = (
    *("controller-uid", "job-name"),
    *("batch.kubernetes.io/controller-uid", "batch.kubernetes.io/job-name"),
)
"""Labels of a Job's pods that hold the Job's own uid and name."""


@dataclass(frozen=True, slots=True)
class JobShape:
    """What tells whether a Job is the one that a launch would create.

    `owners` are kind, uid and whether it controls the Job; `labels` those of Penstock. `spec` is the whole spec as JSON, without
    the Job's own uid and name: it is equal in two Jobs that the API server made of one document, and in no others.
    """

    resource_version: str
    owners: tuple[tuple[str, str, bool], ...]
    labels: tuple[tuple[str, str], ...]
    spec: str

    @classmethod
    def of(cls, job: JsonObject) -> JobShape:
        """Return the shape of a Job, or of a document from which one is made."""
        document: Any = job
        metadata = document.get("metadata", {})
        owners = metadata.get("ownerReferences") or []
        whole = document.get("spec", {})
        template = whole.get("template", {})
        of_pods = template.get("metadata") or {}
        labels = of_pods.get("labels") or {}
        own_labels = {name: value for name, value in labels.items() if name not in MADE_BY_THE_API_SERVER}
        of_pods = {name: value for name, value in of_pods.items() if name != "creationTimestamp"} | {
            "labels": own_labels
        }
        spec = {**whole, "template": {**template, "metadata": of_pods}}
        spec.pop("selector", None)
        return cls(
            resource_version=metadata.get("resourceVersion", ""),
            owners=tuple(
                (owner.get("kind", ""), owner.get("uid", ""), bool(owner.get("controller"))) for owner in owners
            ),
            labels=tuple(
                sorted(
                    (name, value)
                    for name, value in (metadata.get("labels") or {}).items()
                    if name.startswith((f"{GROUP}/", "app.kubernetes.io/"))
                )
            ),
            spec=json.dumps(spec, sort_keys=True),
        )


def rehearsal_of(job: JsonObject) -> JsonObject:
    """Return the document of a Job under another name, to be created without effect while the Job exists."""
    document: Any = job
    metadata = document.get("metadata", {})
    return {**document, "metadata": {**metadata, "name": f"{metadata.get('name')}-dry"}}


def _pod(launch: AttemptLaunch, settings: JobSettings, addresses: Addresses) -> dict[str, Any]:
    token = {"path": "token", "audience": TOKEN_AUDIENCE, "expirationSeconds": 3600}
    secret = launch.spec.secret_ref
    return {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": settings.grace_seconds,
        **(_without_name_server(addresses) if settings.egress else {}),
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": 10001,
            "runAsGroup": 10001,
            "fsGroup": 10001,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "volumes": [
            {"name": "tmp", "emptyDir": {"medium": "Memory", "sizeLimit": settings.scratch}},
            {"name": "token", "projected": {"sources": [{"serviceAccountToken": token}]}},
            *([_credentials_volume(secret.name, launch.manifest.credentials())] if secret else []),
        ],
        "containers": [_container(launch, settings)],
    }


def _container(launch: AttemptLaunch, settings: JobSettings) -> dict[str, Any]:
    limits = {"memory": launch.memory, "cpu": launch.spec.resources.limits.cpu}
    return {
        "name": "connector",
        "image": launch.image,
        "imagePullPolicy": "IfNotPresent",
        "env": _environment(launch, settings),
        "resources": {"limits": limits, "requests": _requests(limits)},
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [
            {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 - the pod's own tmpfs
            {"name": "token", "mountPath": TOKEN_DIRECTORY, "readOnly": True},
            *(
                [{"name": CREDENTIALS, "mountPath": CREDENTIALS_DIRECTORY, "readOnly": True}]
                if launch.spec.secret_ref
                else []
            ),
        ],
    }


def _without_name_server(addresses: Addresses) -> dict[str, Any]:
    """Return the part of a pod that leaves it without a name server: the gateway resolves the names of sources.

    A name that a pod looks up can carry data to whoever serves the name.
    """
    return {
        "dnsPolicy": "None",
        "dnsConfig": {"nameservers": ["127.0.0.1"]},
        "hostAliases": [{"ip": address, "hostnames": [host]} for host, address in sorted(addresses.items())],
    }


def _requests(limits: dict[str, str]) -> dict[str, str]:
    """Return the requests: all of the memory, which cannot be taken back, and a little of the CPU, which can."""
    cpu = limits["cpu"]
    millis = float(cpu[:-1]) if cpu.endswith("m") else float(cpu) * 1000
    return {"memory": limits["memory"], "cpu": f"{min(50, int(millis))}m"}


def _environment(launch: AttemptLaunch, settings: JobSettings) -> list[dict[str, Any]]:
    values = {
        API_URL_VARIABLE: settings.api_url,
        RUN_ID_VARIABLE: launch.run_id,
        ATTEMPT_VARIABLE: str(launch.attempt),
        TOKEN_FILE_VARIABLE: f"{TOKEN_DIRECTORY}/token",
        CONNECTOR_VARIABLE: launch.manifest.artifact,
        **({CA_CERTIFICATES_VARIABLE: settings.ca_certificates} if settings.ca_certificates else {}),
        **({SOURCE_CA_VARIABLE: launch.spec.tls.ca_certificates} if launch.spec.tls else {}),
        **({CREDENTIALS_DIRECTORY_VARIABLE: CREDENTIALS_DIRECTORY} if launch.spec.secret_ref else {}),
        **({EGRESS_URL_VARIABLE: settings.egress.url} if settings.egress else {}),
        **({EGRESS_BUCKET_VARIABLE: "direct"} if settings.egress and settings.egress.bucket_is_direct else {}),
    }
    return [{"name": name, "value": value} for name, value in values.items()]


def _credentials_volume(secret: str, credentials: dict[str, bool]) -> dict[str, Any]:
    """Return the volume with one file for each credential. Kubernetes itself reports the required one that is missing."""
    sources = [
        {"secret": {"name": secret, "items": [{"key": name, "path": name}], "optional": not required}}
        for name, required in credentials.items()
    ]
    return {"name": CREDENTIALS, "projected": {"defaultMode": READABLE_BY_GROUP, "sources": sources}}


def is_over(job: dict[str, Any]) -> bool:
    """Return True if the Job has ended, or is about to end."""
    conditions = job.get("status", {}).get("conditions", [])
    return any(condition["status"] == "True" and condition["type"] in ENDED for condition in conditions)


def observe_job(job: dict[str, Any] | None, pod: dict[str, Any] | None) -> AttemptObservation:
    """Return the state of an attempt from its Job and pod. The pod is needed only if the Job failed or has not started."""
    if job is None:
        return AttemptObservation("gone", "AttemptLost", "the attempt's Job was deleted", disrupted=True)
    conditions = {
        condition["type"]: condition
        for condition in job.get("status", {}).get("conditions", [])
        if condition["status"] == "True"
    }
    if "Complete" in conditions:
        return AttemptObservation("succeeded")
    failed = conditions.get("Failed") or conditions.get("FailureTarget")
    if failed:
        return _failure(failed, pod, job)
    if "Suspended" in conditions:
        return AttemptObservation(
            "waiting", "PodPending", f"the Job is suspended: {conditions['Suspended'].get('message', '')}"
        )
    if pod is None:
        return AttemptObservation("active" if job.get("status", {}).get("active") else "waiting")
    return _waiting(pod)


def told_by(seen: AttemptObservation, warning: str, *, has_pod: bool) -> AttemptObservation:
    """Return the observation with the message of the newest warning about the pod, or about a Job without a pod."""
    if not warning:
        return seen
    if not has_pod:
        return refused_pod(warning)
    if seen.reason == "ImagePullFailed":
        return _image_fault(warning)
    if missing := MISSING_CREDENTIAL.search(warning):
        return _missing_credential(missing[1])
    return AttemptObservation("waiting", seen.reason or "PodPending", warning)


def _missing_credential(cause: str) -> AttemptObservation:
    """Return what it means that a kubelet cannot mount the credentials: the Secret or one of its keys is missing."""
    words = f"spec.secretRef: {cause.strip()}; create it in the connection's namespace"
    return AttemptObservation("waiting", "SecretNotFound", words, "ConfigError")


def wants_words(seen: AttemptObservation) -> bool:
    """Return True if the pod waits and its status has no message or no cause, which a warning may have."""
    return seen.state == "waiting" and not seen.final and (not seen.message or _lacks_cause(seen))


def _lacks_cause(seen: AttemptObservation) -> bool:
    return (
        seen.reason == "ImagePullFailed"
        and "back-off pulling" in seen.message.lower()
        and seen.error_class != "ConfigError"
    )


def refused_pod(words: str) -> AttemptObservation:
    """Return the observation for a pod that could not be created. A full quota is temporary, a rule that refuses the pod is final."""
    if any(phrase in words for phrase in QUOTA_WORDS):
        return AttemptObservation("waiting", "QuotaExceeded", words)
    if any(phrase in words for phrase in REFUSING_WORDS) and not any(phrase in words for phrase in PASSING_WORDS):
        return AttemptObservation(
            "waiting", "LaunchRefused", f"Kubernetes refuses the run's pod: {words}", "ConfigError", final=True
        )
    return AttemptObservation("waiting", "PodPending", words)


def as_noted(words: str, job_name: str) -> str:
    """Return a message of Kubernetes, shortened, and without the suffix of a pod's name, which differs for each pod."""
    return re.sub(rf"{re.escape(job_name)}-[a-z0-9]{{5}}\b", job_name, words)[:LONGEST_WORDS]


def _terminated(pod: dict[str, Any] | None) -> dict[str, Any]:
    statuses = (pod or {}).get("status", {}).get("containerStatuses") or [{}]
    return (statuses[0].get("state") or {}).get("terminated") or {}


def _failure(condition: dict[str, Any], pod: dict[str, Any] | None, job: dict[str, Any]) -> AttemptObservation:
    if condition.get("reason") == "DeadlineExceeded":
        limit = job["spec"].get("activeDeadlineSeconds")
        message = f"the attempt ran longer than spec.timeout ({limit} s); raise it, or select fewer streams"
        return AttemptObservation("failed", "DeadlineExceeded", message, "TransientError")
    ended = _terminated(pod)
    code = ended.get("exitCode")
    if ended.get("reason") == "OOMKilled":
        limits = job["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"]
        message = f"the connector used more memory than spec.resources.limits.memory ({limits.get('memory')}); raise it"
        return AttemptObservation("failed", "OutOfMemory", message, "DefectError", code)
    why = (pod or {}).get("status", {}).get("message") or ""
    if any(words in why for words in OWN_FAULTS):
        message = f"the attempt's pod was evicted for what it used itself: {why}"
        return AttemptObservation("failed", "LocalPersistenceError", message, "LocalPersistenceError", code)
    if pod is None or _disrupted(pod) or code in TAKEN_AWAY:
        two = "Kubernetes made two for the attempt, and ended both when one was refused"
        why = why or (two if code == FENCED_EXIT else "its node went away, or it was evicted or killed")
        return AttemptObservation(
            "failed", "AttemptLost", f"the attempt's pod was taken away: {why}", exit_code=code, disrupted=True
        )
    if code == AttemptUnauthenticated.exit_code:
        return token_refused()
    error_class = ERROR_CLASS_BY_EXIT_CODE.get(code or 1, "DefectError")
    message = f"the connector ended with exit code {code} and did not say why; its log's end may: {_tail(ended)}"
    return AttemptObservation("failed", error_class, message, error_class, code)


def token_refused() -> AttemptObservation:
    """Return the observation for a token that the run API does not know. It is no defect of the connector."""
    message = (
        "the run API refused the attempt's token: check that PENSTOCK_API_URL leads to the server of this registry,"
        " that the server may create TokenReviews, and the clocks; the attempt's log has the server's words"
    )
    code = AttemptUnauthenticated.exit_code
    return AttemptObservation("failed", "TokenRefused", message, "TransientError", code)


def _tail(ended: dict[str, Any]) -> str:
    lines = (ended.get("message") or "").strip().splitlines()
    return lines[-1][:300] if lines else "(no output)"


def _disrupted(pod: dict[str, Any] | None) -> bool:
    status = (pod or {}).get("status", {})
    conditions = {condition["type"] for condition in status.get("conditions", []) if condition["status"] == "True"}
    return "DisruptionTarget" in conditions or status.get("reason") in DISRUPTIONS


def _running(pod: dict[str, Any]) -> AttemptObservation:
    """Return whether the node of a running pod answers: a pod without probes is not ready only if its node does not answer."""
    ready = next(
        (condition for condition in pod["status"].get("conditions", []) if condition["type"] == "Ready"),
        {"status": "True"},
    )
    if ready["status"] == "True" and not _disrupted(pod):
        return AttemptObservation("active")
    return AttemptObservation("active", "AttemptLost", "its node does not answer", disrupted=True)


def _waiting(pod: dict[str, Any]) -> AttemptObservation:
    statuses = pod.get("status", {}).get("containerStatuses") or [{}]
    state = statuses[0].get("state") or {}
    if "running" in state:
        return _running(pod)
    if state:
        waiting = state.get("waiting") or {}
        return _waiting_container(waiting.get("reason", ""), waiting.get("message", ""))
    scheduled: dict[str, Any] = next(
        (condition for condition in pod.get("status", {}).get("conditions", []) if condition["type"] == "PodScheduled"),
        {},
    )
    if scheduled.get("status") == "False":
        return AttemptObservation("waiting", "Unschedulable", scheduled.get("message") or scheduled.get("reason", ""))
    return AttemptObservation("waiting", "PodPending")


def _waiting_container(reason: str, message: str) -> AttemptObservation:
    """Return the observation for a container that the kubelet has not started."""
    if reason == "CreateContainerConfigError" and "secret" in message.lower():
        words = f"spec.secretRef: {message}; create it in the connection's namespace"
        return AttemptObservation("waiting", "SecretNotFound", words, "ConfigError")
    if reason == "CreateContainerConfigError":
        words = f"Kubernetes refuses the run's container: {message}"
        return AttemptObservation("waiting", "LaunchRefused", words, "ConfigError", final=True)
    if reason in ("InvalidImageName", "ErrImageNeverPull"):
        words = f"the definition's image: {message}"
        return AttemptObservation("waiting", "ImagePullFailed", words, "ConfigError", final=True)
    if reason in IMAGE_FAULTS:
        return _image_fault(message or BACK_OFF)
    return AttemptObservation("waiting", "PodPending", message or ("" if reason in STARTING else reason))


def _image_fault(words: str) -> AttemptObservation:
    """Return the observation for an image that is not pulled. A refusal of the registry is final, an unreachable registry is not."""
    lowered = words.lower()
    refused = any(phrase in lowered for phrase in REGISTRY_REFUSALS)
    message = f"the definition's image: {words}"
    return AttemptObservation("waiting", "ImagePullFailed", message, "ConfigError" if refused else "TransientError")
