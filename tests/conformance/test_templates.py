"""What `penstock-connector new` makes works at once: its own tests, the author's commands and the conformance suite."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from penstock_sdk.scaffold import TEMPLATES

from tests.conformance.conftest import Project

TITLE = 'It\'s: \\ "so" #1 - {x}'
STREAM = {"sql": "orders", "files": "orders"}  # test_commands and test_hostile try the project of `rest`


@pytest.mark.parametrize("template", TEMPLATES)
def test_a_new_project_is_clean_and_passes_its_own_unit_tests(
    template: str, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    project = Project(tmp_path / "project", template, TITLE)
    types = ["mypy", "--cache-dir", str(tmp_path_factory.getbasetemp() / "mypy")]
    for command in (["ruff", "check", "."], ["ruff", "format", "--check", "."], types, ["pytest", "-q", "tests"]):
        done = project.python("-m", *command)
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"


@pytest.mark.parametrize("template", sorted(STREAM))
def test_the_commands_work_in_a_new_project(template: str, tmp_path: Path) -> None:
    project = Project(tmp_path / "project", template, TITLE)
    assert project("spec").returncode == 0
    assert project("check").stdout == "the source accepts the connection\n"
    assert STREAM[template] in project("discover").stdout
    read = project("read", STREAM[template], "--limit", "3")
    assert len(list(map(json.loads, read.stdout.splitlines()))) == 3, read.stderr


@pytest.mark.parametrize("template", sorted(STREAM))
def test_a_new_project_is_conformant(template: str, tmp_path: Path) -> None:
    project = Project(tmp_path / "project", template, TITLE)
    done = project("test", "--report", "report.json")
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads((project.folder / "report.json").read_text())
    outcomes = {check["name"]: check["outcome"] for check in report["checks"]}
    assert outcomes.pop("partitions") == "not applicable"
    assert set(outcomes.values()) == {"passed"}
