"""An image holds what was tested, is the same whenever it is built, and is named by its digest."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest
import yaml

pytestmark = pytest.mark.skipif(shutil.which("buildah") is None, reason="package builds with buildah")
ARGUMENTS = ("package", "--image", "registry.test/penstock-faker", "--base", "scratch")


@pytest.fixture
def faker(project: Any) -> Any:
    """The project's folder around a connector that is really installed: a package is made of distributions."""
    (project.folder / "connector.test.yaml").write_text("connector: faker-generate\nconfig: {records: 40}\n")
    project.environment |= {"STORAGE_DRIVER": "vfs", "PYTHONPATH": ""}
    return project


def unpacked(archive: Path, place: Path) -> Path:
    """Return the root of an image with one layer."""
    with tarfile.open(archive) as image:
        layers = [member for member in image.getmembers() if member.name.startswith("blobs/") and member.isfile()]
        largest = max(layers, key=lambda member: member.size)
        content = image.extractfile(largest)
        assert content
        with tarfile.open(fileobj=io.BytesIO(content.read())) as layer:
            layer.extractall(place, filter="data")
    return place


def test_the_image_holds_the_connector_and_is_the_same_when_built_again(faker: Any, tmp_path: Path) -> None:
    first = faker(*ARGUMENTS, "--out", "one")
    assert first.returncode == 0, first.stderr
    assert faker(*ARGUMENTS, "--out", "two").stdout.splitlines()[0] == first.stdout.splitlines()[0]
    definition = yaml.safe_load((faker.folder / "one/faker-generate-0.1.0.yaml").read_text())
    assert definition["metadata"]["name"] == "faker-generate-0.1.0"
    assert definition["spec"]["image"] == first.stdout.splitlines()[0]
    assert definition["spec"]["image"].startswith("registry.test/penstock-faker@sha256:")
    root = unpacked(faker.folder / "one/faker-generate-0.1.0.oci.tar", tmp_path / "root")
    loading = "from penstock_sdk.runtime.loading import Installed as I; print(I.find('faker-generate').load().__name__)"
    done = subprocess.run(  # without the environment's own packages: what the image holds is enough
        [sys.executable, "-S", "-c", f"{loading}; import penstock_sdk.runtime.main; print(penstock_sdk.__file__)"],
        env={"PYTHONPATH": str(root / "opt/penstock")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.split() == ["FakerGenerate", str(root / "opt/penstock/penstock_sdk/__init__.py")], done.stderr


def test_a_report_of_other_files_or_of_a_failure_is_refused(faker: Any) -> None:
    tested = faker("test", "--only", "keys", "--report", "report.json")
    assert tested.returncode == 0, tested.stdout
    report = faker.folder / "report.json"
    refused = faker(*ARGUMENTS, "--report", "report.json")
    assert refused.returncode == 2
    assert "not conformant" in refused.stderr
    content = json.loads(report.read_text())
    report.write_text(json.dumps({**content, "conformant": True}))
    accepted = faker(*ARGUMENTS, "--report", "report.json")
    assert accepted.returncode == 0, accepted.stderr
    definition = yaml.safe_load((faker.folder / "dist/faker-generate-0.1.0.yaml").read_text())
    assert definition["metadata"]["annotations"]["penstock.io/conformance-tree"] == content["artifact"]["digest"]
    report.write_text(report.read_text().replace(content["artifact"]["digest"], f"sha256:{'0' * 64}"))
    other = faker(*ARGUMENTS, "--report", "report.json")
    assert other.returncode == 2
    assert "run penstock-connector test again" in other.stderr
