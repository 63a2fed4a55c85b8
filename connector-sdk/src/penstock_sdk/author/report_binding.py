"""Whether a report, a definition and an image belong together, checked by their bytes alone.

report      ->  the digest of the connector's package, and the packages with which it was tested
definition  ->  the digest of the report, and the digest of the image
image       ->  the package and the other packages, in its layers
"""

from __future__ import annotations

import hashlib
import json
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import cast

import msgspec
import yaml

from penstock_sdk._safe_yaml import load_yaml
from penstock_sdk.author.project import ProjectError
from penstock_sdk.author.site_packages import PLACE
from penstock_sdk.testing.dependencies import pinned
from penstock_sdk.testing.report import REPORT_VERSION, ConformanceReport, digest_of

TREE, REPORT = "penstock.io/conformance-tree", "penstock.io/conformance-report"
LABEL = "io.penstock.package-tree"
WHITEOUT = ".wh."


class _Names(msgspec.Struct, frozen=True):
    version: str
    name: str | None = None
    method: str | None = None


class _Spec(msgspec.Struct, frozen=True):
    image: str
    manifest: _Names


class _Metadata(msgspec.Struct, frozen=True):
    name: str
    annotations: dict[str, object] | None = None


class BoundDefinition(msgspec.Struct, frozen=True):
    """The fields of a ConnectorDefinition that name its report and its image."""

    metadata: _Metadata
    spec: _Spec


class _Version(msgspec.Struct, frozen=True):
    version: object = msgspec.field(name="reportVersion")


def verify(report: Path, definition: Path, archive: Path | None) -> list[str]:
    """Return the mismatches; empty if everything belongs together. Without an archive the image is not checked."""
    tested, defined = load_report(report), load_definition(definition)
    found = image_contents(archive, tested.artifact.package) if archive else None
    return list(mismatches(tested, report_annotations(report, tested), defined, found))


@dataclass(frozen=True)
class ImageContents:
    """The contents of an image below Penstock's folder."""

    digest: str
    label: str
    tree: str
    packages: frozenset[str]


def load_report(path: Path) -> ConformanceReport:
    """Return a report. Raises ProjectError if it cannot be read, or has the version of another suite."""
    try:
        text = path.read_bytes()
        version = msgspec.json.decode(text, type=_Version).version
        if version == REPORT_VERSION:
            return msgspec.json.decode(text, type=ConformanceReport)
    except (OSError, ValueError, RecursionError) as error:
        raise ProjectError(
            f"{path} is not a report ({error}); write one: penstock-connector test --report {path}"
        ) from None
    raise ProjectError(
        f"{path} has the report version {version}, and this SDK has {REPORT_VERSION}; run penstock-connector test again"
    )


def report_annotations(path: Path, report: ConformanceReport) -> dict[str, str]:
    """Return the annotations that bind a definition to its report."""
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return {TREE: report.artifact.digest, REPORT: f"sha256:{digest}"}


def mismatches(
    report: ConformanceReport, noted: Mapping[str, str], definition: BoundDefinition, contents: ImageContents | None
) -> Iterator[str]:
    """Say what does not belong together; nothing when all does. `noted` is what `report_annotations` makes of the report."""
    if not report.conformant:
        yield f"the report says that the connector is not conformant: {report.counts}"
    manifest, tested = definition.spec.manifest, report.connector
    for key in ("name", "method", "version"):
        declared, reported = getattr(manifest, key), getattr(tested, key)
        if declared != reported:
            yield f"the definition's manifest has {key} {declared!r}, the report is of {reported!r}"
    said = definition.metadata.annotations or {}
    for key, value in noted.items():
        if said.get(key) != value:
            yield f"the definition's annotation {key} is {said.get(key)!r}, the report's is {value!r}"
    if contents is not None:
        yield from _of_image(report, definition, contents)


def _of_image(report: ConformanceReport, definition: BoundDefinition, contents: ImageContents) -> Iterator[str]:
    image, tree = definition.spec.image, report.artifact.digest
    if image.rpartition("@")[2] != contents.digest:
        yield f"the definition names the image {image}, the archive is {contents.digest}"
    if contents.tree != tree:
        yield f"the image holds a package of {contents.tree}, the report is of {tree}"
    if contents.label != tree:
        yield f"the image's label {LABEL} is {contents.label!r}, the report is of {tree}"
    tested = frozenset(report.packages)
    if tested != contents.packages:
        yield f"the image's packages are not those of the report: {different(tested, contents.packages)}"


def different(tested: frozenset[str], there: frozenset[str]) -> str:
    """Return how the packages differ from the tested ones."""
    gone, new = ", ".join(sorted(tested - there)), ", ".join(sorted(there - tested))
    return "; ".join(part for part in (gone and f"tested with {gone}", new and f"there is {new}") if part)


def load_definition(path: Path) -> BoundDefinition:
    """Return a ConnectorDefinition. Raises ProjectError if the file does not contain one."""
    try:
        return msgspec.convert(load_yaml(path.read_bytes().decode()), BoundDefinition)
    except (OSError, yaml.YAMLError, ValueError, RecursionError) as error:
        raise ProjectError(
            f"{path} is not a ConnectorDefinition ({error}); penstock-connector package writes one"
        ) from None


def image_contents(archive: Path, package: str) -> ImageContents:
    """Return the contents of an OCI archive. Each blob is checked against its digest."""
    try:
        with tarfile.open(archive) as opened:
            index = json.loads(_member(opened, "index.json").read())
            (entry,) = index["manifests"]
            manifest = json.loads(_blob(opened, entry["digest"]))
            config = json.loads(_blob(opened, manifest["config"]["digest"]))
            files, installed = _files(opened, [layer["digest"] for layer in manifest["layers"]], package)
    except (OSError, EOFError, tarfile.TarError, KeyError, ValueError, TypeError, AttributeError) as error:
        raise ProjectError(f"{archive} is not an OCI archive of one image ({error})") from None
    labels = config.get("config", {}).get("Labels") or {}
    return ImageContents(entry["digest"], labels.get(LABEL, ""), digest_of(files), frozenset(map(_pinned, installed)))


def _pinned(path: str) -> str:
    name, _, version = path.split("/", maxsplit=1)[0].removesuffix(".dist-info").rpartition("-")
    return pinned(name, version)


def _member(archive: tarfile.TarFile, name: str) -> BufferedReader:
    return cast("BufferedReader", archive.extractfile(name))


def _blob(archive: tarfile.TarFile, digest: str) -> bytes:
    with _member(archive, _checked(archive, digest)) as file:
        return file.read()


def _checked(archive: tarfile.TarFile, digest: str) -> str:
    """Return the name of a blob in the archive, after its bytes are checked against the digest."""
    name = f"blobs/{digest.replace(':', '/')}"
    with _member(archive, name) as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != f"sha256:{found}":
        raise ProjectError(f"the archive's blob {digest} has the digest sha256:{found}; it was changed")
    return name


def _files(archive: tarfile.TarFile, layers: list[str], package: str) -> tuple[dict[str, bytes], set[str]]:
    """Return the files of the package by path, and the names of the other packages. Later layers replace earlier ones."""
    found: dict[str, bytes] = {}
    installed: set[str] = set()
    root = f"{PLACE.strip('/')}/"
    for digest in layers:
        with _member(archive, _checked(archive, digest)) as blob, tarfile.open(fileobj=blob) as layer:
            for member in layer:
                place = member.name.removeprefix("./")
                if not place.startswith(root) or "__pycache__" in place:
                    continue
                path = place.removeprefix(root)
                if path.rpartition("/")[2].startswith(WHITEOUT):
                    raise ProjectError(f"a layer of the image removes from {PLACE}: {path}; build it in one COPY")
                if path.endswith(".dist-info/METADATA"):
                    installed.add(path)
                elif member.isfile() and path.startswith(f"{package}/"):
                    found[path.removeprefix(f"{package}/")] = cast("BufferedReader", layer.extractfile(member)).read()
    return found, installed
