"""An image holds what was tested, is the same whenever it is built, and is named by its digest."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable
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
    loading = "from penstock_sdk._runtime.connector_loader import InstalledConnector as I; print(I.find('faker-generate').load().__name__)"
    done = subprocess.run(  # without the environment's own packages: what the image holds is enough
        [sys.executable, "-S", "-c", f"{loading}; import penstock_sdk._runtime.main; print(penstock_sdk.__file__)"],
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


@pytest.fixture
def bound(faker: Any) -> Any:
    """A package with its report: each check passed, in the report's own words."""
    assert faker("test", "--only", "keys", "--report", "report.json").returncode == 0
    report = faker.folder / "report.json"
    report.write_text(json.dumps({**json.loads(report.read_text()), "conformant": True}))
    made = faker(*ARGUMENTS, "--report", "report.json")
    assert made.returncode == 0, made.stderr
    return faker


NAME = "dist/faker-generate-0.1.0"
BOUND = ("verify", f"{NAME}.yaml", "--report", f"{NAME}.conformance.json", "--archive", f"{NAME}.oci.tar")


def changed(archive: Path, wanted: Callable[[str], bool], change: Callable[[bytes], bytes]) -> None:
    """Rewrite one member of an archive."""
    with tarfile.open(archive) as opened:
        members = [(member, opened.extractfile(member).read() if member.isfile() else b"") for member in opened]  # type: ignore[union-attr]
    with tarfile.open(archive, "w") as written:
        for member, content in members:
            new = change(content) if member.isfile() and wanted(member.name) else content
            member.size = len(new)
            written.addfile(member, io.BytesIO(new))


def test_report_definition_and_image_are_bound_by_their_bytes(bound: Any) -> None:
    done = bound(*BOUND)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "report, definition and image belong together\n"
    assert "the image was not checked" in bound(*BOUND[:4]).stdout


def test_another_report_definition_or_image_is_found_out(bound: Any) -> None:
    report, definition = bound.folder / f"{NAME}.conformance.json", bound.folder / f"{NAME}.yaml"
    right = report.read_text(), definition.read_text()

    def said(*arguments: str) -> str:
        done = bound(*arguments)
        assert done.returncode in (1, 2), done.stdout
        report.write_text(right[0])
        definition.write_text(right[1])
        return done.stderr

    report.write_text(right[0] + "\n")
    assert "annotation penstock.io/conformance-report is 'sha256:" in said(*BOUND)
    definition.write_text(right[1].replace("version: 0.1.0", "version: 0.2.0"))
    assert "the definition's manifest has version '0.2.0', the report is of '0.1.0'" in said(*BOUND)
    definition.write_text(right[1].replace("@sha256:", "@sha256:0"))
    assert "the definition names the image registry.test/penstock-faker@sha256:0" in said(*BOUND)
    tested = json.loads(right[0])
    tree = tested["artifact"]["digest"]
    report.write_text(json.dumps({**tested, "artifact": {**tested["artifact"], "digest": f"sha256:{'0' * 64}"}}))
    assert f"the image holds a package of {tree}" in said(*BOUND)
    report.write_text(json.dumps({**tested, "packages": [*tested["packages"], "left-pad==1.0"]}))
    assert "tested with left-pad==1.0" in said(*BOUND)
    changed(bound.folder / f"{NAME}.oci.tar", lambda name: name.startswith("blobs/sha256/"), lambda data: data + b" ")
    assert "it was changed" in said(*BOUND)


def test_a_package_of_other_versions_than_were_tested_is_refused(bound: Any) -> None:
    report = bound.folder / "report.json"
    tested = json.loads(report.read_text())
    others = [f"{package}.dev0" if package.startswith("msgspec==") else package for package in tested["packages"]]
    report.write_text(json.dumps({**tested, "packages": others}))
    done = bound(*ARGUMENTS, "--report", "report.json")
    assert done.returncode == 2
    assert "is for other packages: tested with msgspec==" in done.stderr
