"""What is published can be traced: bases and actions by digest, an SBOM and provenance for each image."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import yaml
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

ROOT = Path(__file__).parents[3]
DIGEST = re.compile(r"@sha256:[0-9a-f]{64}$")
STATUS = """Package: libc6
Status: install ok installed
Architecture: amd64
Version: 2.36-9+deb12u13
Description: GNU C Library
 Shared libraries
 .
 Status: none of this is a field

Package: gone
Status: deinstall ok config-files
Architecture: all
Version: 1

Package: openssl
Status: install ok installed
Architecture: amd64
Version: 3.0.17-1~deb12u2
"""


def test_actions_of_workflows_are_pinned_by_commit() -> None:
    used = [
        (workflow.name, line)
        for workflow in (ROOT / ".github/workflows").glob("*.y*ml")
        for line in workflow.read_text().splitlines()
        if "uses:" in line
    ]
    assert used
    for name, line in used:
        assert re.search(r"uses: [\w.-]+/[\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+$", line), f"{name}: {line.strip()}"


def test_workflows_have_no_rights_by_default() -> None:
    for workflow in (ROOT / ".github/workflows").glob("*.y*ml"):
        assert yaml.safe_load(workflow.read_text())["permissions"] == {"contents": "read"}, workflow.name


def test_base_images_are_named_by_digest() -> None:
    for file in (ROOT / "images").glob("*Dockerfile"):
        for line in file.read_text().splitlines():
            assert not line.startswith("FROM ") or line in {"FROM scratch", "FROM ${BASE}"}, f"{file.name}: {line}"
            assert not line.startswith("ARG BASE="), f"{file.name}: images/bases.txt names the base images"
    bases = [line.split() for line in (ROOT / "images/bases.txt").read_text().splitlines() if not line.startswith("#")]
    for minor, image, tag in bases:
        assert DIGEST.search(image), image
        assert tag.startswith(f"{minor}-"), "the digest is of the image for this Python"
    tested = yaml.safe_load((ROOT / ".github/workflows/test.yaml").read_text())["jobs"]["test"]["strategy"]["matrix"]
    assert {minor for minor, *_ in bases} >= set(tested["python"])


def _written(tmp_path: Path, *options: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Write both documents of an image whose context has what is installed here."""
    context = tmp_path / "operator"
    (context / "site").mkdir(parents=True)
    (context / "deps").symlink_to(next(path for path in sys.path if path.endswith("site-packages")))
    command = [sys.executable, ROOT / "images/evidence.py", "operator", "--version", "1.2.3", "--context", context]
    of_lock = ["--lock", ROOT / "locks/operator.txt", "--image-digest", f"sha256:{'a' * 64}"]
    done = subprocess.run([*command, *of_lock, *options], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    sbom, provenance = (tmp_path / f"operator.{name}.json" for name in ("sbom", "provenance"))
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(sbom.read_text()) is None
    return json.loads(sbom.read_text()), json.loads(provenance.read_text())


def test_an_sbom_lists_what_is_in_the_image(tmp_path: Path) -> None:
    packages = tmp_path / "status"
    packages.write_text(STATUS)
    sbom, _ = _written(tmp_path, "--base", "base:1", "--packages", str(packages))
    assert sbom["metadata"]["component"]["name"] == "penstock-operator"
    assert sbom["metadata"]["component"]["version"] == "1.2.3"
    urls = {component["purl"] for component in sbom["components"]}
    assert {url for url in urls if url.startswith("pkg:deb/")} == {
        "pkg:deb/debian/libc6@2.36-9%2Bdeb12u13?arch=amd64",
        "pkg:deb/debian/openssl@3.0.17-1~deb12u2?arch=amd64",
    }
    for name in ("kopf", "psycopg", "httpx"):
        assert f"pkg:pypi/{name}@{version(name)}" in urls
    needs = {item["ref"]: item.get("dependsOn", []) for item in sbom["dependencies"]}
    assert "pypi:httpcore" in needs["pypi:httpx"]


@pytest.mark.parametrize(
    ("base", "digest"), [(f"registry/python@sha256:{'b' * 64}", {"sha256": "b" * 64}), ("registry/python:3", None)]
)
def test_provenance_names_the_image_and_what_it_was_made_of(
    tmp_path: Path, base: str, digest: dict[str, str] | None
) -> None:
    _, statement = _written(tmp_path, "--base", base)
    assert statement["subject"] == [{"name": "penstock-operator", "digest": {"sha256": "a" * 64}}]
    assert statement["predicateType"] == "https://slsa.dev/provenance/v1"
    source, of_base, lock = statement["predicate"]["buildDefinition"]["resolvedDependencies"]
    assert re.fullmatch(r"[0-9a-f]{40}|unknown", source["digest"]["gitCommit"])
    assert (of_base["uri"], of_base.get("digest")) == (base, digest)
    assert lock["uri"] == "locks/operator.txt"


def test_a_python_without_a_base_image_is_refused_with_the_remedy(tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho 2.7\n")
    python.chmod(0o755)
    done = subprocess.run(
        [ROOT / "images/build", "localhost:1", "operator"],
        check=False,
        capture_output=True,
        text=True,
        env={"PATH": "/usr/bin:/bin", "PYTHON": str(python), "BUILDER": "docker"},
    )
    assert done.returncode == 2
    assert "images/bases.txt has no base image for Python 2.7: set BASE to one, by digest" in done.stderr
