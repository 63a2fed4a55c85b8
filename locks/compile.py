"""Compile every lock file of this tree: hashed, for every supported Python, without an index's address.

Usage: python locks/compile.py [--upgrade] [NAME...]   (needs `uv` on PATH)

Versions stay as they are where the requirements allow it; --upgrade takes the newest.

A lock names third-party packages only; the tree's own distributions are built or installed beside it.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
SDK, OPERATOR = "connector-sdk", "operator"
CONNECTORS = sorted(f"connectors/{path.parent.name}" for path in ROOT.glob("connectors/*/pyproject.toml"))

LOCKS: dict[str, tuple[list[str], bool]] = {
    "dev": ([OPERATOR, SDK, *CONNECTORS], True),
    "embedded": ([OPERATOR, SDK, *CONNECTORS], True),
    "operator": ([OPERATOR, SDK], False),
    **{name.replace("connectors/", "connector-"): ([name, SDK], False) for name in CONNECTORS},
}


def third_party(distribution: str, *, extras: bool) -> list[str]:
    """Return the requirements of one of the tree's distributions, without the tree's own."""
    project = tomllib.loads((ROOT / distribution / "pyproject.toml").read_text())["project"]
    groups = project.get("optional-dependencies", {}).values() if extras else []
    wanted = [*project["dependencies"], *(item for group in groups for item in group)]
    return [item for item in wanted if not item.startswith("penstock-")]


def compile_lock(name: str, *options: str) -> None:
    """Write `locks/NAME.txt`; `NAME.in`, where it exists, adds requirements of the checkout itself."""
    distributions, extras = LOCKS[name]
    lines = [item for each in distributions for item in third_party(each, extras=extras)]
    extra = HERE / f"{name}.in"
    lines += extra.read_text().splitlines() if extra.exists() else []
    with tempfile.NamedTemporaryFile("w", suffix=".in") as source:
        source.write("\n".join(lines) + "\n")
        source.flush()
        flags = "--universal --python-version 3.11 --generate-hashes --no-annotate --no-header --quiet".split()
        silent = ["--no-emit-index-url", "--no-emit-find-links", *options]
        output = str(HERE / f"{name}.txt")
        subprocess.run(["uv", "pip", "compile", *flags, *silent, source.name, "-o", output], check=True)
        print(f"{output}: {sum(line[:1].isalpha() for line in Path(output).read_text().splitlines())} packages")


wanted = [argument for argument in sys.argv[1:] if argument != "--upgrade"]
for lock in wanted or LOCKS:
    compile_lock(lock, *(["--upgrade"] if "--upgrade" in sys.argv else []))
