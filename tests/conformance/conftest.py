"""A project as `penstock-connector new` makes it, and packages that do one thing wrong beside it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from penstock_sdk.scaffold import TEMPLATES, create

from tests.installed import register

ARTIFACT, PACKAGE = "trial-rest", "penstock_trial_rest"
Suite = Callable[..., dict[str, Any]]


def install(project: Path, cls: str, artifact: str = ARTIFACT) -> dict[str, str]:
    """Make the project's package an installed one, and return the environment that finds it."""
    register(project / "site", artifact, cls)
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(project / "site"), str(project / "src")])}


class Project:
    """A project as `new` makes it, and the command in it."""

    def __init__(self, folder: Path, template: str = "rest", title: str | None = None) -> None:
        method = TEMPLATES[template].method
        self.artifact = f"trial-{method}"
        self.folder = create("trial", template, folder, title)
        self.package = self.folder / "src" / f"penstock_trial_{method}"
        self.environment = install(self.folder, f"{self.package.name}:Trial{method.capitalize()}", self.artifact)

    def __call__(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return self.python("-c", "import sys; from penstock_sdk.author import main; sys.exit(main())", *arguments)

    def python(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run Python in the project's folder, with its connector installed."""
        return subprocess.run(
            [sys.executable, *arguments],
            cwd=self.folder,
            env={**self.environment, "MYPYPATH": "src"},
            capture_output=True,
            text=True,
            check=False,
            timeout=1800,
        )


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A new project."""
    return Project(tmp_path / "project")


@pytest.fixture
def suite(project: Project) -> Suite:
    """Run the suite on a connector: the project's own, or a hostile one beside it."""

    def run(hostile: str | None = None, *, manifest: tuple[str, str] = ("", ""), **settings: Any) -> dict[str, Any]:
        if hostile:
            shutil.copy(Path(__file__).parent / "hostile.py", project.package / "hostile.py")
            project.environment = install(project.folder, f"{PACKAGE}.hostile:{hostile}")
        declared = project.package / "connector.yaml"
        declared.write_text(declared.read_text().replace(*manifest))
        with (project.folder / "connector.test.yaml").open("a") as file:
            file.writelines(f"{key}: {json.dumps(value)}\n" for key, value in settings.items())
        done = project("test", "--report", "report.json")
        assert (project.folder / "report.json").exists(), done.stdout + done.stderr
        report: dict[str, Any] = json.loads((project.folder / "report.json").read_text())
        return {**report, "exit": done.returncode, "said": done.stdout}

    return run
