"""The conformance suite: what a connector must do, tested with real runs in real processes.

`penstock-connector test` and the pytest plugin run the same checks on a target: a connector and a connection to its source.
The names in `__all__` are public; the modules of this package are internal.
"""

from __future__ import annotations

from penstock_sdk.testing.checks import CHECKS, Check, CheckResult, Outcome, run_check, run_checks
from penstock_sdk.testing.harness import Harness
from penstock_sdk.testing.report import build_report, is_conformant, tree_digest
from penstock_sdk.testing.run_api import RunApi
from penstock_sdk.testing.target import (
    TARGET_FILE,
    Target,
    TargetError,
    Variant,
    find_connector,
    open_target,
    read_document,
)

__all__ = [
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
]
