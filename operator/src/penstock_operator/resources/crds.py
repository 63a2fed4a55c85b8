"""The CRDs, generated from the models: `python -m penstock_operator.resources.crds DIRECTORY...` writes them."""

from __future__ import annotations

import sys
from functools import cache
from pathlib import Path
from typing import Any, cast

import yaml
from penstock_sdk.manifest import Declared, problems, rules, structural_schema, with_defaults

from penstock_operator.resources.models import (
    API_VERSION,
    GROUP,
    PLURALS,
    ConnectionSpec,
    ConnectionStatus,
    DefinitionSpec,
    DefinitionStatus,
    Kind,
)

Column = tuple[str, str, str]
"""Name, type and path. `date` is for the past only: kubectl shows an age, and `<invalid>` for what is to come."""
NAME_RULE = (
    "self.metadata.name == self.spec.manifest.name + '-' + self.spec.manifest.method + '-' + self.spec.manifest.version",
    "metadata.name must be {name}-{method}-{version} of the manifest",
)
IMMUTABLE_RULE = (
    "self.image == oldSelf.image && self.manifest == oldSelf.manifest",
    "is immutable but for stage: publish a new version instead",
)
CONNECTION_NAME_RULE = ("size(self.metadata.name) <= 63", "metadata.name must be no longer than 63 characters")
SELF_RULE = (
    "!(has(self.spec.after) && self.spec.after.exists(upstream, upstream.name == self.metadata.name))",
    "spec.after must not name the connection itself: it would wait for its own success",
)
SCHEDULE_RULE = (
    "!(has(self.schedule) && has(self.after) && size(self.after) > 0)",
    "set schedule or after, not both: a connection runs by the clock, or when others have succeeded",
)


WIDE = ("Message", "Installation")
"""Columns of `kubectl get -o wide` only."""


def _crd(
    kind: Kind, plural: str, short: str, scope: str, schema: dict[str, Any], columns: list[Column]
) -> dict[str, Any]:
    printer = [
        {"name": name, "type": type_, "jsonPath": path} | ({"priority": 1} if name in WIDE else {})
        for name, type_, path in columns
    ]
    version = {
        "name": API_VERSION,
        "served": True,
        "storage": True,
        "subresources": {"status": {}},
        "additionalPrinterColumns": [
            *printer,
            {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
        ],
        "schema": {"openAPIV3Schema": schema},
    }
    names = {
        "kind": kind,
        "plural": plural,
        "singular": kind.lower(),
        "shortNames": [short],
        "categories": ["penstock"],
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{GROUP}"},
        "spec": {"group": GROUP, "names": {**names, "listKind": f"{kind}List"}, "scope": scope, "versions": [version]},
    }


def _resource(
    spec: type[Declared], status: type[Declared], resource_rules: list[tuple[str, str]], *spec_rules: tuple[str, str]
) -> dict[str, Any]:
    spec_schema = {**structural_schema(spec), **(rules(*spec_rules) if spec_rules else {})}
    properties = {
        "apiVersion": {"type": "string"},
        "kind": {"type": "string"},
        "metadata": {"type": "object"},
        "spec": spec_schema,
        "status": structural_schema(status),
    }
    return {"type": "object", "required": ["spec"], "properties": properties, **rules(*resource_rules)}


READY: Column = ("Ready", "string", ".status.conditions[?(@.type=='Ready')].status")
REASON: Column = ("Reason", "string", ".status.conditions[?(@.type=='Ready')].reason")


@cache
def crds() -> dict[Kind, dict[str, Any]]:
    """Return both CRDs by kind."""
    definition = _resource(DefinitionSpec, DefinitionStatus, [NAME_RULE], IMMUTABLE_RULE)
    connection = _resource(ConnectionSpec, ConnectionStatus, [CONNECTION_NAME_RULE, SELF_RULE], SCHEDULE_RULE)
    return {
        "ConnectorDefinition": _crd(
            "ConnectorDefinition",
            PLURALS["ConnectorDefinition"],
            "cdef",
            "Cluster",
            definition,
            [("Stage", "string", ".spec.stage"), READY, ("Connections", "integer", ".status.connections")],
        ),
        "TenantConnection": _crd(
            "TenantConnection",
            PLURALS["TenantConnection"],
            "tc",
            "Namespaced",
            connection,
            [
                ("Definition", "string", ".status.definition"),
                READY,
                REASON,
                ("Run", "string", ".status.lastRun.phase"),
                ("Records", "integer", ".status.lastRun.records"),
                ("Suspend", "boolean", ".spec.suspend"),
                ("Next", "string", ".status.nextScheduleTime"),
                ("Message", "string", ".status.conditions[?(@.type=='Ready')].message"),
                ("Installation", "string", ".status.installation"),
            ],
        ),
    }


def schema_of(kind: Kind) -> dict[str, Any]:
    """Return the kind's structural schema."""
    schema: dict[str, Any] = crds()[kind]["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    return schema


def resource_problems(document: dict[str, Any]) -> list[str]:
    """Return what the API server would say against a document of one of the two kinds."""
    kind: Kind = document["kind"]
    checked = {**document, "metadata": {"name": document.get("metadata", {}).get("name", "")}}
    unknown = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    schema = schema_of(kind)
    schema = {**schema, "properties": {**schema["properties"], "metadata": unknown}}
    return problems(checked, schema)


def defaulted(document: dict[str, Any]) -> dict[str, Any]:
    """Return the document as the API server stores it: with the schema's defaults."""
    return cast("dict[str, Any]", with_defaults(document, schema_of(document["kind"])))


HEADER = "# Generated from penstock_operator.resources.models by `make crds`; edit the models.\n"


def main() -> None:
    """Write one file a kind into each directory named on the command line."""
    for directory in map(Path, sys.argv[1:]):
        directory.mkdir(parents=True, exist_ok=True)
        for crd in crds().values():
            plural = crd["spec"]["names"]["plural"]
            text = yaml.safe_dump(crd, sort_keys=False, width=120)
            (directory / f"{GROUP}_{plural}.yaml").write_text(HEADER + text)


if __name__ == "__main__":
    main()
