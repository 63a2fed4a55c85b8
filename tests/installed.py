"""A connector of a test's own, installed as pip would: a package with its manifest, and the metadata that names the class."""

from __future__ import annotations

import os
import textwrap
from pathlib import Path


def register(site: Path, artifact: str, entry: str) -> None:
    """Write a distribution's metadata, with the entry point by which the platform finds the connector."""
    info = site / f"penstock_connector_{artifact.replace('-', '_')}-0.1.0.dist-info"
    info.mkdir(parents=True, exist_ok=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: penstock-connector-{artifact}\nVersion: 0.1.0\n")
    (info / "entry_points.txt").write_text(f"[penstock.connectors]\n{artifact} = {entry}\n")


def install(site: Path, artifact: str, entry: str, code: str, manifest: str | bytes) -> dict[str, str]:
    """Put a connector into a folder; `entry` is its `package:Class`. Return the environment that finds it there."""
    package = site / entry.partition(":")[0]
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(textwrap.dedent(code))
    (package / "connector.yaml").write_bytes(manifest if isinstance(manifest, bytes) else manifest.encode())
    register(site, artifact, entry)
    return {"PYTHONPATH": os.fspath(site)}
