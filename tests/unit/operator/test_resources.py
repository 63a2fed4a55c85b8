"""The CRDs and the check that speaks as the API server does."""

from __future__ import annotations

from importlib import resources
from typing import Any

import pytest
import yaml
from penstock_operator.resources.crds import crds, defaulted, resource_problems
from penstock_operator.resources.models import ConnectionSpec
from penstock_operator.resources.notations import Duration
from penstock_sdk.manifest import Manifest, config_problems, manifest_problems

CONNECTION: dict[str, Any] = {
    "apiVersion": "penstock.io/v1alpha1",
    "kind": "TenantConnection",
    "metadata": {"name": "orders", "namespace": "team"},
    "spec": {"connector": {"name": "postgres", "method": "sql"}},
}


def manifest(package: str) -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load((resources.files(package) / "connector.yaml").read_text())
    return document


@pytest.mark.parametrize("package", ["penstock_postgres_sql", "penstock_faker_generate"])
def test_every_shipped_manifest_is_valid(package: str) -> None:
    assert manifest_problems(manifest(package)) == []
    Manifest.model_validate(manifest(package))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"versoin": "1.0.0"}, 'unknown field "versoin"'),
        ({"version": "v1"}, "version: Invalid value: \"v1\": must be a semantic version such as '1.2.0'"),
        ({"name": "Postgres"}, "must be lower-case letters"),
        ({"method": "odbc"}, 'method: Unsupported value: "odbc": supported values: "rest"'),
        ({"stateVersion": 0}, "stateVersion in body should be greater than or equal to 1"),
        ({"runners": []}, "runners in body should have at least 1 items"),
        ({"configSchema": {"type": "objct"}}, "configSchema.type: Invalid value: not a JSON Schema"),
    ],
)
def test_a_wrong_manifest_is_refused_with_path_and_remedy(change: dict[str, Any], words: str) -> None:
    found = manifest_problems({**manifest("penstock_postgres_sql"), **change})
    assert len(found) == 1
    assert words in found[0]


def test_what_is_missing_is_named() -> None:
    document = manifest("penstock_postgres_sql")
    del document["compliance"]
    assert manifest_problems(document) == ["compliance: Required value"]


def test_a_config_is_checked_against_the_connectors_schema() -> None:
    schema = manifest("penstock_postgres_sql")["configSchema"]
    assert config_problems({"host": "h", "database": "d"}, schema) == []
    (problem,) = config_problems({"host": "h"}, schema)
    assert problem == "spec.config: add 'database': the connector requires it"
    (problem,) = config_problems({"host": "h", "database": "d", "port": "5432"}, schema)
    assert problem == "spec.config.port: must be of type integer"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"jitter": "25h"}, 'spec.jitter: Invalid value: "25h": must be at most 24h'),
        ({"timeout": "99999h"}, "spec.timeout: Invalid value: \"99999h\": must be a duration such as '30s'"),
        ({"jitter": "soon"}, "spec.jitter: Invalid value: \"soon\": must be a duration such as '30s'"),
        ({"concurrencyPolicy": "Queue"}, 'supported values: "Forbid", "Replace", "Allow"'),
        ({"after": [{"name": "a"}, {"name": "a"}]}, 'spec.after[1]: Duplicate value: {"name":"a"}'),
        ({"after": [{}]}, "spec.after[0].name: Required value"),
        ({"after": [{"name": "a"}], "schedule": "@daily"}, "set schedule or after, not both"),
        ({"resources": {"limits": {"memory": "much"}}}, "must be an amount of memory with its unit, such as '512Mi'"),
        ({"resources": {"limits": {"memory": "512"}}}, "a number without one is bytes"),
        ({"resources": {"limits": {"memory": "512m"}}}, "spec.resources.limits.memory"),
        ({"resources": {"limits": {"memory": "0Mi"}}}, "must be between 32Mi and 16Ti"),
        ({"resources": {"limits": {"memory": "0.001Gi"}}}, "must be between 32Mi and 16Ti"),
        ({"resources": {"limits": {"cpu": "0.0"}}}, "must be between 10m and 1024 cores"),
        ({"resources": {"limits": {"cpu": "0m"}}}, "must be between 10m and 1024 cores"),
        ({"resources": {"limits": {"cpu": "0.00001"}}}, "must be cores such as '1' or '0.5'"),
        ({"resources": {"limits": {"memory": "1Gi"}, "onOutOfMemory": {"max": "1024Mi"}}}, "raise it, or remove"),
        ({"resources": {"onOutOfMemory": {"max": "256Mi"}}}, "(512Mi where it is left out)"),
        ({"timeout": "0s"}, 'spec.timeout: Invalid value: "0s": must be at least 1s'),
        ({"timeout": "0h0m999ms"}, "must be at least 1s"),
        ({"retry": {"backoff": {"initial": "0s"}}}, 'spec.retry.backoff.initial: Invalid value: "0s": must be longer'),
        ({"retry": {"backoff": {"initial": "1h"}}}, "max must be at least as long as initial"),
        ({"retry": {"backoff": {"initial": "20s", "max": "19999ms"}}}, "max must be at least as long as initial"),
        ({"config": None}, "spec.config in body must be of type object"),
        ({"secretRef": {"name": "My Secret"}}, "spec.secretRef.name: Invalid value"),
        ({"after": [{"name": "orders"}]}, "spec.after must not name the connection itself"),
        ({"since": "2026-13-01T00:00:00Z"}, "must be a moment with a zone"),
        ({"since": "2026-01-01T24:00:00Z"}, "must be a moment with a zone"),
        ({"resources": {"onOutOfMemory": {"factor": 2}}}, "spec.resources.onOutOfMemory.max: Required value"),
        ({"resources": {"onOutOfMemory": {"max": "1Gi", "factor": 1}}}, "should be greater than or equal to 2"),
    ],
)
def test_a_wrong_schedule_is_refused_with_path_and_remedy(change: dict[str, Any], words: str) -> None:
    (problem,) = resource_problems({**CONNECTION, "spec": {**CONNECTION["spec"], **change}})
    assert words in problem


def test_what_can_be_scheduled_is_valid() -> None:
    resources = {"limits": {"memory": "1.5Gi"}, "onOutOfMemory": {"max": "4G"}}
    by_clock = {
        "schedule": "@daily",
        "after": [],
        "jitter": "24h",
        "concurrencyPolicy": "Allow",
        "resources": resources,
    }
    for change in (by_clock, {"after": [{"name": "a"}, {"name": "b"}]}):
        assert resource_problems({**CONNECTION, "spec": {**CONNECTION["spec"], **change}}) == []


def test_a_name_may_have_63_characters() -> None:
    assert resource_problems(CONNECTION) == []
    document = {**CONNECTION, "metadata": {"name": "a" * 64}}
    assert "no longer than 63 characters" in resource_problems(document)[0]


def test_a_definition_is_named_after_its_manifest() -> None:
    spec = {"image": f"r/i@sha256:{'0' * 64}", "manifest": manifest("penstock_faker_generate")}
    document = {
        "apiVersion": "penstock.io/v1alpha1",
        "kind": "ConnectorDefinition",
        "metadata": {"name": "faker"},
        "spec": spec,
    }
    assert "must be {name}-{method}-{version} of the manifest" in resource_problems(document)[0]
    document["spec"] = {**spec, "image": "r/i:latest"}
    assert any("by digest" in problem for problem in resource_problems(document))


def test_defaults_are_filled_in_as_the_api_server_does() -> None:
    spec = defaulted(CONNECTION)["spec"]
    assert spec["retry"]["backoff"] == {"initial": "10s", "factor": 3, "max": "30m"}
    assert spec["connector"]["version"] == "*"


def test_no_default_of_a_crd_is_null() -> None:
    assert "default: null" not in yaml.safe_dump(crds()["ConnectorDefinition"])
    assert "null" not in yaml.safe_dump(crds()["ConnectorDefinition"])


def test_durations() -> None:
    assert [Duration(text).seconds for text in ("1h30m", "10s", "250ms")] == [5400, 10, 0.25]


def test_a_spec_of_an_older_release_is_parsed() -> None:
    """A removed field and a value that is not allowed any more count as left out, at every depth."""
    stored = {
        "connector": {"name": "postgres", "method": "sql"},
        "removed": 1,
        "streams": [{"name": "orders", "removed": 2}],
        "bronze": {"format": "removed", "deletionPolicy": "Delete"},
        "resources": {"onOutOfMemory": {"factor": 2}},
    }
    spec = ConnectionSpec.parse(stored)
    assert (spec.streams[0].name, spec.bronze.format, spec.bronze.deletion_policy) == ("orders", "jsonl", "Delete")
    assert spec.resources.on_out_of_memory is None


def test_a_spec_is_stored_in_the_notation_of_its_document() -> None:
    document = {**CONNECTION["spec"], "timeout": "90m", "retry": {"limit": 1}, "config": {"n": None}}
    spec = ConnectionSpec.parse(document)
    assert (spec.timeout.seconds, spec.jitter.seconds, spec.resources.limits.memory.bytes) == (5400, 0, 512 * 2**20)
    assert spec.document() == document


def test_a_spec_that_was_never_valid_names_no_connector() -> None:
    assert ConnectionSpec.parse({}).connector.name == ""
    assert ConnectionSpec.parse({}).document() == {}
