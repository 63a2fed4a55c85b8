"""From a project to an image, and to the definition that names the image by digest."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import yaml

from penstock_sdk._runtime.connector_loader import InstalledConnector
from penstock_sdk.author import site_packages
from penstock_sdk.author.project import ProjectError
from penstock_sdk.author.report_binding import LABEL, different, load_report, report_annotations
from penstock_sdk.json_types import JsonObject
from penstock_sdk.manifest import manifest_problems
from penstock_sdk.testing.report import tree_digest

DOCKERFILE = "Dockerfile"


@dataclass(frozen=True)
class PackageOptions:
    """The options of `package`. `repository` is the image name without a tag; `base` replaces the Dockerfile's base image."""

    repository: str
    base: str | None
    stage: str
    report: Path | None
    push: bool
    out: Path


@dataclass(frozen=True)
class PackageResult:
    """The result of `package`."""

    image: str
    definition: Path
    archive: Path | None
    packages: list[str]


def package(found: InstalledConnector, project: Path, options: PackageOptions) -> PackageResult:
    """Build the image from the project's Dockerfile, and write the definition beside it.

    Raises ProjectError if buildah is not installed, or if the report belongs to other files.
    """
    manifest = found.manifest()
    _check_manifest(manifest)
    buildah = shutil.which("buildah")
    if buildah is None:
        raise ProjectError("package builds with buildah, which is not installed: apt-get install buildah (or dnf)")
    name = f"{manifest['name']}-{manifest['method']}-{manifest['version']}"
    options.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="penstock-") as directory:
        context = Path(directory)
        packages = site_packages.fill(context / "site", _distribution(found))
        tree = tree_digest(context / "site" / found.entry.module.split(".")[0])
        notes = _notes(options.report, tree, packages) if options.report else {}
        image = f"{options.repository}:{manifest['version']}"
        _build(
            buildah,
            context,
            project / DOCKERFILE,
            image,
            _build_arguments(str(manifest["version"]), options.base, tree),
        )
        archive = None if options.push else options.out / f"{name}.oci.tar"
        digest = _deliver(buildah, image, archive, context / "digest")
    if options.report:
        shutil.copyfile(options.report, options.out / f"{name}.conformance.json")
    definition = options.out / f"{name}.yaml"
    definition.write_text(_definition(manifest, f"{options.repository}@{digest}", options.stage, notes))
    return PackageResult(f"{options.repository}@{digest}", definition, archive, packages)


def _check_manifest(manifest: JsonObject) -> None:
    wrong = manifest_problems(manifest)
    if wrong:
        raise ProjectError(f"connector.yaml: {'; '.join(wrong)}")


def _distribution(found: InstalledConnector) -> str:
    if found.entry.dist is None:
        raise ProjectError(f"{found.entry.name} belongs to no installed package: pip install -e . in its folder")
    return str(found.entry.dist.name)


def _notes(path: Path, tree: str, packages: list[str]) -> dict[str, str]:
    """Return the annotations that bind the definition to its report. The report must belong to exactly these files and packages."""
    report = load_report(path)
    tested = report.artifact.digest
    if tested != tree:
        raise ProjectError(
            f"--report {path} is for {tested}, and the package is {tree}; run penstock-connector test again"
        )
    if set(report.packages) != set(packages):
        change = different(frozenset(report.packages), frozenset(packages))
        raise ProjectError(f"--report {path} is for other packages: {change}; run penstock-connector test again")
    if not report.conformant:
        raise ProjectError(f"--report {path}: the connector is not conformant: {report.counts}")
    return report_annotations(path, report)


def _build_arguments(version: str, base: str | None, tree: str) -> list[str]:
    chosen = ["--build-arg", f"BASE={base}"] if base else []
    return ["--build-arg", f"VERSION={version}", *chosen, "--label", f"{LABEL}={tree}"]


def _build(buildah: str, context: Path, dockerfile: Path, image: str, arguments: list[str]) -> None:
    if not dockerfile.exists():
        raise ProjectError(f"{dockerfile} is missing; it defines how the image is built")
    # With timestamp 0, the image has the same bytes whenever it is built.
    command = [buildah, "bud", "--quiet", "--isolation", "chroot", "--timestamp", "0", *arguments]
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


def _definition(manifest: JsonObject, image: str, stage: str, notes: dict[str, str]) -> str:
    name = f"{manifest['name']}-{manifest['method']}-{manifest['version']}"
    document = {
        "apiVersion": "penstock.io/v1alpha1",
        "kind": "ConnectorDefinition",
        "metadata": {"name": name, **({"annotations": notes} if notes else {})},
        "spec": {"image": image, "stage": stage, "manifest": manifest},
    }
    return yaml.safe_dump(document, sort_keys=False, width=120)
