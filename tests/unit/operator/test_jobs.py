"""What a Job looks like, and what a Job's and a pod's status mean."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from penstock_operator.ids import AttemptNumber, ConnectionName, ConnectionUid, DefinitionName, Namespace, RunId
from penstock_operator.launchers import AttemptLaunch
from penstock_operator.launchers.jobs import (
    JobSettings,
    as_noted,
    desired_job,
    observe_job,
    refused_pod,
    told_by,
    wants_words,
)

from tests.unit.operator.conftest import manifest, run_spec

CREDENTIALS = [{"name": "username", "required": False}, {"name": "password"}]
MANIFEST = manifest("postgres", "sql", {"type": "basic", "credentials": CREDENTIALS})
SPEC = run_spec(timeout="90s", secretRef={"name": "db"}, resources={"limits": {"memory": "64Mi", "cpu": "1"}})
LAUNCH = AttemptLaunch(
    RunId("r1"),
    AttemptNumber(2),
    "penstock-r1-2",
    None,
    Namespace("team"),
    ConnectionName("orders"),
    ConnectionUid("uid"),
    DefinitionName("d"),
    "image@sha256:0",
    SPEC,
    "64Mi",
    MANIFEST,
)
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
    volumes = {volume["name"]: volume for volume in JOB["spec"]["template"]["spec"]["volumes"]}
    sources = [source["secret"] for source in volumes["credentials"]["projected"]["sources"]]
    assert sources == [
        {"name": "db", "items": [{"key": "username", "path": "username"}], "optional": True},
        {"name": "db", "items": [{"key": "password", "path": "password"}], "optional": False},
    ]


def test_credentials_are_files_and_no_variable_holds_one() -> None:
    pod = JOB["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert all(set(variable) == {"name", "value"} for variable in container["env"])
    (mount,) = [mount for mount in container["volumeMounts"] if mount["name"] == "credentials"]
    variables = {variable["name"]: variable["value"] for variable in container["env"]}
    assert variables["PENSTOCK_CREDENTIALS_DIRECTORY"] == mount["mountPath"]
    assert mount["readOnly"]
    (volume,) = [volume for volume in pod["volumes"] if volume["name"] == "credentials"]
    assert volume["projected"]["defaultMode"] == 0o440
    assert pod["securityContext"]["fsGroup"] == pod["securityContext"]["runAsGroup"]


def test_a_connection_without_a_secret_mounts_none() -> None:
    job = desired_job(replace(LAUNCH, spec=run_spec()), JobSettings("http://api"))
    assert "credentials" not in str(job)


@pytest.mark.parametrize(
    ("cause", "words"),
    [
        ('secret "db" not found', 'spec.secretRef: secret "db" not found; create it'),
        (
            "references non-existent secret key: password",
            "spec.secretRef: references non-existent secret key: password;",
        ),
    ],
)
def test_a_secret_that_cannot_be_mounted_is_named(cause: str, words: str) -> None:
    seen = observe_job(JOB, waiting("ContainerCreating"))
    assert wants_words(seen)
    told = told_by(seen, f'MountVolume.SetUp failed for volume "credentials" : {cause}', has_pod=True)
    assert (told.state, told.reason, told.error_class) == ("waiting", "SecretNotFound", "ConfigError")
    assert told.message.startswith(words)
    other = told_by(seen, f'MountVolume.SetUp failed for volume "token" : {cause}', has_pod=True)
    assert other.reason == "PodPending"


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


POD = 'Error creating: pods "penstock-r1-2-x7k2p" is forbidden: '
FINAL = (
    POD + "maximum memory usage per Container is 64Mi, but limit is 512Mi",
    POD + "minimum cpu usage per Pod is 100m, but request is 50m",
    POD + "memory max limit to request ratio per Container is 1, but provided ratio is 2.000000",
    POD + "failed quota: strict: must specify limits.ephemeral-storage for: connector",
    POD + 'violates PodSecurity "restricted:latest": runAsNonRoot != true',
    POD + "ValidatingAdmissionPolicy 'signed' with binding 'all' denied request: the image is not signed",
    'Error creating: admission webhook "policy.example" denied the request: no',
    'Error creating: Pod "penstock-r1-2-x7k2p" is invalid: spec.containers[0].image: Required value',
)
QUOTA = (
    POD + "exceeded quota: few, requested: pods=1, used: pods=0, limited: pods=0",
    POD + "exceeded quota: small, requested: limits.memory=512Mi, used: limits.memory=0, limited: limits.memory=256Mi",
    POD + "status unknown for quota: new, resources: limits.memory",
)
PASSING = (
    POD + 'error looking up service account team/default: serviceaccount "default" not found',
    POD + "unable to create new content in namespace team because it is being terminated",
    'Error creating: Internal error occurred: failed calling webhook "policy.example": connection refused',
    "Error creating: etcdserver: request timed out",
)


@pytest.mark.parametrize("words", FINAL)
def test_what_a_rule_refuses_stays_refused(words: str) -> None:
    seen = refused_pod(words)
    assert (seen.reason, seen.error_class, seen.final) == ("LaunchRefused", "ConfigError", True)
    assert words in seen.message


@pytest.mark.parametrize("words", QUOTA)
def test_a_quota_may_have_room_again(words: str) -> None:
    seen = refused_pod(words)
    assert (seen.reason, seen.message, seen.final) == ("QuotaExceeded", words, False)


@pytest.mark.parametrize("words", PASSING)
def test_what_may_pass_is_waited_for_in_its_words(words: str) -> None:
    seen = refused_pod(words)
    assert (seen.reason, seen.message, seen.final) == ("PodPending", words, False)


def pod_condition(status: str, message: str) -> dict[str, Any]:
    return {"status": {"conditions": [{"type": "PodScheduled", "status": status, "message": message}]}}


def test_a_pod_that_no_node_takes_says_so_in_the_schedulers_words() -> None:
    words = "0/1 nodes are available: 1 node(s) had untolerated taint {gpu: true}"
    seen = observe_job(JOB, pod_condition("False", words))
    assert (seen.state, seen.reason, seen.message) == ("waiting", "Unschedulable", words)
    assert not wants_words(seen)


def test_a_container_that_is_being_made_is_asked_for_its_warnings() -> None:
    seen = observe_job(JOB, waiting("ContainerCreating"))
    assert wants_words(seen)
    told = told_by(seen, "Failed to create pod sandbox: no IP addresses available", has_pod=True)
    assert (told.reason, told.message, told.final) == (
        "PodPending",
        "Failed to create pod sandbox: no IP addresses available",
        False,
    )


@pytest.mark.parametrize(
    ("words", "error_class"),
    [
        ('Failed to pull image "x@sha256:0": rpc error: code = NotFound desc = x@sha256:0: not found', "ConfigError"),
        ('Failed to pull image "x": failed to authorize: 401 Unauthorized', "ConfigError"),
        ('Failed to pull image "x": pull access denied, repository does not exist', "ConfigError"),
        ('Failed to pull image "x": dial tcp 10.0.0.1:443: connect: connection refused', "TransientError"),
        ('Failed to pull image "x": unexpected status: 503 Service Unavailable', "TransientError"),
        ('Failed to pull image "x": net/http: TLS handshake timeout', "TransientError"),
    ],
)
def test_a_registry_that_refuses_is_another_thing_than_one_that_is_away(words: str, error_class: str) -> None:
    backing_off = observe_job(JOB, waiting("ImagePullBackOff", 'Back-off pulling image "x"'))
    assert wants_words(backing_off)
    told = told_by(backing_off, words, has_pod=True)
    assert (told.reason, told.error_class) == ("ImagePullFailed", error_class)
    assert words in told.message


def test_a_container_that_kubernetes_refuses_for_another_reason_than_its_secret_is_final() -> None:
    words = "container has runAsNonRoot and image has non-numeric user (app), cannot verify user is non-root"
    seen = observe_job(JOB, waiting("CreateContainerConfigError", words))
    assert (seen.reason, seen.final) == ("LaunchRefused", True)


def test_a_missing_secret_is_waited_for() -> None:
    """Whoever brings it, such as an operator for external secrets, may come after the connection."""
    assert not observe_job(JOB, waiting("CreateContainerConfigError", 'secret "db" not found')).final


def test_a_job_without_a_pod_waits_and_one_with_a_pod_that_does_not_wait_runs() -> None:
    assert observe_job({**JOB, "status": {}}, None).state == "waiting"
    assert observe_job({**JOB, "status": {"active": 1}}, None).state == "active"


def test_a_job_that_another_controller_holds_back_says_so() -> None:
    held = {"conditions": [{"type": "Suspended", "status": "True", "message": "Job suspended"}]}
    seen = observe_job({**JOB, "status": held}, None)
    assert (seen.state, seen.reason) == ("waiting", "PodPending")


def test_words_are_noted_without_what_differs_each_time() -> None:
    first, second = (POD.replace("x7k2p", end) + "exceeded quota" for end in ("aaaaa", "b2b2b"))
    assert as_noted(first, "penstock-r1-2") == as_noted(second, "penstock-r1-2")


def test_the_pod_gets_the_cas_of_the_platform_and_those_of_its_source_apart() -> None:
    ca_certificates = "-----BEGIN CERTIFICATE-----\nsource"
    launch = replace(LAUNCH, spec=run_spec(tls={"caCertificates": ca_certificates}))
    job = desired_job(launch, JobSettings("https://api", ca_certificates="platform"))
    environment = {entry["name"]: entry["value"] for entry in job["spec"]["template"]["spec"]["containers"][0]["env"]}
    assert environment["PENSTOCK_CA_CERTIFICATES"] == "platform"
    assert environment["PENSTOCK_SOURCE_CA_CERTIFICATES"] == ca_certificates
    plain = {entry["name"] for entry in JOB["spec"]["template"]["spec"]["containers"][0]["env"]}
    assert not {name for name in plain if name.endswith("CA_CERTIFICATES")}
