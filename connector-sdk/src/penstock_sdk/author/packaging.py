"""From a project to what a platform takes: an image, and the definition that names it by digest."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from penstock_sdk._runtime.connector_loader import InstalledConnector
from penstock_sdk.author import site_packages
from penstock_sdk.author.project import ProjectError
from penstock_sdk.author.report_binding import LABEL, different, load_report, notes_on
from penstock_sdk.manifest import manifest_problems
from penstock_sdk.testing.report import tree_digest

DOCKERFILE = "Dockerfile"


@dataclass(frozen=True)
class PackageOptions:
    """What to make. `repository` is the image's name without tag; `base` replaces the Dockerfile's base image."""

    repository: str
    base: str | None
    stage: str
    report: Path | None
    push: bool
    out: Path


@dataclass(frozen=True)
class PackageResult:
    """What was made."""

    image: str
    definition: Path
    archive: Path | None
    packages: list[str]


def package(found: InstalledConnector, project: Path, wanted: PackageOptions) -> PackageResult:
    """Build the image from the project's Dockerfile, and write the definition beside it.

    Raises ProjectError when there is nothing to build with, or the report is of other files.
    """
    manifest = found.manifest()
    _admissible(manifest)
    buildah = shutil.which("buildah")
    if buildah is None:
        raise ProjectError("package builds with buildah, which is not installed: apt-get install buildah (or dnf)")
    name = f"{manifest['name']}-{manifest['method']}-{manifest['version']}"
    wanted.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="penstock-") as directory:
        context = Path(directory)
        packages = site_packages.fill(context / "site", _distribution(found))
        tree = tree_digest(context / "site" / found.entry.module.split(".")[0])
        notes = _notes(wanted.report, tree, packages) if wanted.report else {}
        image = f"{wanted.repository}:{manifest['version']}"
        _build(buildah, context, project / DOCKERFILE, image, _options(manifest["version"], wanted.base, tree))
        archive = None if wanted.push else wanted.out / f"{name}.oci.tar"
        digest = _deliver(buildah, image, archive, context / "digest")
    if wanted.report:
        shutil.copyfile(wanted.report, wanted.out / f"{name}.conformance.json")
    definition = wanted.out / f"{name}.yaml"
    definition.write_text(_definition(manifest, f"{wanted.repository}@{digest}", wanted.stage, notes))
    return PackageResult(f"{wanted.repository}@{digest}", definition, archive, packages)


def _admissible(manifest: dict[str, Any]) -> None:
    wrong = manifest_problems(manifest)
    if wrong:
        raise ProjectError(f"connector.yaml: {'; '.join(wrong)}")


def _distribution(found: InstalledConnector) -> str:
    if found.entry.dist is None:
        raise ProjectError(f"{found.entry.name} belongs to no installed package: pip install -e . in its folder")
    return str(found.entry.dist.name)


def _notes(path: Path, tree: str, packages: list[str]) -> dict[str, str]:
    """Return the annotations that bind the definition to its report; it must be of these very files and packages."""
    report = load_report(path)
    tested = report["artifact"]["digest"]
    if tested != tree:
        raise ProjectError(f"--report {path} is of {tested}, the package is {tree}: run penstock-connector test again")
    if set(report["packages"]) != set(packages):
        change = different(frozenset(report["packages"]), frozenset(packages))
        raise ProjectError(f"--report {path} is of other packages: {change}; run penstock-connector test again")
    if not report["conformant"]:
        raise ProjectError(f"--report {path} says that the connector is not conformant: {report['counts']}")
    return notes_on(path, report)


def _options(version: str, base: str | None, tree: str) -> list[str]:
    chosen = ["--build-arg", f"BASE={base}"] if base else []
    return ["--build-arg", f"VERSION={version}", *chosen, "--label", f"{LABEL}={tree}"]


def _build(buildah: str, context: Path, dockerfile: Path, image: str, options: list[str]) -> None:
    if not dockerfile.exists():
        raise ProjectError(f"{dockerfile} is missing: it says what the image is made of")
    # Timestamp 0: an image is the same bytes whenever it is built.
    command = [buildah, "bud", "--quiet", "--isolation", "chroot", "--timestamp", "0", *options]
    _run([*command, "-f", str(dockerfile), "-t", image, str(context)])


def _deliver(buildah: str, image: str, archive: Path | None, digest: Path) -> str:
    target = f"oci-archive:{archive}:{image}" if archive else f"docker://{image}"
    if archive:
        archive.unlink(missing_ok=True)
    _run([buildah, "push", "--quiet", "--digestfile", str(digest), image, target])
    return digest.read_text().strip()


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ProjectError(f"{' '.join(command[:2])} ended with {done.returncode}: {done.stderr.strip()[-1500:]}")


def _definition(manifest: dict[str, Any], image: str, stage: str, notes: dict[str, str]) -> str:
    name = f"{manifest['name']}-{manifest['method']}-{manifest['version']}"
    document = {
        "apiVersion": "penstock.io/v1alpha1",
        "kind": "ConnectorDefinition",
        "metadata": {"name": name, **({"annotations": notes} if notes else {})},
        "spec": {"image": image, "stage": stage, "manifest": manifest},
    }
    return yaml.safe_dump(document, sort_keys=False, width=120)
