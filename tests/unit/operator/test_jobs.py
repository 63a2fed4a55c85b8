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


@pytest.mark.parametrize(
    "status",
    [
        {"reason": "Evicted", "message": "The node was low on resource: memory."},
        {"reason": "NodeLost"},
        {"reason": "Preempting", "message": "Preempted in order to admit critical pod"},
        {"reason": "Terminated", "message": "Pod was terminated in response to imminent node shutdown."},
        {"reason": "OutOfmemory", "message": "Pod was rejected: Node didn't have enough resource: memory"},
        {"reason": "UnexpectedAdmissionError"},
        {"conditions": [{"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI"}]},
        {"conditions": [{"type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler"}]},
        {"conditions": [{"type": "DisruptionTarget", "status": "True", "reason": "DeletionByTaintManager"}]},
    ],
)
@pytest.mark.parametrize("code", [None, 1, 137, 143])
def test_what_the_platform_takes_away_is_no_failure(status: dict[str, Any], code: int | None) -> None:
    pod = {"status": {**(ended(code)["status"] if code is not None else {}), **status}}
    seen = observe_job(failed("BackoffLimitExceeded"), pod)
    assert (seen.state, seen.reason, seen.disrupted) == ("failed", "AttemptLost", True)


def test_a_pod_that_was_deleted_with_its_node_is_a_disruption() -> None:
    assert observe_job(failed("BackoffLimitExceeded"), None).disrupted


@pytest.mark.parametrize("code", [31, 137, 143])
def test_an_attempt_that_was_killed_or_told_to_stop_is_a_disruption(code: int) -> None:
    seen = observe_job(failed("BackoffLimitExceeded"), ended(code))
    assert (seen.reason, seen.disrupted, seen.exit_code) == ("AttemptLost", True, code)


def test_a_second_pod_of_the_attempt_that_was_refused_is_a_disruption() -> None:
    """A Job controller that lost the answer to its creation of a pod makes another."""
    seen = observe_job(failed("BackoffLimitExceeded"), ended(32))
    assert (seen.state, seen.reason, seen.disrupted) == ("failed", "AttemptLost", True)
    assert "two for the attempt" in seen.message


def test_memory_goes_before_a_disruption() -> None:
    pod = ended(137, "OOMKilled", conditions=[{"type": "DisruptionTarget", "status": "True"}])
    assert not observe_job(failed("BackoffLimitExceeded"), pod).disrupted


@pytest.mark.parametrize(
    "message",
    [
        'Usage of EmptyDir volume "tmp" exceeds the limit "64Mi".',
        "Pod ephemeral local storage usage exceeds the total limit of containers 1Gi.",
        "Container connector exceeded its local ephemeral storage limit 1Gi.",
    ],
)
def test_an_eviction_for_what_the_pod_itself_wrote_is_its_own_fault(message: str) -> None:
    seen = observe_job(failed("BackoffLimitExceeded"), {"status": {"reason": "Evicted", "message": message}})
    assert (seen.reason, seen.error_class, seen.disrupted) == ("LocalPersistenceError", "LocalPersistenceError", False)
    assert message in seen.message


@pytest.mark.parametrize("reason", ["ErrImagePull", "ImagePullBackOff", "ImageInspectError", "RegistryUnavailable"])
def test_an_image_that_cannot_be_pulled_waits_with_its_reason(reason: str) -> None:
    seen = observe_job(JOB, waiting(reason, "not found"))
    assert (seen.state, seen.reason, seen.error_class, seen.final) == (
        "waiting",
        "ImagePullFailed",
        "ConfigError",
        False,
    )


@pytest.mark.parametrize("reason", ["InvalidImageName", "ErrImageNeverPull"])
def test_an_image_that_no_pull_can_bring_is_final(reason: str) -> None:
    assert observe_job(JOB, waiting(reason)).final


@pytest.mark.parametrize(("ready", "silent"), [("True", "active"), ("False", "silent"), ("Unknown", "silent")])
def test_a_running_pod_that_is_not_ready_has_a_node_that_does_not_answer(ready: str, silent: str) -> None:
    status = {"containerStatuses": [{"state": {"running": {}}}], "conditions": [{"type": "Ready", "status": ready}]}
    seen = observe_job(JOB, {"status": status})
    assert (seen.state, seen.disrupted) == ("active", silent == "silent")


def test_a_container_that_cannot_be_created_says_why_it_waits() -> None:
    seen = observe_job(JOB, waiting("CreateContainerError", "no such user"))
    assert (seen.state, seen.message, seen.final) == ("waiting", "no such user", False)


def test_an_evicted_pod_is_a_disruption() -> None:
    pod = {"status": {"reason": "Evicted", "message": "the node was low on memory"}}
    seen = observe_job(failed("BackoffLimitExceeded"), pod)
    assert seen.disrupted
    assert "low on memory" in seen.message
