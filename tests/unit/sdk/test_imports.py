"""A pod imports what it runs, and a connector's author pays for the tools only when using them."""

from __future__ import annotations

import subprocess
import sys

import pytest

TOOLS = {"typer", "duckdb", "pytest", "penstock_sdk.testing", "penstock_sdk.author", "penstock_sdk.scaffold"}


def imported_by(module: str) -> set[str]:
    code = f"import sys, {module}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


@pytest.mark.parametrize("module", ["penstock_sdk", "penstock_sdk._runtime.main"])
def test_what_a_pod_imports_has_no_tool_in_it(module: str) -> None:
    assert not imported_by(module) & TOOLS


def test_the_contract_alone_is_without_http_and_models() -> None:
    assert not imported_by("penstock_sdk") & {"httpx", "pydantic", "jsonschema", "yaml"}


def test_a_test_run_that_uses_no_suite_does_not_import_it() -> None:
    assert not imported_by("penstock_sdk.pytest_plugin") & (TOOLS - {"pytest"})
