"""Are the admission policies of the chart in the cluster, and as this version needs them? The controller looks now and then."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from http import HTTPStatus
from typing import NoReturn, Protocol

import structlog
from kubernetes.aio import client
from kubernetes.aio.client.exceptions import ApiException
from prometheus_client import Gauge

from penstock_operator.controller.health import Health
from penstock_operator.resources.models import GROUP

log = structlog.get_logger()
FAULTS = Gauge(
    "penstock_admission_policy_faults",
    "How many admission policies and bindings are missing or differ from this version's; -1 if it is not known",
)
VERSION_ANNOTATION, POLICY_VERSION = f"{GROUP}/policy-version", "1"
"""The chart writes this annotation on its policies and bindings. The number grows when a policy must change with the controller."""
PERIOD_SECONDS, RETRY_SECONDS = 600.0, 30.0
WARNING = "admission policies"
EFFECT = (
    "tenants can create pods and Jobs that look like those of runs, and the controller's rights have no limit beside RBAC;"
    " upgrade the chart to the version of the image, on Kubernetes 1.30 or newer, with admission.enabled=true"
)


class PolicyReader(Protocol):
    """Reads policies and bindings. Raises ApiException."""

    async def read_validating_admission_policy(self, name: str) -> client.V1ValidatingAdmissionPolicy:
        """Return a policy."""

    async def read_validating_admission_policy_binding(self, name: str) -> client.V1ValidatingAdmissionPolicyBinding:
        """Return a binding."""


async def policy_faults(reader: PolicyReader, names: Sequence[str]) -> list[str]:
    """Return one sentence for each policy and binding that is missing or has no effect. Raises ApiException."""
    return [
        fault
        for name in names
        for fault in (await _fault_of_policy(reader, name), await _fault_of_binding(reader, name))
        if fault
    ]


async def _fault_of_policy(reader: PolicyReader, name: str) -> str:
    try:
        policy = await reader.read_validating_admission_policy(name)
    except ApiException as error:
        return _missing(error, f"ValidatingAdmissionPolicy {name}")
    if policy.spec.failure_policy != "Fail":
        return f"ValidatingAdmissionPolicy {name} admits what it cannot evaluate: its failurePolicy is not Fail"
    return _other_version(policy.metadata, f"ValidatingAdmissionPolicy {name}")


async def _fault_of_binding(reader: PolicyReader, name: str) -> str:
    try:
        binding = await reader.read_validating_admission_policy_binding(name)
    except ApiException as error:
        return _missing(error, f"ValidatingAdmissionPolicyBinding {name}")
    spec = binding.spec
    if spec.policy_name != name or "Deny" not in (spec.validation_actions or []) or spec.match_resources is not None:
        return f"ValidatingAdmissionPolicyBinding {name} does not deny everything that the policy refuses"
    return _other_version(binding.metadata, f"ValidatingAdmissionPolicyBinding {name}")


def _missing(error: ApiException, what: str) -> str:
    if error.status != HTTPStatus.NOT_FOUND:
        raise error
    return f"{what} is missing"


def _other_version(metadata: client.V1ObjectMeta, what: str) -> str:
    found = (metadata.annotations or {}).get(VERSION_ANNOTATION)
    return "" if found == POLICY_VERSION else f"{what} has version {found}, and this controller needs {POLICY_VERSION}"


async def check_admission_policies(reader: PolicyReader, names: Sequence[str], health: Health) -> NoReturn:
    """Report by log, by metric and in the answers of the probes, again and again, which policies are missing."""
    FAULTS.set(-1)
    while True:
        known = await report_faults(reader, names, health)
        await asyncio.sleep(PERIOD_SECONDS if known else RETRY_SECONDS)


async def report_faults(reader: PolicyReader, names: Sequence[str], health: Health) -> bool:
    """Report once; return False if the API server did not say which policies there are."""
    try:
        faults = await policy_faults(reader, names)
    except Exception as error:  # noqa: BLE001 - the API server may be unreachable for a while, or forbid it
        FAULTS.set(-1)
        log.warning("admission policies not checked", error=f"{type(error).__name__}: {error}")
        return False
    FAULTS.set(len(faults))
    health.warn(WARNING, "; ".join(faults))
    if faults:
        log.warning("admission policies missing", faults=faults, effect=EFFECT)
    else:
        log.info("admission policies in place", policies=list(names))
    return True
