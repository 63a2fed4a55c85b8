"""The suite in pytest: a file is collected as it is, a fixture serves ten lines of a test."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

TEN_LINES = """
import pytest
from penstock_sdk.testing import Target

@pytest.fixture(scope="module")
def conformance_target():
    return Target(artifact="faker-generate", config={"records": 40, "batchSize": 20})

def test_conformance(conformance_check):
    conformance_check()
"""


def run_pytest(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", "-rA", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=1800)


def test_a_fixture_and_a_test_are_all_that_an_author_writes(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(TEN_LINES)
    done = run_pytest(tmp_path, "--conformance-report=report.json", "-k", "reads or keys or empty or throttling")
    assert done.returncode == 0, done.stdout
    assert "2 passed, 2 skipped" in done.stdout
    assert "not run: needs `empty`" in done.stdout
    assert "not applicable: the manifest declares no network" in done.stdout
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["counts"] == {"passed": 2, "failed": 0, "not run": 1, "not applicable": 1}
    assert not report["conformant"]


def test_a_file_is_a_test_for_each_check_and_a_failure_says_the_remedy(tmp_path: Path) -> None:
    file = tmp_path / "connector.test.yaml"
    file.write_text("connector: faker-generate\nconfig: {records: 40, colour: red}\n")
    done = run_pytest(tmp_path, str(file), "-k", "reads or manifest")
    assert done.returncode == 1
    assert "unknown field `colour`" in done.stdout
    assert "remedy: Run `penstock-connector read STREAM`" in done.stdout


def test_a_file_that_cannot_be_used_names_the_field(tmp_path: Path) -> None:
    file = tmp_path / "connector.test.yaml"
    file.write_text("connector: faker-generate\nempty: {colour: red}\n")
    done = run_pytest(tmp_path, str(file), "-k", "reads")
    assert done.returncode == 1
    assert "Object contains unknown field `colour` - at `$.empty`" in done.stdout
