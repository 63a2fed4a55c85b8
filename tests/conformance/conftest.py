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
from penstock_sdk.scaffold import create

ARTIFACT, PACKAGE = "trial-rest", "penstock_trial_rest"
Suite = Callable[..., dict[str, Any]]


def install(project: Path, cls: str) -> dict[str, str]:
    """Make the project's package an installed one, and return the environment that finds it."""
    info = project / "site" / "penstock_connector_trial_rest-0.1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: penstock-connector-trial-rest\nVersion: 0.1.0\n")
    (info / "entry_points.txt").write_text(f"[penstock.connectors]\n{ARTIFACT} = {cls}\n")
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(project / "site"), str(project / "src")])}


@pytest.fixture
def suite(tmp_path: Path) -> Suite:
    """Run the command on a connector: the project's own, or a hostile one beside it."""

    def run(hostile: str | None = None, *, manifest: tuple[str, str] = ("", ""), **settings: Any) -> dict[str, Any]:
        project = create("trial", "rest", tmp_path / "project")
        package = project / "src" / PACKAGE
        if hostile:
            shutil.copy(Path(__file__).parent / "hostile.py", package / "hostile.py")
        declared = package / "connector.yaml"
        declared.write_text(declared.read_text().replace(*manifest))
        with (project / "connector.test.yaml").open("a") as file:
            file.writelines(f"{key}: {json.dumps(value)}\n" for key, value in settings.items())
        environment = install(project, f"{PACKAGE}.hostile:{hostile}" if hostile else f"{PACKAGE}:TrialRest")
        command = [sys.executable, "-c", "import sys; from penstock_sdk.author import main; sys.exit(main())"]
        done = subprocess.run(
            [*command, "test", "--report", "report.json"],
            cwd=project,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
        assert (project / "report.json").exists(), done.stdout + done.stderr
        report: dict[str, Any] = json.loads((project / "report.json").read_text())
        return {**report, "exit": done.returncode, "said": done.stdout}

    return run
