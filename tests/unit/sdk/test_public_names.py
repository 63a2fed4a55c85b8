"""The public names of the SDK. A removed name breaks published connectors; docs/authors/public-api.md has the policy."""

from __future__ import annotations

import ast
import importlib
import pkgutil
from pathlib import Path

import penstock_sdk
import pytest

PUBLIC = {
    "penstock_sdk": [
        "AuthenticationError",
        "Batch",
        "CollectingSink",
        "ConfigError",
        "Connector",
        "ConnectorError",
        "Cursor",
        "CursorCare",
        "DefectError",
        "Drift",
        "Estimate",
        "LocalPersistenceError",
        "Mode",
        "Op",
        "Partition",
        "Record",
        "Records",
        "Sink",
        "SourceContractError",
        "Stream",
        "TransientError",
        "Window",
    ],
    "penstock_sdk.contract": [
        "ArrowBatch",
        "Batch",
        "CollectingSink",
        "Connector",
        "Cursor",
        "CursorCare",
        "Drift",
        "Estimate",
        "FieldValue",
        "JsonSchema",
        "Mode",
        "Op",
        "Partition",
        "Record",
        "Records",
        "Sink",
        "Stream",
        "Window",
        "first_rows",
        "rows_of",
    ],
    "penstock_sdk.egress": ["tunnel"],
    "penstock_sdk.errors": [
        "ERROR_CLASS_BY_EXIT_CODE",
        "AttemptCancelled",
        "AttemptEnded",
        "AttemptFenced",
        "AttemptInterrupted",
        "AttemptRefused",
        "AttemptUnauthenticated",
        "AuthenticationError",
        "ConfigError",
        "ConnectorError",
        "DefectError",
        "ErrorClass",
        "LocalPersistenceError",
        "Scope",
        "SourceContractError",
        "TransientError",
        "describe_error",
    ],
    "penstock_sdk.json_types": ["JsonObject", "JsonSchema", "JsonValue", "list_at", "properties_of", "types_of"],
    "penstock_sdk.failpoints": [
        "FAILPOINTS",
        "FAILPOINTS_VARIABLE",
        "reach",
    ],
    "penstock_sdk.field_paths": [
        "format_path",
        "normal_path",
        "rewrite_hints",
        "top_level_field",
    ],
    "penstock_sdk.incremental": [
        "CursorField",
        "Watermark",
        "Window",
        "comparable",
        "follow",
        "in_windows",
        "keyset",
        "local_days",
        "local_time",
        "scan",
        "settled",
        "to_utc",
        "windows",
    ],
    "penstock_sdk.manifest": [
        "DEFAULT_EGRESS_PORT",
        "PLACEHOLDER",
        "AuthenticationMethod",
        "Credential",
        "Declared",
        "DeclaredStream",
        "EgressRule",
        "Followed",
        "Manifest",
        "Rule",
        "authentication_problems",
        "config_problems",
        "config_values",
        "egress_rules",
        "fill_in",
        "fill_in_url",
        "is_address",
        "manifest_problems",
        "manifest_schema",
        "normal_host",
        "problems",
        "rules",
        "structural_schema",
        "unsafe_cursor",
        "unsafe_values",
        "with_defaults",
    ],
    "penstock_sdk.pii": [
        "PiiClass",
        "suggest_by_name",
        "suggest_by_values",
        "suggest_fields",
    ],
    "penstock_sdk.protocol": [
        "API_URL_VARIABLE",
        "ATTEMPT_VARIABLE",
        "CONNECTOR_VARIABLE",
        "CREDENTIALS_DIRECTORY_VARIABLE",
        "CREDENTIAL_VARIABLE_PREFIX",
        "EGRESS_BUCKET_VARIABLE",
        "EGRESS_CHECK_VARIABLE",
        "EGRESS_URL_VARIABLE",
        "MAX_OBJECTS_PER_CHECKPOINT",
        "MAX_OBJECTS_PER_UPLOADS",
        "MAX_OBJECT_BYTES",
        "MAX_PARALLELISM",
        "MAX_SEQUENCE",
        "PARENT_PIPE_VARIABLE",
        "PROTOCOL_VERSION",
        "RUN_ID_VARIABLE",
        "TOKEN_AUDIENCE",
        "TOKEN_FILE_VARIABLE",
        "Ability",
        "AnnouncedDrift",
        "ApiError",
        "CheckpointRequest",
        "CheckpointResponse",
        "ConnectorIdentity",
        "Count",
        "CredentialRequest",
        "CredentialResponse",
        "DiscoveredStream",
        "EgressDenial",
        "EgressDestination",
        "EgressReport",
        "EgressReportResponse",
        "EgressRequest",
        "EgressResponse",
        "ErrorClass",
        "ErrorCode",
        "EstimateRequest",
        "EstimateResponse",
        "FinishRequest",
        "FinishResponse",
        "HeartbeatRequest",
        "HeartbeatResponse",
        "Limits",
        "Message",
        "Mode",
        "ObjectKind",
        "ObjectToUpload",
        "Op",
        "Outcome",
        "ReadWindow",
        "RejectRules",
        "RotatedCredential",
        "RunError",
        "SelectedStream",
        "StartRequest",
        "StartResponse",
        "StreamEstimate",
        "StreamName",
        "StreamOutcome",
        "StreamVerdict",
        "StreamsRequest",
        "StreamsResponse",
        "UnavailableReason",
        "UploadGrant",
        "UploadedObject",
        "UploadsRequest",
        "UploadsResponse",
    ],
    "penstock_sdk.pytest_plugin": [
        "conformance_check",
        "conformance_harness",
    ],
    "penstock_sdk.testing": [
        "CHECKS",
        "TARGET_FILE",
        "Check",
        "CheckResult",
        "Harness",
        "Outcome",
        "RunApi",
        "Target",
        "TargetError",
        "Variant",
        "build_report",
        "find_connector",
        "is_conformant",
        "open_target",
        "read_document",
        "run_check",
        "run_checks",
        "tree_digest",
    ],
}
"""Each public module, and its `__all__`."""
INTERNAL = {"penstock_sdk.author", "penstock_sdk.scaffold"}
"""Modules behind the command `penstock-connector`, which is public itself."""
ROOT = Path(penstock_sdk.__file__).parent


@pytest.mark.parametrize("module", PUBLIC)
def test_the_public_names_of_a_module_are_these(module: str) -> None:
    imported = importlib.import_module(module)
    assert imported.__all__ == PUBLIC[module]
    assert [name for name in imported.__all__ if not hasattr(imported, name)] == []


def test_every_other_module_is_private_or_internal() -> None:
    found = {f"penstock_sdk.{module.name}" for module in pkgutil.iter_modules([str(ROOT)])}
    others = {name for name in found if not name.rpartition(".")[2].startswith("_")} - PUBLIC.keys()
    assert others == INTERNAL


@pytest.mark.parametrize("module", [name for name in PUBLIC if (ROOT / f"{name.rpartition('.')[2]}.py").exists()])
def test_every_class_of_a_public_module_is_public_or_private(module: str) -> None:
    tree = ast.parse((ROOT / f"{module.rpartition('.')[2]}.py").read_text())
    classes = {node.name for node in tree.body if isinstance(node, ast.ClassDef) and not node.name.startswith("_")}
    assert classes - set(PUBLIC[module]) <= {"CheckItem", "ConformanceFile"}, "pytest collects these two"


def test_the_page_lists_every_public_module() -> None:
    page = (Path(__file__).parents[3] / "docs" / "authors" / "public-api.md").read_text()
    assert [module for module in PUBLIC if f"`{module}`" not in page] == []
