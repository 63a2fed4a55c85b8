"""The process of a pod, before its attempt can be reached: what it says on stderr, and its exit code."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from penstock_sdk._runtime.connector_loader import InstalledConnector

from tests.patience import PATIENCE


def last_line(environment: dict[str, str]) -> dict[str, str]:
    command = [sys.executable, "-m", "penstock_sdk"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    found: dict[str, str] = json.loads(line)
    return found


def environment(tmp_path: Path, **changes: str) -> dict[str, str]:
    token = tmp_path / "token"
    token.write_text("t")
    usual = {"RUN_ID": "run1", "ATTEMPT": "2", "CONNECTOR": "faker-generate", "API_URL": "http://127.0.0.1:9"}
    return {f"PENSTOCK_{key}": value for key, value in {**usual, "TOKEN_FILE": str(token), **changes}.items()}


def test_a_missing_variable_is_named() -> None:
    line = last_line({"PENSTOCK_RUN_ID": "run1"})
    assert "PENSTOCK_ATTEMPT, PENSTOCK_CONNECTOR, PENSTOCK_API_URL, PENSTOCK_TOKEN_FILE is not set" in line["message"]


def test_an_image_without_the_entry_point_says_so(tmp_path: Path) -> None:
    line = last_line(environment(tmp_path, CONNECTOR="no-such"))
    assert "no installed package has the entry point 'no-such'" in line["message"]
    assert (line["run"], line["attempt"]) == ("run1", 2)


def test_a_token_that_is_not_there_is_named(tmp_path: Path) -> None:
    line = last_line(environment(tmp_path, TOKEN_FILE="/nowhere/token"))
    assert "PENSTOCK_TOKEN_FILE: No such file or directory: /nowhere/token" in line["message"]


def test_the_manifest_is_read_without_importing_the_connector() -> None:
    code = (
        "import sys\nfrom penstock_sdk._runtime.connector_loader import InstalledConnector, identity_of\n"
        "identity = identity_of(InstalledConnector.find('faker-generate').manifest())\n"
        "assert (identity.name, identity.method) == ('faker', 'generate'), identity\n"
        "sys.exit('penstock_faker_generate' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=PATIENCE).returncode == 0


def test_the_class_is_the_entry_points() -> None:
    assert InstalledConnector.find("faker-generate").load().__name__ == "FakerGenerate"


@pytest.mark.parametrize("attempt", ["two", ""])
def test_an_attempt_that_is_no_number_is_named(tmp_path: Path, attempt: str) -> None:
    assert "PENSTOCK_ATTEMPT" in last_line(environment(tmp_path, ATTEMPT=attempt))["message"]
