"""Every package of the operator has a contract of import-linter that says which of its modules others may import."""

from __future__ import annotations

import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[3]
PACKAGES = ROOT / "operator/src/penstock_operator"


def test_every_package_of_the_operator_says_what_it_offers() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    protected = {module for contract in contracts for module in contract.get("protected_modules", [])}
    packages = {f"penstock_operator.{path.parent.name}" for path in PACKAGES.glob("*/__init__.py")}
    assert protected == packages
