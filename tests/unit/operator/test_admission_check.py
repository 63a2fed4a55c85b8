"""The controller says which admission policies are missing, of another version, or without effect."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from kubernetes.aio.client import AdmissionregistrationV1Api, ApiClient, Configuration
from kubernetes.aio.client.exceptions import ApiException
from penstock_operator.controller.admission_check import (
    POLICY_VERSION,
    VERSION_ANNOTATION,
    WARNING,
    policy_faults,
    report_faults,
)
from penstock_operator.controller.health import Health
from prometheus_client import REGISTRY
from pytest_httpserver import HTTPServer

GROUP = "/apis/admissionregistration.k8s.io/v1"
NAME = "runs.penstock.io"


@pytest.fixture
async def reader(httpserver: HTTPServer) -> AsyncIterator[AdmissionregistrationV1Api]:
    async with ApiClient(Configuration(host=httpserver.url_for("").rstrip("/"))) as api:
        yield AdmissionregistrationV1Api(api)


def policy(version: str | None = POLICY_VERSION, **spec: Any) -> dict[str, Any]:
    annotations = {VERSION_ANNOTATION: version} if version else {}
    return {"metadata": {"name": NAME, "annotations": annotations}, "spec": {"failurePolicy": "Fail", **spec}}


def binding(version: str = POLICY_VERSION, **spec: Any) -> dict[str, Any]:
    whole = {"policyName": NAME, "validationActions": ["Deny"], **spec}
    return {"metadata": {"name": NAME, "annotations": {VERSION_ANNOTATION: version}}, "spec": whole}


def answer(server: HTTPServer, plural: str, document: dict[str, Any] | None, status: int = 404) -> None:
    request = server.expect_request(f"{GROUP}/{plural}/{NAME}")
    if document is None:
        request.respond_with_json({"kind": "Status", "code": status}, status)
    else:
        request.respond_with_json(document)


@pytest.mark.parametrize(
    ("found", "bound", "faults"),
    [
        (policy(), binding(), []),
        (None, binding(), ["ValidatingAdmissionPolicy runs.penstock.io is missing"]),
        (policy(), None, ["ValidatingAdmissionPolicyBinding runs.penstock.io is missing"]),
        (policy("0"), binding(), ["ValidatingAdmissionPolicy runs.penstock.io has version 0"]),
        (policy(None), binding(), ["ValidatingAdmissionPolicy runs.penstock.io has version None"]),
        (policy(failurePolicy="Ignore"), binding(), ["failurePolicy is not Fail"]),
        (policy(), binding("0"), ["ValidatingAdmissionPolicyBinding runs.penstock.io has version 0"]),
        (policy(), binding(validationActions=["Audit"]), ["does not deny"]),
        (policy(), binding(policyName="another"), ["does not deny"]),
        (policy(), binding(matchResources={"namespaceSelector": {}}), ["does not deny"]),
        (None, None, ["Policy runs.penstock.io is missing", "Binding runs.penstock.io is missing"]),
    ],
)
async def test_each_fault_is_named(
    reader: AdmissionregistrationV1Api,
    httpserver: HTTPServer,
    found: dict[str, Any] | None,
    bound: dict[str, Any] | None,
    faults: list[str],
) -> None:
    answer(httpserver, "validatingadmissionpolicies", found)
    answer(httpserver, "validatingadmissionpolicybindings", bound)
    told = await policy_faults(reader, [NAME])
    assert len(told) == len(faults)
    for sentence, part in zip(told, faults, strict=True):
        assert part in sentence


async def test_an_api_server_that_forbids_the_look_is_not_a_missing_policy(
    reader: AdmissionregistrationV1Api, httpserver: HTTPServer
) -> None:
    answer(httpserver, "validatingadmissionpolicies", None, 403)
    with pytest.raises(ApiException, match="403"):
        await policy_faults(reader, [NAME])


async def test_the_check_reports_where_operators_look(
    reader: AdmissionregistrationV1Api, httpserver: HTTPServer
) -> None:
    health = Health()
    answer(httpserver, "validatingadmissionpolicies", None)
    answer(httpserver, "validatingadmissionpolicybindings", None)
    assert await report_faults(reader, [NAME], health)
    assert "ValidatingAdmissionPolicy runs.penstock.io is missing" in health.warnings[WARNING]
    assert REGISTRY.get_sample_value("penstock_admission_policy_faults") == 2
    httpserver.clear()
    answer(httpserver, "validatingadmissionpolicies", None, 403)
    assert not await report_faults(reader, [NAME], health)
    assert REGISTRY.get_sample_value("penstock_admission_policy_faults") == -1
    httpserver.clear()
    answer(httpserver, "validatingadmissionpolicies", policy())
    answer(httpserver, "validatingadmissionpolicybindings", binding())
    assert await report_faults(reader, [NAME], health)
    assert health.warnings == {}
    assert REGISTRY.get_sample_value("penstock_admission_policy_faults") == 0
