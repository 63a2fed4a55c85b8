"""What a Job looks like, and what a Job's and a pod's status mean."""

from __future__ import annotations

from typing import Any

import pytest
from penstock_operator.launchers import Launch
from penstock_operator.launchers.jobs import JobSettings, desired_job, observe_job

MANIFEST = {
    "name": "postgres",
    "method": "sql",
    "authentication": {
        "methods": [{"type": "basic", "credentials": [{"name": "username", "required": False}, {"name": "password"}]}]
    },
}
SPEC = {"timeout": "90s", "secretRef": {"name": "db"}, "resources": {"limits": {"memory": "64Mi", "cpu": "1"}}}
LAUNCH = Launch("r1", 2, "penstock-r1-2", None, "team", "orders", "uid", "d", "image@sha256:0", SPEC, MANIFEST)
JOB = desired_job(LAUNCH, JobSettings("http://api"))


def failed(reason: str) -> dict[str, Any]:
    return {**JOB, "status": {"conditions": [{"type": "Failed", "status": "True", "reason": reason}]}}


def ended(code: int, reason: str = "Error", **status: Any) -> dict[str, Any]:
    return {
        "status": {"containerStatuses": [{"state": {"terminated": {"exitCode": code, "reason": reason}}}], **status}
    }


def waiting(reason: str, message: str = "") -> dict[str, Any]:
    return {"status": {"containerStatuses": [{"state": {"waiting": {"reason": reason, "message": message}}}]}}


def test_a_job_is_one_pod_once() -> None:
    assert JOB["spec"]["backoffLimit"] == 0
    assert JOB["spec"]["template"]["spec"]["restartPolicy"] == "Never"
    assert JOB["spec"]["activeDeadlineSeconds"] == 90
    assert "ttlSecondsAfterFinished" not in JOB["spec"], "only once the outcome is in the registry"


def test_a_required_credential_is_not_optional() -> None:
    variables = {each["name"]: each for each in JOB["spec"]["template"]["spec"]["containers"][0]["env"]}
    assert variables["PENSTOCK_CREDENTIAL_password"]["valueFrom"]["secretKeyRef"]["optional"] is False
    assert variables["PENSTOCK_CREDENTIAL_username"]["valueFrom"]["secretKeyRef"]["optional"] is True


@pytest.mark.parametrize(
    ("job", "pod", "state", "reason"),
    [
        (None, None, "gone", "AttemptLost"),
        ({**JOB, "status": {"conditions": [{"type": "Complete", "status": "True"}]}}, None, "succeeded", None),
        (failed("BackoffLimitExceeded"), ended(137, "OOMKilled"), "failed", "OutOfMemory"),
        (failed("DeadlineExceeded"), None, "failed", "DeadlineExceeded"),
        (failed("BackoffLimitExceeded"), ended(10), "failed", "ConfigError"),
        (failed("BackoffLimitExceeded"), ended(11), "failed", "AuthenticationError"),
        (failed("BackoffLimitExceeded"), ended(99), "failed", "DefectError"),
        (failed("BackoffLimitExceeded"), ended(33), "failed", "TokenRefused"),
        (failed("BackoffLimitExceeded"), ended(143), "failed", "AttemptLost"),
        (JOB, waiting("CreateContainerConfigError", 'secret "db" not found'), "waiting", "SecretNotFound"),
        (JOB, waiting("ImagePullBackOff"), "waiting", "ImagePullFailed"),
        (JOB, {"status": {"containerStatuses": [{"state": {"running": {}}}]}}, "active", None),
    ],
)
def test_a_status_has_one_meaning(job: Any, pod: Any, state: str, reason: str | None) -> None:
    seen = observe_job(job, pod)
    assert (seen.state, seen.reason) == (state, reason)


def test_an_evicted_pod_is_a_disruption() -> None:
    pod = {"status": {"reason": "Evicted", "message": "the node was low on memory"}}
    seen = observe_job(failed("BackoffLimitExceeded"), pod)
    assert seen.disrupted
    assert "low on memory" in seen.message
