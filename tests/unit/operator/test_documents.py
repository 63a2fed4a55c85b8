"""Documents of resources as typed values: parsing never fails, and a status is patched to exactly what it is to be."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from penstock_operator.resources.conditions import Finding, conditions_for
from penstock_operator.resources.crds import defaulted
from penstock_operator.resources.documents import Connection, Definition, status_document
from penstock_operator.resources.models import RESET_STATE, ConnectionStatus, LastRun
from penstock_operator.runs.commit_manifest import CommitManifest, parse_commit_manifest

from tests.integration.world import MANIFEST
from tests.unit.operator.test_statuses import merged

SPEC: dict[str, Any] = {"connector": {"name": "faker", "method": "generate"}}
METADATA: dict[str, Any] = {"name": "orders", "namespace": "team", "uid": "c1", "generation": 3, "resourceVersion": "7"}
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=8,
)
FIELDS = st.sampled_from(["spec", "status", "apiVersion"])
METADATA_FIELDS = st.sampled_from(["labels", "annotations", "managedFields", "namespace", "resourceVersion"])


def document(**fields: Any) -> dict[str, Any]:
    kind = {"apiVersion": "penstock.io/v1alpha1", "kind": "TenantConnection"}
    return {**kind, "metadata": METADATA, "spec": SPEC, **fields}


def test_the_spec_has_the_defaults_of_the_crd_and_says_so_when_it_is_recorded() -> None:
    connection = Connection.parse(document())
    assert connection.problems == []
    assert connection.spec.document() == defaulted(document())["spec"]
    assert (connection.uid, connection.namespace, connection.name) == ("c1", "team", "orders")
    assert (connection.key, connection.metadata.version) == (("TenantConnection", "team", "orders"), "7")


@given(st.dictionaries(FIELDS, ANYTHING), st.dictionaries(METADATA_FIELDS, ANYTHING))
def test_no_document_fails_to_parse(fields: dict[str, Any], metadata: dict[str, Any]) -> None:
    made = document(metadata={**METADATA, **metadata}, **fields)
    connection = Connection.parse(made)
    definition = Definition.parse({**made, "kind": "ConnectorDefinition"})
    assert definition.problems
    assert isinstance(connection.problems, list)


def test_an_invalid_value_counts_as_left_out_and_is_named() -> None:
    connection = Connection.parse(document(spec={**SPEC, "timeout": 5, "suspend": True}))
    assert connection.spec.suspend
    assert connection.spec.timeout == "2h"
    assert ["spec.timeout" in problem for problem in connection.problems] == [True]


def test_a_manifest_is_recorded_as_its_document_is() -> None:
    spec = {"image": f"i@sha256:{'0' * 64}", "stage": "certified", "manifest": MANIFEST}
    metadata = {"name": "faker-generate-0.1.0"}
    made = document(kind="ConnectorDefinition", metadata=metadata, spec=spec)
    definition = Definition.parse(made)
    assert definition.problems == []
    assert definition.spec is not None
    recorded = definition.spec.manifest.model_dump(by_alias=True, exclude_unset=True)
    assert recorded == defaulted(made)["spec"]["manifest"]


def test_who_set_an_annotation_is_known_where_the_api_server_tells() -> None:
    fields: dict[str, Any] = {"f:metadata": {"f:annotations": {f"f:{RESET_STATE}": {}}}}
    managed = [{"manager": "kubectl-annotate", "fieldsV1": fields}]
    metadata = {**METADATA, "annotations": {RESET_STATE: "t1", "other": 5}, "managedFields": managed}
    parsed = Connection.parse(document(metadata=metadata)).metadata
    assert parsed.annotations == {RESET_STATE: "t1", "other": "5"}
    assert parsed.managers == {RESET_STATE: "kubectl-annotate"}


@pytest.mark.parametrize(
    "before",
    [{}, {"alerts": "many"}, {"lastRun": {"id": "r0", "finishedAt": "then"}}, {"conditions": [{"reason": "Gone"}]}],
)
def test_a_patch_makes_the_status_whatever_another_release_left_there(before: dict[str, Any]) -> None:
    finding = Finding("stalled", "InvalidSpec", "spec.timeout: is wrong")
    conditions = conditions_for(finding, 3, [], datetime(2026, 5, 1, tzinfo=UTC))
    status = ConnectionStatus(conditions=conditions, last_run=LastRun(id="r1", phase="pending"), alerts=0)
    connection = Connection.parse(document(status=before))
    assert not connection.shows(status)
    patch = connection.status_patch(status)
    assert patch["metadata"] == {"resourceVersion": "7"}
    assert merged(before, patch["status"]) == status_document(status)
    assert connection.with_status(status, "8").shows(status)


def test_a_commit_manifest_is_read_as_it_was_written() -> None:
    written = {"key": "k", "stream": "s", "generation": 1, "attempt": 1, "sequence": 1, "checkpoint": 1, "records": 3}
    manifest = CommitManifest.model_validate(
        {
            "run": "r1",
            "phase": "succeeded",
            "tenant": "team",
            "connection": "orders",
            "definition": "d",
            "records": 3,
            "bytes": 5,
            "finished_at": "2026-05-01T00:00:00+00:00",
            "objects": [{**written, "deletes": None, "bytes": 5, "sha256": "0", "schema_version": 1}],
            "rejected": [],
            "states": [],
            "schemas": [],
            "registry": {
                "installation": "i",
                "connection_uid": "c1",
                "namespace_uid": None,
                "first_generation": 1,
                "connector": {"name": "faker"},
                "bronze": {},
                "trigger": "schedule",
                "token": None,
                "attempt": 1,
                "reason": "RunSucceeded",
                "error_class": None,
                "message": "",
                "scheduled_at": None,
                "created_at": "2026-05-01T00:00:00+00:00",
                "started_at": None,
            },
        }
    )
    document = manifest.document()
    assert document["finished_at"] == "2026-05-01T00:00:00+00:00"
    assert "window" not in document
    assert parse_commit_manifest(json.dumps(document).encode(), manifest.run) == manifest
