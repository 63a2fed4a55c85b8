"""Write down what an image holds and how it was made: its SBOM and its provenance.

Usage: python images/evidence.py NAME --context FOLDER --base IMAGE --lock FILE --image-digest DIGEST [--packages FILE]

`NAME.sbom.json` is a CycloneDX 1.6 document. It lists the Python distributions that are in the image, as their
metadata names them, and the packages of the base image (PACKAGES: a copy of the image's /var/lib/dpkg/status).
`NAME.provenance.json` is an in-toto statement about the image's digest, with a predicate of SLSA provenance v1:
the commit, the base image and the lock file that it was built from. Both are written beside the context.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from hashlib import sha256
from importlib.metadata import Distribution, distributions
from pathlib import Path
from typing import Any

from cyclonedx.contrib.license.factories import LicenseFactory
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output import make_outputter
from cyclonedx.schema import OutputFormat, SchemaVersion
from packageurl import PackageURL
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import NormalizedName, canonicalize_name

STATEMENT = "https://in-toto.io/Statement/v1"
PREDICATE = "https://slsa.dev/provenance/v1"
BUILD_TYPE = "urn:penstock:images-build:1"
DIRTY = "-dirty"
ROOT = Path(__file__).resolve().parent.parent


def sbom(name: str, version: str, context: Path, packages: Path | None) -> Bom:
    """Return the SBOM of the image NAME, whose context has the folders `deps` and `site`."""
    image = Component(name=f"penstock-{name}", version=version, type=ComponentType.CONTAINER)
    bom = Bom()
    bom.metadata.component = image
    found = {canonicalize_name(item.name): item for item in distributions(path=_folders(context))}
    components = {key: _python_component(item) for key, item in sorted(found.items())}
    for key, component in components.items():
        bom.components.add(component)
        bom.register_dependency(component, [components[need] for need in _needs(found[key]) if need in components])
    bom.register_dependency(image, components.values())
    if packages is not None:
        debian = [_debian_component(fields) for fields in _stanzas(packages.read_text())]
        bom.components.update(debian)
        bom.register_dependency(image, debian)
    return bom


def _folders(context: Path) -> list[str]:
    return [str(context / folder) for folder in ("deps", "site")]


def _python_component(distribution: Distribution) -> Component:
    metadata = distribution.metadata
    name, version = canonicalize_name(distribution.name), distribution.version
    text = next((metadata[key] for key in ("License-Expression", "License") if metadata[key]), "")
    one_line = text.splitlines()[0].strip() if text else ""
    return Component(
        name=name,
        version=version,
        type=ComponentType.LIBRARY,
        bom_ref=f"pypi:{name}",
        purl=PackageURL("pypi", None, name, version),
        licenses=[LicenseFactory().make_from_string(one_line)] if one_line else None,
    )


def _needs(distribution: Distribution) -> Iterator[NormalizedName]:
    for line in distribution.requires or []:
        try:
            requirement = Requirement(line)
        except InvalidRequirement:
            continue  # the metadata of a third party; the package itself is listed
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            yield canonicalize_name(requirement.name)


def _stanzas(status: str) -> Iterator[dict[str, str]]:
    """Yield the fields of each package that dpkg has installed."""
    for block in status.split("\n\n"):
        lines = [line for line in block.splitlines() if line and not line[0].isspace()]
        fields = dict(line.split(": ", 1) for line in lines if ": " in line)
        if fields.get("Status", "").endswith(" installed"):
            yield fields


def _debian_component(fields: dict[str, str]) -> Component:
    name, version = fields["Package"], fields["Version"]
    return Component(
        name=name,
        version=version,
        type=ComponentType.LIBRARY,
        bom_ref=f"deb:{name}:{fields['Architecture']}",
        purl=PackageURL("deb", "debian", name, version, {"arch": fields["Architecture"]}),
    )


def provenance(name: str, *, digest: str, base: str, lock: Path, commit: str) -> dict[str, Any]:
    """Return the in-toto statement about the image with DIGEST (`sha256:…`)."""
    source = {
        "uri": os.environ.get("PENSTOCK_SOURCE", "urn:penstock:source"),
        "digest": {"gitCommit": commit.removesuffix(DIRTY)},
        "annotations": {"uncommittedChanges": commit.endswith(DIRTY)},
    }
    of_base: dict[str, Any] = {"uri": base}
    if "@sha256:" in base:
        of_base["digest"] = {"sha256": base.partition("@sha256:")[2]}
    of_lock = {"uri": f"locks/{lock.name}", "digest": {"sha256": sha256(lock.read_bytes()).hexdigest()}}
    return {
        "_type": STATEMENT,
        "subject": [{"name": f"penstock-{name}", "digest": {"sha256": digest.removeprefix("sha256:")}}],
        "predicateType": PREDICATE,
        "predicate": {
            "buildDefinition": {
                "buildType": BUILD_TYPE,
                "externalParameters": {"command": ["images/build", name], "python": platform.python_version()},
                "resolvedDependencies": [source, of_base, of_lock],
            },
            "runDetails": {
                "builder": {"id": os.environ.get("PENSTOCK_BUILDER", "urn:penstock:images-build:local")},
                "metadata": {"finishedOn": datetime.now(UTC).isoformat(timespec="seconds")},
            },
        },
    }


def _commit() -> str:
    """Return the commit of this checkout; with changes in it, the commit and `-dirty`."""
    described = ["git", "-C", str(ROOT), "describe", "--always", "--abbrev=40", f"--dirty={DIRTY}", "--exclude=*"]
    done = subprocess.run(described, check=False, capture_output=True, text=True)
    return done.stdout.strip() or "unknown"


def main(arguments: list[str]) -> None:
    """Write both documents for one image."""
    parser = argparse.ArgumentParser(prog="images/evidence.py", description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("name")
    parser.add_argument("--version", required=True)
    parser.add_argument("--context", type=Path, required=True)
    parser.add_argument("--base", required=True)
    parser.add_argument("--lock", type=Path, required=True)
    parser.add_argument("--image-digest", required=True)
    parser.add_argument("--packages", type=Path)
    given = parser.parse_args(arguments)
    bom = sbom(given.name, given.version, given.context, given.packages)
    where = given.context.parent
    written = make_outputter(bom, OutputFormat.JSON, SchemaVersion.V1_6).output_as_string(indent=2)
    (where / f"{given.name}.sbom.json").write_text(written + "\n")
    statement = provenance(given.name, digest=given.image_digest, base=given.base, lock=given.lock, commit=_commit())
    (where / f"{given.name}.provenance.json").write_text(json.dumps(statement, indent=2) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
