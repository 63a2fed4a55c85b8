"""A connector that is installed in a folder: its entry point and its manifest, without code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from tests.fakes.egress import manifest_document


def install(folder: Path, methods: list[dict[str, Any]], name: str = "tickets-rest", **properties: Any) -> Path:
    """Install a connector with these methods, and return the folder, which belongs on `sys.path`."""
    package = f"connector_{name.replace('-', '_')}"
    manifest = {**manifest_document([], **properties), "authentication": {"methods": methods}}
    (folder / package).mkdir(parents=True)
    (folder / package / "__init__.py").write_text("")
    (folder / package / "connector.yaml").write_text(yaml.safe_dump(manifest))
    facts = folder / f"{package}-1.0.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    (facts / "entry_points.txt").write_text(f"[penstock.connectors]\n{name} = {package}:Connector\n")
    return folder
